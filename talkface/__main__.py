"""`python -m talkface`: the command line, where its script is not on the path."""

import sys

from talkface.cli import entry

sys.exit(entry())
