"""Render a corpus of single faces that show emotions: no licence to sign, exact truth for every picture.

    python data_prep/synthetic_faces.py --out corpora/faces --identities 1100

An interrupted run continues where it stopped when the same command is given again; a finished one is left
alone. The same seed gives the same corpus whatever the number of workers.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from talkface.data.base import Corpus
from talkface.data.synthetic.faces import FaceRecipe, prepare_faces
from talkface.errors import TalkfaceError


def parser() -> argparse.ArgumentParser:
    """The options; defaults are those of FaceRecipe."""
    default = FaceRecipe()
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--out", required=True, type=Path, help="folder of the corpus")
    made.add_argument(
        "--identities", type=int, default=default.identities, help="people in all splits together"
    )
    made.add_argument(
        "--faces", type=int, default=default.faces_per_identity, help="pictures per person, 1 to 8"
    )
    made.add_argument(
        "--scenes", type=int, default=default.scenes, help="lights and backgrounds per person, 1 to --faces"
    )
    made.add_argument("--val", type=int, default=default.val_people, help="people kept for validation")
    made.add_argument("--test", type=int, default=default.test_people, help="people kept for tests")
    made.add_argument("--seed", type=int, default=default.seed)
    made.add_argument("--size", type=int, default=default.size, help="side of the pictures in pixels")
    made.add_argument(
        "--least-intensity", type=float, default=default.least_intensity, help="weakest emotion, 0 to 1"
    )
    made.add_argument("--supersample", type=int, default=default.supersample)
    made.add_argument("--people-per-shard", type=int, default=default.people_per_shard)
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    made.add_argument("--device", default="cpu", help="cpu or cuda; the corpus is the same up to rounding")
    return made


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 after one line on stderr."""
    options = parser().parse_args(argv)
    try:
        recipe = FaceRecipe(
            identities=options.identities,
            faces_per_identity=options.faces,
            scenes=options.scenes,
            seed=options.seed,
            size=options.size,
            val_people=options.val,
            test_people=options.test,
            least_intensity=options.least_intensity,
            supersample=options.supersample,
            people_per_shard=options.people_per_shard,
        )
        prepare_faces(options.out, recipe, options.workers, options.device)
        corpus = Corpus(options.out)
        print(f"{options.out}: {len(corpus)} pictures; licence: {corpus.info['licence']}")
    except TalkfaceError as error:
        print(f"synthetic_faces: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("synthetic_faces: stopped; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
