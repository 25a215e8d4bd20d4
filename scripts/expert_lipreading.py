"""The lip readers: training on rendered mouths, and figures on people and sentences that no training saw.

    python data_prep/synthetic.py --out corpora/mouths --view mouth --size 72 --supersample 1 --loose-words 0.5 ...
    python scripts/train_expert.py lipreading --corpora corpora/mouths --out build/reader0 --minutes 20 --seed 0
    python scripts/train_expert.py lipreading --corpora corpora/mouths --out build/reader1 --minutes 20 --seed 1 \
        --encoder convolution

The two differ in seed, encoder and activation: one may guide, the other judges.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from expert_files import parameters_of, save_expert
from torch import Tensor

from talkface.checkpoint import load_bundle
from talkface.data.base import ClipEntry, Corpus
from talkface.data.synthetic.visemes import VISEMES, viseme_of
from talkface.errors import TalkfaceError, require
from talkface.experts.lipreading import BLANK, LipReader
from talkface.experts.mouth_crop import mouth_crops
from talkface.experts.registry import load_expert
from talkface.training.lipreading import CHARACTERS, SpeechSampler, SpokenClip, margin_of, train_lip_reader

HELP = "what a mouth says, as characters and as visemes"
REDUCE = 2
"""A face of 128 pixels shows a mouth on about 44."""
SHARED: dict[str, Any] = {
    "vocabulary": CHARACTERS,
    "visemes": (BLANK, *VISEMES[1:]),
    "channels": 16,
    "reduce": REDUCE,
    "dim": 144,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "conformer": {"encoder": "conformer", "heads": 4, "hidden": 384, "layers": 3, "kernel": 9},
    "convolution": {
        "encoder": "convolution",
        "layers": 6,
        "kernel": 5,
        "activation": "prelu",
        "blocks": (1, 1, 1, 1),
    },
}
CARD = """# Lip reader, seed {seed}

{parameters:.2f} M parameters: 3D convolution, residual network (16 channels) and a {encoder} encoder, with CTC heads
for characters and for {visemes} viseme classes.

- **Input**: (B, T, 1, 88, 88) grey mouths in [0, 1] at 25 frames a second, cut by talkface.experts.mouth_crop.
- **Trained on**: {clips} rendered clips ({hours:.1f} minutes) of {people} synthetic people with synthesized voices
  (data_prep/synthetic.py), for {minutes:g} minutes. No film of a person.
- **Use**: to guide or to judge lip-reading finetuning (never both with one reader), and to compare films of one kind.
- **Not for**: reading what real people say. It knows the mouths that talkface/data/synthetic/visemes.py makes. What it
  is worth on held-out renders is in docs/results/experts.md.
- **Licence**: Apache-2.0.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of the training."""
    parser.add_argument("--corpora", type=Path, nargs="+", default=[Path("corpora/mouths")])
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default="conformer")
    parser.add_argument("--batch-size", type=int, default=16, help="clips a step")


def read_mouths(corpus: Corpus, clip: ClipEntry, size: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """(T, 1, size, size) in [0, 1]; `change` acts on the frames (T, 3, H, W) before they are cut."""
    if abs(clip.fps - LipReader.fps) > 0.5:
        raise TalkfaceError(
            f"clip {clip.id} of {corpus.folder}: {clip.fps:g} frames a second; allowed: {LipReader.fps:g}; prepare the "
            "corpus with --fps 25"
        )
    frames = np.stack([corpus.read_frame(clip, number) for number in range(clip.num_frames)])
    landmarks = torch.from_numpy(corpus.read_truth(clip, ("landmarks",))["landmarks"])
    pictures = change(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1)
    return mouth_crops(pictures[None], landmarks[None], size)[0]


def said_visemes(corpus: Corpus, clip: ClipEntry) -> list[int]:
    """Ids of the viseme classes in order; the same one twice cannot be told from once."""
    classes = [VISEMES.index(viseme_of(name)) for name, _, _ in corpus.read_meta(clip)["phonemes"]]
    spoken = [one for one in classes if one != 0]
    return [one for place, one in enumerate(spoken) if place == 0 or spoken[place - 1] != one]


def read_clips(folders: Sequence[Path], split: str) -> tuple[list[SpokenClip], int]:
    """All clips of a split with their truth, and how many people speak in them."""
    clips, people = [], 0
    for folder in folders:
        corpus = Corpus(folder, split)
        people += len({clip.subject for clip in corpus})
        for clip in corpus:
            truth = corpus.read_truth(clip, ("viseme", "actions"))
            mouths = read_mouths(corpus, clip, 88 + 2 * margin_of(88), lambda pictures: pictures)
            mouths = F.avg_pool2d(mouths, REDUCE)  # as the reader does, once
            clips.append(
                SpokenClip(
                    mouths=(mouths[:, 0] * 255).round().to(torch.uint8).numpy(),
                    text=clip.transcript,
                    visemes=np.array(said_visemes(corpus, clip), np.int64),
                    frame_visemes=truth["viseme"].astype(np.int64),
                    actions=truth["actions"].astype(np.float32),
                )
            )
    return clips, people


def train(options: argparse.Namespace) -> None:
    """Train and write."""
    clips, people = read_clips(options.corpora, "train")
    frames = sum(len(clip.mouths) for clip in clips)
    print(f"{len(clips)} clips, {frames} frames, {people} people", flush=True)
    torch.manual_seed(options.seed)
    arguments = SHARED | ENCODERS[options.encoder]
    size = 88 // REDUCE
    reader = train_lip_reader(
        LipReader(**arguments | {"crop_size": size, "reduce": 1}),
        SpeechSampler(clips, size, seed=options.seed),
        seconds=60 * options.minutes,
        batch_size=options.batch_size,
        device=options.device,
        bfloat16=True,
        checkpoint=options.out.with_suffix(".state.pt"),
        log=lambda line: print(line, flush=True),
    )
    card = CARD.format(
        seed=options.seed,
        parameters=parameters_of(reader),
        encoder=options.encoder,
        visemes=len(VISEMES) - 1,
        clips=len(clips),
        hours=frames / LipReader.fps / 60,
        people=people,
        minutes=options.minutes,
    )
    save_expert(reader, options.out, "talkface.experts.lipreading.LipReader", arguments, card)


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Of the evaluation."""
    parser.add_argument("--corpora", type=Path, nargs="+", default=[Path("corpora/mouths")])
    parser.add_argument("--experts", type=Path, nargs="+", required=True, metavar="SAFETENSORS")
    parser.add_argument("--splits", nargs="+", default=["val", "test"], choices=("train", "val", "test"))
    parser.add_argument("--limit", type=int, default=10**6, help="clips of each split")
    parser.add_argument("--first-stage", help="bundle: also read frames after its first stage, e.g. default")


