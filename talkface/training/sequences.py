"""Batches of consecutive frames, for networks that look at single frames."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from talkface.errors import TalkfaceError

SHARED = ("reference", "reference_latents", "emotion", "clip")
"""What all frames of a sequence share: (B, ...); the rest of a batch is (B, T, ...), but for `sound`, (B, n)."""


def per_frame(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(B, T, ...) -> (B * T, ...), frames of a sequence one after the other; what they share is repeated.

    Raises:
        TalkfaceError: the batch holds single frames.
    """
    target = batch["target"]
    if target.dim() != 5:
        raise TalkfaceError(
            f"batch['target']: shape {tuple(target.shape)}; allowed: (B, T, 3, S, S), sequences of consecutive "
            "frames; set sequence_length of the data to 2 or more"
        )
    return {
        name: value.repeat_interleave(target.shape[1], 0) if name in SHARED else value.flatten(0, 1)
        for name, value in batch.items()
        if name != "sound"
    }


def in_range(pictures: Tensor) -> Tensor:
    """Pictures clamped to [-1, 1], with the gradient of the pictures themselves: a clamped pixel can come back."""
    return pictures + (pictures.clamp(-1.0, 1.0) - pictures).detach()
