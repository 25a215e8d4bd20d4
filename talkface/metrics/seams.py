"""Does one see where a painted face was put into a picture? Its border, its surroundings, its stillness.

Pictures are uint8 RGB, results are grey levels of 255. `weight` is the mask of blending in the pixels of the picture:
0 = the picture itself, 1 = painted. Not a measure of what is painted: for that see `paired`.
"""

from __future__ import annotations

import cv2
import numpy as np

Array = np.ndarray
SECTORS = 48


def border_step(made: Array, real: Array, weight: Array, sectors: int = SECTORS) -> float:
    """How much darker, brighter or otherwise coloured the picture becomes across the feather of the mask.

    Around the mask's centre the feather is cut into sectors of equal angle. In each, colour is averaged where the mask
    has just reached its full weight (0.9 to 1, the inner third of the feather's width further in) and where it has
    just ended (weight 0, as far out); the step of the made picture minus that of the real one is what the painting
    added. The mean of its absolute value over sectors and channels. Noise averages out within a sector; a box, a
    shade, a colour cast do not.

    Args:
        made, real: uint8 (H, W, 3); weight: (H, W) in [0, 1].

    Returns:
        The step, or nan where no sector has both sides (the mask is empty or fills the picture).
    """
    feather = (weight > 0) & (weight < 0.9)
    full = weight >= 0.9
    if not feather.any() or not full.any():
        return float("nan")
    # width of the feather: its area over the length of its inner edge
    edge = full & (cv2.erode(full.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    width = max(2.0, feather.sum() / max(edge.sum(), 1) / 3)
    inside = full & (_distance(full) <= width)
    outside = (weight <= 0) & (_distance(weight <= 0) <= width)
    y, x = np.nonzero(full)
    rows, columns = np.indices(weight.shape)
    angle = np.arctan2(rows - y.mean(), columns - x.mean())
    number = np.minimum(((angle + np.pi) / (2 * np.pi) * sectors).astype(int), sectors - 1)
    difference = made.astype(np.float64) - real
    sides = []
    for side in (inside, outside):
        counts = np.bincount(number[side], minlength=sectors)
        sums = [np.bincount(number[side], difference[side][:, c], minlength=sectors) for c in range(3)]
        with np.errstate(invalid="ignore", divide="ignore"):
            sides.append(np.stack(sums, axis=1) / np.where(counts >= 4, counts, np.nan)[:, None])
    steps = np.abs(sides[0] - sides[1])
    return float(np.nanmean(steps)) if np.isfinite(steps).any() else float("nan")


def outside_difference(made: Array, real: Array, weight: Array, margin: int = 2) -> int:
    """Largest difference of a channel where the mask, widened by `margin` pixels, has no weight."""
    side = 2 * margin + 1
    untouched = cv2.dilate((weight > 0).astype(np.uint8), np.ones((side, side), np.uint8)) == 0
    if not untouched.any():
        return 0
    return int(np.abs(made.astype(np.int16) - real)[untouched].max())


def frame_change(frames: Array, mask: Array) -> float:
    """Mean absolute change from one frame to the next.

    Args:
        frames: uint8 (T, H, W, 3), T >= 2, aligned; mask: bool (H, W), what is looked at.
    """
    seen = frames[:, mask].astype(np.int16)
    return float(np.abs(np.diff(seen, axis=0)).mean())


def _distance(region: Array) -> Array:
    """Distance in pixels of each pixel of a region from what is not in it."""
    return cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 3)
