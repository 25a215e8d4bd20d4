"""Where a photograph shows the person's own teeth, and between which edges of the lips."""

from __future__ import annotations

import torch
from torch import Tensor

from talkface.head.inside import COLOURS, step

_UPPER_EDGE, _LOWER_EDGE = (60, 61, 62, 63, 64), (60, 67, 66, 65, 64)  # landmarks along the inner lips


def own_teeth(images: Tensor, points: Tensor, light: Tensor, skin: Tensor) -> tuple[Tensor, Tensor]:
    """Where photographs show teeth, and their tint.

    Args:
        images: (B, 3, S, S) in [-1, 1]. points: (B, 68, 2) landmarks.
        light: (B, 3) linear RGB of white. skin: (B,) luminance of the skin.

    Returns:
        (B, 1, S, S) in [0, 1]: between the lips, bright and pale; (B, 3), relative to the model's teeth, 1 where too
        few show.
    """
    size = images.shape[-1]
    linear = ((images + 1.0) / 2.0).clamp(0, 1) ** 2.2
    brightest = linear.amax(1)
    # pale in white light: lamps and cameras make teeth as yellow as they make the skin
    balanced = linear / light[:, :, None, None].clamp(min=1e-3)
    most, least = balanced.amax(1), balanced.amin(1)
    pale = step((most - least) / most.clamp(min=1e-3), 0.60, 0.45)
    bright = step(brightest / skin.clamp(min=1e-3)[:, None, None], 0.35, 0.6)
    seen = pale * bright * _between_the_lips(points, size, 0.004 * size)
    tints = torch.ones_like(light)
    for number, weight in enumerate(seen):
        found = weight > 0.5
        share = float(weight.sum()) / size**2
        if share > 0.0005:
            # the brighter part of what shows: the rest lies in the shadow of the lips
            chosen = found & (brightest[number] >= brightest[number][found].quantile(0.6))
            model = light[number] * light.new_tensor(COLOURS["upper_teeth"])
            tints[number] = (linear[number][:, chosen].mean(1) / model.clamp(min=1e-3)).clamp(0.4, 1.6)
        else:
            seen[number] = 0.0
    return seen[:, None].to(images), tints


def _between_the_lips(points: Tensor, size: int, margin: float) -> Tensor:
    """(B, size, size) in [0, 1]: 1 farther than 1.5 `margin` pixels inside of the lips of `points` (B, 68, 2)."""
    centres = torch.arange(size, device=points.device) + 0.5
    result = []
    for face in points:
        upper, lower = lip_edges(centres.to(points), face)
        beside = torch.minimum(centres - face[60, 0], face[64, 0] - centres)
        below, above = centres[:, None] - upper, lower - centres[:, None]
        nearest = torch.minimum(torch.minimum(below, above), beside)
        result.append(step(nearest, 0.5 * margin, 1.5 * margin))
    return torch.stack(result)


def lip_edges(x: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
    """Heights (N,) of the inner edges of the upper and the lower lip at x (N,), by landmarks (68, 2) of a face."""
    return _interpolate(x, face[list(_UPPER_EDGE)]), _interpolate(x, face[list(_LOWER_EDGE)])


def _interpolate(x: Tensor, corners: Tensor) -> Tensor:
    """y (N,) at x (N,) of a line through corners (K, 2) from left to right, level beyond its ends."""
    right = torch.searchsorted(corners[:, 0].contiguous(), x.contiguous()).clamp(1, len(corners) - 1)
    (x0, y0), (x1, y1) = corners[right - 1].unbind(1), corners[right].unbind(1)
    return y0 + (y1 - y0) * ((x - x0) / (x1 - x0).clamp(min=1e-6)).clamp(0.0, 1.0)
