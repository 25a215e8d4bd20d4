"""Training crops for the mouth stage, cut on the fly out of renders with exact landmarks.

Every crop is framed as the first stage's mistakes would frame it (shifted, zoomed, rolled), mirrored at random, lit
anew between the lips, and then treated as the crops of whole faces are: covered, relit, tinted, blurred, shrunk,
compressed, made noisy.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from talkface.experts.face_landmarks import apply_similarity
from talkface.experts.faces import warp_crops
from talkface.experts.mouth_network import LIPS, NUM_LIPS, mouth_matrix
from talkface.training.landmark_crops import MIRROR, Picture, Points
from talkface.training.picture_noise import cover_face, dead_leaves, degrade

MIRROR_LIPS: tuple[int, ...] = tuple(place - LIPS.start for place in MIRROR[LIPS])
# Lips that meet, among the 20: upper, lower.
MEETING: tuple[tuple[int, int], ...] = ((13, 19), (14, 18), (15, 17))


@dataclass
class MouthBatch:
    """B crops: images (B, S, S, 3) uint8; points (B, 20, 2) in crop units."""

    images: Picture
    points: NDArray[np.float32]


def meet_at_the_seam(landmarks: Points) -> Points:
    """Lips that the head model presses into each other meet half-way, where the picture shows the seam.

    Args:
        landmarks: (N, 68, 2); a corrected copy is returned.
    """
    result = np.array(landmarks, np.float32)
    down = result[:, 36:48].mean(1) * -1 + result[:, LIPS].mean(1)
    down /= np.linalg.norm(down, axis=1, keepdims=True).clip(1e-6)
    for upper, lower in MEETING:
        above, below = result[:, LIPS.start + upper], result[:, LIPS.start + lower]
        excess = np.minimum(((below - above) * down).sum(1, keepdims=True), 0) / 2
        result[:, LIPS.start + upper] = above + excess * down
        result[:, LIPS.start + lower] = below - excess * down
    return result


def relight_inside(rng: np.random.Generator, picture: Picture, points: Points) -> Picture:
    """Teeth, gums and tongue darker, duller or redder than rendered: in the shade of a lip, teeth look much like it.

    Args:
        picture: (S, S, 3).
        points: (20, 2) lips in pixels.
    """
    shape = np.zeros(picture.shape[:2], np.float32)
    cv2.fillPoly(shape, [np.round(points[12:] * 16 - 8).astype(np.int32)], 1.0, cv2.LINE_8, 4)
    inside = cv2.GaussianBlur(shape, (0, 0), float(rng.uniform(0.5, 1.5)))[..., None]
    gain = np.exp(rng.normal(-0.45, 0.4) + rng.normal(0, 0.12, 3)).astype(np.float32)
    return np.clip(picture * (1 + inside * (gain - 1)), 0, 255).astype(np.uint8)


class MouthSampler:
    """Draws training batches.

    Args:
        images: (N, S, S, 3) uint8 renders around a mouth; a memory map is fine.
        landmarks: (N, 68, 2) pixels, also outside the pictures.
        size: side of the crops.
        seed: the same seed gives the same batches.
    """

    def __init__(self, images: Picture, landmarks: Points, *, size: int, seed: int = 0) -> None:
        self.images, self.landmarks, self.size = images, meet_at_the_seam(landmarks), size
        self.rng = np.random.default_rng(seed)
        self.covers = [dead_leaves(self.rng, size) for _ in range(48)]

    def crops(self, batch_size: int, covered_share: float = 0.15) -> MouthBatch:
        """The next batch; `covered_share` of the mouths have something in front of them."""
        rng, size = self.rng, self.size
        batch = MouthBatch(
            np.empty((batch_size, size, size, 3), np.uint8), np.empty((batch_size, NUM_LIPS, 2), np.float32)
        )
        for row in range(batch_size):
            picture, points = self._mouth(int(rng.integers(len(self.images))))
            if rng.random() < covered_share:
                picture = cover_face(rng, picture, None, self.covers[int(rng.integers(len(self.covers)))])
            batch.images[row] = degrade(rng, picture)
            batch.points[row] = points / size
        return batch

    def _mouth(self, index: int) -> tuple[Picture, Points]:
        rng, size = self.rng, self.size
        exact = mouth_matrix(self.landmarks[index], size)
        angle, zoom = np.deg2rad(rng.normal(0, 7)), np.exp(rng.normal(0, 0.1))
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = size * (0.5 + rng.normal(0, 0.05, 2)) - turn @ np.full(2, size / 2)
        matrix = np.concatenate([turn @ exact[:, :2], (turn @ exact[:, 2] + shift)[:, None]], axis=1)
        picture = warp_crops(self.images[index], [matrix], size)[0]
        points = apply_similarity(matrix, self.landmarks[index, LIPS])
        if rng.random() < 0.35:
            picture = relight_inside(rng, picture, points)
        if rng.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
            points = points[list(MIRROR_LIPS)]
            points[:, 0] = size - points[:, 0]
        return picture, points
