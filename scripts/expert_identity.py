"""The small face recogniser: training on synthetic people, and verification of people it never saw."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from expert_files import (
    add_picture_options,
    add_test_options,
    budget_of,
    in_parts,
    parameters_of,
    save_expert,
    started,
    through_first_stage,
)
from torch import Tensor

from talkface.data.base import Corpus
from talkface.experts.recognition import FaceEmbedder
from talkface.experts.registry import load_expert
from talkface.media import to_tensor
from talkface.metrics.verification import verify
from talkface.portrait.crop import AlignedCrop
from talkface.training.identity import PeopleSampler, PeoplesFaces, train_identity

HELP = "whose face it is: a small angular-margin network"
CARD = """# Small face recogniser, seed {seed}

A residual network of {parameters:.2f} M parameters whose vectors ({dim} numbers, unit length) are close for pictures of
one person.

- **Input**: (B, 3, S, S) RGB in [-1, 1], the canonical aligned crop; it warps it to ArcFace's 112-pixel template.
- **Trained on**: {pictures} renders of {people} synthetic people in {scenes} lights and poses each
  (data_prep/synthetic_faces.py --scenes), for {minutes:g} minutes, from the first stages of the default bundle's
  landmark network (renders, too). No photograph of a person.
- **Use**: the identity term of finetuning, and to measure it, where no published recogniser is at hand.
- **Not for**: recognising real people. See docs/results/experts.md.
- **Licence**: Apache-2.0.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of the training."""
    add_picture_options(parser, "corpora/people", "people in several scenes")


def read_people(folder: Path, split: str, limit: int = 10**9) -> PeoplesFaces:
    """The pictures of a split, decoded."""
    corpus = Corpus(folder, split)
    clips = list(corpus)[:limit]
    known: dict[str, int] = {}
    return PeoplesFaces(
        images=[corpus.read_frame(clip, 0) for clip in clips],
        landmarks=np.stack([corpus.read_truth(clip, ("landmarks",))["landmarks"][0] for clip in clips]),
        person=np.array([known.setdefault(clip.subject, len(known)) for clip in clips]),
    )


def train(options: argparse.Namespace) -> None:
    """Train and write."""
    faces = read_people(options.corpus, "train")
    torch.manual_seed(options.seed)
    network = started(FaceEmbedder(), options.start_from)
    train_identity(
        network,
        PeopleSampler(faces, seed=options.seed),
        device=options.device,
        bfloat16=True,
        **budget_of(options),
    )
    card = CARD.format(
        seed=options.seed,
        parameters=parameters_of(network),
        dim=network.dim,
        pictures=len(faces.images),
        people=len(np.unique(faces.person)),
        scenes=Corpus(options.corpus).info["config"]["recipe"].get("scenes", 1),
        minutes=options.minutes,
    )
    save_expert(network, options.out, "talkface.experts.recognition.FaceEmbedder", {}, card)


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Of the evaluation."""
    add_test_options(parser, "corpora/people")


def mean_colour(images: Tensor) -> Tensor:
    """The trivial recogniser: the middle of the face as one colour, less the grey of the mean picture."""
    return images[:, :, 40:100, 40:88].mean((2, 3))


def pixels(images: Tensor) -> Tensor:
    """The other trivial recogniser: the face in 16 x 16 pixels, each picture's mean and contrast taken out."""
    small = F.interpolate(images, size=(16, 16), mode="area").flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True), dim=1)


def evaluate(options: argparse.Namespace) -> str:
    """The section: error rates over all pairs, beside two trivial recognisers."""
    faces = read_people(options.corpus, "test", options.limit)
    crops = [
        AlignedCrop.from_landmarks(image, points).image
        for image, points in zip(faces.images, faces.landmarks, strict=True)
    ]
    images, person = to_tensor(np.stack(crops)), torch.from_numpy(faces.person)
    decoded = through_first_stage(images)
    recognisers: dict[str, Callable[[Tensor], Tensor]] = {
        path.stem: load_expert(path) for path in options.experts
    }
    recognisers |= {"mean colour of the face": mean_colour, "16 x 16 pixels": pixels}
    lines = [
        f"{len(images)} held-out renders of {len(person.unique())} people, each in another light, before another "
        "background, in another pose and with another emotion; all pairs. Chance is 0.5 in both columns.",
        "",
        "| recogniser | equal error rate | area under ROC | error, one picture after the first stage |",
        "|---|---|---|---|",
    ]
    for name, recogniser in recognisers.items():
        seen = in_parts(recogniser, images)
        plain = verify(-torch.cdist(seen, seen), person)
        mixed = -torch.cdist(seen, in_parts(recogniser, decoded))
        coded = verify((mixed + mixed.t()) / 2, person)
        lines.append(
            f"| {name} | {plain.equal_error_rate:.3f} | {plain.area:.3f} | {coded.equal_error_rate:.3f} |"
        )
    lines += ["", f"{plain.same_pairs} pairs of one person, {plain.other_pairs} of two."]
    return "\n".join(lines)
