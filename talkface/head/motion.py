"""How a head lives while it speaks: blinks, slow motion of the head, brows and nods with the emphasis of speech.

Everything is a pure function of a seed, the time and the emphasis of the sound around that time, so frames may be asked
for in any order, one by one or together, and a stream needs `LOOK_AHEAD` seconds of sound beyond the frame. It knows
nothing of pictures: see `talkface.head.living`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from talkface.errors import TalkfaceError
from talkface.head.model import ACTIONS

MOTIONS = ("none", "subtle", "lively")
EMPHASIS_RATE = 25
"""Values of `emphasis` per second; value k belongs to (k + 0.5) / 25 s."""
LOOK_AHEAD = 0.48
"""Seconds of sound after a moment that its emphasis depends on."""

_BLINK_BLOCK = 60.0  # seconds of blinks that are drawn together
_SPAN, _SOFT = 0.20, 0.28  # seconds on each side: loudness is averaged over it, emphasis is smoothed over it
_PAST = 4.0  # seconds that loudness is compared with
_QUIET = 0.004  # root mean square below which nothing is emphasised
_INDEX = {name: number for number, name in enumerate(ACTIONS)}


@dataclass(frozen=True)
class MotionStyle:
    """Amplitudes.

    Attributes:
        rotation: (nod, turn, tilt), degrees, typical size of the slow motion; `largest` that is never passed.
        shift: typical size of the shift to the side and up, metres.
        nod: degrees at full emphasis. brows: action at full emphasis.
        blinks: of a rate of 17 a minute.
    """

    rotation: tuple[float, float, float]
    largest: float
    shift: float
    nod: float
    brows: float
    blinks: float


STYLES = {
    "subtle": MotionStyle((0.5, 0.85, 0.4), 2.5, 0.0008, 1.0, 0.30, 1.0),
    "lively": MotionStyle((1.5, 2.6, 1.2), 6.0, 0.0022, 2.4, 0.60, 1.2),
}


@dataclass(frozen=True, eq=False)
class Moments:
    """What the head does at N times, on top of the photograph and of speech.

    Attributes:
        actions: (N, 52) float32, to be added; only eyes and brows.
        rotation: (N, 3) degrees about x (positive = nods down), y (turns to the picture's right), z (tilts to the
            picture's left) of the head.
        shift: (N, 2) metres, to the right and up.
        swell: (N,) factor near 1 of an emotion, which is never frozen.
    """

    actions: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    swell: np.ndarray


class LivingHead:
    """The motion of one head.

    Args:
        motion: one of `MOTIONS`; "none": it never moves.
        seed: same seed, same motion.

    Raises:
        TalkfaceError: unknown motion.
    """

    def __init__(self, motion: str, seed: int = 0) -> None:
        if motion not in MOTIONS:
            raise TalkfaceError(f"motion: {motion}; allowed are {', '.join(MOTIONS)}")
        self.style = STYLES.get(motion)
        self.seed = seed

    def __call__(self, times: np.ndarray, emphasis: np.ndarray) -> Moments:
        """Motion at `times` (N,) in seconds; `emphasis` (T,) as the function of that name gives it."""
        times = np.asarray(times, dtype=np.float64)
        count, style = len(times), self.style
        actions = np.zeros((count, len(ACTIONS)), dtype=np.float32)
        if style is None:
            return Moments(actions, np.zeros((count, 3)), np.zeros((count, 2)), np.ones(count))
        # drawn in this order: the same phases for every call
        random = np.random.default_rng([self.seed, 0x11FE])
        slow = [wander(times, random, 5.0) for _ in range(5)]
        quick = [wander(times, random, 1.3) for _ in range(3)]
        mood, swell = wander(times, random, 3.0), wander(times, random, 1.5)
        # the film begins with the photograph as it is
        start = np.clip(times / 1.5, 0.0, 1.0) ** 2
        stress = _at(emphasis, times) * start
        blinks = self._blinks(times)
        for side in ("eyeBlinkLeft", "eyeBlinkRight"):
            actions[:, _INDEX[side]] = blinks
        # one time it is the brows that stress a word, one time a nod
        raised = style.brows * stress * np.clip(0.55 + 0.45 * mood, 0.0, 1.0)
        for name, share in (("browInnerUp", 1.0), ("browOuterUpLeft", 0.8), ("browOuterUpRight", 0.8)):
            actions[:, _INDEX[name]] = share * raised
        turns = np.stack(slow[:3], axis=1) + 0.3 * np.stack(quick, axis=1)
        turns = turns * style.rotation * start[:, None]
        turns[:, 0] += style.nod * stress * np.clip(0.55 - 0.45 * mood, 0.0, 1.0)
        rotation = style.largest * np.tanh(turns / style.largest)
        shift = style.shift * start[:, None] * np.stack(slow[3:], axis=1)
        return Moments(actions, rotation, shift, 0.93 + 0.07 * np.tanh(swell))

    def _blinks(self, times: np.ndarray) -> np.ndarray:
        """(N,): about 17 blinks a minute (Bentivoglio et al. 1997: 17 at rest, 26 in conversation), 0.24 s each."""
        assert self.style is not None
        closed = np.zeros(len(times), dtype=np.float32)
        for block in {int(time // _BLINK_BLOCK) for time in times}:
            random = np.random.default_rng([self.seed, 0xB11, block])
            clock = block * _BLINK_BLOCK + random.uniform(0.8, 2.8)
            while clock < (block + 1) * _BLINK_BLOCK - 0.5:
                shape = blink_shape(
                    times - clock, close=0.08, hold=0.02, reopen=0.14 + 0.04 * random.random()
                )
                eased = shape * shape * (3.0 - 2.0 * shape)
                closed = np.maximum(closed, eased * random.uniform(0.92, 1.0))
                clock += 0.5 + random.gamma(3.5, 0.85) / self.style.blinks
        return closed


def wander(times: np.ndarray, random: np.random.Generator, period: float) -> np.ndarray:
    """(T,) smooth noise of standard deviation about 1: six sines of random phase around 1 / period Hz."""
    rates = random.uniform(0.4, 1.6, 6) / period
    phases = random.uniform(0, 2 * np.pi, 6)
    return np.sin(2 * np.pi * rates[:, None] * times[None] + phases[:, None]).sum(0) / np.sqrt(3.0)


def blink_shape(offsets: np.ndarray, close: float, hold: float, reopen: float) -> np.ndarray:
    """How far the lids are closed, 0 to 1, at `offsets` (N,) seconds from when they have just closed.

    Args:
        close, hold, reopen: seconds; lids fall faster than they rise.
    """
    return np.clip(np.minimum(offsets / close + 1, 1 - (offsets - hold) / reopen), 0.0, 1.0)


def emphasis(loudness: np.ndarray) -> np.ndarray:
    """How far speech stands out of what was heard before, (T,) in [0, 1].

    Args:
        loudness: (T,) root mean square of the sound in [-1, 1], `EMPHASIS_RATE` values a second.
    """
    level = np.asarray(loudness, dtype=np.float64)
    if not len(level):
        return level
    now = _mean(level, _SPAN, _SPAN)
    before = _mean(level, _PAST, _SPAN)
    peaks = np.clip((now / np.maximum(before, _QUIET) - 1.05) / 0.7, 0.0, 1.0)
    peaks[now < _QUIET] = 0.0
    reach = round(_SOFT * EMPHASIS_RATE)
    bell = np.cos(np.linspace(-math.pi / 2, math.pi / 2, 2 * reach + 3)[1:-1]) ** 2
    return np.convolve(np.pad(peaks, reach), bell / bell.sum(), "valid")


def _mean(values: np.ndarray, past: float, ahead: float) -> np.ndarray:
    """Mean over `past` seconds before and `ahead` seconds after each value, over what there is."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first = np.maximum(index - round(past * EMPHASIS_RATE), 0)
    last = np.minimum(index + round(ahead * EMPHASIS_RATE) + 1, len(values))
    return (total[last] - total[first]) / np.maximum(last - first, 1)


def _at(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    if not len(values):
        return np.zeros(len(times))
    return np.interp(times * EMPHASIS_RATE - 0.5, np.arange(len(values)), values)
