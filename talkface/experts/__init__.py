"""Frozen networks that judge or describe pictures and sound; heavy libraries are imported when one is built."""
