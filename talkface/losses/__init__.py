"""Losses. They are handed their experts as arguments and import only torch and `talkface.diffusion`."""