def error_rates(found: Sequence[tuple[str, str]], said: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Character and viseme error of (text, visemes): edits over the length of what was said."""
    jiwer = require("jiwer", extra="eval")
    texts = jiwer.cer([text for text, _ in said], [text for text, _ in found])
    return texts, jiwer.wer([visemes for _, visemes in said], [visemes for _, visemes in found])


@torch.no_grad()
def read_all(reader: LipReader, films: Sequence[Tensor]) -> list[tuple[str, str]]:
    """(text, visemes) of every film (T, 1, S, S)."""
    found = []
    for film in films:
        features = reader.features(film[None])
        texts = reader.decode(features, "vocabulary")
        found.append((texts[0], reader.decode(features, "visemes")[0]))
    return found


def typical(said: list[tuple[str, str]]) -> tuple[float, float]:
    """The lowest error rates of one answer given to all other clips, chosen among the truths."""
    others = [said[:place] + said[place + 1 :] for place in range(len(said))]
    rates = [error_rates([one] * len(rest), rest) for one, rest in zip(said, others, strict=True)]
    return min(rate for rate, _ in rates), min(rate for _, rate in rates)


def evaluate(options: argparse.Namespace) -> str:
    """The section: error rates on held-out clips, with mouths of other clips, in disorder, and of trivial answers."""
    readers = [load_expert(path) for path in options.experts]
    coder = (
        load_bundle(options.first_stage, parts=["first_stage"]).part("first_stage")
        if options.first_stage
        else None
    )
    lines = [
        "Character error (CER) and viseme error of greedy CTC reading, without language model: edits over the length",
        "of what was said, so that saying nothing scores 1. In `val` the people are new; in `test` people, voices, and",
        "the nouns, names and letters of the sentences. *Other mouths*: the film of the next clip is read instead.",
        "*Disorder*: the frames of the clip in random order. *One answer*: the best constant answer, a truth of",
        "another clip. The last three are CER / viseme error.",
        "",
        "| clips | reader | CER | viseme error | other mouths | disorder | one answer |",
        "|---|---|---|---|---|---|---|",
    ]
    examples = []
    for folder in options.corpora:
        for split in options.splits:
            corpus = Corpus(folder, split)
            clips = list(corpus)[: options.limit]
            if len(clips) < 2:
                raise TalkfaceError(f"{folder}: {len(clips)} clips in split {split}; allowed: 2 or more")
            said = [as_said(corpus, clip) for clip in clips]
            treatments: dict[str, Callable[[Tensor], Tensor]] = {"": lambda pictures: pictures}
            if coder is not None:
                treatments[", after the first stage"] = lambda pictures: through(coder, pictures)
            for label, change in treatments.items():
                films = [read_mouths(corpus, clip, 88, change) for clip in clips]
                order = torch.Generator().manual_seed(0)
                mixed = [film[torch.randperm(len(film), generator=order)] for film in films]
                constant = typical(said)
                for path, reader in zip(options.experts, readers, strict=True):
                    found = read_all(reader, films)
                    rates = error_rates(found, said)
                    others = error_rates(found[1:] + found[:1], said)
                    disorder = error_rates(read_all(reader, mixed), said)
                    cells = [f"{folder.name} {split}{label} ({len(clips)})", path.stem]
                    cells += [f"{rate:.3f}" for rate in rates]
                    cells += [f"{a:.3f} / {b:.3f}" for a, b in (others, disorder, constant)]
                    lines.append(f"| {' | '.join(cells)} |")
                    if not label:
                        examples += [f"| {path.stem} | {said[k][0]} | {found[k][0]} |" for k in range(2)]
    return "\n".join([*lines, "", "| reader | said | read |", "|---|---|---|", *examples])


def as_said(corpus: Corpus, clip: ClipEntry) -> tuple[str, str]:
    """Text in the characters of the readers, visemes with spaces between them."""
    small = clip.transcript.lower()
    text = " ".join("".join(sign for sign in small if sign in CHARACTERS[1:]).split())
    return text, " ".join(VISEMES[one] for one in said_visemes(corpus, clip))


@torch.no_grad()
def through(coder: Any, pictures: Tensor, size: int = 16) -> Tensor:
    """Pictures as the first stage gives them back."""
    with torch.autocast("cpu", torch.bfloat16):
        parts = [coder.decode(coder.encode(part)).float() for part in pictures.split(size)]
    return torch.cat(parts)
