"""Steady crops for films: remove the trembling of a landmark detector, keep the motion of the head.

Every alignment is replaced by a straight-line fit through its neighbours in time (local linear regression,
Cleveland 1979, with a Gaussian kernel), which has no lag. Where the neighbours do not lie on a line within
the expected trembling, the motion is real and the raw alignment is kept in proportion (a Wiener weight).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from talkface.portrait.crop import alignment_matrix, invert


class AlignmentSmoother:
    """Turns a stream of landmarks into a stream of alignment matrices.

    Each call is one clip and starts with no memory. A frame without a face, or a jump of the face between
    two frames (a cut), separates the clip into parts that do not influence each other.

    Args:
        size: side of the crop in pixels.
        lookahead: frames looked at in each direction; the output lags the input by as many.
        tremble: expected error of a single detection, in crop sizes.
        jump: motion between two frames, in crop sizes, that is taken for a cut.
    """

    def __init__(self, size: int = 128, lookahead: int = 4, tremble: float = 0.006, jump: float = 0.3):
        self.size = size
        self.lookahead = lookahead
        self.tremble = tremble
        self.jump = jump

    def __call__(self, stream: Iterable[np.ndarray | None]) -> Iterator[np.ndarray | None]:
        """Yield a (2, 3) float64 matrix, source -> crop pixels, for each element of `stream`; None for None.

        Args:
            stream: (68, 2) landmarks in pixels, or None for a frame without a face.
        """
        window: deque[np.ndarray | None] = deque()
        position = 0  # of the next frame to be answered, within the window
        for points in stream:
            window.append(None if points is None else self._parameters(alignment_matrix(points, self.size)))
            if len(window) - position > self.lookahead:
                yield self._answer(window, position)
                if position == self.lookahead:
                    window.popleft()
                else:
                    position += 1
        for index in range(position, len(window)):
            yield self._answer(window, index)

    def _parameters(self, matrix: np.ndarray) -> np.ndarray:
        """Matrix -> middle of the crop in the source (x, y) and its half axis (x, y): linear in motion."""
        back = invert(matrix)
        middle = back @ (self.size / 2, self.size / 2, 1.0)
        return np.concatenate([middle, back[:, 0] * self.size / 2])

    def _matrix(self, parameters: np.ndarray) -> np.ndarray:
        x, y = parameters[2:] * 2 / self.size
        turn = np.array([[x, -y], [y, x]])
        half = np.array([self.size / 2, self.size / 2])
        return invert(np.column_stack([turn, parameters[:2] - turn @ half]))

    def _answer(self, window: deque[np.ndarray | None], index: int) -> np.ndarray | None:
        centre = window[index]
        if centre is None:
            return None
        width = 2 * float(np.hypot(*centre[2:]))
        offsets, rows = [0], [centre]
        for direction in (-1, 1):
            previous = centre
            for step in range(1, self.lookahead + 1):
                place = index + direction * step
                row = window[place] if 0 <= place < len(window) else None
                if row is None or np.abs(row - previous).max() > self.jump * width:
                    break
                offsets.append(direction * step)
                rows.append(row)
                previous = row
        return self._matrix(self._fit(np.array(offsets, dtype=np.float64), np.stack(rows), width))

    def _fit(self, offsets: np.ndarray, rows: np.ndarray, width: float) -> np.ndarray:
        """Value at offset 0 of the weighted line through `rows`, mixed with the raw row 0."""
        if len(rows) < 3:
            return rows[0]
        weights = np.exp(-0.5 * (offsets / (0.5 * self.lookahead)) ** 2)
        design = np.stack([np.ones_like(offsets), offsets], axis=1)
        root = np.sqrt(weights)[:, None]
        line, *_ = np.linalg.lstsq(design * root, rows * root, rcond=None)
        residual = (((rows - design @ line) ** 2) * weights[:, None]).sum(axis=0) / weights.sum()
        excess = max(0.0, float(residual.max()) / width**2 - self.tremble**2)
        trust = excess / (excess + self.tremble**2)
        return (1 - trust) * line[0] + trust * rows[0]
