"""Prepare AffectNet, as downloaded, for training: aligned faces with emotion, valence and arousal.

    python data_prep/affectnet.py --raw AffectNet --out corpora/affectnet
    python data_prep/affectnet.py --raw AffectNet --out corpora/affectnet --dry-run

`--raw` holds `training.csv`, `validation.csv` and `Manually_Annotated_Images/`, or folders that hold them. The authors
of AffectNet (arXiv 1708.03985) give it to researchers on request, for research only.
"""

from __future__ import annotations

import argparse
import sys

from talkface.data.prepare.affectnet import ABOUT, LANDMARKS, SIZES, AffectNetRecipe, AffectNetSource
from talkface.data.prepare.aligned import ALIGNMENTS
from talkface.data.prepare.script import recipe_from, run_script

DEFAULT = AffectNetRecipe()


def add_options(parser: argparse.ArgumentParser) -> None:
    """The recipe; defaults are the paper's."""
    add = parser.add_argument
    add("--size", type=int, default=DEFAULT.size, choices=SIZES, help="side of the faces in pixels")
    add(
        "--landmarks", default=DEFAULT.landmarks, choices=LANDMARKS, help="of a finder, or those of the table"
    )
    add("--alignment", default=DEFAULT.alignment, choices=ALIGNMENTS, help="compat: the thesis's, not turned")
    add("--quality", type=int, default=DEFAULT.quality, help="of the JPEG files")
    add("--pictures-per-shard", type=int, default=DEFAULT.pictures_per_shard, help="the unit of resuming")


def make_source(options: argparse.Namespace) -> AffectNetSource:
    """The source of these options."""
    return AffectNetSource(options.raw, recipe_from(AffectNetRecipe, options))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return run_script(ABOUT, make_source, add_options, argv)


if __name__ == "__main__":
    sys.exit(main())
