"""Mouths cut out of films for lip readers: upright, equally large, centred, grey; gradients flow through to the frames.

The recipe of the public lip readers (Ma, Petridis & Pantic, ICASSP 2021, and their preparation scripts): a similarity
brings eight landmarks, smoothed over time, to the mean face of a 256-pixel picture, and a square around the lips is
cut there. Differences: the similarity is the least-squares one (theirs: least median of squares, which draws random
subsets), and the square is not rounded to whole pixels.

`talkface.portrait.crop` cuts faces, of single pictures, for everything else; a reader reads what it was trained on.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.errors import TalkfaceError

STABLE = (28, 33, 36, 39, 42, 45, 48, 54)
"""Nose bridge and base, corners of eyes and mouth."""
MEAN_FACE = (
    (128.5, 106.9), (128.9, 137.3), (92.5, 94.4), (112.8, 94.9),
    (145.5, 94.5), (166.7, 93.6), (107.2, 157.2), (152.2, 157.0),
)  # fmt: skip
"""Where they lie in the mean face of 256 x 256 pixels that the public readers were trained with, to a tenth."""
REACH = 6
"""Frames before and after one over which its landmarks are averaged."""
GREY = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""


def mouth_crops(frames: Tensor, landmarks: Tensor, size: int = 88) -> Tensor:
    """The mouths of films.

    Args:
        frames: (B, T, 3, H, W) RGB in [-1, 1], consecutive. Values a little outside are cut off.
        landmarks: (B, T, 68, 2) x, y in pixels of the frames, (0, 0) the outer corner of the first pixel. They may lie
            outside the frame; what is outside is black, as in the public recipe.
        size: side of the result in pixels of the mean face.

    Returns:
        (B, T, 1, size, size) grey in [0, 1]; differentiable with respect to the frames, not the landmarks.

    Raises:
        TalkfaceError: other shapes, or landmarks that are not finite.
    """
    if frames.dim() != 5 or frames.shape[2] != 3:
        raise TalkfaceError(f"frames: shape {tuple(frames.shape)}; allowed (B, T, 3, H, W)")
    if landmarks.shape != (*frames.shape[:2], 68, 2):
        raise TalkfaceError(
            f"landmarks: shape {tuple(landmarks.shape)}; allowed {(*frames.shape[:2], 68, 2)}, one face a frame"
        )
    if not bool(torch.isfinite(landmarks).all()):
        clip, frame = (~torch.isfinite(landmarks)).flatten(2).any(-1).nonzero()[0].tolist()
        raise TalkfaceError(
            f"landmarks: none in frame {frame} of clip {clip}; allowed are finite points; leave the clip out or find "
            "its face anew"
        )
    height, width = frames.shape[3:]
    to_frame = crop_to_frame(landmarks.detach().double(), size)
    # 1. Reducing averages over the area of a pixel: sample finer, then take means.
    reduction = float(to_frame[..., 0].norm(dim=-1).max())
    finer = min(16, max(1, math.ceil(reduction - 0.3)))
    place = (torch.arange(size * finer, device=frames.device, dtype=torch.float64) + 0.5) / finer
    column, row = place.expand(len(place), -1), place[:, None].expand(-1, len(place))
    grid = torch.stack([column, row, torch.ones_like(row)], dim=-1).flatten(0, 1)
    points = (grid @ to_frame.flatten(0, 1).transpose(1, 2)).unflatten(1, (size * finer, size * finer))
    # 2. grid_sample counts from -1 to 1 between the outer corners.
    points = points * points.new_tensor([2 / width, 2 / height]) - 1
    weights = frames.new_tensor(GREY).view(1, 3, 1, 1)
    grey = ((frames.flatten(0, 1).clamp(-1, 1) + 1) / 2 * weights).sum(1, keepdim=True)
    mouths = F.grid_sample(grey, points.to(grey.dtype), "bilinear", "zeros", align_corners=False)
    if finer > 1:
        mouths = F.avg_pool2d(mouths, finer)
    return mouths.clamp(0, 1).unflatten(0, frames.shape[:2])


def crop_to_frame(landmarks: Tensor, size: int = 88) -> Tensor:
    """The similarities (B, T, 2, 3) from pixels of the crop to pixels of the frame; landmarks (B, T, 68, 2)."""
    smooth = smoothed(landmarks)
    source = torch.view_as_complex(smooth[:, :, STABLE].contiguous())
    target = torch.view_as_complex(smooth.new_tensor(MEAN_FACE))
    # least squares: in the plane, rotation and scale together are one complex factor
    goal = target - target.mean()
    middle = source.mean(-1, keepdim=True)
    spread = goal.abs().square().sum()
    factor = (goal.conj() * (source - middle)).sum(-1) / spread
    lips = torch.view_as_complex(smooth[:, :, 48:68].contiguous()).mean(-1)
    start = lips - factor * complex(size / 2, size / 2)
    rows = [[factor.real, -factor.imag, start.real], [factor.imag, factor.real, start.imag]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def smoothed(landmarks: Tensor) -> Tensor:
    """(B, T, 68, 2): means over up to 2 * REACH + 1 frames, fewer at the ends, moved to each frame's own centre."""
    length = landmarks.shape[1]
    sums = F.pad(landmarks.cumsum(1), (0, 0, 0, 0, 1, 0))
    frame = torch.arange(length, device=landmarks.device)
    reach = torch.minimum(torch.minimum(frame, length - 1 - frame), torch.full_like(frame, REACH))
    means = (sums[:, frame + reach + 1] - sums[:, frame - reach]) / (2 * reach + 1)[:, None, None]
    return means + landmarks.mean(2, keepdim=True) - means.mean(2, keepdim=True)
