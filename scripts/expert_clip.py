"""The clip expert."""

HELP = "clip"
