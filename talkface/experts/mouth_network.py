"""The second look: a small network that places the 20 lip points in a close crop of the mouth.

The landmark network sees the mouth of a 128-pixel face on about 25 pixels and reads its maps at an eighth of that:
too coarse for the line between lip and teeth. This network sees the mouth alone, on about 35 pixels, and reads its
maps at a quarter (soft-argmax + regressed residual + Laplace scale, as `LandmarkNetwork`). It does not find faces:
`NetworkFaceFinder` cuts its crop by the first network's points. Trained on renders by `talkface.training.mouth`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from talkface.experts.face_landmarks import FloatArray
from talkface.experts.landmark_network import ConvNorm, Stage, soft_argmax

NUM_LIPS = 20
LIPS = slice(48, 68)
"""The lip points among the 68."""
CROP_WIDTHS, EYES_TO_MOUTH = 1.1, 1.2


@dataclass
class MouthPrediction:
    """Output for B crops.

    Attributes:
        points: (B, 20, 2), landmarks 48 to 67 in units of the crop: (0, 0) its upper left corner, (1, 1) the lower
            right one; values outside lie outside the crop.
        log_scale: (B, 20) natural logarithm of the Laplace scale, in the same unit.
        maps: (B, 20, H, W) heat maps before the softmax, H = W = image_size / 4.
    """

    points: Tensor
    log_scale: Tensor
    maps: Tensor


class MouthNetwork(nn.Module):
    """Crops made by `mouth_matrix` to 20 lip points and their scales.

    Args:
        channels: widths at 1/2, 1/4, 1/8 and 1/16 of the crop.
        blocks: residual blocks at each of these resolutions.
        image_size: side of the crops in pixels, divisible by 16.
    """

    def __init__(
        self,
        *,
        channels: tuple[int, int, int, int] = (16, 36, 72, 112),
        blocks: tuple[int, int, int, int] = (0, 1, 2, 2),
        image_size: int = 64,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        a, b, c, d = channels
        self.stem = Stage(3, a, blocks[0])
        self.quarter = Stage(a, b, blocks[1])
        self.eighth = Stage(b, c, blocks[2])
        self.sixteenth = Stage(c, d, blocks[3])
        self.to_eighth = nn.Sequential(ConvNorm(d, c, kernel=1), nn.ReLU())
        self.merge_eighth = nn.Sequential(ConvNorm(c, c), nn.ReLU())
        self.to_quarter = nn.Sequential(ConvNorm(c, b, kernel=1), nn.ReLU())
        self.merge_quarter = nn.Sequential(ConvNorm(b, b), nn.ReLU())
        self.maps = nn.Conv2d(b, NUM_LIPS, 1)
        self.squeeze = nn.Sequential(
            ConvNorm(d, 24, kernel=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
        )
        self.hidden = nn.Sequential(nn.Linear(24 * 16, 128), nn.ReLU())
        self.residual = nn.Linear(128, NUM_LIPS * 2)
        self.log_scale = nn.Linear(128, NUM_LIPS)
        for head in (self.residual, self.log_scale):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        nn.init.constant_(self.log_scale.bias, -2.5)

    def forward(self, crops: Tensor) -> MouthPrediction:
        """(B, 3, image_size, image_size) in [-1, 1] -> MouthPrediction in float32."""
        quarter = self.quarter(self.stem(crops))
        eighth = self.eighth(quarter)
        deep = self.sixteenth(eighth)
        wide = self.merge_eighth(eighth + F.interpolate(self.to_eighth(deep), size=eighth.shape[2:]))
        fine = self.merge_quarter(quarter + F.interpolate(self.to_quarter(wide), size=quarter.shape[2:]))
        maps = self.maps(fine)
        hidden = self.hidden(self.squeeze(deep))
        return MouthPrediction(
            points=soft_argmax(maps) + self.residual(hidden).float().unflatten(1, (NUM_LIPS, 2)),
            log_scale=self.log_scale(hidden).float().clamp(-7.0, 1.0),
            maps=maps,
        )


def mouth_matrix(points: FloatArray, size: int) -> NDArray[np.float64]:
    """Picture -> mouth crop: upright with the eyes, centred on the lips.

    The side is 1.1 times the outer-eye distance, or of what the distance from eyes to mouth says where that is more:
    eyes close up on a turned face, and an open jaw wants room.

    Args:
        points: (68, 2) landmarks in pixels of the picture; rough ones will do.
        size: side of the crop in pixels.

    Returns:
        (2, 3) similarity.
    """
    points = np.asarray(points, np.float64)
    lips, eyes = points[LIPS].mean(0), points[36:48].mean(0)
    along = points[42:48].mean(0) - points[36:42].mean(0)
    angle = np.arctan2(along[1], along[0])
    wide = float(np.linalg.norm(points[45] - points[36]))
    side = CROP_WIDTHS * max(wide, EYES_TO_MOUTH * float(np.linalg.norm(lips - eyes)), 1.0)
    zoom = size / side
    linear = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.concatenate([linear, (size / 2 - linear @ lips)[:, None]], axis=1)
