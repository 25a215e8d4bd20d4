"""Training of the small face recogniser on aligned renders of people in several lights, poses and expressions.

The loss is the additive angular margin of ArcFace (Deng et al., CVPR 2019, eq. 3) over the people of the training
split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.experts.recognition import FaceEmbedder
from talkface.portrait.crop import AlignedCrop, random_jitter
from talkface.training.averaged import Budget, train_drawn
from talkface.training.landmarks import to_tensor
from talkface.training.picture_noise import cover_face, dead_leaves, degrade

SCALE, MARGIN = 24.0, 0.3


@dataclass
class PeoplesFaces:
    """N renders: images, each (H, W, 3) uint8; landmarks (N, 68, 2) px; person (N,) numbers from 0."""

    images: Sequence[np.ndarray]
    landmarks: np.ndarray
    person: np.ndarray


class PeopleSampler:
    """Draws training batches: crops framed a little wrong, mirrored, half of them degraded, some of them covered.

    Args:
        faces: the renders.
        size: side of the crops.
        seed: the same seed gives the same batches.
    """

    def __init__(self, faces: PeoplesFaces, size: int = 128, seed: int = 0) -> None:
        self.faces, self.size = faces, size
        self.rng = np.random.default_rng(seed)
        self._textures = [dead_leaves(self.rng, size) for _ in range(24)]

    def batch(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """(B, S, S, 3) uint8 pictures and (B,) int64 numbers of their people."""
        rng, faces = self.rng, self.faces
        chosen = rng.integers(len(faces.images), size=batch_size)
        images = np.empty((batch_size, self.size, self.size, 3), np.uint8)
        for row, number in enumerate(chosen):
            jitter = random_jitter(rng, 0.012, 0.03, 2.5)
            crop = AlignedCrop.from_landmarks(
                faces.images[number], faces.landmarks[number], size=self.size, jitter=jitter
            )
            picture = crop.image
            if rng.random() < 0.12:
                texture = self._textures[int(rng.integers(len(self._textures)))]
                picture = cover_face(rng, picture, None, texture)
            if rng.random() < 0.5:
                picture = np.ascontiguousarray(picture[:, ::-1])
            kind = rng.random()
            if kind < 0.4:
                picture = degrade(rng, picture)
            elif kind < 0.65:  # what a first stage leaves
                picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 1.6)))
            images[row] = picture
        return images, faces.person[chosen].astype(np.int64)


class AngularMargin(nn.Module):
    """A recogniser and, for training only, one direction per person.

    Args:
        embedder: the recogniser.
        people: how many there are.
    """

    def __init__(self, embedder: FaceEmbedder, people: int) -> None:
        super().__init__()
        self.embedder = embedder
        self.people = nn.Parameter(torch.randn(people, embedder.dim) / math.sqrt(embedder.dim))


def margin_loss(vectors: Tensor, people: Tensor, person: Tensor, margin: float = MARGIN) -> Tensor:
    """Cross-entropy with an angular margin, a scalar.

    Args:
        vectors: (B, D) of unit length.
        people: (P, D) one direction per person, any length.
        person: (B,) numbers.
        margin: radians that are added to the angle between a picture and its own person.
    """
    cosine = vectors @ F.normalize(people, dim=1).t()
    own = cosine.gather(1, person[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
    # beyond pi - margin the angle would come around: there the cosine falls on in a straight line
    harder = torch.where(
        own > math.cos(math.pi - margin), torch.cos(own.arccos() + margin), own - margin * math.sin(margin)
    )
    return F.cross_entropy(SCALE * cosine.scatter(1, person[:, None], harder), person)


def train_identity(
    network: FaceEmbedder,
    sampler: PeopleSampler,
    *,
    batch_size: int = 48,
    learning_rate: float = 2e-3,
    average_decay: float = 0.995,
    device: str = "cpu",
    bfloat16: bool = False,
    **budget: Unpack[Budget],
) -> FaceEmbedder:
    """Train `network` in place and return it, in evaluation mode, with averaged weights.

    See `train_averaged` for the arguments, those of the budget too, and errors.
    """
    trained = AngularMargin(network, int(sampler.faces.person.max()) + 1).to(device)

    def losses() -> dict[str, Tensor]:
        images, person = sampler.batch(batch_size)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            vectors = network(to_tensor(images, device))
        return {"margin": margin_loss(vectors, trained.people, torch.from_numpy(person).to(device))}

    train_drawn(
        trained,
        losses,
        sampler,
        learning_rate=learning_rate,
        average_decay=average_decay,
        **budget,
    )
    return network
