"""A performance: what the whole face does while a sentence is spoken.

Speech moves the mouth (`visemes`); over it lie an emotional expression, blinks, glances, brow raises on
stressed vowels, and slow head motion. All of it is drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from talkface.data.synthetic.phonemes import split_stress
from talkface.data.synthetic.visemes import SpeakingStyle, frame_labels, speech_actions
from talkface.data.synthetic.voices import Utterance
from talkface.errors import TalkfaceError
from talkface.head.emotions import EMOTIONS, emotion_actions
from talkface.head.expression import combine, while_speaking
from talkface.head.model import ACTIONS
from talkface.head.motion import blink_shape, wander

__all__ = ["EFFORT", "LEVELS", "Performance", "emotion_actions", "emotional_speech", "performance"]

LEVELS = (0.45, 0.7, 1.0)
"""Intensity of the emotion levels 1, 2 and 3."""

EFFORT = {"happy": 1.05, "sad": 0.85, "surprised": 1.1, "fear": 1.05, "angry": 1.15, "contempt": 0.95}
"""How far jaw and lips move at full intensity, times as far as without emotion; 1 for those that are not named.

What the order rests on: movements of jaw and lower lip are larger in angry speech and smaller in sad speech, those of
happy speech like those of neutral one (Lee et al., "An articulatory study of emotional speech production", Interspeech
2005); articulators go farther the more aroused the speaker is (Kim et al., J. Acoust. Soc. Am. 137, 1411, 2015; Lee and
Narayanan, Speech Prosody 2012), and jaws with the loudness of the voice (Livingstone et al. 2015, doi
10.1080/17470218.2014.971034). The sizes are ours: no more than speakers differ anyway (`SpeakingStyle`).
"""

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
    intensity = 0.0 if neutral else LEVELS[level - 1]
    emotion_actions(emotion, intensity)  # refuses unknown ones
    index = EMOTIONS.index(emotion) if isinstance(emotion, str) else int(emotion)
    style = style if style is not None else SpeakingStyle.sample(seed)
    swell = 0.85 + 0.15 * wander(times, random, period=1.5)  # an expression is never frozen
    actions = emotional_speech(
        utterance.phonemes, times, EMOTIONS[index], intensity, style, np.clip(swell, 0.6, 1.0)
    )
    actions = np.maximum(actions, _blinks(times, random, busy=1.6 if index in (3, 4) else 1.0))
    actions = np.maximum(actions, _glances(times, random))
    actions = np.maximum(actions, _brows(utterance, times, random))
    symbols, visemes = frame_labels(utterance.phonemes, times)
    pose = _head_motion(times, random)
    return Performance(actions, pose, symbols, visemes, fps, 0 if neutral else index, 0 if neutral else level)


def emotional_speech(
    phonemes: Sequence[tuple[str, float, float]],
    times: np.ndarray,
    emotion: int | str,
    intensity: float,
    style: SpeakingStyle | None = None,
    swell: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Facial actions of one who speaks with an emotion: articulated with its effort, its expression laid over.

    Args:
        phonemes, times: see `speech_actions`.
        emotion: id or name. intensity: 0, which is `speech_actions`, to 1.
        style: None: an average speaker.
        swell: (N,) or one factor of the expression.

    Returns:
        (N, 52) float32 in [0, 1].
    """
    expression = emotion_actions(emotion, intensity)
    name = emotion if isinstance(emotion, str) else EMOTIONS[emotion]
    effort = 1.0 + intensity * (EFFORT.get(name, 1.0) - 1.0)
    style = SpeakingStyle() if style is None else style
    style = replace(style, amplitude=effort * style.amplitude, lips=effort * style.lips)
    shown = while_speaking(expression[None] * np.reshape(np.asarray(swell, np.float32), (-1, 1)))
    return combine(speech_actions(phonemes, times, style), shown)


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
