"""How good the pictures of a face are: one number from its size, its sharpness and where it looks.

quality = size x sharpness x pose, each 0 to 1:

    size        source pixels per pixel of the clip, at most 1: below it the clip only enlarges
    sharpness   v / (v + 60), v = variance of the Laplacian of the face's grey levels at a width of 96 pixels
    pose        cos(yaw) cos(pitch), from the head that fits the landmarks (`talkface.head.fit`)

Medians over the frames of the clip. Numbers of one corpus compare; they are not those of a no-reference network.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import torch

from talkface.head import HeadModel
from talkface.head.fit import HeadFitter

FACE_WIDTH = 96
HALF_SHARP = 60.0
"""Variance at which sharpness is one half."""


@dataclass(frozen=True)
class PictureQuality:
    """What is stored with a clip.

    Attributes:
        score: 0 to 1, the product of the three.
        scale: source pixels per pixel of the clip.
        sharpness: variance of the Laplacian.
        yaw, pitch: degrees; positive to the viewer's right, and up.
    """

    score: float
    scale: float
    sharpness: float
    yaw: float
    pitch: float

    def as_meta(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in asdict(self).items()}

    @property
    def weakest(self) -> str:
        """The part that costs most, in words."""
        parts = {
            f"the face is enlarged {1 / max(self.scale, 1e-6):.1f} times": min(1.0, self.scale),
            f"sharpness is {self.sharpness:.0f}": _sharp(self.sharpness),
            f"the head is turned by {self.yaw:.0f} and {self.pitch:.0f} degrees": _frontal(
                self.yaw, self.pitch
            ),
        }
        return min(parts, key=lambda words: parts[words])


def picture_quality(faces: list[np.ndarray], points: np.ndarray, scale: float) -> PictureQuality:
    """Judge some frames of a clip.

    Args:
        faces: uint8 (S, S, 3) pictures of it.
        points: (n, 68, 2) their landmarks.
        scale: source pixels per pixel of the clip.
    """
    sharpness = float(np.median([face_sharpness(*pair) for pair in zip(faces, points, strict=True)]))
    yaw, pitch = (float(angle) for angle in np.median(head_angles(points), axis=0))
    score = min(1.0, scale) * _sharp(sharpness) * _frontal(yaw, pitch)
    return PictureQuality(score, scale, sharpness, yaw, pitch)


def _sharp(variance: float) -> float:
    return variance / (variance + HALF_SHARP)


def _frontal(yaw: float, pitch: float) -> float:
    return max(0.0, float(np.cos(np.deg2rad(yaw)))) * max(0.0, float(np.cos(np.deg2rad(pitch))))


def face_sharpness(picture: np.ndarray, points: np.ndarray) -> float:
    """Variance of the Laplacian inside the landmarks' box, its width brought to 96 pixels."""
    height, width = picture.shape[:2]
    low = np.clip(np.floor(points.min(axis=0)), 0, (width - 2, height - 2)).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)), low + 2, (width, height)).astype(int)
    grey = cv2.cvtColor(picture[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY)
    zoom = FACE_WIDTH / grey.shape[1]
    kind = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    size = (FACE_WIDTH, max(4, round(grey.shape[0] * zoom)))
    return float(cv2.Laplacian(cv2.resize(grey, size, interpolation=kind), cv2.CV_64F).var())


@functools.cache
def _fitter() -> HeadFitter:
    return HeadFitter(HeadModel.load(), rounds=2)


def head_angles(points: np.ndarray) -> np.ndarray:
    """(n, 68, 2) landmarks -> (n, 2) yaw and pitch in degrees; 0, 0 looks into the camera."""
    forward = _fitter()(torch.from_numpy(np.asarray(points, np.float64))).rotation[:, :, 2].double().numpy()
    yaw = np.arctan2(forward[:, 0], forward[:, 2])
    pitch = np.arcsin(np.clip(forward[:, 1], -1, 1))
    return np.rad2deg(np.stack([yaw, pitch], axis=1))
