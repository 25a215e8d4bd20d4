"""Prepare MEAD for training: the front view with emotion, level and transcript, as in the thesis.

    python data_prep/mead.py --raw MEAD --out corpora/mead
    python data_prep/mead.py --raw MEAD --out corpora/mead25 --fps 25 --box tracked --margin 0.15

`--raw` holds a folder for each subject with what its video.tar and audio.tar unpack to. The defaults are the thesis's:
one square per clip, 30 frames per second. An interrupted run goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys

from talkface.data.prepare.film_judges import make_sync
from talkface.data.prepare.film_options import add_film_options
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.mead import TRANSCRIPTS, Mead
from talkface.data.prepare.script import recipe_from, run_script


def add_options(parser: argparse.ArgumentParser) -> None:
    """The recipe, and what is said."""
    add_film_options(Mead, parser)
    parser.add_argument(
        "--transcripts", metavar="FILE", help=f"list of sentences (default: {TRANSCRIPTS} in --raw)"
    )


def make_source(options: argparse.Namespace) -> Mead:
    """The source of these options."""
    recipe, sync = recipe_from(FilmRecipe, options), make_sync(options.sync)
    return Mead(options.raw, recipe, sync, transcripts=options.transcripts)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return run_script(Mead.about, make_source, add_options, argv)


if __name__ == "__main__":
    sys.exit(main())
