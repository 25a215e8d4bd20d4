"""The identity expert."""

HELP = "identity"
