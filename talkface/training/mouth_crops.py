"""Training crops for the mouth stage, cut on the fly out of renders with exact landmarks.

Every crop is framed as the first stage's mistakes would frame it (shifted, zoomed, rolled), mirrored at random, lit
anew about the lips, and then, mostly, treated as the crops of whole faces are: covered, relit, tinted, blurred, shrunk,
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
# Share of crops that are blurred a little and not spoilt in other ways: most photographs are good.
GENTLE = 0.35
# Outlines of the lips and their edges towards each other, among the 20.
UPPER_LIP = [0, 1, 2, 3, 4, 5, 6, 16, 15, 14, 13, 12]
LOWER_LIP = [6, 7, 8, 9, 10, 11, 0, 12, 19, 18, 17, 16]
UPPER_EDGE, LOWER_EDGE = [12, 13, 14, 15, 16], [12, 19, 18, 17, 16]


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


def relight(rng: np.random.Generator, picture: Picture, points: Points) -> Picture:
    """Lips, teeth and corners of the mouth as light and faces make them, and renders do not.

    Teeth, gums and tongue are darker, duller, yellower or redder than rendered (in the shade of a lip, teeth look much
    like it), and darkest under the upper lip; one lip is darker than the other; a dark line runs where they meet, and
    beyond the corners it may go on as a crease of the skin, which is no part of the mouth.

    Args:
        picture: (S, S, 3).
        points: (20, 2) lips in pixels.
    """
    result = picture.astype(np.float32)
    unit = float(np.linalg.norm(points[6] - points[0])) / 30  # a pixel of a mouth that is 30 wide
    if rng.random() < 0.6:
        result = relight_inside(rng, result, points, unit)
    if rng.random() < 0.5:
        for lip, mean in ((UPPER_LIP, -0.12), (LOWER_LIP, 0.05)):
            gain = np.exp(rng.normal(mean, 0.18) + np.array([0.5, -0.3, -0.2]) * rng.normal(0.05, 0.2))
            result *= 1 + _within(picture, points[lip], unit * rng.uniform(0.3, 1.2)) * (gain - 1)
    if rng.random() < 0.4:
        edge = points[UPPER_EDGE] if rng.random() < 0.7 else points[LOWER_EDGE]
        result = _dark_line(rng, result, edge, unit * rng.uniform(0.4, 1.6), float(rng.uniform(0.0, 0.6)))
    if rng.random() < 0.5:
        result = crease_corners(rng, result, points, unit)
    return np.clip(result, 0, 255).astype(np.uint8)


def relight_inside(
    rng: np.random.Generator, picture: NDArray[np.float32], points: Points, unit: float
) -> NDArray[np.float32]:
    """What shows between the lips in another light, with the shadow that the upper lip casts on it.

    Args:
        picture: (S, S, 3), 0 to 255. points: (20, 2) lips in pixels. unit: pixels, a thirtieth of the mouth's width.
    """
    inside = _within(picture, points[12:], unit * rng.uniform(0.3, 1.2))
    yellow = np.array([0.15, 0.05, -0.4]) * max(0.0, rng.normal(0, 0.7))
    gain = np.exp(rng.normal(-0.35, 0.45) + yellow + rng.normal(0, 0.1, 3))
    down = points[17:20].mean(0) - points[13:16].mean(0)
    reach = unit * rng.uniform(0.5, 2.0)
    shift = down * rng.uniform(0.0, 0.35) + down / max(float(np.linalg.norm(down)), 1e-6) * reach
    shadow = _within(picture, points[UPPER_LIP] + shift, reach)
    result: NDArray[np.float32] = picture * (1 + inside * (gain - 1))
    return result * (1 - inside * shadow * rng.uniform(0.0, 0.8))


def crease_corners(
    rng: np.random.Generator, picture: NDArray[np.float32], points: Points, unit: float
) -> NDArray[np.float32]:
    """Dark creases of the skin that go on outwards, mostly downwards, from the corners of the mouth.

    See `relight_inside` for the arguments.
    """
    down = np.array([points[0, 1] - points[6, 1], points[6, 0] - points[0, 0]])
    down /= max(float(np.linalg.norm(down)), 1e-6)
    darkness, width = float(rng.uniform(0.1, 0.6)), unit * rng.uniform(0.6, 2.0)
    for corner, other in ((points[0], points[6]), (points[6], points[0])):
        out = (corner - other) / max(float(np.linalg.norm(corner - other)), 1e-6)
        turn = rng.normal(0.35, 0.45)
        end = corner + unit * rng.uniform(0.5, 5.0) * (np.cos(turn) * out + np.sin(turn) * down)
        inner = corner - unit * rng.uniform(0.0, 2.0) * out
        picture = _dark_line(rng, picture, np.stack([inner, corner, end]), width, darkness)
    return picture


def _dark_line(
    rng: np.random.Generator,
    picture: NDArray[np.float32],
    way: NDArray[np.floating],
    width: float,
    darkness: float,
) -> NDArray[np.float32]:
    """`picture` darker by up to `darkness` along a way (N, 2) of soft edges, a little warmer than black."""
    line = np.zeros(picture.shape[:2], np.float32)
    thick = max(1, round(width))
    cv2.polylines(line, [_sixteenths(way)], False, 1.0, thick, cv2.LINE_8, 4)
    soft = cv2.GaussianBlur(line, (0, 0), max(0.35, width * float(rng.uniform(0.3, 0.7))))
    depth = darkness / max(float(soft.max()), 1e-6)
    return picture * (1 - depth * soft[..., None] * np.array([0.85, 1.0, 1.0], np.float32))


def _within(
    picture: Picture | NDArray[np.float32], outline: NDArray[np.floating], blur: float
) -> NDArray[np.float32]:
    """(S, S, 1) in [0, 1]: 1 inside an outline (N, 2), soft at its edge."""
    shape = np.zeros(picture.shape[:2], np.float32)
    cv2.fillPoly(shape, [_sixteenths(outline)], 1.0, cv2.LINE_8, 4)
    return np.asarray(cv2.GaussianBlur(shape, (0, 0), max(0.3, blur))[..., None], np.float32)


def _sixteenths(points: NDArray[np.floating]) -> NDArray[np.int32]:
    """Continuous pixels as OpenCV draws them: counted from pixel centres, in sixteenths."""
    return np.round(np.asarray(points) * 16 - 8).astype(np.int32)


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
            if rng.random() < GENTLE:
                batch.images[row] = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.2, 0.9)))
            else:
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
        picture = relight(rng, picture, points)
        if rng.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
            points = points[list(MIRROR_LIPS)]
            points[:, 0] = size - points[:, 0]
        return picture, points
