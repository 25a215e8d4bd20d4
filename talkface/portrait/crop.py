"""The canonical face crop and the transform that leads to it and back.

A similarity transform (Umeyama, "Least-squares estimation of transformation parameters between two point
patterns", PAMI 1991, eq. 39-43) brings three anchors of the 68 landmarks - both eye centres and the nose
base, which speech does not move - to fixed places of a square. Not a face detector, and no 3D rotation.

Coordinates are continuous: the centre of the top-left pixel is (0.5, 0.5). Points are x, y.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from talkface.errors import TalkfaceError

# places of the image-left eye centre, the image-right eye centre and the nose base, relative to the square
ANCHORS = np.array([[0.365, 0.36], [0.635, 0.36], [0.5, 0.554]])


def anchor_points(points: np.ndarray) -> np.ndarray:
    """(68, 2) landmarks -> (3, 2): eye centre (36-41), eye centre (42-47), nose base (31-35)."""
    points = np.asarray(points, dtype=np.float64)
    if points.shape != (68, 2):
        raise ValueError(f"landmarks must be (68, 2); got {points.shape}")
    return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[31:36].mean(axis=0)])


def alignment_matrix(points: np.ndarray, size: int) -> np.ndarray:
    """The (2, 3) float64 similarity from source pixels to the pixels of a crop of `size`.

    Raises:
        TalkfaceError: the landmarks are not finite or lie on one spot.
    """
    source = anchor_points(points)
    target = ANCHORS * size
    if not np.isfinite(source).all():
        raise TalkfaceError("the landmarks of the face are not finite; use another picture")
    centred = source - source.mean(axis=0)
    spread = (centred**2).sum()
    if spread < 1e-6:
        raise TalkfaceError("the landmarks of the face lie on one spot; use a larger picture of the face")
    goal = target - target.mean(axis=0)
    # in two dimensions the best rotation and scale together are one complex division
    real = (centred * goal).sum() / spread
    imaginary = (centred[:, 0] * goal[:, 1] - centred[:, 1] * goal[:, 0]).sum() / spread
    turn = np.array([[real, -imaginary], [imaginary, real]])
    return np.column_stack([turn, target.mean(axis=0) - turn @ source.mean(axis=0)])


def invert(matrix: np.ndarray) -> np.ndarray:
    """Inverse of an affine (2, 3) matrix, float64."""
    turn = np.linalg.inv(matrix[:, :2])
    return np.column_stack([turn, -turn @ matrix[:, 2]])


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply an affine (2, 3) matrix to (..., 2) points; float64."""
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def random_jitter(
    generator: np.random.Generator | int,
    shift: float = 0.02,
    scale: float = 0.04,
    degrees: float = 3.0,
) -> np.ndarray:
    """A small random similarity (2, 3) of the unit square about its middle, to vary crops in training.

    Args:
        generator: or a seed. Draw once per clip, or the face trembles.
        shift, scale, degrees: standard deviations: of each coordinate in crop sizes, of the logarithm of the
            scale, of the rotation. Draws beyond two deviations are clipped.
    """
    rng = np.random.default_rng(generator)
    draws = np.clip(rng.standard_normal(4), -2, 2)
    factor = np.exp(scale * draws[2])
    angle = np.deg2rad(degrees) * draws[3]
    turn = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([0.5, 0.5])
    return np.column_stack([turn, middle - turn @ middle + shift * draws[:2]])


def warp(image: np.ndarray, matrix: np.ndarray, height: int, width: int, border: int) -> np.ndarray:
    """Resample `image` under `matrix` (source -> output pixels) without aliasing.

    Enlarging is cubic; reducing averages over the area that each output pixel covers, by warping to a finer
    grid first. Outside the picture: `border`, an OpenCV border type.

    Args:
        image: uint8 or float32, (H, W) or (H, W, C).
    """
    reduction = 1 / np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    finer = int(min(np.ceil(reduction - 0.05), 16)) if reduction > 1.05 else 1
    fine = matrix * finer
    # OpenCV counts from pixel centres
    shifted = fine.copy()
    shifted[:, 2] += fine[:, :2] @ (0.5, 0.5) - 0.5
    interpolation = cv2.INTER_CUBIC if finer == 1 else cv2.INTER_LINEAR
    size = (width * finer, height * finer)
    warped = cv2.warpAffine(image, shifted, size, flags=interpolation, borderMode=border)
    return warped if finer == 1 else cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True, eq=False)
class AlignedCrop:
    """A square cut out of a picture, and where it came from.

    Attributes:
        image: uint8 (size, size, 3) RGB; beyond the border of the source it is mirrored.
        matrix: (2, 3) float64, source pixels -> crop pixels.
        size: side of the square in pixels.
        source_size: (height, width) of the source.
    """

    image: np.ndarray
    matrix: np.ndarray
    size: int
    source_size: tuple[int, int]

    @classmethod
    def from_landmarks(
        cls, image: np.ndarray, points: np.ndarray, size: int = 128, jitter: np.ndarray | None = None
    ) -> AlignedCrop:
        """Cut the canonical square around 68 landmarks.

        Args:
            image: uint8 (H, W, 3) RGB.
            points: (68, 2) pixels of `image`.
            jitter: (2, 3) transform of the unit square, see `random_jitter`; None for the canonical crop.

        Raises:
            TalkfaceError: the landmarks make no face.
        """
        matrix = alignment_matrix(points, size)
        if jitter is not None:
            scaled = np.column_stack([jitter[:, :2], jitter[:, 2] * size])
            matrix = np.column_stack([scaled[:, :2] @ matrix[:, :2], transform(scaled, matrix[:, 2])])
        return cls.from_matrix(image, matrix, size)

    @classmethod
    def from_matrix(cls, image: np.ndarray, matrix: np.ndarray, size: int = 128) -> AlignedCrop:
        """Cut with a given (2, 3) transform from source to crop pixels, for example a smoothed one."""
        matrix = np.array(matrix, dtype=np.float64)
        pixels = warp(image, matrix, size, size, cv2.BORDER_REFLECT)
        return cls(pixels, matrix, size, (image.shape[0], image.shape[1]))

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) source pixels -> crop pixels, float64."""
        return transform(self.matrix, points)

    def to_source(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) crop pixels -> source pixels, float64; the inverse of `to_crop`."""
        return transform(invert(self.matrix), points)

    @property
    def scale(self) -> float:
        """Source pixels per crop pixel; above 1 the crop shows less detail than the source."""
        return float(1 / np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    @property
    def coverage(self) -> float:
        """Share of the square that lies inside the source picture, 0 to 1."""
        height, width = self.source_size
        corners = np.array([[0, 0], [self.size, 0], [self.size, self.size], [0, self.size]])
        square = self.to_source(corners).astype(np.float32)
        picture = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
        area, _ = cv2.intersectConvexConvex(square, picture)
        return float(min(1.0, area / (self.size * self.scale) ** 2))
