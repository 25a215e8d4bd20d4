"""Prepare GRID for training: its films, sentences and word times.

    python data_prep/grid.py --raw GRID --out corpora/grid
    python data_prep/grid.py --raw GRID --out corpora/grid --limit 100 --dry-run

`--raw` holds a folder of films for each speaker (s1, s2, ...) and the alignments, as the archives unpack. What is
left out is in `rejected.parquet` with its reason. An interrupted run goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from talkface.data.prepare.film_judges import make_sync
from talkface.data.prepare.film_options import add_film_options
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.grid import Grid
from talkface.data.prepare.script import recipe_from, run_script


def make_source(options: argparse.Namespace) -> Grid:
    """The source of these options."""
    return Grid(options.raw, recipe_from(FilmRecipe, options), make_sync(options.sync))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return run_script(Grid.about, make_source, partial(add_film_options, Grid), argv)


if __name__ == "__main__":
    sys.exit(main())
