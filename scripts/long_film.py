"""Numbers of a long talking film, minute by minute, and the sound and the curve that it is compared with.

The sound is the films' sounds one after the other, again and again; the real curve is put together in the
same way, so that frame k of both belongs to one moment of speech. Time is counted in frames at 25 per second.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkface.metrics.articulation import amplitude_ratio, correlation

FPS, RATE, MAX_LAG = 25, 16000, 3
MINUTE = 60 * FPS
PROBES_A_MINUTE = 20
Array = np.ndarray


@dataclass(frozen=True)
class Sentence:
    """One real film: its lip gap at our frames (T,), nan where no face was found, and its sound (640 T,)."""

    gap: Array
    samples: Array


def fit_sound(samples: Array, frames: int) -> Array:
    """The sound (S,) at 16 kHz cut, or continued with silence, to so many frames."""
    wanted = frames * RATE // FPS
    return np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))


def repeated(parts: list[Array], length: int) -> Array:
    """The parts one after the other, again and again, (length,)."""
    return np.resize(np.concatenate(parts), length)


def write_wav(path: Path, samples: Array) -> None:
    """(S,) in [-1, 1] as 16-bit mono at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def probe_frames(count: int, per_minute: int = PROBES_A_MINUTE, seed: int = 0) -> Array:
    """Numbers of the frames whose identity is measured, ascending: one drawn from each equal stretch.

    Drawn, since the same place of every stretch could be the same word of every repetition.
    """
    width = min(MINUTE // per_minute, count)
    starts = np.arange(0, count - width + 1, width)
    return starts + np.random.default_rng(seed).integers(width, size=len(starts))


def minutes(count: int) -> Iterator[slice]:
    """The frames of each minute; a rest of less than half a minute belongs to the minute before."""
    starts = list(range(0, count, MINUTE))
    if len(starts) > 1 and count - starts[-1] < MINUTE / 2:
        starts.pop()
    yield from (slice(a, b) for a, b in zip(starts, [*starts[1:], count], strict=True))


def minute_rows(real: Array, made: Array, probes: Array, distances: Mapping[str, Array]) -> list[dict]:
    """What each minute of the film is like.

    Args:
        real, made: (T,) lip gaps; frame k of both is the same moment of speech.
        probes: numbers of the frames whose identity was measured, (P,).
        distances: by judge, (P,): distance of these frames from the picture.
    """
    rows: list[dict[str, Any]] = []
    for number, part in enumerate(minutes(len(made)), start=1):
        value, lag = correlation(real[part], made[part], MAX_LAG)
        inside = (probes >= part.start) & (probes < part.stop)
        rows.append(
            {
                "minute": number,
                "seconds": (part.stop - part.start) / FPS,
                "correlation": value,
                "lag": lag,
                "amplitude": amplitude_ratio(real[part], made[part]),
                "faceless": int(np.isnan(made[part]).sum()),
                **{judge: float(np.mean(values[inside])) for judge, values in distances.items()},
            }
        )
    return rows


def slope_a_minute(frames: Array, values: Array) -> tuple[float, float]:
    """Least-squares change of `values` (P,) a minute and half the width of its 95 % interval; nan if P < 3."""
    if len(values) < 3:
        return float("nan"), float("nan")
    times = (frames - np.mean(frames)) / MINUTE
    spread = float((times**2).sum())
    slope = float((times * values).sum()) / spread
    rest = values - np.mean(values) - slope * times
    return slope, 1.96 * float(np.sqrt((rest**2).sum() / (len(values) - 2) / spread))


def table(rows: list[dict], scale: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a line per minute, then, for each identity judge, what its distances are to be read against.

    Args:
        scale: by judge, what was compared with the picture -> mean distance.
    """
    judges = list(scale)
    heads = ["minute", "correlation", "lag (frames)", "amplitude ratio", *(f"{j} distance" for j in judges)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        short = "" if row["seconds"] >= 60 else f" ({row['seconds']:.0f} s)"
        cells = [f"{row['minute']}{short}", f"{row['correlation']:.3f}", f"{row['lag']:+d}"]
        cells += [f"{row['amplitude']:.2f}", *(f"{row[judge]:.4f}" for judge in judges)]
        lines.append("| " + " | ".join(cells) + " |")
    for judge, values in scale.items():
        against = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        lines += ["", f"{judge} distance from the picture, for scale: {against}."]
    return "\n".join(lines)
