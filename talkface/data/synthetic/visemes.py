"""Phonemes -> mouth: facial actions over time, with coarticulation.

Each phoneme has a target for a few articulators (how far the jaw drops, how round, protruded or spread the
lips are, ...) written from phonetics, and a dominance that says how much it insists on that target. Targets
blend by dominance that decays with the distance from the segment, as in Cohen & Massaro, "Modeling
coarticulation in synthetic visual speech" (1993), eq. 4-6: value(t) = sum_i w_i(t) T_i / sum_i w_i(t),
w_i(t) = a_i exp(-distance_i(t) / tau). Closures (p b m), the lip tuck (f v) and the narrowing of w and r are
events that must be reached, not blended away, so they are smooth bumps laid over the blend. Before a phrase
the lips part to breathe in.

It is not fitted to any film, and it knows nothing of sound: the phonemes with their times are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from talkface.data.synthetic.phonemes import split_stress
from talkface.head.model import ACTIONS

__all__ = ["MOUTH_ACTIONS", "VISEMES", "SpeakingStyle", "frame_labels", "speech_actions", "viseme_of"]

Phone = tuple[str, float, float]

MOUTH_ACTIONS: tuple[str, ...] = tuple(
    n for n in ACTIONS if n.startswith(("jaw", "mouth", "tongue", "cheekPuff"))
)
"""The actions that speech moves, in the order of `ACTIONS`."""

# Viseme classes: what a reader of lips can tell apart.
_VISEME_OF = {
    "SIL": "sil", "P": "pp", "B": "pp", "M": "pp", "F": "ff", "V": "ff", "TH": "th", "DH": "th",
    "T": "dd", "D": "dd", "N": "dd", "L": "ll", "S": "ss", "Z": "ss", "SH": "ch", "ZH": "ch", "CH": "ch",
    "JH": "ch",
    "K": "kk", "G": "kk", "NG": "kk", "HH": "hh", "R": "rr", "ER": "er", "W": "ww", "Y": "iy",
    "AA": "aa", "AE": "ae", "AH": "ah", "AX": "ah", "AO": "ao", "EH": "eh", "EY": "eh", "IH": "ih",
    "IY": "iy",
    "OW": "ow", "OY": "ao", "UH": "uh", "UW": "uw", "AY": "aa", "AW": "aa",
}  # fmt: skip
VISEMES: tuple[str, ...] = tuple(dict.fromkeys(_VISEME_OF.values()))
"""Names of the viseme classes; `sil` is first."""

# jaw: drop of the jaw; round: pucker; funnel: protruded open lips; spread: corners out;
# lower / upper: lower lip down, upper lip up; tongue: tip between the teeth.
_ARTICULATORS = ("jaw", "round", "funnel", "spread", "lower", "upper", "tongue")
#        jaw  round funl sprd lowr uppr tong | dominance of the jaw, of the lips
_TARGETS: dict[str, tuple[float, ...]] = {
    "SIL": (0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.0, 1.0, 0.6),
    "INHALE": (0.20, 0.00, 0.00, 0.00, 0.10, 0.02, 0.0, 0.7, 0.4),
    "AA": (0.44, 0.00, 0.00, 0.05, 0.16, 0.06, 0.0, 1.2, 0.9),
    "AE": (0.42, 0.00, 0.00, 0.28, 0.22, 0.14, 0.0, 1.2, 1.0),
    "AH": (0.34, 0.00, 0.00, 0.08, 0.14, 0.06, 0.0, 1.0, 0.6),
    "AX": (0.24, 0.00, 0.00, 0.08, 0.12, 0.04, 0.0, 0.4, 0.3),
    "AO": (0.34, 0.35, 0.12, 0.00, 0.10, 0.02, 0.0, 1.2, 1.1),
    "EH": (0.36, 0.00, 0.00, 0.25, 0.18, 0.08, 0.0, 1.0, 0.9),
    "ER": (0.18, 0.30, 0.06, 0.00, 0.12, 0.04, 0.0, 0.9, 0.8),
    "IH": (0.28, 0.00, 0.00, 0.25, 0.18, 0.08, 0.0, 0.9, 0.7),
    "IY": (0.24, 0.00, 0.00, 0.55, 0.28, 0.12, 0.0, 1.0, 1.1),
    "UH": (0.20, 0.40, 0.06, 0.00, 0.10, 0.02, 0.0, 0.9, 1.0),
    "UW": (0.12, 0.80, 0.06, 0.00, 0.04, 0.00, 0.0, 1.2, 1.4),
    "W": (0.02, 0.95, 0.04, 0.00, 0.00, 0.00, 0.0, 2.4, 1.8),
    "Y": (0.18, 0.00, 0.00, 0.40, 0.18, 0.06, 0.0, 0.5, 0.7),
    "R": (0.09, 0.45, 0.10, 0.00, 0.06, 0.00, 0.0, 1.2, 1.0),
    "L": (0.22, 0.00, 0.00, 0.10, 0.12, 0.04, 0.1, 0.3, 0.25),
    "HH": (0.26, 0.00, 0.00, 0.05, 0.08, 0.02, 0.0, 0.15, 0.1),
    "T": (0.16, 0.00, 0.00, 0.12, 0.12, 0.03, 0.0, 0.3, 0.2),
    "S": (0.15, 0.00, 0.00, 0.25, 0.26, 0.08, 0.0, 0.5, 0.5),
    "SH": (0.11, 0.30, 0.22, 0.00, 0.12, 0.04, 0.0, 1.1, 1.4),
    "K": (0.20, 0.00, 0.00, 0.06, 0.08, 0.02, 0.0, 0.2, 0.15),
    "TH": (0.16, 0.00, 0.00, 0.08, 0.14, 0.04, 0.6, 0.6, 0.5),
    "F": (0.08, 0.00, 0.00, 0.08, 0.00, 0.12, 0.0, 1.0, 0.5),
    "M": (0.07, 0.00, 0.00, 0.00, 0.00, 0.00, 0.0, 1.0, 0.15),
}
_LIKE = {"D": "T", "N": "T", "Z": "S", "ZH": "SH", "CH": "SH", "JH": "SH", "G": "K", "NG": "K", "DH": "TH",
         "V": "F", "P": "M", "B": "M"}  # fmt: skip
# A diphthong is two targets in one segment: (first, second, share of the first).
_GLIDES = {"AY": ("AA", "IY", 0.6), "EY": ("EH", "IY", 0.55), "OY": ("AO", "IY", 0.55),
           "AW": ("AA", "UW", 0.6), "OW": ("AO", "UW", 0.5)}  # fmt: skip

_GRID = 200.0  # samples per second of the internal grid; lips move below 15 Hz
_INHALE = 0.4  # seconds for which the lips part to breathe in before they speak
_MARGIN = 0.8  # seconds computed before and after the phonemes


@dataclass(frozen=True)
class SpeakingStyle:
    """How one person articulates; the default is an average speaker.

    Attributes:
        amplitude: multiplies all openings (mumbling 0.7, shouting 1.3).
        rounding, spreading: multiply pucker and funnel, stretch and smile.
        lips: how much the lower lip moves on its own, beyond the jaw.
        inertia: multiplies the time constants; larger is more sluggish.
        skew: left-right asymmetry, in [-0.2, 0.2].
    """

    amplitude: float = 1.0
    rounding: float = 1.0
    spreading: float = 1.0
    lips: float = 1.0
    inertia: float = 1.0
    skew: float = 0.0

    @staticmethod
    def sample(seed: int) -> SpeakingStyle:
        """The style of speaker number `seed`: mild variations around the average."""
        draw = np.random.default_rng([seed, 0x5719]).normal(size=6)
        scale = np.exp(np.clip(draw, -2, 2) * (0.14, 0.15, 0.15, 0.2, 0.1, 0.0))
        amplitude, rounding, spreading, lips, inertia = (float(s) for s in scale[:5])
        skew = float(np.clip(draw[5], -2, 2) * 0.05)
        return SpeakingStyle(amplitude, rounding, spreading, lips, inertia, skew)


def viseme_of(symbol: str) -> str:
    """Viseme class of an ARPAbet symbol, with or without its stress digit."""
    return _VISEME_OF[split_stress(symbol)[0]]


def speech_actions(
    phonemes: Sequence[Phone], times: np.ndarray, style: SpeakingStyle | int | None = None
) -> np.ndarray:
    """Facial actions of speech.

    Args:
        phonemes: (ARPAbet symbol, start, end) in seconds, in order; what they leave out is silence.
        times: (N,) seconds at which the actions are wanted.
        style: a SpeakingStyle, a seed for one, or None for the average speaker.

    Returns:
        (N, 52) float32 in [0, 1], in the order of `ACTIONS`; only mouth, jaw, tongue and cheekPuff move.
    """
    if not isinstance(style, SpeakingStyle):
        style = SpeakingStyle() if style is None else SpeakingStyle.sample(style)
    times = np.asarray(times, dtype=np.float64)
    segments = _segments(phonemes)
    end = max((s[2] for s in segments), default=0.0) + _MARGIN
    grid = np.arange(-_MARGIN, end + 1.0 / _GRID, 1.0 / _GRID)
    blend = _blend(segments, grid, style)
    close, tuck, glide, bunch = (_event(segments, grid, symbols) for symbols in ("PBM", "FV", "W", "R"))
    actions = _to_actions(blend, close, tuck, glide, bunch, style)
    columns = [np.interp(times, grid, column) for column in actions.T]
    return np.clip(np.stack(columns, axis=1), 0.0, 1.0).astype(np.float32)


def frame_labels(phonemes: Sequence[Phone], times: np.ndarray) -> tuple[list[str], list[str]]:
    """The phoneme (without stress) and the viseme class spoken at each time; SIL and sil where nothing is."""
    symbols = []
    for time in times:
        hit = next((s for s, start, end in phonemes if start <= time < end), "SIL")
        symbols.append(split_stress(hit)[0])
    return symbols, [_VISEME_OF[s] for s in symbols]


def _segments(phonemes: Sequence[Phone]) -> list[tuple[str, float, float, float]]:
    """(target, start, end, emphasis): diphthongs split, gaps and both ends filled with silence."""
    out: list[tuple[str, float, float, float]] = []
    clock = -_MARGIN
    for symbol, start, end in phonemes:
        base, stress = split_stress(symbol)
        if base == "SIL" or end <= start:
            continue
        pause = start - clock
        if pause > 1e-3:
            inhale = start - (min(_INHALE, 0.6 * pause) if pause > 0.3 else 0.0)
            out.append(("SIL", clock, inhale, 1.0))
            if inhale < start:
                out.append(("INHALE", inhale, start, 1.0))
        emphasis = (0.85, 1.12, 1.0)[stress] if stress is not None else 1.0
        if base in _GLIDES:
            first, second, share = _GLIDES[base]
            middle = start + share * (end - start)
            out += [(first, start, middle, emphasis), (second, middle, end, emphasis)]
        else:
            out.append((base, start, end, emphasis))
        clock = end
    return [*out, ("SIL", clock, clock + 2 * _MARGIN, 1.0)]


def _blend(
    segments: list[tuple[str, float, float, float]], grid: np.ndarray, style: SpeakingStyle
) -> np.ndarray:
    """(G, 7) articulators: dominance-weighted means of the targets."""
    table = np.array([_TARGETS[_LIKE.get(s[0], s[0])] for s in segments])
    start, end, emphasis = (np.array([s[i] for s in segments]) for i in (1, 2, 3))
    table[:, 0] *= emphasis
    early = np.maximum(start[:, None] - grid[None], 0.0)  # time until the segment begins
    late = np.maximum(grid[None] - end[:, None], 0.0)
    out = np.empty((len(grid), len(_ARTICULATORS)))
    # The lips are lighter than the jaw, yet rounding is planned further ahead (Henke's look-ahead).
    for columns, dominance, ahead, behind in ((slice(0, 1), 7, 0.060, 0.050), (slice(1, 7), 8, 0.090, 0.055)):
        decay = np.exp(-(early / ahead + late / behind) / style.inertia)
        weight = table[:, dominance, None] * decay + 1e-9
        out[:, columns] = (weight / weight.sum(0)).T @ table[:, columns]
    return _smooth(out, 0.022 * style.inertia)


def _event(segments: list[tuple[str, float, float, float]], grid: np.ndarray, symbols: str) -> np.ndarray:
    """(G,) in [0, 1]: 1 while one of `symbols` holds the lips, with anticipation and release."""
    value = np.zeros(len(grid))
    for symbol, start, end, _ in segments:
        if symbol in symbols:
            # a stop is closed during its silent part and opens with the burst; at least 60 ms are held
            release = end if symbol in "MFV" else start + 0.75 * (end - start)
            middle, half = (start + release) / 2, max((release - start) / 2, 0.03)
            ahead = np.clip((grid - (middle - half - 0.075)) / 0.075, 0.0, 1.0)
            after = np.clip((middle + half + 0.065 - grid) / 0.065, 0.0, 1.0)
            ramp = np.minimum(ahead, after)
            value = np.maximum(value, ramp * ramp * (3.0 - 2.0 * ramp))
    return value


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing over time with the ends held."""
    reach = int(np.ceil(3 * sigma * _GRID))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (sigma * _GRID)) ** 2)
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, kernel / kernel.sum(), mode="valid") for column in padded.T], axis=1)


