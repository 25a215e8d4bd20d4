"""Prepare RAVDESS for training: its speech films with emotion and intensity.

    python data_prep/ravdess.py --raw RAVDESS --out corpora/ravdess

`--raw` holds the folders Actor_01 to Actor_24. What is left out is
in `rejected.parquet` with its reason. An interrupted run goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from talkface.data.prepare.film_judges import make_sync
from talkface.data.prepare.film_options import add_film_options
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.ravdess import Ravdess
from talkface.data.prepare.script import recipe_from, run_script


def make_source(options: argparse.Namespace) -> Ravdess:
    """The source of these options."""
    return Ravdess(options.raw, recipe_from(FilmRecipe, options), make_sync(options.sync))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return run_script(Ravdess.about, make_source, partial(add_film_options, Ravdess), argv)


if __name__ == "__main__":
    sys.exit(main())
