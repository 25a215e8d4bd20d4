"""The sync experts: training, and how often they find the offset of clips, rendered and real.

    python data_prep/synthetic.py --out corpora/talk25 --identities 300 --clips 1 --seed 61 --size 144 \
        --supersample 1 --max-seconds 3.2 --splits 0.08,0.08 --clips-per-shard 6
    python scripts/train_expert.py sync --corpus corpora/talk25 --frames 5 --out build/sync5 --minutes 15
    python scripts/evaluate_expert.py sync --corpus corpora/talk25 --experts build/sync5.safetensors --films grid/*.mpg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from expert_files import budget_of, parameters_of, save_expert
from sync_trials import Trial, film_clip, rendered_clip, trials

from talkface.checkpoint import load_bundle
from talkface.data.base import Corpus
from talkface.data.finding import make_finder
from talkface.experts.registry import load_expert
from talkface.experts.speech import ArticulationEncoder
from talkface.experts.sync import SIZES, SyncNetwork
from talkface.experts.sync_shape import ShapeSync
from talkface.metrics.sync import sync_errors
from talkface.training.sync import (
    SyncSampler,
    TalkingMouth,
    heard_versions,
    stored_crops,
    train_sync,
)

HELP = "whether lips and sound belong together"
CLASS = "talkface.experts.sync.SyncNetwork"
CARD = """# Sync expert, {frames} frames, seed {seed}

Embeds {frames} consecutive frames of a mouth and the sound around them; what belongs together lies close together.
{parameters:.2f} M parameters. Its eyes are the mouth network of the default bundle, whose first two stages stay as they
are; its ears the bundle's speech encoder ({frozen:.2f} M), which stays.

- **Input**: (B, {frames}, 3, 64, 64) crops of the mouth, RGB in [-1, 1], 25 frames a second (`SyncExpert.crops` cuts
  them out by landmarks, differentiably); sound of any sample rate through `sound_windows`.
- **Trained on**: {clips} talking renders of {people} synthetic people (data_prep/synthetic.py, 25 frames a second,
  synthesized voices), for {minutes:g} minutes, from the default bundle's mouth network (renders) and speech encoder
  (synthesized and recorded speech, see its model card). No film of a person.
- **Use**: offsets of clips, LSE-C and LSE-D, a loss in pixels. What was trained with it must not be judged by it.
- **Not for**: telling forged films from real ones. Figures on held-out people and on real films:
  docs/results/experts.md.
- **Licence**: Apache-2.0.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of the training."""
    parser.add_argument(
        "--corpus", type=Path, default=Path("corpora/talk25"), help="of talking clips, 25 a second"
    )
    parser.add_argument("--frames", type=int, default=5, choices=SIZES, help="of a window")
    parser.add_argument(
        "--start-from", default="default", help="bundle whose mouth and speech networks are taken"
    )
    parser.add_argument(
        "--versions", type=int, default=5, help="augmented sounds prepared of each clip, and the clean"
    )
    parser.add_argument("--batch-size", type=int, default=20)


def read_mouths(folder: Path, split: str) -> tuple[list[TalkingMouth], int]:
    """The clips of a split as mouths with sound, and how many people they show."""
    corpus = Corpus(folder, split)
    clips = list(corpus)
    mouths = [
        TalkingMouth(
            stored_crops(
                np.stack([corpus.read_frame(clip, k) for k in range(clip.num_frames)]),
                corpus.read_truth(clip, ("landmarks",))["landmarks"],
            ),
            corpus.read_audio(clip),
        )
        for clip in clips
    ]
    return mouths, len({clip.subject for clip in clips})


def new_network(frames: int, bundle: str) -> tuple[SyncNetwork, dict[str, Any]]:
    """The network with the bundle's eyes and ears, and its arguments."""
    parts = load_bundle(bundle, parts=["mouth", "speech"])
    speech: Any = parts.part("speech")
    arguments = {
        "num_frames": frames,
        "actions": list(speech.actions),
        "speech_channels": speech.mouth.in_features,
        "dilations": [block.spread.dilation[0] for block in speech.blocks],
    }
    network = SyncNetwork(**arguments)
    network.start_from(parts.part("mouth"), speech)
    return network, arguments


