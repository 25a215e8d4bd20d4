"""The small CLIP: training on renders with generated captions, and how well it finds the sentence to a picture."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
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
from talkface.data.synthetic.appearance import sample_person
from talkface.data.synthetic.clips import load_head
from talkface.experts.clip import FaceCLIP, ImageTextEncoder
from talkface.experts.prompts import EMOTION_PROMPTS, IMAGENET_TEMPLATES, PLAIN, text_features
from talkface.experts.registry import load_expert
from talkface.media import to_tensor
from talkface.portrait.crop import AlignedCrop
from talkface.training.captions import NAMES, QUESTIONS, attributes_of
from talkface.training.clip import CaptionedFaces, CaptionSampler, all_words, train_clip

HELP = "does a sentence fit a picture: a small CLIP for faces"
CARD = """# Small CLIP for faces, seed {seed}

A convolutional network for pictures and a transformer over {words} words, {parameters:.2f} M parameters together, whose
vectors ({dim} numbers, unit length) are close when a sentence is true of a face.

- **Input**: (B, 3, S, S) RGB in [-1, 1], the canonical aligned crop; resized to 128 x 128. Sentences of the words
  that `talkface.training.captions` uses ("old man with grey hair and glasses, smiling") and of OpenAI's templates.
- **Trained on**: {pictures} renders of {people} synthetic people (data_prep/synthetic_faces.py), for {minutes:g}
  minutes, from the first stages of the default bundle's landmark network (renders, too). No photograph of a person.
- **Use**: to guide finetuning (`conf/clip_finetune_affectnet.yaml`) where no published CLIP is at hand.
- **Not for**: statements about real people. "man" and "woman" mean a rendered beard or make-up. See
  docs/results/experts.md.
- **Licence**: Apache-2.0.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of the training."""
    add_picture_options(parser, "corpora/faces")


def read_captioned(folder: Path, split: str, limit: int = 10**9) -> CaptionedFaces:
    """The pictures of a split, decoded, with what is true of them."""
    corpus, head = Corpus(folder, split), load_head("cpu")
    images, landmarks, attributes, people = [], [], [], []
    known: dict[str, int] = {}
    for clip in list(corpus)[:limit]:
        seed = corpus.read_meta(clip)["person_seed"]
        shown = corpus.read_truth(clip, ("landmarks", "pose"))
        images.append(corpus.read_frame(clip, 0))
        landmarks.append(shown["landmarks"][0])
        attributes.append(attributes_of(sample_person(seed, head), clip.emotion, shown["pose"][0]))
        people.append(known.setdefault(clip.subject, len(known)))
    return CaptionedFaces(images, np.stack(landmarks), np.stack(attributes), np.array(people))


def train(options: argparse.Namespace) -> None:
    """Train and write."""
    faces = read_captioned(options.corpus, "train")
    torch.manual_seed(options.seed)
    words = all_words()
    network = started(FaceCLIP(vocabulary=words), options.start_from)
    train_clip(
        network,
        CaptionSampler(faces, seed=options.seed),
        device=options.device,
        bfloat16=True,
        **budget_of(options),
    )
    card = CARD.format(
        seed=options.seed,
        words=len(words),
        parameters=parameters_of(network),
        dim=network.dim,
        pictures=len(faces.images),
        people=len(np.unique(faces.person)),
        minutes=options.minutes,
    )
    save_expert(network, options.out, "talkface.experts.clip.FaceCLIP", {"vocabulary": words}, card)


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Of the evaluation."""
    add_test_options(parser, "corpora/faces")


@dataclass
class Retrieval:
    """Shares right; `chosen` (N,) the sentence chosen for each picture."""

    accuracy: float
    chosen: np.ndarray


def retrieve(images: Tensor, texts: Tensor, truth: np.ndarray) -> Retrieval:
    """The nearest of (K, D) sentences to each of (N, D) pictures, against (N,) the true one."""
    chosen = (images @ texts.t()).argmax(1).numpy()
    return Retrieval(float((chosen == truth).mean()), chosen)


