"""Prepare MetFaces, as downloaded, for training: faces in works of art, with landmarks.

    python data_prep/metfaces.py --raw MetFaces --out corpora/metfaces
    python data_prep/metfaces.py --raw MetFaces --out corpora/metfaces --dry-run

`--raw` holds `metfaces.json` and `images/`. CC BY-NC 2.0 (arXiv 2006.06676).
"""

from __future__ import annotations

import argparse
import sys

from talkface.data.prepare.metfaces import ABOUT, SIZES, MetFacesRecipe, MetFacesSource
from talkface.data.prepare.script import run_script

DEFAULT = MetFacesRecipe()


def add_options(parser: argparse.ArgumentParser) -> None:
    """The recipe."""
    add = parser.add_argument
    add("--size", type=int, default=DEFAULT.size, choices=SIZES, help="side of the pictures in pixels")
    add("--held-out", type=float, default=DEFAULT.held_out, help="share of the works for val and test")
    add("--quality", type=int, default=DEFAULT.quality, help="of the JPEG files")
    add("--items-per-shard", type=int, default=DEFAULT.items_per_shard, help="the unit of resuming")


def make_source(options: argparse.Namespace) -> MetFacesSource:
    """The source of these options."""
    recipe = MetFacesRecipe(options.size, options.held_out, options.quality, options.items_per_shard)
    return MetFacesSource(options.raw, recipe)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return run_script(ABOUT, make_source, add_options, argv)


if __name__ == "__main__":
    sys.exit(main())
