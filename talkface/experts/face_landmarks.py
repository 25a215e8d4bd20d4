"""What every face finder returns, and the plane geometry that they share.

A face is 68 points in the iBUG order (Sagonas et al., "300 Faces in-the-Wild Challenge", ICCVW 2013): jaw
0-16, brows 17-26, nose 27-35, eyes 36-47, outer lips 48-59, inner lips 60-67; "right" parts of the person
first, so that they lie on the left of the picture. Coordinates are continuous pixels: (0, 0) is the corner
of the picture, (0.5, 0.5) the centre of its first pixel.

Similarity transforms are fitted in closed form (Umeyama, "Least-squares estimation of transformation
parameters between two point patterns", TPAMI 1991). The crop that a generator works in is another matter: it
is made in `talkface.portrait`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talkface.errors import TalkfaceError

FloatArray = NDArray[np.floating]
NUM_LANDMARKS = 68


@dataclass(frozen=True)
class FaceLandmarks:
    """One face.

    Attributes:
        points: (68, 2) float32, x then y in pixels of the picture.
        scale: (68,) float32, predicted standard deviation of each point in pixels (0 = exact).
        score: how sure the finder is that this is a face, 0 to 1.
        box: (4,) float32, x0, y0, x1, y1: the bounding box of the points (brows to chin, no hair).
    """

    points: FloatArray
    scale: FloatArray
    score: float
    box: FloatArray

    @classmethod
    def from_points(
        cls, points: FloatArray, scale: FloatArray | None = None, score: float = 1.0
    ) -> FaceLandmarks:
        """A face whose box is the bounding box of its points.

        Raises:
            TalkfaceError: `points` is not (68, 2) or holds a value that is not finite.
        """
        points = np.asarray(points, dtype=np.float32)
        if points.shape != (NUM_LANDMARKS, 2) or not np.isfinite(points).all():
            raise TalkfaceError(
                f"landmarks: shape {points.shape}; allowed (68, 2) finite numbers, x then y in pixels; "
                "check the file or the array they come from"
            )
        scale = np.zeros(NUM_LANDMARKS, np.float32) if scale is None else np.asarray(scale, np.float32)
        box = np.concatenate([points.min(0), points.max(0)])
        return cls(points, scale, float(score), box)

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


class FaceFinder(ABC):
    """Finds the faces of a picture and follows one of them through a film."""

    @abstractmethod
    def find(self, image: NDArray[np.uint8]) -> list[FaceLandmarks]:
        """All faces of `image` (H, W, 3) uint8 RGB, largest first; an empty list when there is none."""

    def track(self, image: NDArray[np.uint8], previous: FaceLandmarks) -> FaceLandmarks | None:
        """The face of the last frame in this frame, or None when it is lost.

        This version finds all faces and takes the one that overlaps most with `previous`.
        """
        faces = self.find(image)
        overlaps = [overlap(face.box, previous.box) for face in faces]
        if not overlaps or max(overlaps) < 0.2:
            return None
        return faces[int(np.argmax(overlaps))]


class KnownLandmarks(FaceFinder):
    """A finder for pictures whose landmarks are already known (a sidecar file, an exact render).

    Args:
        points: (68, 2), or (faces, 68, 2) for several faces. Every picture gets the same answer.
    """

    def __init__(self, points: FloatArray) -> None:
        points = np.asarray(points, dtype=np.float32)
        faces = [FaceLandmarks.from_points(face) for face in (points if points.ndim == 3 else points[None])]
        self.faces = sorted(faces, key=lambda face: -face.area)

    def find(self, image: NDArray[np.uint8]) -> list[FaceLandmarks]:
        check_image(image)
        return list(self.faces)


def check_image(image: NDArray[np.uint8]) -> None:
    """Raises TalkfaceError unless `image` is (H, W, 3) uint8 with at least one pixel."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise TalkfaceError(
            f"picture for the face finder: {what}; allowed uint8 (height, width, 3) RGB; "
            "read it with talkface.media.read_image"
        )
    if image.size == 0:
        raise TalkfaceError(f"picture for the face finder: shape {image.shape}; allowed at least one pixel")


def overlap(box: FloatArray, other: FloatArray) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1), 0 to 1."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    total = float(np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2])) - shared
    return shared / total if total > 0 else 0.0


def suppress_overlaps(
    boxes: Sequence[FloatArray], scores: Sequence[float], limit: float = 0.4, contained: float = 0.7
) -> list[int]:
    """Greedy non-maximum suppression.

    Args:
        boxes: N boxes x0, y0, x1, y1.
        scores: N numbers, higher is better.
        limit: a box is dropped when it overlaps a better one by more than this (intersection over union).
        contained: it is also dropped when the smaller of the two lies in the larger by more than this share,
            because a face has no face inside it; above 1 this rule is off.

    Returns:
        Indices of the boxes that stay, best first.
    """
    kept: list[int] = []
    edges = np.asarray(boxes, np.float64).reshape(-1, 4)
    areas = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    for index in np.argsort(-np.asarray(scores), kind="stable"):
        low = np.maximum(edges[index, :2], edges[kept, :2])
        high = np.minimum(edges[index, 2:], edges[kept, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        union, smaller = areas[index] + areas[kept] - shared, np.minimum(areas[index], areas[kept])
        if (shared <= limit * union).all() and (shared <= contained * smaller).all():
            kept.append(int(index))
    return kept


def fit_similarity(source: FloatArray, target: FloatArray) -> NDArray[np.float64]:
    """The similarity (rotation, scale, shift; no mirror) that takes `source` to `target` with least squares.

    Args:
        source, target: (N, 2) points, N >= 2.

    Returns:
        (2, 3) matrix M with target ~ source @ M[:, :2].T + M[:, 2].

    Raises:
        TalkfaceError: all source points coincide.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    spread = float((a * a).sum())
    if spread < 1e-12:
        raise TalkfaceError("points to align: all at one place; allowed at least two different points")
    # In the plane, rotation and scale are one complex number: the regression coefficient of b on a.
    real = float((a * b).sum()) / spread
    imaginary = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / spread
    linear = np.array([[real, -imaginary], [imaginary, real]])
    return np.concatenate([linear, (target_mean - linear @ source_mean)[:, None]], axis=1)


def invert_similarity(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The (2, 3) inverse of a (2, 3) affine map."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -(linear @ matrix[:, 2])[:, None]], axis=1)


def apply_similarity(matrix: NDArray[np.float64], points: FloatArray) -> NDArray[np.float64]:
    """Map (..., 2) points by a (2, 3) matrix."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