def train(options: argparse.Namespace) -> None:
    """Train and write."""
    torch.manual_seed(options.seed)
    network, arguments = new_network(options.frames, options.start_from)
    mouths, people = read_mouths(options.corpus, "train")
    generator = torch.Generator().manual_seed(options.seed)
    heard = heard_versions(network.eval(), mouths, 1 + options.versions, generator)
    print(f"{len(mouths)} clips of {people} people read and heard", flush=True)
    train_sync(
        network,
        SyncSampler(mouths, heard, num_frames=options.frames, margin=network.margin, seed=options.seed),
        batch_size=options.batch_size,
        bfloat16=True,
        **budget_of(options),
    )
    card = CARD.format(
        frames=options.frames,
        seed=options.seed,
        parameters=parameters_of(network),
        frozen=parameters_of(network.speech),
        clips=len(mouths),
        people=people,
        minutes=options.minutes,
    )
    save_expert(network, options.out, CLASS, arguments, card)


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Of the evaluation."""
    parser.add_argument("--corpus", type=Path, default=Path("corpora/talk25"))
    parser.add_argument("--experts", type=Path, nargs="*", default=[], metavar="SAFETENSORS")
    parser.add_argument("--films", type=Path, nargs="*", default=[], help="real films that are in step")
    parser.add_argument("--limit", type=int, default=10**6, help="clips of the test split")
    parser.add_argument("--bundle", default="default", help="whose sound encoder the expert 'shape' uses")


def evaluate(options: argparse.Namespace) -> str:
    """The section: offsets found on held-out renders and on real films."""
    experts: dict[str, Any] = {path.stem: load_expert(path) for path in options.experts}
    speech = load_bundle(options.bundle, parts=["speech"]).part("speech")
    assert isinstance(speech, ArticulationEncoder)
    experts["shape"] = ShapeSync(speech)
    corpus = Corpus(options.corpus, "test")
    clips = [rendered_clip(corpus, entry) for entry in list(corpus)[: options.limit]]
    lines = [
        f"{len(clips)} held-out talking renders (people, sentences and voices that no training saw), offsets -15 to "
        '15 frames of 25 a second; saying any offset finds 3 of 31 (0.097) within one frame. "Shape" correlates the '
        "lip gap of landmarks with the one that the default bundle's sound encoder tells.",
        "",
        "| expert | offset within 1 frame | mean offset | windows within 1 | LSE-D | LSE-C | LSE-C, other sound |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, expert in experts.items():
        print(f"{name} on renders", file=sys.stderr)
        lines.append(render_row(name, trials(expert, clips, planted=())))
    if options.films:
        finder = make_finder()
        films = [film_clip(path, finder) for path in options.films]
        for name, expert in experts.items():
            print(f"{name} on films", file=sys.stderr)
            lines += ["", *film_table(name, trials(expert, films))]
    return "\n".join(lines)


def hits(readings: list[Any], wanted: list[int]) -> float:
    """Share of the offsets within one frame."""
    return float(np.mean([abs(one.offset - goal) <= 1 for one, goal in zip(readings, wanted, strict=True)]))


def render_row(name: str, made: list[Trial]) -> str:
    """One expert on all clips."""
    errors = sync_errors(trial.own for trial in made)
    other = sync_errors(trial.shuffled for trial in made if trial.shuffled is not None)
    windows = [trial.windows for trial in made if trial.windows is not None and np.isfinite(trial.windows)]
    cells = [
        f"{errors.in_step:.3f}",
        f"{errors.offset:+.2f}",
        f"{np.mean(windows):.3f}" if windows else "–",
        f"{errors.lse_d:.3f}",
        f"{errors.lse_c:.3f}",
        f"{other.lse_c:.3f}",
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def film_table(name: str, made: list[Trial]) -> list[str]:
    """One expert on each film: offset of the film as it is, and found minus planted for planted ones."""
    offsets = list(made[0].planted)
    lines = [
        f"{name} on real films. Columns: frames by which the sound was moved; cells: what was found less that.",
        "",
        "| film | confidence | " + " | ".join(f"{offset:+d}" for offset in offsets) + " | within 1 |",
        "|" + "---|" * (len(offsets) + 3),
    ]
    shares = []
    for trial in made:
        found = [trial.planted[offset] for offset in offsets]
        shares.append(hits(found, offsets))
        cells = [f"{one.offset - offset:+d}" for one, offset in zip(found, offsets, strict=True)]
        lines.append(
            f"| {trial.clip} | {trial.own.confidence:.3f} | {' | '.join(cells)} | {shares[-1] * len(offsets):.0f} of "
            f"{len(offsets)} |"
        )
    mean = np.mean([trial.own.offset for trial in made])
    total = sum(round(share * len(offsets)) for share in shares)
    lines += [
        "",
        f"{total} of {len(made) * len(offsets)} within one frame; mean offset as they are {mean:+.2f}.",
    ]
    return lines
