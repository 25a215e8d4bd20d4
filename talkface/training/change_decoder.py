"""A `ChangeDecoder` learns what a first stage shows: distillation (Hinton et al. 2015, arXiv 1503.02531).

Its teacher is deterministic and sees the same latents, so plain differences suffice; no perceptual term, no adversary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from talkface.training.window import Window

__all__ = ["change_losses", "taught_change"]


@torch.no_grad()
def taught_change(first_stage: Any, window: Window, latents: Tensor, before: Tensor) -> Tensor:
    """The window's pixels of latents less those of the latents before, as the first stage decodes both.

    Args:
        latents, before: (B, C, H / f, W / f).

    Returns:
        (B, 3, h, w), what `FacePainter` lays over the guides.
    """
    made, unchanged = window.decode(torch.cat([latents, before])).clamp(-1.0, 1.0).chunk(2)
    return made - unchanged


def change_losses(
    decoder: Callable[[Tensor, Tensor], Tensor],
    window: Window,
    latents: Tensor,
    before: Tensor,
    change: Tensor,
) -> dict[str, Tensor]:
    """Mean absolute difference of pixels and of their slopes: edges are few, and count.

    Args:
        latents, before: (B, C, H / f, W / f). change: see `taught_change`.
    """
    error = window.apply(decoder, latents, before) - change
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return {"change": error.abs().mean(), "slopes": slopes}
