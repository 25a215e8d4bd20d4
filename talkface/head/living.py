"""A whole photograph that moves with its fitted head: small turns, nods and shifts, brows and cheeks, without a seam.

The head's mesh says how far each place of the photograph is from the camera and how each facial action moves it; hair
and neck take over the depth of the nearest skin. From that, every small motion is one smooth field of displacements,
linear in angles, shifts and actions:

    d(p) = w(p) (rotation x depth(p) + shift) + sum_j a_j action_j(p)

`w` is 1 on the head and falls to 0 on the shoulders, away from the head and at the border of the picture, which
therefore never moves. A picture is looked up once, at p - d: nothing blurs with time. It is meant for a few degrees;
what a larger turn would uncover is not invented.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch

from talkface.head.fit import FittedHead
from talkface.head.model import ACTIONS, HeadModel
from talkface.head.raster import rasterize_fragments

PIVOT = (0.0, -0.085, -0.075)
"""Where a head turns on its neck (the atlas joint), metres in head coordinates."""

_GRID = 144  # of the longer side of the moving box: fields are smooth
_NECK = (
    -0.235,
    -0.120,
)  # metres: the neck is still at the first height and follows the head above the second
_REACH = 0.130  # metres around the head that are dragged along
_HAIR = 0.020  # metres around the head that move as it does
BORDER = 0.070
"""Metres from the border of a picture over which motion fades in."""
_BLUR = 0.005  # metres
_LIDS = ("eyeBlink", "eyeWide", "eyeSquint", "eyeLook")  # `eyelids` draws them
_BROWS = 1.6  # the mesh's brows move by 5 to 7 mm at most, people's by more
_ROUNDS = 3  # to invert the field

PaintedShare = Callable[[np.ndarray], np.ndarray]


class LivingPhotograph:
    """Moves one photograph.

    Args:
        head: the model.
        fitted: the one head, in pixels of the photograph.
        height, width: of the photograph.
        border: metres from the border of the picture over which motion fades in; 0 for a face cut out of its picture.
        painted: (N, 2) places in pixels -> (N,) share in [0, 1] of the picture that already shows the wanted mouth
            actions; there mouth actions do not move it again. None: nowhere.
    """

    def __init__(
        self,
        head: HeadModel,
        fitted: FittedHead,
        height: int,
        width: int,
        painted: PaintedShare | None = None,
        border: float = BORDER,
    ) -> None:
        self.height, self.width = height, width
        vertices = head(fitted.identity, fitted.actions)
        screen = fitted.project(vertices)[0]
        scale = float(fitted.scale)
        # 1. the box that moves, and a coarse grid on it
        skull = screen[head.faces[~head.part("body")].unique(), :2]
        reach = (_REACH + _HAIR) * scale
        low = (skull.amin(0) - reach).floor().clamp(min=0).int().tolist()
        high = torch.minimum((skull.amax(0) + reach).ceil().int(), torch.tensor([width, height])).tolist()
        self.left, self.top = int(low[0]), int(low[1])
        self.right, self.bottom = max(int(high[0]), self.left + 1), max(int(high[1]), self.top + 1)
        self.cell = max(1.0, max(self.right - self.left, self.bottom - self.top) / _GRID)
        columns = max(2, round((self.right - self.left) / self.cell))
        rows = max(2, round((self.bottom - self.top) / self.cell))
        step = np.array([(self.right - self.left) / columns, (self.bottom - self.top) / rows])
        self._step, self._shape = step, (rows, columns)
        # 2. per cell of the grid: place on the head, motion by each action
        on_grid = screen.clone()
        on_grid[:, 0] = (screen[:, 0] - self.left) / step[0]
        on_grid[:, 1] = (screen[:, 1] - self.top) / step[1]
        seen = rasterize_fragments(on_grid[None], head.faces, rows, columns)
        turn = fitted.rotation[0]
        moved = torch.einsum("avd,cd->vac", head.actions, turn[:2]).flatten(1)
        of_cells = seen.interpolate(head.faces, torch.cat([vertices[0], moved], dim=1)).numpy()
        cells = seen.pixel.numpy()
        covered = np.zeros(rows * columns, dtype=bool)
        covered[cells] = True
        values = np.zeros((rows * columns, of_cells.shape[1]), dtype=np.float32)
        values[cells] = of_cells
        values, distance = _spread(values.reshape(rows, columns, -1), covered.reshape(rows, columns))
        distance = distance * self.cell / scale
        # 3. how far each cell follows the head
        follows = _rise(values[..., 1], *_NECK)
        trunk = (follows < 0.5) & (distance == 0)
        head_distance = _distance(~((distance == 0) & (follows >= 0.5))) * self.cell / scale
        weight = np.where(distance == 0, follows, _rise(-head_distance, -_REACH, -_HAIR))
        weight[trunk] = follows[trunk]
        x = self.left + (np.arange(columns) + 0.5) * step[0]
        y = self.top + (np.arange(rows) + 0.5) * step[1]
        across = np.minimum(x, width - x)[None] / scale
        down = np.minimum(y, height - y)[:, None] / scale
        faded = np.ones((rows, columns))
        if border > 0:
            faded = _rise(np.minimum(across, down), self.cell / scale, border)
        # 4. the fields, in pixels: three rotations (degrees), two shifts (metres), the actions
        arms = (values[..., :3] - np.array(PIVOT, dtype=np.float32)) @ turn.numpy().T
        smooth = _BLUR * scale / self.cell
        axes = turn.numpy().T  # of the head, in camera axes: nod is about its own x
        fields = []
        for number in range(3):
            speed = np.cross(axes[number], arms)[..., :2] * np.deg2rad(1.0)
            fields.append(weight[..., None] * speed)
        for axis in np.eye(2):
            fields.append(weight[..., None] * axis)
        share = np.zeros((rows, columns))
        if painted is not None:
            places = np.stack(list(np.meshgrid(x, y)), axis=-1).reshape(-1, 2)
            share = painted(places).reshape(rows, columns)
        own = _rise(-distance, -_HAIR, 0.0)
        motions = values[..., 3:].reshape(rows, columns, len(ACTIONS), 2)
        for number, name in enumerate(ACTIONS):
            part = own * (1.0 - share if name.startswith(("mouth", "jaw", "tongue", "cheekPuff")) else 1.0)
            if name.startswith(_LIDS):
                part = np.zeros_like(part)
            elif name.startswith("brow"):
                part = _BROWS * part
            fields.append(part[..., None] * motions[:, :, number])
        downward = np.array([scale, -scale])
        self._fields = np.stack(
            [_blurred(field, 2 * smooth) * faded[..., None] * downward for field in fields]
        ).astype(np.float32)
        grid = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
        self._grid: np.ndarray = np.stack(list(grid), axis=-1)
        wide, tall = self.right - self.left, self.bottom - self.top
        pixels = np.meshgrid(np.arange(wide, dtype=np.float32), np.arange(tall, dtype=np.float32))
        self._places: np.ndarray = np.stack(list(pixels), axis=-1)

    def displacement(self, rotation: np.ndarray, shift: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(rows, columns, 2) pixels of the photograph: where each cell of the grid goes.

        Args:
            rotation: (3,) degrees. shift: (2,) metres. actions: (52,) change of each action.
        """
        # the head's x axis points to the picture's right and y up: a nod turns y towards z
        coefficients = np.concatenate([rotation, shift, actions]).astype(np.float32)
        used = np.flatnonzero(coefficients)  # of all actions a moment has a few
        field: np.ndarray = np.tensordot(coefficients[used], self._fields[used], axes=1)
        return field

    def __call__(
        self, picture: np.ndarray, rotation: np.ndarray, shift: np.ndarray, actions: np.ndarray
    ) -> np.ndarray:
        """Move `picture` uint8 (H, W, 3), the photograph or the same with another mouth; it is not changed."""
        if not (np.any(rotation) or np.any(shift) or np.any(actions)):
            return picture
        forward = self.displacement(rotation, shift, actions)
        per_cell = (1.0 / self._step).astype(np.float32)
        backward = forward
        for _ in range(_ROUNDS):
            at = self._grid - backward * per_cell
            backward = cv2.remap(
                forward, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        size = (self.right - self.left, self.bottom - self.top)
        source = self._places - cv2.resize(backward, size, interpolation=cv2.INTER_LINEAR)
        result = picture.copy()
        region = picture[self.top : self.bottom, self.left : self.right]
        result[self.top : self.bottom, self.left : self.right] = cv2.remap(
            region, source[..., 0], source[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
        return result


def _rise(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 up to `start`, smoothly up to 1 at `end`."""
    t = np.clip((values - start) / (end - start), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _distance(away: np.ndarray) -> np.ndarray:
    """Cells to the nearest cell where `away` (H, W) is False."""
    if away.all():
        return np.full(away.shape, 1e6, dtype=np.float32)
    found: np.ndarray = cv2.distanceTransform(away.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return found


def _spread(values: np.ndarray, covered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (H, W, C) of covered cells, everywhere else those of the nearest; and the distance to it in cells."""
    if not covered.any():
        return values, np.full(covered.shape, 1e6, dtype=np.float32)
    away = (~covered).astype(np.uint8)
    distance, labels = cv2.distanceTransformWithLabels(
        away, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((labels.max() + 1, values.shape[2]), dtype=np.float32)
    table[labels[covered]] = values[covered]
    return table[labels], np.where(covered, 0.0, distance)


def _blurred(field: np.ndarray, sigma: float) -> np.ndarray:
    blurred: np.ndarray = cv2.GaussianBlur(field, (0, 0), max(sigma, 0.5), borderType=cv2.BORDER_REPLICATE)
    return blurred


def painted_share(mask: np.ndarray, matrix: np.ndarray) -> PaintedShare:
    """Look up a mask (S, S) in [0, 1] of an aligned square that `matrix` (2, 3) cuts out of the picture."""

    def share(places: np.ndarray) -> np.ndarray:
        at = (places @ matrix[:, :2].T + matrix[:, 2] - 0.5).astype(np.float32)
        found: np.ndarray = cv2.remap(mask, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderValue=0)
        return found[0]

    return share
