"""Eyelids of a photograph: closed, narrowed or widened by stretching the skin around the eye, pixel by pixel.

The lids' edges are curves through the eye's landmarks. A lid that moves takes its edge (with lashes and lines) along
unchanged; the skin between the edge and the brow, or the cheek, is stretched for it, steadily and with no fold. So a
closed lid is made of the skin that the photograph shows above the eye, whatever the fit of the head. The eyeball
behind stays where it is, and is stretched only where a widened eye would uncover it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from talkface.head.model import ACTIONS

# landmarks: outer to inner corner along the upper lid, along the lower lid, the brow above; by the person's side
_RIGHT = ((36, 37, 38, 39), (36, 41, 40, 39), (17, 18, 19, 20, 21))
_LEFT = ((42, 43, 44, 45), (42, 47, 46, 45), (22, 23, 24, 25, 26))
_INDEX = {name: number for number, name in enumerate(ACTIONS)}
_FINE = 3  # samples per pixel and axis where lids are drawn
# of the eye's width:
_LASHES = 0.04  # the dark line of lashes below the lid's edge, which goes with the lid
_RIM = 0.03  # wet rim of the lower lid, which must not be seen below closed lids
_WIDER = 0.06  # corners are looked for too far inside
_FLAT = 0.06  # an opening below is a closed eye, and stays
_SEARCH = (-0.10, 0.14)  # the lid's edge against its landmarks
_TRUST = 0.08  # how far landmarks are usually off
_CURVE = 0.75  # exponent: lids are flatter in the middle than parabolas
# of the opening:
_MEETING = 0.24  # height above the lower edge where closed lids meet
_WIDEN = 0.34  # the upper lid's rise at eyeWide = 1
_SQUINT_LOWER, _SQUINT_UPPER = 0.30, 0.14  # the lids' way at eyeSquint = 1


@dataclass(frozen=True, eq=False)
class _Eye:
    """One eye; everything on a fine grid (h * FINE, w * FINE) over the box at (left, top).

    `down` is the coordinate across the eye, in pixels; the rest are edges as they are seen, in the same coordinate:
    `upper`, `lower`, and `above`, `below`, where skin stops being stretched. `axis` (2,) points down the face.
    """

    side: str
    left: int
    top: int
    places: np.ndarray
    axis: np.ndarray
    down: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    above: np.ndarray
    below: np.ndarray


class Eyelids:
    """Moves the lids of one photograph.

    Args:
        picture: uint8 (H, W, 3) RGB.
        points: (68, 2) landmarks in its pixels; the upper lids' edges are looked for near them.
    """

    def __init__(self, picture: np.ndarray, points: np.ndarray) -> None:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
        found = [
            _eye(side, np.asarray(points, dtype=np.float64), marks, grey)
            for side, marks in (("Right", _RIGHT), ("Left", _LEFT))
        ]
        self.eyes = [eye for eye in found if eye is not None]

    def __call__(self, picture: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Picture uint8 (H, W, 3) with the lids moved by `actions` (52,) from where they are; it is not changed."""
        result = picture
        for eye in self.eyes:
            blink, wide, squint = (
                float(np.clip(actions[_INDEX[name + eye.side]], 0.0, 1.0))
                for name in ("eyeBlink", "eyeWide", "eyeSquint")
            )
            if max(blink, wide, squint) > 1e-3:
                result = picture.copy() if result is picture else result
                _draw(eye, picture, result, blink, wide, squint)
        return result


def _eye(side: str, points: np.ndarray, marks: tuple[tuple[int, ...], ...], grey: np.ndarray) -> _Eye | None:
    height, width = grey.shape
    upper, lower, brow = (points[list(numbers)] for numbers in marks)
    middle, chord = (upper[0] + upper[-1]) / 2, upper[-1] - upper[0]
    span = float(np.linalg.norm(chord)) * (1 + 2 * _WIDER)
    if span < 4.0:
        return None
    along = chord / np.linalg.norm(chord)
    axis = np.array([-along[1], along[0]])

    def local(places: np.ndarray) -> np.ndarray:
        return np.stack([(places - middle) @ along, (places - middle) @ axis], axis=-1)

    # 1. one height tells the curve of each lid
    rise, fall = (float(np.mean(sign * local(line[1:3])[:, 1] / _curve(local(line[1:3])[:, 0], span)))
                  for sign, line in ((-1.0, upper), (1.0, lower)))  # fmt: skip
    if rise + fall < _FLAT * span:
        return None
    rise = _edge_height(grey, middle, along, axis, span, rise)
    fall = float(np.clip(fall, 0.12 * span, 0.30 * span)) + _RIM * span
    # 2. a fine grid over what may move
    free = float(np.clip(-rise - local(brow)[1:4, 1].mean(), 0.15 * span, 0.9 * span))
    corners = [(u, v) for u in (-0.6 * span, 0.6 * span) for v in (-1.4 * span, 0.9 * span)]
    box = np.array([middle + u * along + v * axis for u, v in corners])
    left, top = np.clip(np.floor(box.min(0)).astype(int), 0, (width, height))
    right, bottom = np.clip(np.ceil(box.max(0)).astype(int), 0, (width, height))
    if right - left < 2 or bottom - top < 2:
        return None
    x = left + (np.arange((right - left) * _FINE) + 0.5) / _FINE
    y = top + (np.arange((bottom - top) * _FINE) + 0.5) / _FINE
    places = np.stack(list(np.meshgrid(x, y)), axis=-1)
    here = local(places)
    shape = _curve(here[..., 0], span)
    lid = (_LASHES * span - rise) * shape
    under = np.maximum(fall * shape, lid)
    return _Eye(
        side,
        int(left),
        int(top),
        places,
        axis,
        here[..., 1],
        lid,
        under,
        lid - 0.85 * free,
        under + 0.45 * span,
    )


