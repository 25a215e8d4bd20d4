"""Does the mouth move as the sound says? Curves of the lip gap and the numbers drawn from them.

A curve is one number per frame: the gap between the inner lips over a length of the face that speech does not
change, nan where no face was found. The curve of a generated film is compared with that of the real film of
the same sound. SyncNet-type confidences are not used: they correlate poorly with what people see and stay
high on silence. Not a measure of which sound is spoken: for words, read the lips (`speech`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray
BILABIALS = frozenset({"P", "B", "M"})
OPEN_VOWELS = frozenset({"AA", "AE", "AH", "AO", "AW", "AY", "EH", "EY", "OW", "OY"})
"""ARPAbet vowels for which the jaw opens; not schwa (AX)."""


def lip_gap(landmarks: Array) -> Array:
    """Gap of the inner lips (points 62, 66) over the distance of the outer eye corners (36, 45).

    Args:
        landmarks: (T, 68, 2) in iBUG order, any unit; nan where a face is missing.

    Returns:
        (T,) without unit, about 0 for closed lips and 0.3 for a wide open mouth.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    gap = np.linalg.norm(points[:, 66] - points[:, 62], axis=-1)
    return gap / np.linalg.norm(points[:, 45] - points[:, 36], axis=-1)


def correlation(real: Array, generated: Array, max_lag: int = 3) -> tuple[float, int]:
    """Pearson correlation of two curves at the lag that suits them best.

    Args:
        real, generated: (T,) and (T',), same frame rate, frame 0 at the same time; the common part counts.
            Frames where either is nan are left out.
        max_lag: in frames.

    Returns:
        (correlation, lag): a positive lag means that the generated mouth comes late. A flat curve has no
        correlation and counts as 0 at lag 0. At equal correlations the smaller lag wins.
    """
    best = (0.0, 0)
    found = False
    for lag in sorted(range(-max_lag, max_lag + 1), key=lambda lag: (abs(lag), lag)):
        a, b = (real, generated[lag:]) if lag >= 0 else (real[-lag:], generated)
        value = _pearson(a, b)
        if not np.isnan(value) and (not found or value > best[0]):
            best, found = (value, lag), True
    return best


def _pearson(a: Array, b: Array) -> float:
    count = min(len(a), len(b))
    a, b = np.asarray(a[:count], dtype=np.float64), np.asarray(b[:count], dtype=np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3:
        return float("nan")
    a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 1e-12 else float("nan")


def amplitude_ratio(real: Array, generated: Array) -> float:
    """Standard deviation of the generated curve over that of the real one: 1 = moves as much."""
    return _ratio(_deviation(generated), _deviation(real))


def silence_ratio(speech: Array, silence: Array) -> float:
    """Standard deviation of the curve made from silence over that made from speech: 0 = rests in silence."""
    return _ratio(_deviation(silence), _deviation(speech))


def _ratio(above: float, below: float) -> float:
    """nan where the curve below is flat: nothing can be said relative to it."""
    return above / below if below > 1e-12 else float("nan")


def _deviation(curve: Array) -> float:
    """Standard deviation of the frames with a face; nan without any."""
    known = curve[np.isfinite(curve)]
    return float(known.std()) if len(known) else float("nan")


def closed_level(real: Array, share: float = 0.2) -> float:
    """The gap under which a mouth counts as closed, from the real curve: p5 + share (p95 - p5)."""
    low, high = np.nanpercentile(real, [5, 95])
    return float(low + share * (high - low))


def bilabial_closure(
    curve: Array, spans: Sequence[tuple[float, float]], fps: float, level: float, margin: float = 0.04
) -> tuple[int, int]:
    """How many /p/, /b/, /m/ really close the lips.

    Args:
        curve: (T,) lip gap; frame k shows the time (k + 0.5) / fps.
        spans: start and end of each bilabial, seconds.
        level: gap under which the mouth is closed, see `closed_level`.
        margin: seconds that a closure may come early or late (also catches closures between two frames).

    Returns:
        (closed, counted): spans in which some frame is under the level, and spans with any frame at all.
    """
    times = (np.arange(len(curve)) + 0.5) / fps
    closed = counted = 0
    for start, end in spans:
        frames = curve[(times >= start - margin) & (times <= end + margin)]
        frames = frames[np.isfinite(frames)]
        counted += len(frames) > 0
        closed += bool((frames <= level).any())
    return closed, counted


def phone_gaps(
    curve: Array, phones: Sequence[tuple[str, float, float]], fps: float
) -> tuple[list[float], list[float]]:
    """How far the lips part in what must close them and in what must open them.

    Args:
        curve: (T,) lip gap, nan where no face was found; frame k shows the time (k + 0.5) / fps.
        phones: (ARPAbet symbol, start, end) in seconds; a stress digit may follow a vowel.

    Returns:
        The smallest gap of each /p/, /b/, /m/ and the largest of each open vowel (`OPEN_VOWELS`), within the phone and
        one frame on each side, in order. Phones without a judged frame are left out.
    """
    times = (np.arange(len(curve)) + 0.5) / fps
    closed: list[float] = []
    opened: list[float] = []
    for symbol, start, end in phones:
        name = symbol.rstrip("0123456789").upper()
        if name not in BILABIALS and name not in OPEN_VOWELS:
            continue
        seen = curve[(times >= start - 1 / fps) & (times <= end + 1 / fps)]
        seen = seen[np.isfinite(seen)]
        if len(seen) and name in BILABIALS:
            closed.append(float(seen.min()))
        elif len(seen):
            opened.append(float(seen.max()))
    return closed, opened


def closure_ratio(closed: Sequence[float], opened: Sequence[float]) -> float:
    """Mean gap of open vowels over that of /p/, /b/, /m/; nan without either, infinite if all of these close fully."""
    if not len(closed) or not len(opened):
        return float("nan")
    below = float(np.mean(closed))
    return float(np.mean(opened)) / below if below > 0 else float("inf")


def loudness(samples: Array, sample_rate: int, times: Array, width: float = 0.04) -> Array:
    """Root mean square of the sound around each time, (N,): the floor that any sound-driven mouth must beat.

    Args:
        samples: (S,) mono.
        times: (N,) seconds.
        width: seconds of sound around each time.
    """
    energy = np.concatenate([[0.0], np.cumsum(np.asarray(samples, dtype=np.float64) ** 2)])
    edges = [np.clip(np.rint((times + side * width / 2) * sample_rate), 0, len(samples)) for side in (-1, 1)]
    first, last = (edge.astype(np.int64) for edge in edges)
    return np.sqrt((energy[last] - energy[first]) / np.maximum(last - first, 1))
