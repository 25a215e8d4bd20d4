"""Edges that a drawn mesh makes, softened as a photograph would show them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.head.windows import window_max

REACH_OF_EDGES = 5  # pixels: farther from what is drawn nothing is softened
_JUMP = 2.0  # pixels: two neighbours that were looked up farther apart do not belong together
_SMALL = 192  # pixels: pictures whose sides are shorter are blurred less
_TAPS = (0.50, 0.25), (0.38, 0.24, 0.07)  # from the middle outwards: of small pictures, of larger ones


def soften_edges(pictures: Tensor, inside: Tensor, flow: Tensor, size: int) -> Tensor:
    """Blur pictures a little along edges that the mesh makes: those of the inside of the mouth, of the teeth, and where
    the flow jumps, as from chin to neck.

    No photograph has lips with an edge that is sharp to the pixel; slits thinner than the blur, as beside a corner of
    the lips, fade.

    Args:
        pictures: (N, 3, H, W) in [-1, 1], or a part of them that reaches `REACH_OF_EDGES` beyond what is drawn.
        inside: (N, 1, H, W) in [0, 1]. flow: (N, 2, H, W) pixels. size: side of the whole pictures.
    """
    taps = _TAPS[0] if size < _SMALL else _TAPS[1]
    reach = len(taps) - 1
    difference = _blurred(_blurred(pictures, taps, 3), taps, 2).sub_(pictures)
    lips = window_max(inside, reach) + window_max(-inside, reach)
    teeth = inside * (6.0 * difference.abs().amax(1, keepdim=True)).clamp(max=1.0)
    jump = (window_max(flow, 1) + window_max(-flow, 1)).amax(1, keepdim=True)
    contour = ((jump - _JUMP) / _JUMP).clamp(0.0, 1.0)
    third = 1.0 / 3.0
    edge = torch.maximum(lips, contour)
    for dim in (3, 2):
        edge = _blurred(edge, (third, third), dim, "constant")
    return torch.maximum(edge, teeth).mul(difference).add_(pictures)


def _blurred(images: Tensor, taps: tuple[float, ...], dim: int, border: str = "replicate") -> Tensor:
    """Images (N, C, H, W) filtered along `dim` (2 or 3) with symmetric taps, given from the middle outwards.

    Sums of shifted images: torch's convolution of single channels takes several times as long on a processor, and its
    last bits depend on the size of the images.
    """
    reach, length = len(taps) - 1, images.shape[dim]
    padded = F.pad(images, (reach, reach, 0, 0) if dim == 3 else (0, 0, reach, reach), mode=border)
    result = padded.narrow(dim, reach, length) * taps[0]
    for step, tap in enumerate(taps[1:], 1):
        pair = padded.narrow(dim, reach - step, length) + padded.narrow(dim, reach + step, length)
        result.add_(pair, alpha=tap)
    return result
