"""Training of the bundled emotion classifier on aligned renders, degraded as photographs and first stages degrade them.

The loss is cross-entropy with smoothed labels, and the squared error of the facial actions that made the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.experts.emotion import EmotionNetwork, EmotionReading
from talkface.head.model import MIRRORED_ACTIONS
from talkface.portrait.crop import AlignedCrop, random_jitter
from talkface.training.averaged import Budget, train_drawn
from talkface.training.landmarks import to_tensor
from talkface.training.picture_noise import cover_face, dead_leaves, degrade

SMOOTHING = 0.05
ACTIONS_WEIGHT = 20.0


@dataclass
class LabelledFaces:
    """N renders: images, each (H, W, 3) uint8; landmarks (N, 68, 2) px; emotion (N,) ids; actions (N, 52), 0..1."""

    images: Sequence[np.ndarray]
    landmarks: np.ndarray
    emotion: np.ndarray
    actions: np.ndarray


@dataclass
class EmotionBatch:
    """images (B, S, S, 3) uint8, emotion (B,) int64, actions (B, 52) float32."""

    images: np.ndarray
    emotion: np.ndarray
    actions: np.ndarray


class EmotionSampler:
    """Draws training batches: crops framed a little wrong, mirrored, half of them degraded, some of them covered.

    Args:
        faces: the renders.
        size: side of the crops.
        seed: the same seed gives the same batches.
    """

    def __init__(self, faces: LabelledFaces, size: int = 128, seed: int = 0) -> None:
        self.faces, self.size = faces, size
        self.rng = np.random.default_rng(seed)
        self._textures = [dead_leaves(self.rng, size) for _ in range(24)]

    def batch(self, batch_size: int) -> EmotionBatch:
        """A batch."""
        rng, size = self.rng, self.size
        out = EmotionBatch(
            np.empty((batch_size, size, size, 3), np.uint8),
            np.empty(batch_size, np.int64),
            np.empty((batch_size, self.faces.actions.shape[1]), np.float32),
        )
        for row in range(batch_size):
            number = int(rng.integers(len(self.faces.images)))
            jitter = random_jitter(rng, 0.025, 0.05, 4.0)
            points = self.faces.landmarks[number]
            crop = AlignedCrop.from_landmarks(self.faces.images[number], points, size=size, jitter=jitter)
            picture, actions = crop.image, self.faces.actions[number]
            if rng.random() < 0.12:
                texture = self._textures[int(rng.integers(len(self._textures)))]
                picture = cover_face(rng, picture, None, texture)
            if rng.random() < 0.5:
                picture, actions = np.ascontiguousarray(picture[:, ::-1]), actions[list(MIRRORED_ACTIONS)]
            kind = rng.random()
            if kind < 0.5:
                picture = degrade(rng, picture)
            elif kind < 0.75:  # what a first stage leaves
                picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 1.6)))
            out.images[row], out.emotion[row], out.actions[row] = picture, self.faces.emotion[number], actions
        return out


def emotion_loss(reading: EmotionReading, emotion: Tensor, actions: Tensor) -> dict[str, Tensor]:
    """The terms `emotion` and `actions`, both scalars."""
    return {
        "emotion": F.cross_entropy(reading.logits.float(), emotion, label_smoothing=SMOOTHING),
        "actions": ACTIONS_WEIGHT * F.mse_loss(reading.actions.float(), actions),
    }


def train_emotion(
    network: EmotionNetwork,
    sampler: EmotionSampler,
    *,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    average_decay: float = 0.995,
    device: str = "cpu",
    bfloat16: bool = False,
    **budget: Unpack[Budget],
) -> EmotionNetwork:
    """Train `network` in place and return it, in evaluation mode, with averaged weights.

    See `train_averaged` for the arguments, those of the budget too, and errors.
    """
    network.to(device)

    def losses() -> dict[str, Tensor]:
        batch = sampler.batch(batch_size)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            reading = network.read(to_tensor(batch.images, device))
        emotion, actions = (
            torch.from_numpy(batch.emotion).to(device),
            torch.from_numpy(batch.actions).to(device),
        )
        return emotion_loss(reading, emotion, actions)

    train_drawn(
        network,
        losses,
        sampler,
        learning_rate=learning_rate,
        average_decay=average_decay,
        **budget,
    )
    return network
