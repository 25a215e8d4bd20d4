"""A performance: what the whole face does while a sentence is spoken.

Speech moves the mouth (`visemes`); over it lie an emotional expression, blinks, glances, brow raises on
stressed vowels, and slow head motion. All of it is drawn from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkface.data.synthetic.phonemes import split_stress
from talkface.data.synthetic.visemes import SpeakingStyle, frame_labels, speech_actions
from talkface.data.synthetic.voices import Utterance
from talkface.errors import TalkfaceError
from talkface.head.emotions import EMOTIONS, emotion_actions
from talkface.head.expression import combine
from talkface.head.model import ACTIONS
from talkface.head.motion import blink_shape, wander

__all__ = ["LEVELS", "Performance", "emotion_actions", "performance"]

LEVELS = (0.45, 0.7, 1.0)
"""Intensity of the emotion levels 1, 2 and 3."""

_INDEX = {name: i for i, name in enumerate(ACTIONS)}


@dataclass(frozen=True, eq=False)
class Performance:
    """One clip's motion, frame by frame; frame k is at (k + 0.5) / fps seconds.

    Attributes:
        actions: (T, 52) float32 in [0, 1].
        pose: (T, 6) float32, rotation about x, y, z in radians and translation in metres.
        phonemes, visemes: T names each.
        fps: frames per second.
        emotion: id of the emotion (see `EMOTIONS`).
        level: 0 for neutral, else 1 to 3.
    """

    actions: np.ndarray
    pose: np.ndarray
    phonemes: list[str]
    visemes: list[str]
    fps: float
    emotion: int
    level: int


def performance(
    utterance: Utterance,
    emotion: int | str = 0,
    level: int = 2,
    fps: float = 25.0,
    seed: int = 0,
    style: SpeakingStyle | None = None,
) -> Performance:
    """Performs `utterance` with an emotion.

    Args:
        emotion: id or name; level: 1 to 3, ignored for neutral.
        seed: draws the speaking style (unless `style` is given), blinks, glances, brows and head motion.

    Returns:
        round(duration * fps) frames, the same for the same arguments.
    """
    if level not in (0, 1, 2, 3):
        raise TalkfaceError(f"emotion level: {level!r}; allowed 1, 2, 3 (0 is neutral)")
    random = np.random.default_rng([seed, 0x907])
    times = (np.arange(round(utterance.duration * fps)) + 0.5) / fps
    neutral = emotion in (0, "neutral") or level == 0
    expression = emotion_actions(emotion, 0.0 if neutral else LEVELS[level - 1])
    index = EMOTIONS.index(emotion) if isinstance(emotion, str) else int(emotion)
    speech = speech_actions(
        utterance.phonemes, times, style if style is not None else SpeakingStyle.sample(seed)
    )
    swell = 0.85 + 0.15 * wander(times, random, period=1.5)[:, None]  # an expression is never frozen
    actions = combine(speech, expression[None] * np.clip(swell, 0.6, 1.0))
    actions = np.maximum(actions, _blinks(times, random, busy=1.6 if index in (3, 4) else 1.0))
    actions = np.maximum(actions, _glances(times, random))
    actions = np.maximum(actions, _brows(utterance, times, random))
    symbols, visemes = frame_labels(utterance.phonemes, times)
    pose = _head_motion(times, random)
    return Performance(actions, pose, symbols, visemes, fps, 0 if neutral else index, 0 if neutral else level)


def _blinks(times: np.ndarray, random: np.random.Generator, busy: float) -> np.ndarray:
    """(T, 52): 15-20 blinks a minute, 0.08 s to close, 0.16 s to open."""
    out = np.zeros((len(times), len(ACTIONS)), dtype=np.float32)
    clock = random.uniform(0.2, 2.5)
    while times.size and clock < times[-1]:
        shape = blink_shape(times - clock, close=0.08, hold=0.03, reopen=0.16)
        for side in ("eyeBlinkLeft", "eyeBlinkRight"):
            out[:, _INDEX[side]] = np.maximum(out[:, _INDEX[side]], shape)
        clock += random.gamma(4.0, 0.85) / busy
    return out


def _glances(times: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(T, 52): the eyes hold a direction near the camera, then jump to another between two frames."""
    starts = np.cumsum(random.gamma(3.0, 0.5, size=2 + int(2 * times[-1:].sum())))
    hold = np.searchsorted(starts, times)
    across, up = random.normal(0, 0.16, len(starts) + 1)[hold], random.normal(0, 0.12, len(starts) + 1)[hold]
    out = np.zeros((len(times), len(ACTIONS)), dtype=np.float32)
    values = {"eyeLookInLeft": -across, "eyeLookOutRight": -across, "eyeLookOutLeft": across,
    "eyeLookInRight": across,
              "eyeLookUpLeft": up, "eyeLookUpRight": up, "eyeLookDownLeft": -up,
              "eyeLookDownRight": -up}  # fmt: skip
    for name, value in values.items():
        out[:, _INDEX[name]] = np.clip(value, 0.0, 0.6)
    return out


def _brows(utterance: Utterance, times: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(T, 52): raised brows on about one stressed vowel in four."""
    out = np.zeros((len(times), len(ACTIONS)), dtype=np.float32)
    for symbol, start, end in utterance.phonemes:
        if split_stress(symbol)[1] == 1 and random.random() < 0.25:
            bump = np.exp(-0.5 * ((times - (start + end) / 2) / 0.14) ** 2) * random.uniform(0.15, 0.5)
            for name in ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"):
                out[:, _INDEX[name]] = np.maximum(out[:, _INDEX[name]], bump)
    return out


def _head_motion(times: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(T, 6): a resting direction, a slow drift and small nods; rotation below 0.35 rad."""
    rest = random.normal(0, (0.05, 0.10, 0.03, 0.0, 0.0, 0.0))
    drift = np.stack([wander(times, random, 4.0) for _ in range(6)], axis=1) * (
        0.02,
        0.035,
        0.015,
        0.003,
        0.003,
        0.004,
    )
    nod = np.stack([wander(times, random, 0.9) for _ in range(3)], axis=1) * (0.010, 0.008, 0.005)
    pose = np.clip(rest, -0.2, 0.2) + drift
    pose[:, :3] = np.clip(pose[:, :3] + nod, -0.35, 0.35)
    return pose.astype(np.float32)