def _curve(u: np.ndarray, span: float) -> np.ndarray:
    """Height of a lid's edge, 1 in the middle, 0 at the corners and beyond, at `u` along an eye `span` wide."""
    curve: np.ndarray = np.clip(1.0 - (2.0 * u / span) ** 2, 0.0, 1.0) ** _CURVE
    return curve


def _edge_height(
    grey: np.ndarray, middle: np.ndarray, along: np.ndarray, axis: np.ndarray, span: float, rise: float
) -> float:
    """Height of the upper lid's curve above the corners, pixels: where skin turns darkest, near `rise`."""
    soft = cv2.GaussianBlur(grey, (0, 0), max(0.02 * span, 0.5))
    u = np.linspace(-0.33, 0.33, 23) * span
    tried = rise + np.linspace(*_SEARCH, 25) * span
    half = 0.03 * span

    def seen(v: np.ndarray) -> np.ndarray:
        at = (middle + u[None, :, None] * along + v[..., None] * axis - 0.5).astype(np.float32)
        found: np.ndarray = cv2.remap(
            soft, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return found

    edge = -tried[:, None] * _curve(u, span)[None]
    drop = (seen(edge - half) - seen(edge + half)).mean(1)
    doubt = ((tried - rise) / (_TRUST * span)) ** 2
    best = float(tried[int(np.argmax(drop / max(float(drop.max()), 1.0) - 0.25 * doubt))])
    return max(best, 0.02 * span)


def _draw(
    eye: _Eye, picture: np.ndarray, result: np.ndarray, blink: float, wide: float, squint: float
) -> None:
    opening = eye.lower - eye.upper
    wide *= 1.0 - blink
    meeting = eye.lower - _MEETING * opening
    raised = eye.upper - _WIDEN * wide * opening + _SQUINT_UPPER * squint * opening
    upper = raised + blink * (meeting - raised)
    lower = eye.lower - _SQUINT_LOWER * squint * opening
    lower = np.maximum(lower + blink * (meeting - lower), upper)
    v = eye.down
    source = v.copy()
    # the eyeball: uncovered above, it is stretched up to the lid
    ball = (v >= upper) & (v < lower)
    stretch = np.maximum(eye.upper - upper, 0.0)
    height = np.maximum(eye.lower - upper, 1e-6)
    source = np.where(ball, v + stretch * np.clip((eye.lower - v) / height, 0.0, 1.0), source)
    lid = v < upper
    source = np.where(lid, _stretched(v, eye.above, upper, eye.upper), source)
    skin = v >= lower
    source = np.where(skin, _stretched(v, eye.below, lower, eye.lower), source)
    moved = source - v
    at = (eye.places + moved[..., None] * eye.axis - 0.5).astype(np.float32)
    fine = cv2.remap(picture, at[..., 0], at[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    tall, across = v.shape[0] // _FINE, v.shape[1] // _FINE
    weight = cv2.resize(
        (np.abs(moved) > 0.02).astype(np.float32), (across, tall), interpolation=cv2.INTER_AREA
    )
    drawn = cv2.resize(fine, (across, tall), interpolation=cv2.INTER_AREA).astype(np.float32)
    region = result[eye.top : eye.top + tall, eye.left : eye.left + across]
    mixed = region + weight[..., None] * (drawn - region)
    np.copyto(region, np.clip(np.rint(mixed), 0, 255).astype(np.uint8))


def _stretched(v: np.ndarray, fixed: np.ndarray, edge: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Where skin at `v` between `fixed` and the lid's new `edge` was when the edge was at `seen`.

    A cubic of slope 1 at both ends: the edge keeps its thickness, and nothing shows where the stretching begins.
    """
    span = edge - fixed
    safe = np.where(np.abs(span) < 1e-6, 1e-6, span)
    t = np.clip((v - fixed) / safe, 0.0, 1.0)
    ratio = (seen - fixed) / safe
    slope = np.minimum(1.0, 3.0 * np.maximum(ratio, 0.0))
    cubic = slope * (t**3 - 2 * t**2 + t) + ratio * (3 * t**2 - 2 * t**3) + slope * (t**3 - t**2)
    inside = (v - fixed) * np.sign(safe) > 0
    return np.where(inside, fixed + safe * cubic, v)