def pair_directions(images: Tensor, prompts: Tensor, faces: CaptionedFaces) -> tuple[float, float]:
    """Mean cosine between picture and prompt directions of one person's neutral and other pictures, and with the prompt
    directions of the other emotions (what it should be low against)."""
    right, wrong = [], []
    emotion = faces.attributes[:, 0]
    for person in np.unique(faces.person):
        own = np.flatnonzero(faces.person == person)
        neutral = own[emotion[own] == 0]
        for target in own[emotion[own] != 0] if len(neutral) else ():
            moved = torch.nn.functional.normalize(images[target] - images[neutral[0]], dim=0)
            meant = torch.nn.functional.normalize(prompts[1:] - prompts[0], dim=1) @ moved
            right.append(float(meant[emotion[target] - 1]))
            wrong.append(float((meant.sum() - meant[emotion[target] - 1]) / (len(meant) - 1)))
    return float(np.mean(right)), float(np.mean(wrong))


def evaluate(options: argparse.Namespace) -> str:
    """The section: which of eight prompts, which value of each attribute, directions."""
    faces = read_captioned(options.corpus, "test", options.limit)
    crops = [
        AlignedCrop.from_landmarks(image, points).image
        for image, points in zip(faces.images, faces.landmarks, strict=True)
    ]
    images = to_tensor(np.stack(crops))
    decoded = through_first_stage(images)
    lines = [f"{len(images)} held-out renders, cut out by their exact landmarks."]
    for path in options.experts:
        expert = load_expert(path)
        assert isinstance(expert, ImageTextEncoder)
        lines += ["", *report(path.stem, expert, images, decoded, faces)]
    return "\n".join(lines)


def report(
    name: str, expert: ImageTextEncoder, images: Tensor, decoded: Tensor, faces: CaptionedFaces
) -> list[str]:
    """Tables of one expert."""
    seen, blurred = in_parts(expert.encode_images, images), in_parts(expert.encode_images, decoded)
    emotion = faces.attributes[:, 0]
    plain = text_features(expert, EMOTION_PROMPTS, PLAIN).mean(1)
    wrapped = text_features(expert, EMOTION_PROMPTS, IMAGENET_TEMPLATES).mean(1)
    commonest = np.bincount(emotion).max() / len(emotion)
    rows = [
        ("emotion, one of 8 prompts", retrieve(seen, plain, emotion).accuracy, 1 / 8, commonest),
        ("the same, mean of 79 templates", retrieve(seen, wrapped, emotion).accuracy, 1 / 8, commonest),
        ("the same, after the first stage", retrieve(blurred, plain, emotion).accuracy, 1 / 8, commonest),
    ]
    for attribute, sentences in QUESTIONS.items():
        value = faces.attributes[:, NAMES.index(attribute)]
        known = value >= 0
        texts = text_features(expert, sentences).mean(1)
        found = retrieve(seen[known], texts, value[known]).accuracy
        counts = np.bincount(value[known])
        rows.append((attribute.replace("_", " "), found, 1 / len(sentences), counts.max() / counts.sum()))
    lines = [
        f"{name}: picture -> sentence, share right.",
        "",
        "| question | right | chance | commonest answer |",
    ]
    lines.append("|---|---|---|---|")
    lines += [f"| {what} | {share:.3f} | {chance:.3f} | {most:.3f} |" for what, share, chance, most in rows]
    right, wrong = pair_directions(seen, plain, faces)
    guess = retrieve(seen, plain, emotion).chosen
    each = ", ".join(
        f"{EMOTIONS[k]} {float((guess[emotion == k] == k).mean()):.2f}" for k in range(len(EMOTIONS))
    )
    return [
        *lines,
        "",
        f"Per emotion: {each}. From a person's neutral picture to another: cosine with the direction of its own prompt "
        f"{right:.3f}, with those of the other emotions {wrong:.3f}.",
    ]
