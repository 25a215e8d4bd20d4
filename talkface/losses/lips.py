"""Losses on what a mouth seems to say: distances of a lip reader's features, of motion, and of sound and lips.

They are handed what experts made of the pictures; the experts themselves are in `talkface.experts`. The first is that
of the thesis (section 5.3.2), on sequences.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from talkface.errors import TalkfaceError


def reading_distance(features: Tensor, true: Tensor) -> Tensor:
    """Mean cosine distance, frame by frame, of a lip reader's features of two films.

    Args:
        features, true: (B, T, D); gradients flow into `features` only.

    Returns:
        A scalar in [0, 2].

    Raises:
        TalkfaceError: shapes differ, or the features are not those of sequences.
    """
    if features.shape != true.shape or features.dim() != 3:
        raise TalkfaceError(
            f"features: {tuple(features.shape)} and {tuple(true.shape)}; allowed: (B, T, D), the same twice"
        )
    return (1.0 - F.cosine_similarity(features.float(), true.detach().float(), dim=2)).mean()


def motion_difference(frames: Tensor, true: Tensor) -> Tensor:
    """Mean absolute difference of what changes from each frame to the next: (B, T, C, H, W) twice -> a scalar.

    A still error costs nothing here, a flickering one its full size.

    Raises:
        TalkfaceError: fewer than two frames.
    """
    if frames.shape[1] < 2:
        raise TalkfaceError(
            f"temporal consistency of {frames.shape[1]} frame; allowed: sequences of 2 or more"
        )
    return (frames.diff(dim=1) - true.diff(dim=1)).abs().mean()


def sync_loss(similarity: Tensor) -> Tensor:
    """-log of (1 + cosine) / 2, mean over windows: (B,) in [-1, 1] -> a scalar; 0 where lips and sound agree."""
    return -((1.0 + similarity.float()) / 2.0).clamp(min=1e-4).log().mean()
