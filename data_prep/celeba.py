"""Prepare CelebA, as downloaded, for training: aligned faces of 64 pixels, attributes, official splits.

    python data_prep/celeba.py --raw CelebA --out corpora/celeba
    python data_prep/celeba.py --raw CelebA --out corpora/celeba --dry-run

`--raw` holds `img_align_celeba/`, `list_eval_partition.txt`, `list_attr_celeba.txt` and, where you have it,
`identity_CelebA.txt`, or folders that hold them. For non-commercial research only (arXiv 1411.7766).
"""

from __future__ import annotations

import argparse
import sys

from talkface.data.prepare.celeba import ABOUT, LANDMARKS, SIZES, CelebARecipe, CelebASource
from talkface.data.prepare.script import run_script

DEFAULT = CelebARecipe()


def add_options(parser: argparse.ArgumentParser) -> None:
    """The recipe."""
    add = parser.add_argument
    add("--size", type=int, default=DEFAULT.size, choices=SIZES, help="side of the pictures in pixels")
    add("--landmarks", default=DEFAULT.landmarks, choices=LANDMARKS, help="of a finder, or none")
    add("--quality", type=int, default=DEFAULT.quality, help="of the JPEG files")
    add("--items-per-shard", type=int, default=DEFAULT.items_per_shard, help="the unit of resuming")


def make_source(options: argparse.Namespace) -> CelebASource:
    """The source of these options."""
    recipe = CelebARecipe(options.size, options.landmarks, options.quality, options.items_per_shard)
    return CelebASource(options.raw, recipe)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return run_script(ABOUT, make_source, add_options, argv)


if __name__ == "__main__":
    sys.exit(main())
