"""A face on its way through expression editing: cut out, shrunk for the network, changed, pasted back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.errors import TalkfaceError
from talkface.media import to_uint8
from talkface.pipelines.expression import Expression
from talkface.pipelines.face_guide import crop_factor
from talkface.pipelines.face_painter import keep_colours
from talkface.pipelines.sources import find_in_picture
from talkface.portrait.blend import face_mask, mouth_area, paste
from talkface.portrait.crop import AlignedCrop, alignment_matrix
from talkface.portrait.toning import toning_of

SMALLEST_PICTURE = 32


@dataclass(frozen=True, eq=False)
class Face:
    """A face cut out of a picture.

    Attributes:
        picture: uint8 (H, W, 3).
        crop: a whole number of times the network's size.
        mask: float32, how much of an edited crop is shown in the picture.
        faces: how many the picture shows; 0 where nobody looked.
        points: landmarks (68, 2) in pixels of the crop; None where nobody looked, or nothing was found.
    """

    picture: np.ndarray
    crop: AlignedCrop
    mask: np.ndarray
    faces: int
    points: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class EditedPicture:
    """An edited picture.

    Attributes:
        image: uint8 (H, W, 3), the whole picture.
        face: uint8 (S, S, 3), the square face, S a whole number of times the network's size.
        network_face: uint8 (s, s, 3), what the network alone makes of it.
        source, target: from what to what.
    """

    image: np.ndarray
    face: np.ndarray
    network_face: np.ndarray
    source: Expression
    target: Expression


def whole_face(picture: np.ndarray, name: str, size: int, finder: Any = None) -> Face:
    """A picture that is a face already, cut as `AlignedCrop` does.

    Args:
        name: for messages.
        size: of the network's pictures; the crop is a whole number of times as large.
        finder: looks for the landmarks; None: nobody does.

    Raises:
        TalkfaceError: it is not square, or too small.
    """
    height, width = picture.shape[:2]
    if height != width or height < SMALLEST_PICTURE:
        raise TalkfaceError(
            f"{name}: {width} x {height} pixels; an aligned picture must be square, {SMALLEST_PICTURE} "
            "pixels or more a side; leave --aligned out to have the face found"
        )
    side = size * max(1, round(height / size))
    matrix = np.array([[side / height, 0.0, 0.0], [0.0, side / height, 0.0]])
    whole = AlignedCrop.from_matrix(picture, matrix, side)
    found = [] if finder is None else finder.find(whole.image)
    points = np.asarray(found[0].points, np.float32) if found else None
    return Face(picture, whole, np.ones((side, side), np.float32), 0, points)


def cut_face(picture: np.ndarray, name: str, size: int, finder: Any, rank: int) -> Face:
    """Find a face, the largest at rank 0, and cut it out, a whole number of times as large as `size`.

    Raises:
        TalkfaceError: no usable face.
    """

    def side(points: np.ndarray) -> int:
        scale = 1 / np.sqrt(np.linalg.det(alignment_matrix(points, size)[:, :2]))
        return size * crop_factor(float(scale))

    found = find_in_picture(name, picture, finder, rank, side)
    return Face(picture, found.crop, face_mask(size), found.faces, found.crop.to_crop(found.points))


def shrunk(image: Tensor, size: int) -> Tensor:
    """(1, 3, S, S), S a multiple of `size` -> (1, 3, size, size), as the network sees it."""
    factor = image.shape[-1] // size
    return F.avg_pool2d(image, factor) if factor > 1 else image


def laid_over(
    face: Face, under: Tensor, edited: Tensor, plain: Tensor, source: Expression, target: Expression
) -> EditedPicture:
    """The picture with what the network changed.

    Args:
        under: (1, 3, S, S), the face or its guide, at the size of the crop.
        edited, plain: (1, 3, s, s), decoded after the edit and without it; their difference is the change.
    """
    free = torch.from_numpy(mouth_area(edited.shape[-1]))[None, None]
    change = keep_colours((edited - plain).cpu(), free)
    change = F.interpolate(change, size=(face.crop.size, face.crop.size), mode="bicubic", align_corners=False)
    crop, toning = to_uint8(under + change)[0], toning_of(face.crop.image)
    if toning is not None:
        crop = toning(crop)
    image = paste(face.picture, crop, face.crop, face.mask)
    return EditedPicture(image, crop, to_uint8(edited)[0], source, target)
