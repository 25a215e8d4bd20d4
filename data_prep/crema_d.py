"""Prepare CREMA-D for training: its films with emotion and level.

    python data_prep/crema_d.py --raw CREMA-D --out corpora/crema_d

`--raw` is the repository as cloned with Git LFS; films are in VideoFlash. What is left out is
in `rejected.parquet` with its reason. An interrupted run goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from talkface.data.prepare.crema_d import CremaD
from talkface.data.prepare.film_judges import make_sync
from talkface.data.prepare.film_options import add_film_options
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.script import recipe_from, run_script


def make_source(options: argparse.Namespace) -> CremaD:
    """The source of these options."""
    return CremaD(options.raw, recipe_from(FilmRecipe, options), make_sync(options.sync))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return run_script(CremaD.about, make_source, partial(add_film_options, CremaD), argv)


if __name__ == "__main__":
    sys.exit(main())
