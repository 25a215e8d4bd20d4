"""Render the synthetic corpus: no licence to sign, exact truth for every frame.

    python data_prep/synthetic.py --out corpora/synth --identities 200 --clips 10
    python data_prep/synthetic.py --out corpora/synth --identities 200 --clips 10 --dry-run

An interrupted run continues where it stopped when the same command is given again; a finished one is left
alone. The same seed gives the same corpus whatever the number of workers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from talkface.data.base import Corpus
from talkface.data.synthetic.clips import VIEWS, SyntheticRecipe, plan_clips, prepare_synthetic, voices_of
from talkface.errors import TalkfaceError


def parser() -> argparse.ArgumentParser:
    """The options; defaults are those of SyntheticRecipe."""
    default = SyntheticRecipe()
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--out", required=True, type=Path, help="folder of the corpus")
    made.add_argument(
        "--identities", type=int, default=default.identities, help="people in all splits together"
    )
    made.add_argument("--clips", type=int, default=default.clips_per_identity, help="clips per person")
    made.add_argument("--seed", type=int, default=default.seed)
    made.add_argument("--fps", type=float, default=default.fps)
    made.add_argument("--size", type=int, default=default.size, help="side of the frames in pixels")
    made.add_argument("--max-seconds", type=float, default=default.max_seconds, help="longest clip")
    made.add_argument(
        "--splits",
        default=f"{default.val_share},{default.test_share}",
        help="share of the people in val and in test, for example 0.05,0.05 (test needs the held-out voices)",
    )
    made.add_argument("--families", default=None, help="families of voices for training, comma separated")
    made.add_argument("--supersample", type=int, default=default.supersample)
    made.add_argument("--view", default=default.view, choices=VIEWS, help="what the pictures show")
    made.add_argument(
        "--loose-words",
        type=float,
        default=default.loose_words,
        help="share of clips that say words without order",
    )
    made.add_argument("--clips-per-shard", type=int, default=default.clips_per_shard)
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    made.add_argument("--device", default="cpu", help="cpu or cuda; the corpus is the same up to rounding")
    made.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    return made


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 after one line on stderr."""
    options = parser().parse_args(argv)
    try:
        try:
            val_share, test_share = (float(part) for part in options.splits.split(","))
        except ValueError as error:
            raise TalkfaceError(
                f"--splits: {options.splits!r}; give two shares, for example 0.05,0.05"
            ) from error
        recipe = SyntheticRecipe(
            identities=options.identities,
            clips_per_identity=options.clips,
            seed=options.seed,
            fps=options.fps,
            size=options.size,
            max_seconds=options.max_seconds,
            val_share=val_share,
            test_share=test_share,
            families=options.families.split(",") if options.families else None,
            supersample=options.supersample,
            clips_per_shard=options.clips_per_shard,
            view=options.view,
            loose_words=options.loose_words,
        )
        if options.dry_run:
            print(json.dumps(describe(recipe), indent=1))
            return 0
        prepare_synthetic(options.out, recipe, options.workers, options.device)
        corpus = Corpus(options.out)
        frames = sum(clip.num_frames for clip in corpus)
        print(f"{options.out}: {len(corpus)} clips, {frames} frames; licence: {corpus.info['licence']}")
    except TalkfaceError as error:
        print(f"synthetic: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("synthetic: stopped; the same command continues", file=sys.stderr)
        return 130
    return 0


def describe(recipe: SyntheticRecipe) -> dict[str, object]:
    """What a run would make: people, clips and voices per split, number of shards."""
    shards = plan_clips(recipe)
    plans = [plan for members in shards.values() for plan in members]
    splits = {
        split: {
            "people": people,
            "clips": sum(plan.split == split for plan in plans),
            "voices": len(voices_of(recipe, split)),
        }
        for split, people in recipe.split_counts().items()
        if people
    }
    return {"splits": splits, "shards": len(shards), "seconds at most": len(plans) * recipe.max_seconds}


if __name__ == "__main__":
    sys.exit(main())
