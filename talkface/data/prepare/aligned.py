"""Steps that sets of pictures share: reading a file, finding the face that is meant, cutting it out aligned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from talkface.data.finding import Finder
from talkface.data.prepare.source import Rejected
from talkface.errors import TalkfaceError
from talkface.media import read_image
from talkface.portrait.crop import AlignedCrop

SEARCH_SIDE = 320
"""Longer sides of the part around one face are shrunk to this many pixels; the finder looks at the face with 128."""
ALIGNMENTS = ("canonical", "compat")
Box = tuple[float, float, float, float]
"""x, y, width, height in pixels."""


def read_picture(raw: Path, file: str) -> np.ndarray:
    """uint8 (H, W, 3) of a file below `raw`.

    Raises:
        Rejected: it is missing, empty, damaged or no picture.
    """
    path = raw / file
    if not path.is_file():
        raise Rejected("read", "the file is missing")
    try:
        return read_image(path)
    except TalkfaceError as error:
        raise Rejected("read", str(error).replace(str(path), file)) from error


def all_faces(image: np.ndarray, finder: Finder, longest: int) -> list[tuple[np.ndarray, float]]:
    """Landmarks (68, 2) float64 in pixels of `image` and score of every face, as the finder orders them.

    Args:
        longest: the finder sees the picture with its longer side shrunk to this many pixels.
    """
    zoom = min(1.0, longest / max(image.shape[:2]))
    small = image
    if zoom < 1:
        small = np.asarray(cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), np.uint8)
    scale = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]])
    return [(np.asarray(face.points, np.float64) * scale, float(face.score)) for face in finder.find(small)]


def face_in_box(image: np.ndarray, box: Box, finder: Finder) -> np.ndarray:
    """Landmarks (68, 2) float32 of the face in a box, in pixels of `image`.

    The finder sees the box and half its size around it, so that large pictures cost no more than small ones and
    neighbours are not mistaken for the face.

    Raises:
        Rejected: nobody is found there.
    """
    height, width = image.shape[:2]
    x, y, wide, high = box
    if wide <= 1 or high <= 1:
        x, y, wide, high = 0.0, 0.0, float(width), float(height)
    left, top = (max(0, int(start - side / 2)) for start, side in ((x, wide), (y, high)))
    right, bottom = min(width, int(x + 1.5 * wide) + 1), min(height, int(y + 1.5 * high) + 1)
    if right - left < 4 or bottom - top < 4:
        raise Rejected("landmarks", "the box of the face lies outside the picture")
    part = np.ascontiguousarray(image[top:bottom, left:right])
    corner = np.array([left, top])
    faces = [(points + corner, score) for points, score in all_faces(part, finder, SEARCH_SIDE)]
    if not faces:
        raise Rejected("landmarks", "no face found")
    points, score = max(faces, key=lambda face: _overlap(face[0], (x, y, wide, high)))
    if _overlap(points, (x, y, wide, high)) < 0.2:
        raise Rejected("landmarks", "no face found in the box", score)
    return points.astype(np.float32)


def _overlap(points: np.ndarray, box: Sequence[float]) -> float:
    """Share of the landmarks' bounding box that lies in the box."""
    low, high = points.min(axis=0), points.max(axis=0)
    start, end = np.array(box[:2]), np.array(box[:2]) + box[2:]
    inside = np.clip(np.minimum(high, end) - np.maximum(low, start), 0, None).prod()
    return float(inside / max(float((high - low).prod()), 1e-6))


def cut_face(image: np.ndarray, points: np.ndarray, size: int, alignment: str = "canonical") -> AlignedCrop:
    """The square of one face.

    Args:
        points: landmarks (68, 2) in pixels of `image`.
        size: side of the square in pixels.
        alignment: "canonical", turned and scaled to fixed places of eyes and nose; "compat", the upright square
            around the landmarks, the thesis's crop without its rotation.

    Raises:
        Rejected: the landmarks make no face.
    """
    try:
        if alignment == "canonical":
            return AlignedCrop.from_landmarks(image, points, size=size)
    except TalkfaceError as error:
        raise Rejected("align", str(error)) from error
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    side = float((high - low).max())
    if not np.isfinite(side) or side < 2:
        raise Rejected("align", "the landmarks of the face lie on one spot")
    corner = (low + high) / 2 - side / 2
    zoom = size / side
    return AlignedCrop.from_matrix(
        image, np.array([[zoom, 0, -zoom * corner[0]], [0, zoom, -zoom * corner[1]]]), size
    )
