"""Largest value and mean in a square around every pixel, in a time that hardly depends on the square's size.

Torch's pooling looks at all (2 reach + 1)^2 pixels. Here windows of 2, 4, 8, … pixels are joined from two of half the
length, first along the columns and then along the rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def window_max(images: Tensor, reach: int) -> Tensor:
    """(N, C, H, W) -> the same: as `max_pool2d` of side 2 reach + 1, stride 1, over what lies in the picture."""
    padded = F.pad(images, (reach, reach, reach, reach), value=float("-inf"))
    return _joined(_joined(padded, 2, 2 * reach + 1, torch.maximum), 3, 2 * reach + 1, torch.maximum)


def window_mean(images: Tensor, reach: int) -> Tensor:
    """(N, C, H, W) -> the same: as `avg_pool2d` of side 2 reach + 1, stride 1, over what lies in the picture."""
    padded = F.pad(images, (reach, reach, reach, reach))
    total = _joined(_joined(padded, 2, 2 * reach + 1, torch.add), 3, 2 * reach + 1, torch.add)
    down, across = (
        (at.clamp(max=reach) + at.flip(0).clamp(max=reach) + 1).to(images)
        for at in (torch.arange(length, device=images.device) for length in images.shape[2:])
    )
    return total / (down[:, None] * across)


def _joined(images: Tensor, dim: int, side: int, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Windows of `side` pixels along `dim`, which becomes side - 1 shorter."""
    length = images.shape[dim] - side + 1
    result: Tensor | None = None
    power, width, begin = images, 1, 0  # power[i] joins `width` pixels from i on
    while True:
        if side & width:
            part = power.narrow(dim, begin, length)
            result = part if result is None else join(result, part)
            begin += width
        if begin == side:
            assert result is not None
            return result
        power = join(
            power.narrow(dim, 0, power.shape[dim] - width), power.narrow(dim, width, power.shape[dim] - width)
        )
        width *= 2
