"""One face through a film: which face, and where it is in each frame.

Frames without the face stay in their place, so that everything after them keeps in step. Not a recogniser:
people are told apart by place and size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from talkface.portrait.crop import AlignedCrop
from talkface.portrait.smoothing import AlignmentSmoother

SMALLEST_FACE = 32.0  # pixels: below it a 128-pixel crop is mostly interpolation
LARGEST_JUMP = 1.0  # of the face's size while the face was out of sight
FORGET_AFTER = 50  # frames without the face, after which the place it was last seen at says nothing
_INNER_POINTS = slice(17, 68)  # brows, eyes, nose, mouth: what must be in the picture


def face_size(points: np.ndarray) -> float:
    """Larger side of the box around the landmarks (68, 2), pixels."""
    return float((points.max(axis=0) - points.min(axis=0)).max())


def face_defect(picture: np.ndarray, points: np.ndarray) -> str | None:
    """Why the face with these landmarks cannot be made to speak, or None when it can."""
    if not np.isfinite(points).all():
        return "its landmarks are not finite"
    size = face_size(points)
    if size < SMALLEST_FACE:
        return f"the face is only {size:.0f} pixels large; at least {SMALLEST_FACE:.0f} are needed"
    height, width = picture.shape[:2]
    inner = points[_INNER_POINTS]
    outside = (inner < 0).any(axis=1) | (inner[:, 0] > width) | (inner[:, 1] > height)
    if outside.mean() > 0.1:
        return "the face is cut by the border of the picture"
    return None


class FaceTracker:
    """Follows one face; call it with every frame, in order.

    Args:
        finder: a `FaceFinder`: `find(image) -> faces, largest first`, `track(image, previous) -> face |
            None`.
        rank: which face to take where nothing is known yet, 0 = the largest.

    Attributes:
        faces_at_start: how many faces there were where the followed one was first seen.
    """

    def __init__(self, finder: Any, rank: int = 0):
        self._finder, self._rank = finder, rank
        self._now: Any = None
        self._last: Any = None
        self._unseen = 0
        self.faces_at_start = 0

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """Landmarks (68, 2) of the face in uint8 (H, W, 3), or None when it is not there."""
        self._now = self._finder.track(image, self._now) if self._now is not None else None
        if self._now is None:
            self._now = self._choose(self._finder.find(image))
        if self._now is None:
            self._unseen += 1
            return None
        self._last, self._unseen = self._now, 0
        return np.asarray(self._now.points, dtype=np.float32)

    def _choose(self, faces: list[Any]) -> Any:
        if self._last is None or self._unseen > FORGET_AFTER:
            if len(faces) <= self._rank:
                return None
            self.faces_at_start = self.faces_at_start or len(faces)
            return faces[self._rank]
        place, size = self._last.points.mean(axis=0), face_size(self._last.points)

        def distance(face: Any) -> float:
            return float(np.linalg.norm(face.points.mean(axis=0) - place)) / size

        near = [face for face in faces if 0.5 < face_size(face.points) / size < 2.0]
        nearest = min(near, key=distance, default=None)
        return nearest if nearest is not None and distance(nearest) < LARGEST_JUMP else None


def follow_face(
    pictures: Iterable[np.ndarray], finder: Any, rank: int, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None, AlignedCrop | None]]:
    """For every picture: itself, the landmarks (68, 2) and the steady crop of side `size`, or None and None.

    A handful of pictures is in memory, however many there are.
    """
    tracker = FaceTracker(finder, rank)
    waiting: deque[tuple[np.ndarray, np.ndarray | None]] = deque()

    def landmarks() -> Iterator[np.ndarray | None]:
        for picture in pictures:
            points = tracker(picture)
            if points is not None and face_defect(picture, points) is not None:
                points = None
            waiting.append((picture, points))
            yield points

    for matrix in AlignmentSmoother(size)(landmarks()):
        picture, points = waiting.popleft()
        crop = None if matrix is None else AlignedCrop.from_matrix(picture, matrix, size)
        yield picture, points, crop
