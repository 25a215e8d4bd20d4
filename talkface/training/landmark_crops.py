"""Training crops for the landmark network, cut on the fly out of renders with exact landmarks.

Renders are clean, photographs are not: every crop is framed at random (rolled, shifted, zoomed, mirrored),
its surroundings are filled, parts of the face are covered (hats, fingers, dark glasses, shapes), and the
picture is relit, tinted, blurred, shrunk, compressed and made noisy. Pictures without a face, and crops that
miss the face, teach the confidence. Whole small scenes teach the proposals. Nothing here touches a real face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from talkface.experts.face_landmarks import apply_similarity, fit_similarity, invert_similarity
from talkface.experts.faces import warp_crops
from talkface.training.picture_noise import cover_face, dead_leaves, degrade

Picture = NDArray[np.uint8]
Points = NDArray[np.floating]

# Where each landmark goes when the picture is mirrored.
MIRROR: tuple[int, ...] = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
)  # fmt: skip


@dataclass
class CropBatch:
    """B crops: images (B, S, S, 3) uint8; points (B, 68, 2) in crop units; has_points (B,) 1 where the points
    are to be learnt; label (B,) 1 face, 0 none, -1 in between; faceless (B,) 1 where no face is anywhere."""

    images: Picture
    points: NDArray[np.float32]
    has_points: NDArray[np.float32]
    label: NDArray[np.float32]
    faceless: NDArray[np.float32]


@dataclass
class SceneBatch:
    """B scenes: images (B, S, S, 3) uint8; centres (B, 2) pixels and sizes (B,) pixels of the crop of the one
    face in each, size 0 where there is none."""

    images: Picture
    centres: NDArray[np.float32]
    sizes: NDArray[np.float32]


def average_shape(landmarks: Points, face_height: float = 0.62) -> NDArray[np.float32]:
    """Mean landmarks after aligning all faces to each other (three rounds of generalised Procrustes).

    Args:
        landmarks: (N, 68, 2).
        face_height: share of the crop that the mean face takes from brows to chin.

    Returns:
        (68, 2) in crop units, upright, mirror-symmetric, the middle of the crop between brows and chin.
    """
    mean = np.asarray(landmarks[0], np.float64)
    for _ in range(3):
        aligned = [apply_similarity(fit_similarity(face, mean), face) for face in landmarks]
        mean = np.mean(aligned, axis=0)
        eyes = mean[42:48].mean(0) - mean[36:42].mean(0)
        angle = np.arctan2(eyes[1], eyes[0])
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        mean = (mean - mean.mean(0)) @ turn.T
        mean = (mean + mean[list(MIRROR)] * [-1, 1]) / 2
    low, high = mean[:, 1].min(), mean[:, 1].max()
    mean[:, 1] -= (low + high) / 2
    return (mean * face_height / (high - low) + 0.5).astype(np.float32)


class CropSampler:
    """Draws training batches.

    Args:
        images: (N, S, S, 3) uint8 renders of one face each; a memory map is fine.
        landmarks: (N, 68, 2) pixels.
        backgrounds: pictures without any face, uint8 (H, W, 3); dead-leaves pictures are added to them.
        mean_shape: (68, 2), see `average_shape`.
        size: side of the crops.
        seed: the same seed gives the same batches.
    """

    def __init__(
        self,
        images: Picture,
        landmarks: Points,
        backgrounds: Sequence[Picture],
        mean_shape: NDArray[np.float32],
        *,
        size: int = 128,
        seed: int = 0,
    ) -> None:
        self.images, self.landmarks, self.size = images, landmarks, size
        self.rng = np.random.default_rng(seed)
        self.mean_shape = mean_shape
        self.mistaken: list[Picture] = []
        # Real pictures are few: the made ones keep them from being learnt by heart.
        made = [dead_leaves(self.rng, 2 * size) for _ in range(max(24, len(backgrounds)))]
        self.backgrounds = [*backgrounds, *made]

    def crops(self, batch_size: int, negative_share: float = 0.25, far_share: float = 0.1) -> CropBatch:
        """A batch for the landmark network."""
        rng, size = self.rng, self.size
        batch = CropBatch(
            np.empty((batch_size, size, size, 3), np.uint8),
            np.zeros((batch_size, 68, 2), np.float32),
            np.zeros(batch_size, np.float32),
            np.zeros(batch_size, np.float32),
            np.zeros(batch_size, np.float32),
        )
        for row in range(batch_size):
            kind = rng.random()
            if kind < negative_share:
                batch.faceless[row] = 1
                picture = self._background(size)
                if len(self.mistaken) >= 32 and rng.random() < 0.5:
                    picture = self._mistaken()
                elif rng.random() < 0.3:
                    picture = cover_face(rng, picture, None, self._background(size))
            else:
                framing = "far" if kind < negative_share + far_share else "close" if kind < 0.65 else "wide"
                picture, points, label = self._face(framing)
                batch.points[row] = points / size
                batch.label[row] = label
                batch.has_points[row] = float(label != 0)
            batch.images[row] = degrade(rng, picture)
        return batch

    def scenes(self, batch_size: int, face_share: float = 0.75) -> SceneBatch:
        """A batch for the proposal network: small faces somewhere in a picture of side `size`."""
        rng, size = self.rng, self.size
        batch = SceneBatch(
            np.empty((batch_size, size, size, 3), np.uint8),
            np.zeros((batch_size, 2), np.float32),
            np.zeros(batch_size, np.float32),
        )
        for row in range(batch_size):
            picture = self._background(size)
            if rng.random() < 0.5:  # a pasted rectangle must not betray the face
                picture = cover_face(rng, picture, None, self._background(size))
            if rng.random() < face_share:
                smallest, largest = (26, 62) if rng.random() < 0.7 else (16, 120)
                side = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
                centre = rng.uniform(0, size, 2)
                index = int(rng.integers(len(self.images)))
                upright = fit_similarity(self.landmarks[index], self.mean_shape * side)
                turn = _rotation(np.deg2rad(rng.normal(0, 20)))
                linear = turn @ upright[:, :2]
                middle = apply_similarity(invert_similarity(upright), np.array([side / 2, side / 2]))
                matrix = np.concatenate([linear, (centre - linear @ middle)[:, None]], axis=1)
                picture = _paste(self.images[index], matrix, picture)
                batch.centres[row], batch.sizes[row] = centre, side
                if rng.random() < 0.5:
                    picture = picture[:, ::-1]
                    batch.centres[row, 0] = size - centre[0]
            batch.images[row] = degrade(rng, picture)
        return batch

    def remember(self, picture: Picture, points: Points) -> None:
        """Keep a faceless crop that was taken for a face, to show it again: hard negatives.

        Args:
            picture: (S, S, 3) uint8.
            points: (68, 2) in crop units, what the network saw; the crop is often framed anew around them,
                because that is what the finder does with a mistake.
        """
        if self.rng.random() < 0.6:
            matrix = fit_similarity(points * self.size, self.mean_shape * self.size)
            if 0.3 < np.hypot(matrix[0, 0], matrix[1, 0]) < 3:
                picture = warp_crops(picture, [matrix], self.size)[0]
        self.mistaken.append(picture.copy())
        del self.mistaken[:-512]

    def _mistaken(self) -> Picture:
        rng, size = self.rng, self.size
        picture = self.mistaken[int(rng.integers(len(self.mistaken)))]
        linear = np.exp(rng.normal(0, 0.12)) * _rotation(rng.normal(0, 0.15))
        shift = size / 2 * (1 + rng.normal(0, 0.08, 2)) - linear @ np.full(2, size / 2)
        picture = warp_crops(picture, [np.concatenate([linear, shift[:, None]], axis=1)], size)[0]
        return np.ascontiguousarray(picture[:, ::-1]) if rng.random() < 0.5 else picture

    def _background(self, size: int) -> Picture:
        rng = self.rng
        picture = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        height, width = picture.shape[:2]
        zoom = size / np.exp(rng.uniform(np.log(24), np.log(1.2 * min(height, width))))
        linear = zoom * _rotation(rng.normal(0, 0.6))
        shift = size / 2 - linear @ (rng.uniform(0.1, 0.9, 2) * [width, height])
        return warp_crops(picture, [np.concatenate([linear, shift[:, None]], axis=1)], size)[0]

    def _face(self, framing: str) -> tuple[Picture, Points, float]:
        """One crop with a face: picture, points in pixels, label."""
        rng, size = self.rng, self.size
        index = int(rng.integers(len(self.images)))
        if framing == "close":
            angle, log_zoom, shift = rng.normal(0, 7), rng.normal(0, 0.08), rng.normal(0, 0.04, 2)
        elif framing == "wide":
            angle = rng.normal(0, 12) if rng.random() < 0.5 else rng.uniform(-60, 60)
            log_zoom, shift = rng.uniform(np.log(0.6), np.log(1.6)), rng.uniform(-0.28, 0.28, 2)
        else:
            angle, log_zoom = rng.uniform(-60, 60), rng.uniform(np.log(0.25), np.log(4))
            shift = rng.uniform(-1, 1, 2)
        upright = fit_similarity(self.landmarks[index], self.mean_shape * size)
        linear = np.exp(log_zoom) * _rotation(np.deg2rad(angle))
        middle = np.full(2, size / 2)
        offset = middle + shift * size - linear @ middle
        matrix = np.concatenate([linear @ upright[:, :2], (linear @ upright[:, 2] + offset)[:, None]], axis=1)
        points = apply_similarity(matrix, self.landmarks[index])
        source = self.images[index]
        if rng.random() < 0.5:
            picture = warp_crops(source, [matrix], size)[0]
        else:
            fill = self._background(size)
            if rng.random() < 0.4:
                fill = np.full_like(fill, rng.integers(0, 256, 3))
            picture = _paste(source, matrix, fill)
        if rng.random() < 0.3:
            picture = cover_face(rng, picture, points, self._background(size))
        if rng.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
            points = points[list(MIRROR)]
            points[:, 0] = size - points[:, 0]
        off, zoomed = float(np.abs(shift).max()), abs(log_zoom)
        if off < 0.3 and zoomed < np.log(1.7):
            label = 1.0
        elif off > 0.5 or zoomed > np.log(2.6):
            label = 0.0
        else:
            label = -1.0
        return picture, points, label


def _paste(source: Picture, matrix: NDArray[np.float64], canvas: Picture) -> Picture:
    """The warped `source` over `canvas`."""
    size = canvas.shape[0]
    warped = warp_crops(source, [matrix], size)[0]
    inside = np.full(source.shape[:2], 255, np.uint8)
    cover = cv2.warpAffine(inside, matrix, (size, size), flags=cv2.INTER_NEAREST)
    return np.where(cover[..., None] > 127, warped, canvas)


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
