"""Prepare any folder of pictures for training: aligned faces, splits by subject.

    python data_prep/pictures.py --raw photographs --out corpora/photographs
    python data_prep/pictures.py --raw photographs --out corpora/photographs --subjects file --size 128

A folder is a person (`--subjects folder`), or every file is (`--subjects file`). What cannot be used (broken
files, files that are there twice, pictures without a face) is in `rejected.parquet` with the reason.
"""

from __future__ import annotations

import argparse
import sys

from talkface.data.prepare.aligned import ALIGNMENTS
from talkface.data.prepare.pictures import ABOUT, SEVERAL, SUBJECTS, PicturesRecipe, PicturesSource
from talkface.data.prepare.script import recipe_from, run_script

DEFAULT = PicturesRecipe()


def add_options(parser: argparse.ArgumentParser) -> None:
    """The recipe."""
    add = parser.add_argument
    add("--size", type=int, default=DEFAULT.size, help="side of the faces in pixels")
    add(
        "--subjects",
        default=DEFAULT.subjects,
        choices=SUBJECTS,
        help="a folder is a person, or every file is",
    )
    add("--emotions", action="store_true", help="folders named happy, sad, ... label what lies below them")
    add("--several", default=DEFAULT.several, choices=SEVERAL, help="of several faces in a picture")
    add(
        "--smallest", type=int, default=DEFAULT.smallest, help="least side of a face in pixels of its picture"
    )
    add("--alignment", default=DEFAULT.alignment, choices=ALIGNMENTS, help="compat: upright square")
    add("--val-share", type=float, default=DEFAULT.val_share, help="of the subjects")
    add("--test-share", type=float, default=DEFAULT.test_share, help="of the subjects")
    add("--quality", type=int, default=DEFAULT.quality, help="of the JPEG files")
    add("--pictures-per-shard", type=int, default=DEFAULT.pictures_per_shard, help="the unit of resuming")


def make_source(options: argparse.Namespace) -> PicturesSource:
    """The source of these options."""
    return PicturesSource(options.raw, recipe_from(PicturesRecipe, options))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return run_script(ABOUT, make_source, add_options, argv)


if __name__ == "__main__":
    sys.exit(main())
