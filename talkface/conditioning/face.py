"""Conditioners of the face itself: its emotion, its facial actions, its landmarks outside the mouth.

Emotion and landmarks as in the thesis (arXiv 2308.03183 and the talking-face chapter): one embedding per label with
one more for "none", and a small network on the 48 landmarks that are not of the mouth. Intensities and facial actions,
which it names as future work, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from talkface.conditioning.base import Conditioner, Conditioning, read
from talkface.errors import TalkfaceError


def _as_field(vector: Tensor, field: str) -> Conditioning:
    """vector (B, D) as one context token or as the embedding."""
    return Conditioning(context=vector[:, None]) if field == "context" else Conditioning(embedding=vector)


def _check_field(fills: str) -> str:
    if fills not in ("context", "embedding"):
        raise TalkfaceError(f"fills: '{fills}'; allowed: 'context', 'embedding'")
    return fills


class EmotionConditioner(Conditioner):
    """A learned vector per emotion, and one more for "no emotion given".

    Args:
        num_classes: number of labels.
        dim: width of the vectors.
        fills: "context" (one token; the thesis) or "embedding".
        drop_rate: share of training samples without a label.
        intensity: read batch["intensity"], too, where there is one: the vector then lies between that of label 0
            (neutral) and that of the emotion. False (the thesis): the label alone.
    """

    def __init__(
        self,
        num_classes: int = 8,
        dim: int = 256,
        fills: str = "context",
        drop_rate: float = 0.2,
        intensity: bool = False,
    ) -> None:
        super().__init__(drop_rate)
        self.fills = (_check_field(fills),)
        self.context_dim, self.embedding_dim = (dim, 0) if fills == "context" else (0, dim)
        self.num_classes, self.intensity = num_classes, intensity
        self.embedding = nn.Embedding(num_classes + 1, dim)

    def forward(self, batch: Mapping[str, Tensor]) -> Conditioning:
        """Read batch["emotion"] (B,) int64; -1 = none. With `intensity`, batch["intensity"] (B,) 0..1, 1 if absent.

        Raises:
            TalkfaceError: a label outside -1..num_classes - 1.
        """
        labels = read(batch, "emotion", (), "EmotionConditioner")
        if labels.numel() and (int(labels.min()) < -1 or int(labels.max()) >= self.num_classes):
            raise TalkfaceError(
                f"emotion labels: {labels.unique().tolist()}; allowed: 0 to {self.num_classes - 1}, -1 = none"
            )
        rows = torch.where(labels < 0, self.num_classes, labels)
        vectors = self.embedding(rows)
        if self.intensity and "intensity" in batch:
            amount = read(batch, "intensity", (), "EmotionConditioner").to(vectors)
            amount = torch.where(labels < 0, 1.0, amount)[:, None]
            vectors = torch.lerp(self.embedding.weight[0].expand_as(vectors), vectors, amount)
        return _as_field(vectors, self.fills[0])

    def null(self, batch_size: int) -> Conditioning:
        """The vector for "none"."""
        return _as_field(self.embedding.weight[self.num_classes].expand(batch_size, -1), self.fills[0])


class ActionConditioner(Conditioner):
    """What the face does, as facial actions, through two linear layers; a learned vector for "not told".

    Args:
        num_actions: how many; 52 in the order of `talkface.head.ACTIONS`.
        dim: width of the result.
        fills: "context" (one token) or "embedding".
        drop_rate: share of training samples without actions.
    """

    def __init__(
        self, num_actions: int = 52, dim: int = 128, fills: str = "embedding", drop_rate: float = 0.5
    ) -> None:
        super().__init__(drop_rate)
        self.fills = (_check_field(fills),)
        self.context_dim, self.embedding_dim = (dim, 0) if fills == "context" else (0, dim)
        self.num_actions = num_actions
        self.net = nn.Sequential(nn.Linear(num_actions, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.nothing = nn.Parameter(torch.zeros(dim))

    def forward(self, batch: Mapping[str, Tensor]) -> Conditioning:
        """Read batch["actions"] (B, 52), 0..1; a batch without any is told nothing."""
        if "actions" not in batch:
            return self.null(next(iter(batch.values())).shape[0])
        actions = read(batch, "actions", (self.num_actions,), "ActionConditioner")
        return _as_field(self.net(actions.to(self.nothing.dtype)), self.fills[0])

    def null(self, batch_size: int) -> Conditioning:
        """The vector for "not told"."""
        return _as_field(self.nothing.expand(batch_size, -1), self.fills[0])


class LandmarkConditioner(Conditioner):
    """The 48 landmarks of jaw, brows, nose and eyes through five linear layers. Its null is the zero vector.

    Args:
        dim: width of the result.
        image_size: side in pixels of the crop that the landmarks are given in.
        num_landmarks: how many.
        fills: "context" (one token; the thesis) or "embedding".
        drop_rate: share of training samples without landmarks.
    """

    def __init__(
        self,
        dim: int = 128,
        image_size: int = 128,
        num_landmarks: int = 48,
        fills: str = "context",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(drop_rate)
        self.fills = (_check_field(fills),)
        self.context_dim, self.embedding_dim = (dim, 0) if fills == "context" else (0, dim)
        self.dim, self.image_size, self.num_landmarks = dim, image_size, num_landmarks
        widths = [2 * num_landmarks, 128, 256, 512, 256, dim]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.net = nn.Sequential(*layers[:-1])

    @property
    def first_weight(self) -> Tensor:
        """Tells dtype and device."""
        return next(self.net.parameters())

    def forward(self, batch: Mapping[str, Tensor]) -> Conditioning:
        """Read batch["landmarks"] (B, 48, 2), x and y in pixels of the crop; clamped to the crop."""
        points = read(batch, "landmarks", (self.num_landmarks, 2), "LandmarkConditioner")
        scaled = points.clamp(0, self.image_size) / (self.image_size / 2) - 1.0
        return _as_field(self.net(scaled.flatten(1).to(self.first_weight.dtype)), self.fills[0])

    def null(self, batch_size: int) -> Conditioning:
        """Zeros."""
        return _as_field(self.first_weight.new_zeros(batch_size, self.dim), self.fills[0])
