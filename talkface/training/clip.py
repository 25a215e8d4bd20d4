"""Training of the small CLIP on aligned renders and sentences about them.

The pictures are degraded as photographs and first stages degrade them. Four terms: the contrastive one is CLIP's with
several true pairs per row, as in UniCL (Yang et al., "Unified contrastive learning in image-text-label space", CVPR
2022, eq. 2-4): the same sentence is true of many rendered people. The second tells the eight emotions apart, the third
the values of two other attributes, drawn for each batch: in so small a set the first alone learns emotions long before
glasses. The fourth is what guidance uses: the way from one picture of a person to another with another emotion points
along the way from one prompt to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.experts.clip import FaceCLIP, words_of
from talkface.experts.prompts import IMAGENET_TEMPLATES
from talkface.portrait.crop import AlignedCrop, random_jitter
from talkface.training.averaged import Budget, train_drawn
from talkface.training.captions import (
    EMOTION_WORDS,
    NAMES,
    QUESTIONS,
    Caption,
    long_caption,
    mirrored,
    short_caption,
    truth,
    vocabulary,
)
from talkface.training.landmarks import to_tensor
from talkface.training.picture_noise import cover_face, dead_leaves, degrade

LARGEST_SCALE = 50.0
QUESTIONS_PER_BATCH = 2
NEUTRAL, CONTEMPT = 0, 7


@dataclass
class CaptionedFaces:
    """N renders: images, each (H, W, 3) uint8; landmarks (N, 68, 2) px; attributes (N, A) of `training.captions`;
    person (N,) numbers."""

    images: Sequence[np.ndarray]
    landmarks: np.ndarray
    attributes: np.ndarray
    person: np.ndarray


@dataclass
class CaptionBatch:
    """images (B, S, S, 3) uint8, picture k and k + B / 2 of one person; emotion (B,); texts, K of them; truth (B, K)
    bool; prompts: one per emotion, then the sentence that says none; questions: sentences for every value of an
    attribute, and (B,) which of them is true, -1 where none is."""

    images: np.ndarray
    emotion: np.ndarray
    texts: list[str]
    truth: np.ndarray
    prompts: list[str]
    questions: list[tuple[list[str], np.ndarray]]


def all_words() -> list[str]:
    """Those of the captions and of the templates, sorted."""
    templates = {word for template in IMAGENET_TEMPLATES for word in words_of(template)}
    return sorted(templates | {part for word in vocabulary() for part in words_of(word)})


class CaptionSampler:
    """Draws training batches: pairs of pictures of one person, framed a little wrong, mirrored, degraded or covered.

    Args:
        faces: the renders; every person needs two or more.
        size: side of the crops.
        seed: the same seed gives the same batches.
    """

    def __init__(self, faces: CaptionedFaces, size: int = 128, seed: int = 0) -> None:
        self.faces, self.size = faces, size
        self.rng = np.random.default_rng(seed)
        self._of = [np.flatnonzero(faces.person == person) for person in np.unique(faces.person)]
        self._textures = [dead_leaves(self.rng, size) for _ in range(24)]

    def batch(self, batch_size: int) -> CaptionBatch:
        """A batch; its size is even."""
        rng, half = self.rng, batch_size // 2
        pairs = [
            rng.choice(self._of[int(rng.integers(len(self._of)))], 2, replace=False) for _ in range(half)
        ]
        images = np.empty((2 * half, self.size, self.size, 3), np.uint8)
        rows = np.empty((2 * half, self.faces.attributes.shape[1]), np.int64)
        for place, pair in enumerate(pairs):
            mirror, jitter = bool(rng.random() < 0.5), random_jitter(rng, 0.025, 0.05, 4.0)
            for row, number in zip((place, place + half), pair, strict=True):
                images[row], rows[row] = self._picture(int(number), mirror, jitter)
        captions: dict[str, Caption] = {}
        for values in rows:
            for draw in (short_caption, long_caption):
                caption = draw(rng, values)
                captions[caption.text] = caption
        texts = list(captions)
        claims = np.stack([captions[text].claims for text in texts])
        words = [options[int(rng.integers(len(options)))] for options in EMOTION_WORDS]
        wrap = self._wrapping()
        asked = [list(QUESTIONS)[k] for k in rng.choice(len(QUESTIONS), QUESTIONS_PER_BATCH, replace=False)]
        return CaptionBatch(
            images,
            rows[:, 0],
            [self._wrapping()(text) for text in texts],
            truth(rows, claims),
            [wrap(f"{word} face") for word in words] + [wrap("face")],
            [([wrap(text) for text in QUESTIONS[name]], rows[:, NAMES.index(name)]) for name in asked],
        )

    def _wrapping(self) -> Callable[[str], str]:
        kind = self.rng.random()
        if kind < 0.5:
            return lambda text: text
        if kind < 0.65:
            return lambda text: f"a {text}"
        template = IMAGENET_TEMPLATES[int(self.rng.integers(len(IMAGENET_TEMPLATES)))]
        return lambda text: template.format(text)

    def _picture(self, number: int, mirror: bool, jitter: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rng, faces = self.rng, self.faces
        crop = AlignedCrop.from_landmarks(
            faces.images[number], faces.landmarks[number], size=self.size, jitter=jitter
        )
        picture, values = crop.image, faces.attributes[number]
        if rng.random() < 0.1:
            picture = cover_face(rng, picture, None, self._textures[int(rng.integers(len(self._textures)))])
        if mirror:
            picture, values = np.ascontiguousarray(picture[:, ::-1]), mirrored(values)
        kind = rng.random()
        if kind < 0.4:
            picture = degrade(rng, picture)
        elif kind < 0.7:  # what a first stage leaves
            picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 1.6)))
        return picture, values


def clip_loss(images: Tensor, texts: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """Contrastive loss with several true pairs, a scalar.

    Args:
        images: (B, D) of unit length; texts: (K, D) of unit length.
        truth: (B, K) bool; each row and each column holds a true pair.
        scale: of the cosines.
    """
    logits, target = scale * images @ texts.t(), truth.to(images.dtype)
    rows = (F.log_softmax(logits, dim=1) * target).sum(1) / target.sum(1)
    columns = (F.log_softmax(logits, dim=0) * target).sum(0) / target.sum(0)
    return -(rows.mean() + columns.mean()) / 2


def sum_of_answers(
    images: Tensor, answers: Sequence[Tensor], values: Sequence[np.ndarray], scale: Tensor
) -> Tensor:
    """Cross-entropy of finding the true sentence among those of one attribute, summed over attributes, a scalar.

    Args:
        images: (B, D); answers: of each attribute (V, D), one per value; values: of each (B,), -1 where none is true.
        scale: of the cosines.
    """
    total = images.sum() * 0
    for sentences, value in zip(answers, values, strict=True):
        true = torch.from_numpy(value).to(images.device)
        if bool((true >= 0).any()):
            total = total + F.cross_entropy(scale * images @ sentences.t(), true, ignore_index=-1)
    return total


def direction_loss(images: Tensor, prompts: Tensor, emotion: Tensor) -> Tensor:
    """1 - cosine between the way from picture to picture of a person and that from prompt to prompt, a scalar.

    Args:
        images: (B, D), rows k and k + B / 2 of one person.
        prompts: (9, D) one per emotion, and the sentence that says none; the latter stands for neutral and contempt, as
            it does in guidance, in every second pair.
        emotion: (B,) ids.
    """
    half = len(emotion) // 2
    unsaid = (emotion == NEUTRAL) | (emotion == CONTEMPT)
    unsaid = unsaid & (torch.arange(2 * half, device=emotion.device) % half % 2 == 0)
    said = prompts[torch.where(unsaid, len(prompts) - 1, emotion)]
    moved = images[half:] - images[:half]
    meant = said[half:] - said[:half]
    differ = meant.norm(dim=1) > 1e-4
    if not bool(differ.any()):
        return images.sum() * 0
    return (1 - F.cosine_similarity(moved[differ], meant[differ], dim=1)).mean()


def train_clip(
    network: FaceCLIP,
    sampler: CaptionSampler,
    *,
    batch_size: int = 48,
    learning_rate: float = 1.5e-3,
    average_decay: float = 0.995,
    device: str = "cpu",
    bfloat16: bool = False,
    **budget: Unpack[Budget],
) -> FaceCLIP:
    """Train `network` in place and return it, in evaluation mode, with averaged weights.

    See `train_averaged` for the arguments, those of the budget too, and errors.
    """
    network.to(device)

    def losses() -> dict[str, Tensor]:
        batch = sampler.batch(batch_size)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            images = network.encode_images(to_tensor(batch.images, device))
            asked = [text for texts, _ in batch.questions for text in texts]
            sentences = network.encode_texts([*batch.texts, *batch.prompts, *asked])
        sizes = [len(batch.texts), len(batch.prompts), *(len(texts) for texts, _ in batch.questions)]
        texts, prompts, *answers = sentences.split(sizes)
        emotion = torch.from_numpy(batch.emotion).to(device)
        scale = network.log_scale.exp().clamp(max=LARGEST_SCALE)
        return {
            "captions": clip_loss(images, texts, torch.from_numpy(batch.truth).to(device), scale),
            "emotion": F.cross_entropy(scale * images @ prompts[:-1].t(), emotion, label_smoothing=0.05),
            "attributes": sum_of_answers(images, answers, [value for _, value in batch.questions], scale),
            "direction": direction_loss(images, prompts, emotion),
        }

    train_drawn(
        network,
        losses,
        sampler,
        learning_rate=learning_rate,
        average_decay=average_decay,
        **budget,
    )
    return network
