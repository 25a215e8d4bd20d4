"""The emotion classifier: training, and figures on renders, films and paintings.

Seeds 0 and 1 differ in nothing but the seed: the second guides (it is part of the emotion bundle), the first judges.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
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

from talkface.data.base import EMOTIONS, Corpus
from talkface.data.finding import make_finder
from talkface.experts.emotion import EmotionNetwork
from talkface.experts.registry import load_expert
from talkface.media import open_video, read_image, to_tensor, write_image
from talkface.portrait.crop import AlignedCrop
from talkface.training.emotion import EmotionSampler, LabelledFaces, train_emotion

HELP = "which of eight emotions a face shows"
SIZE = 128
CARD = """# Emotion classifier, seed {seed}

A residual network of {parameters:.2f} M parameters that says which of eight emotions a face shows ({names}).

- **Input**: (B, 3, S, S) RGB in [-1, 1], the canonical aligned crop; resized to 128 x 128.
- **Trained on**: {pictures} renders of {people} synthetic people (data_prep/synthetic_faces.py), for {minutes:g}
  minutes, from the first stages of the default bundle's landmark network (renders, too). No photograph of a person.
- **Use**: to guide and to judge edits of the emotion model, and to guess the emotion of a picture (`--from auto`).
- **Not for**: statements about real people. It knows the eight prototypes of talkface/head/emotions.py, drawn on
  synthetic heads; on photographs it errs often. See docs/results/experts.md.
- **Licence**: Apache-2.0.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of the training."""
    add_picture_options(parser, "corpora/faces")


def read_faces(folder: Path, split: str) -> tuple[LabelledFaces, int]:
    """The pictures of a split, decoded, and how many people they show."""
    corpus = Corpus(folder, split)
    clips = list(corpus)
    truth = [corpus.read_truth(clip, ("landmarks", "actions")) for clip in clips]
    faces = LabelledFaces(
        images=[corpus.read_frame(clip, 0) for clip in clips],
        landmarks=np.stack([one["landmarks"][0] for one in truth]),
        emotion=np.array([clip.emotion for clip in clips], np.int64),
        actions=np.stack([one["actions"][0] for one in truth]).astype(np.float32),
    )
    return faces, len({clip.subject for clip in clips})


def train(options: argparse.Namespace) -> None:
    """Train and write."""
    faces, people = read_faces(options.corpus, "train")
    torch.manual_seed(options.seed)
    network = started(EmotionNetwork(), options.start_from)
    train_emotion(
        network,
        EmotionSampler(faces, seed=options.seed),
        device=options.device,
        bfloat16=True,
        **budget_of(options),
    )
    card = CARD.format(
        seed=options.seed,
        parameters=parameters_of(network),
        names=", ".join(EMOTIONS),
        pictures=len(faces.images),
        people=people,
        minutes=options.minutes,
    )
    save_expert(network, options.out, "talkface.experts.emotion.EmotionNetwork", {}, card)


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Of the evaluation."""
    add_test_options(parser, "corpora/faces")
    parser.add_argument("--films", type=Path, nargs="*", default=[])
    parser.add_argument("--pictures", type=Path, nargs="*", default=[])
    parser.add_argument("--sheet", type=Path, help="write the crops of the photographs here")


def held_out(folder: Path, limit: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Crops (N, 3, S, S), emotions (N,) and intensities (N,) of the test split."""
    corpus = Corpus(folder, "test")
    crops, emotions, intensities = [], [], []
    for clip in list(corpus)[:limit]:
        truth = corpus.read_truth(clip, ("landmarks", "intensity"))
        crop = AlignedCrop.from_landmarks(corpus.read_frame(clip, 0), truth["landmarks"][0], size=SIZE)
        crops.append(crop.image)
        emotions.append(clip.emotion)
        intensities.append(float(truth["intensity"][0]))
    return to_tensor(np.stack(crops)), np.array(emotions), np.array(intensities)


def confusion(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """(8, 8) counts: rows shown, columns said."""
    table = np.zeros((len(EMOTIONS), len(EMOTIONS)), np.int64)
    np.add.at(table, (truth, guess), 1)
    return table


def as_table(counts: np.ndarray) -> list[str]:
    """Shares of each row in percent, as Markdown."""
    lines = [
        "| shown \\ said | " + " | ".join(EMOTIONS) + " | pictures |",
        "|" + "---|" * (len(EMOTIONS) + 2),
    ]
    for name, row in zip(EMOTIONS, counts, strict=True):
        shares = " | ".join(f"{100 * value / max(1, row.sum()):.0f}" for value in row)
        lines.append(f"| {name} | {shares} | {row.sum()} |")
    return lines


def photographs(films: list[Path], pictures: list[Path]) -> dict[str, np.ndarray]:
    """Name -> uint8 picture: the first frame of each film, each picture."""
    found = {path.name: next(iter(open_video(path))) for path in films}
    return found | {path.name: read_image(path) for path in pictures}


def found_crops(films: list[Path], pictures: list[Path]) -> dict[str, np.ndarray]:
    """Name -> uint8 canonical crop of the first face that the house's finder sees; says which have none."""
    finder, crops = make_finder(), {}
    for name, picture in photographs(films, pictures).items():
        faces = finder.find(picture)
        if faces:
            crops[name] = AlignedCrop.from_landmarks(picture, faces[0].points, size=SIZE).image
        else:
            print(f"evaluate_expert: no face found in {name}", file=sys.stderr)
    return crops


def evaluate(options: argparse.Namespace) -> str:
    """The section: accuracy and confusion on held-out renders, opinions on photographs."""
    classifiers = [load_expert(path) for path in options.experts]
    images, emotions, intensities = held_out(options.corpus, options.limit)
    blurred = through_first_stage(images)
    commonest = np.bincount(emotions).max() / len(emotions)
    lines = [
        f"{len(images)} held-out renders, cut out by their exact landmarks. Saying the commonest emotion always: "
        f"{commonest:.3f}.",
        "",
        "| classifier | accuracy, renders | after the first stage | weak (below 0.75) | strong | guesses agree |",
        "|---|---|---|---|---|---|",
    ]
    said = [in_parts(classifier, images).argmax(1).numpy() for classifier in classifiers]
    for path, classifier, guess in zip(options.experts, classifiers, said, strict=True):
        right = guess == emotions
        coded = in_parts(classifier, blurred).argmax(1).numpy() == emotions
        weak = (emotions > 0) & (intensities < 0.75)
        strong = (emotions > 0) & ~weak
        shares = [
            right.mean(),
            coded.mean(),
            right[weak].mean(),
            right[strong].mean(),
            (guess == said[0]).mean(),
        ]
        lines.append(f"| {path.stem} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")
    for path, guess in zip(options.experts, said, strict=True):
        lines += ["", f"{path.stem}, in percent of a row:", "", *as_table(confusion(emotions, guess))]
    crops = found_crops(options.films, options.pictures)
    if crops:
        seen = to_tensor(np.stack(list(crops.values())))
        columns = [in_parts(classifier, seen) for classifier in classifiers]
        names = " | ".join(path.stem for path in options.experts)
        lines += ["", "### Opinions on photographs and paintings", "", f"| picture | {names} |"]
        lines.append("|" + "---|" * (1 + len(classifiers)))
        for row, name in enumerate(crops):
            cells = []
            for chances in columns:
                best = chances[row].argsort(descending=True)[:2].tolist()
                cells.append(", ".join(f"{EMOTIONS[k]} {float(chances[row, k]):.2f}" for k in best))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        if options.sheet:
            write_image(options.sheet, np.concatenate(list(crops.values()), axis=1))
    return "\n".join(lines)
