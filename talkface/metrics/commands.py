"""Does a face do what it is told? Numbers on commanded facial actions, from a judge's looks at the pictures."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Array = np.ndarray


def response(commands: Array, seen: Array) -> tuple[float, float]:
    """How a judged value follows a command.

    Args:
        commands: (N,) rising from the least to the most.
        seen: (N,) judged values; nan where the face was not found, which is left out.

    Returns:
        Pearson correlation (0 for a value that never changes), and the change from the first to the last command.
    """
    known = np.isfinite(seen)
    if known.sum() < 2:
        return float("nan"), float("nan")
    a, b = np.asarray(commands, np.float64)[known], np.asarray(seen, np.float64)[known]
    spread = a.std() * b.std()
    value = float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 1e-12 else 0.0
    return value, float(seen[-1] - seen[0])


def sharpness(picture: Array, box: Sequence[int]) -> float:
    """Mean absolute Laplacian (4 neighbours) of the luma in a box, grey levels of 255.

    Args:
        picture: uint8 (H, W, 3) RGB; box: left, top, right, bottom in pixels.
    """
    left, top, right, bottom = box
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(np.abs(cv2.Laplacian(luma, cv2.CV_32F))[top:bottom, left:right].mean())


def tooth_share(picture: Array, lips: Array, cheeks: Array) -> float:
    """Share of the pixels within the outer edge of the lips that look like teeth, 0 to 1.

    Teeth are as bright as skin and hardly coloured: value at least 0.75 and saturation at most 0.6 of the median of
    the cheeks'. Measured against the same person's skin, so that the light does not matter.

    Args:
        picture: uint8 (H, W, 3) RGB.
        lips: (N, 2) pixels, the outer edge of the lips in order.
        cheeks: (M, 2) pixels, places of plain skin; a disc around each is looked at.
    """
    _, saturation, value = (x.astype(np.float32) for x in cv2.split(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)))
    inside, skin = (np.zeros(picture.shape[:2], np.uint8) for _ in range(2))
    cv2.fillPoly(inside, [np.rint(lips).astype(np.int32)], 1)
    radius = max(1, round(0.12 * float(np.ptp(lips[:, 0]))))
    for x, y in np.rint(cheeks).astype(int).tolist():
        cv2.circle(skin, (x, y), radius, 1, -1)
    skin_value, skin_saturation = (np.median(plane[skin > 0]) for plane in (value, saturation))
    teeth = (value >= 0.75 * skin_value) & (saturation <= 0.6 * skin_saturation)
    return float(teeth[inside > 0].mean())
