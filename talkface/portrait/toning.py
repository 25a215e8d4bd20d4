"""Photographs of one hue: black and white, sepia, blueprints. What is painted into them takes their hue.

A head model and networks know mouths as red and teeth as cream. In a photograph without colours a red tongue is the
first thing one sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114])
_SIDE = 64  # the picture is judged at this size, where the colour noise of JPEG is gone
# of 255, how far colours are from the one that goes with each lightness: from where on a photograph counts as one of
# colours, and up to where as one without. Sepia: 1.0, as JPEG of quality 60: 1.9; a painting all in browns: 3.0.
_COLOURED, _PLAIN = 2.5, 1.5
_TERMS = 4  # of the polynomial by which a tone's hue follows its lightness


@dataclass(frozen=True, eq=False)
class Toning:
    """The one colour of each lightness of a photograph.

    Attributes:
        table: float32 (256, 3), RGB for each luma (ITU-R BT.601).
        share: 0 to 1, how far painted colours are to become those.
    """

    table: np.ndarray
    share: float

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """`image` uint8 (H, W, 3) in the photograph's tones."""
        toned = self.table[np.rint(image @ _LUMA).astype(np.uint8)]
        mixed: np.ndarray = np.rint(image + self.share * (toned - image))
        return np.clip(mixed, 0, 255).astype(np.uint8)


def toning_of(image: np.ndarray) -> Toning | None:
    """The tones of a photograph uint8 (H, W, 3); None where it has colours."""
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float64)
    luma = small @ _LUMA
    # how far each channel is from the luma; beyond the lightnesses that are seen as at the nearest one
    low, high = np.quantile(luma, [0.01, 0.99])
    terms = _terms(luma, low, high)
    weights = np.linalg.lstsq(terms, small - luma[:, None], rcond=None)[0]
    left = small - luma[:, None] - terms @ weights
    apart = float(np.sqrt((left**2).mean()))
    share = float(np.clip((_COLOURED - apart) / (_COLOURED - _PLAIN), 0.0, 1.0))
    if share == 0.0:
        return None
    levels = np.arange(256.0)
    table = levels[:, None] + _terms(levels, low, high) @ weights
    return Toning(np.clip(table, 0, 255).astype(np.float32), share)


def _terms(luma: np.ndarray, low: float, high: float) -> np.ndarray:
    """(N, _TERMS) powers of luma (N,), -1 at `low` and below to 1 at `high` and above."""
    place = 2.0 * (np.clip(luma, low, high) - low) / max(high - low, 1.0) - 1.0
    return np.stack([place**power for power in range(_TERMS)], axis=1)
