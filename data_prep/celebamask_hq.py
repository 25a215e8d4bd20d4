"""Prepare CelebAMask-HQ, as downloaded, for training: faces with 19 classes of parts and one face mask.

    python data_prep/celebamask_hq.py --raw CelebAMask-HQ --out corpora/celebamask_hq
    python data_prep/celebamask_hq.py --raw CelebAMask-HQ --out corpora/celebamask_hq --dry-run

`--raw` holds `CelebA-HQ-img/`, `CelebAMask-HQ-mask-anno/` and `CelebA-HQ-to-CelebA-mapping.txt`, or a folder that holds
them. For non-commercial research only (arXiv 1907.11922).
"""

from __future__ import annotations

import argparse
import sys

from talkface.data.prepare.celebamask_hq import ABOUT, LANDMARKS, SIZES, CelebAMaskRecipe, CelebAMaskSource
from talkface.data.prepare.script import run_script

DEFAULT = CelebAMaskRecipe()


def add_options(parser: argparse.ArgumentParser) -> None:
    """The recipe."""
    add = parser.add_argument
    add("--size", type=int, default=DEFAULT.size, choices=SIZES, help="side of the pictures in pixels")
    add("--landmarks", default=DEFAULT.landmarks, choices=LANDMARKS, help="of a finder, or none")
    add("--quality", type=int, default=DEFAULT.quality, help="of the JPEG files")
    add("--items-per-shard", type=int, default=DEFAULT.items_per_shard, help="the unit of resuming")


def make_source(options: argparse.Namespace) -> CelebAMaskSource:
    """The source of these options."""
    recipe = CelebAMaskRecipe(options.size, options.landmarks, options.quality, options.items_per_shard)
    return CelebAMaskSource(options.raw, recipe)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return run_script(ABOUT, make_source, add_options, argv)


if __name__ == "__main__":
    sys.exit(main())
