"""What sync experts look at: the mouth, the lower half of the face or all of it, cut out by landmarks.

The warp is a similarity (upright with the eyes), applied with `grid_sample`, so gradients reach the frames. The place
of the crop is smoothed over time: jitter of the landmarks would be motion of the lips.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.errors import TalkfaceError

REGIONS = ("mouth", "lower half", "face")
SMOOTHING = 2.0
"""Standard deviation in frames of the Gaussian that smooths the place of the crop."""
_MOUTH, _EYES_TO_MOUTH = 1.1, 1.2  # as talkface.experts.mouth_network frames a mouth
_DETECTED = 1.25  # side of a detector's box in distances from brows to chin
_AROUND = 0.4  # by how much SyncNet's preparation widens it


def smooth(values: Tensor, deviation: float = SMOOTHING) -> Tensor:
    """Gaussian mean over time, the ends repeated: (B, T, C) -> (B, T, C)."""
    reach = max(1, round(3 * deviation))
    steps = torch.arange(-reach, reach + 1, device=values.device, dtype=values.dtype)
    kernel = torch.exp(-0.5 * (steps / deviation) ** 2)
    padded = F.pad(values.transpose(1, 2), (reach, reach), mode="replicate")
    return (padded.unfold(2, 2 * reach + 1, 1) * (kernel / kernel.sum())).sum(-1).transpose(1, 2)


def crop_frames(landmarks: Tensor, region: str) -> Tensor:
    """Where each crop lies.

    Args:
        landmarks: (B, T, 68, 2) in pixels of the frames.
        region: "mouth" = a square around the lips as wide as the eyes; "lower half" = about that of a detector's box;
            "face" = about that box widened as SyncNet's preparation does, to the sides and below.

    Returns:
        (B, T, 6): centre x, y; half of its width along x, y; half of its height along x, y.

    Raises:
        TalkfaceError: landmarks of another shape or not finite, or an unknown region.
    """
    if landmarks.dim() != 4 or landmarks.shape[2:] != (68, 2):
        raise TalkfaceError(
            f"landmarks: shape {tuple(landmarks.shape)}; allowed (B, T, 68, 2) in pixels of the frames"
        )
    if not bool(torch.isfinite(landmarks).all()):
        raise TalkfaceError("landmarks: not finite in some frame; leave frames without a face out")
    points = landmarks.detach().float()
    eyes = points[:, :, 36:48].mean(2)
    along = points[:, :, 42:48].mean(2) - points[:, :, 36:42].mean(2)
    along = along / along.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    down = torch.stack([-along[..., 1], along[..., 0]], dim=-1)
    if region == "mouth":
        centre = points[:, :, 48:68].mean(2)
        wide = (points[:, :, 45] - points[:, :, 36]).norm(dim=-1)
        side = _MOUTH * torch.maximum(wide, _EYES_TO_MOUTH * (centre - eyes).norm(dim=-1))
        half = torch.stack([side / 2, side / 2], dim=-1)
    elif region in REGIONS:
        brows, chin = points[:, :, 17:27].mean(2), points[:, :, 8]
        high = ((chin - brows) * down).sum(-1)
        side = _DETECTED * high
        # of a detector's box the chin is near the lower border
        centre = chin - down * (0.5 * side - 0.05 * high)[..., None]
        if region == "lower half":
            centre = centre + down * (side / 4)[..., None]
            half = torch.stack([side / 2, side / 4], dim=-1)
        else:  # the box and 40 % of its half side around, below twice that, above nothing
            centre = centre + down * (0.5 * _AROUND * side)[..., None]
            half = torch.stack([(1 + _AROUND) * side / 2] * 2, dim=-1)
    else:
        raise TalkfaceError(f"region: {region!r}; allowed {', '.join(REGIONS)}")
    half = half.clamp(min=1.0)
    return smooth(torch.cat([centre, along * half[..., :1], down * half[..., 1:]], dim=-1))


def cut_crops(frames: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """The crops at these places.

    Args:
        frames: (B, T, C, H, W), any range.
        places: (B, T, 6) of `crop_frames`.
        size: height and width of the crops.

    Returns:
        (B, T, C, *size); what lies outside a frame repeats its border. Crops much smaller than what they show are
        averaged down, so that nothing aliases.
    """
    batch, count, _, height, width = frames.shape
    # drawn larger by a whole factor, then averaged
    zoom = 2 * places[..., 2:4].norm(dim=-1).mean() / size[1]
    fold = int(zoom.round().clamp(1, 8))
    rows, columns = size[0] * fold, size[1] * fold
    u = (torch.arange(columns, device=frames.device) + 0.5) / columns * 2 - 1
    v = (torch.arange(rows, device=frames.device) + 0.5) / rows * 2 - 1
    centre, right, below = (places.reshape(-1, 1, 1, 3, 2)[..., k, :] for k in range(3))
    grid = centre + right * u[None, None, :, None] + below * v[None, :, None, None]
    # continuous pixels (the first pixel's centre is 0.5) to grid_sample's -1..1
    extent = torch.tensor([width, height], device=frames.device, dtype=grid.dtype)
    crops = F.grid_sample(
        frames.flatten(0, 1),
        (2 * grid / extent - 1).to(frames.dtype),
        padding_mode="border",
        align_corners=False,
    )
    if fold > 1:
        crops = F.avg_pool2d(crops, fold)
    return crops.unflatten(0, (batch, count))
