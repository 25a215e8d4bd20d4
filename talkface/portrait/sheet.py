"""Sheets: pictures in rows and columns with their names, as the figures of papers show them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 2
TEXT = (20, 20, 20)
LARGEST_CELL = 256


def sheet(
    rows: Sequence[Sequence[np.ndarray | None]],
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
    cell: int | None = None,
) -> np.ndarray:
    """One uint8 (H, W, 3) picture on white.

    Args:
        rows: square uint8 (S, S, 3) pictures of any size; None leaves a place empty.
        row_names, column_names: written left of and above them; empty for none.
        cell: side of a place in pixels; None = the largest picture's, at most 256.
    """
    sides = [picture.shape[0] for row in rows for picture in row if picture is not None]
    cell = cell or min(max(sides, default=64), LARGEST_CELL)
    font = ImageFont.load_default(max(10, cell // 9))
    left = max((int(font.getlength(name)) for name in row_names), default=-8) + 8
    top = cell // 6 + 4 if column_names else 0
    columns = max(len(row) for row in rows)
    shape = (top + len(rows) * (cell + GAP) - GAP, left + columns * (cell + GAP) - GAP, 3)
    canvas = np.full(shape, 255, np.uint8)
    for number, row in enumerate(rows):
        for place, picture in enumerate(row):
            if picture is None:
                continue
            y, x = top + number * (cell + GAP), left + place * (cell + GAP)
            reduced = picture.shape[0] > cell
            kind = cv2.INTER_AREA if reduced else cv2.INTER_CUBIC
            canvas[y : y + cell, x : x + cell] = cv2.resize(picture, (cell, cell), interpolation=kind)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for number, name in enumerate(row_names):
        draw.text((left - 4, top + number * (cell + GAP) + cell // 2), name, TEXT, font, anchor="rm")
    for number, name in enumerate(column_names):
        draw.text((left + number * (cell + GAP) + cell // 2, top // 2), name, TEXT, font, anchor="mm")
    return np.array(image)