def _to_actions(
    blend: np.ndarray,
    close: np.ndarray,
    tuck: np.ndarray,
    glide: np.ndarray,
    bunch: np.ndarray,
    style: SpeakingStyle,
) -> np.ndarray:
    """Articulators (G, 7) and events (G,) -> (G, 52) actions."""
    jaw, rounded, funnel, spread, lower, upper, tongue = blend.T
    narrow = np.maximum(0.7 * glide, 0.35 * bunch)  # w all but closes the lips, an English r narrows them
    free = (1.0 - close) * (1.0 - 0.9 * tuck) * (1.0 - narrow)  # how free the lips are to part
    jaw = style.amplitude * jaw * (1.0 - 0.75 * close) * (1.0 - 0.5 * tuck) * (1.0 - narrow)
    rounded, funnel = style.rounding * rounded, style.rounding * funnel * free
    spread = style.spreading * spread * (1.0 - 0.6 * close)
    lower, upper = style.lips * lower * free, style.lips * upper * (1.0 - close) + 0.15 * tuck
    # each entry is both sides alike; the skew is laid on below
    values = {
        "jawOpen": jaw, "jawForward": 0.15 * funnel,
        "mouthClose": close * jaw + 0.5 * tuck * jaw, "mouthPucker": rounded, "mouthFunnel": funnel,
        "mouthPress": 0.30 * close, "mouthRollLower": 0.12 * close + 0.55 * tuck,
        "mouthRollUpper": 0.08 * close,
        "mouthShrugLower": 0.25 * tuck, "cheekPuff": 0.05 * close,
        "mouthLowerDown": lower, "mouthUpperUp": upper, "tongueOut": 0.35 * tongue,
        "mouthStretch": 0.55 * spread, "mouthSmile": 0.30 * spread, "mouthDimple": 0.15 * spread,
    }  # fmt: skip
    out = np.zeros((len(blend), len(ACTIONS)))
    for index, name in enumerate(ACTIONS):
        if name in values:
            out[:, index] = values[name]
        elif name.endswith("Left") and name[:-4] in values:
            out[:, index] = (1.0 + style.skew) * values[name[:-4]]
        elif name.endswith("Right") and name[:-5] in values:
            out[:, index] = (1.0 - style.skew) * values[name[:-5]]
    return out
