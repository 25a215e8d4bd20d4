"""The part of a picture that a model is judged by: decoding only it costs a fraction of decoding everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from talkface.errors import TalkfaceError

_MARGIN = 2  # latents around the window, whose decoding the window's pixels see

Edges = tuple[int, int, int, int]


class Window:
    """A rectangle of pixels on the grid of a first stage's latents.

    Args:
        first_stage: decode, `downsample_factor`.
        edges: left, top, right, bottom in pixels, multiples of the factor; None: the whole picture.

    Raises:
        TalkfaceError: edges that do not lie on the grid.
    """

    def __init__(self, first_stage: Any, edges: Edges | None) -> None:
        self.first_stage, self.edges = first_stage, edges
        self.factor = int(first_stage.downsample_factor)
        if edges is None:
            return
        left, top, right, bottom = edges
        if any(edge % self.factor for edge in edges) or left >= right or top >= bottom:
            raise TalkfaceError(
                f"window: {edges}; allowed: left < right, top < bottom, multiples of {self.factor} pixels"
            )

    def decode(self, latents: Tensor) -> Tensor:
        """The window's pixels (B, 3, h, w) of latents (B, C, H / factor, W / factor), float32, not clamped."""
        return self.apply(self.first_stage.decode, latents)

    def apply(self, decode: Callable[..., Tensor], *latents: Tensor) -> Tensor:
        """As `decode`, by another decoder, which may be given several latents."""
        if self.edges is None:
            return decode(*latents).float()
        left, top, right, bottom = (edge // self.factor for edge in self.edges)
        from_left, from_top = max(0, left - _MARGIN), max(0, top - _MARGIN)
        parts = (one[:, :, from_top : bottom + _MARGIN, from_left : right + _MARGIN] for one in latents)
        pixels = decode(*parts).float()
        y, x = (top - from_top) * self.factor, (left - from_left) * self.factor
        height, width = (bottom - top) * self.factor, (right - left) * self.factor
        return pixels[:, :, y : y + height, x : x + width]

    def cut(self, pictures: Tensor) -> Tensor:
        """The window (..., h, w) of pictures (..., H, W)."""
        if self.edges is None:
            return pictures
        left, top, right, bottom = self.edges
        return pictures[..., top:bottom, left:right]

    def paste(self, pixels: Tensor, pictures: Tensor) -> Tensor:
        """Pictures (..., H, W) in which the window shows `pixels` (..., h, w)."""
        if self.edges is None:
            return pixels
        left, top, right, bottom = self.edges
        result = pictures.to(pixels.dtype).clone()
        result[..., top:bottom, left:right] = pixels
        return result
