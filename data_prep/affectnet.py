"""Prepare AffectNet, as downloaded, for training: aligned faces with emotion, valence and arousal.

    python data_prep/affectnet.py --raw AffectNet --out corpora/affectnet
    python data_prep/affectnet.py --raw AffectNet --out corpora/affectnet --dry-run

`--raw` holds `training.csv`, `validation.csv` and `Manually_Annotated_Images/`, or folders that hold them. The authors
of AffectNet (arXiv 1708.03985) give it to researchers on request, for research only. An interrupted run continues
where it stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from talkface.data.affectnet import (
    LANDMARKS,
    LICENCE,
    SIZES,
    AffectNetFolder,
    AffectNetRecipe,
    prepare_affectnet,
)
from talkface.data.base import EMOTIONS, Corpus
from talkface.data.finding import FINDERS, make_finder
from talkface.errors import TalkfaceError, require


def parser() -> argparse.ArgumentParser:
    """The options; defaults are the paper's."""
    default = AffectNetRecipe()
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--raw", required=True, type=Path, help="AffectNet as downloaded")
    made.add_argument("--out", required=True, type=Path, help="folder of the corpus")
    made.add_argument(
        "--size", type=int, default=default.size, choices=SIZES, help="side of the faces in pixels"
    )
    made.add_argument(
        "--landmarks",
        default=default.landmarks,
        choices=LANDMARKS,
        help="found in the picture, or those of the table",
    )
    made.add_argument("--finder", default="bundled", choices=FINDERS, help="what finds them")
    made.add_argument("--finder-weights", metavar="PATH", help="bundle, folder or file of the finder")
    made.add_argument("--device", default="cpu", help="of the finder: cpu or cuda")
    made.add_argument("--quality", type=int, default=default.quality, help="of the JPEG files")
    made.add_argument("--pictures-per-shard", type=int, default=default.pictures_per_shard)
    made.add_argument("--dry-run", action="store_true", help="count the rows and stop")
    return made


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 after one line on stderr."""
    options = parser().parse_args(argv)
    try:
        recipe = AffectNetRecipe(options.size, options.landmarks, options.quality, options.pictures_per_shard)
        print(f"licence: {LICENCE}")
        if options.dry_run:
            print(json.dumps(describe(options.raw, recipe), indent=1))
            return 0
        found = recipe.landmarks == "found"
        finder = make_finder(options.finder, options.finder_weights, options.device) if found else None
        prepare_affectnet(options.raw, options.out, recipe, finder)
        corpus = Corpus(options.out)
        print(f"{options.out}: {len(corpus)} pictures; left out: {rejections(options.out)}")
    except TalkfaceError as error:
        print(f"affectnet: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("affectnet: stopped; the same command continues", file=sys.stderr)
        return 130
    return 0


def describe(raw: Path, recipe: AffectNetRecipe) -> dict[str, dict[str, int]]:
    """Rows per split by emotion, and how many the tables alone leave out."""
    counts: dict[str, Counter[str]] = {}
    for rows in recipe.plan(AffectNetFolder.find(raw)).values():
        for row in rows:
            what = row.problem[1] if row.problem else EMOTIONS[row.label]
            if row.problem and row.problem[0] == "table":
                what = "unusable rows"
            counts.setdefault(row.split, Counter())[what] += 1
    return {split: dict(sorted(found.items())) for split, found in counts.items()}


def rejections(corpus: Path) -> str:
    """How many pictures were left out, by step."""
    parquet = require("pyarrow.parquet", extra="train")
    steps = Counter(parquet.read_table(corpus / "rejected.parquet").column("step").to_pylist())
    return ", ".join(f"{count} at '{step}'" for step, count in sorted(steps.items())) or "none"


if __name__ == "__main__":
    sys.exit(main())
