"""Emotions as facial actions: what the whole face does, at full intensity, for each of the eight.

Written from the action units of Ekman & Friesen's prototypes (FACS, 1978; e.g. happy = AU 6 + 12) in terms of the
52 actions. One table serves the synthetic corpus and the talking picture.
"""

from __future__ import annotations

import numpy as np

from talkface.errors import TalkfaceError
from talkface.head.model import ACTIONS

EMOTIONS = ("neutral", "happy", "sad", "surprised", "fear", "disgusted", "angry", "contempt")
"""In AffectNet's order; the place of a name is its id."""

# A name without a side moves both sides alike.
_PROTOTYPES: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"mouthSmile": 1.0, "cheekSquint": 0.8, "eyeSquint": 0.4, "mouthDimple": 0.2, "browOuterUp": 0.1,
              "mouthUpperUp": 0.4, "mouthLowerDown": 0.25, "mouthStretch": 0.15},
    "sad": {"mouthFrown": 1.0, "browInnerUp": 1.0, "browDown": 0.25, "mouthShrugLower": 0.6, "eyeSquint": 0.2,
            "eyeLookDown": 0.2, "eyeBlink": 0.12},
    "surprised": {"browInnerUp": 0.95, "browOuterUp": 1.0, "eyeWide": 0.9, "jawOpen": 0.55, "mouthFunnel": 0.25},
    "fear": {"browInnerUp": 1.0, "browOuterUp": 0.45, "browDown": 0.35, "eyeWide": 1.0, "mouthStretch": 1.0,
             "mouthLowerDown": 0.6, "mouthFrown": 0.25, "jawOpen": 0.2},
    "disgusted": {"noseSneer": 1.0, "mouthUpperUp": 0.9, "browDown": 0.5, "cheekSquint": 0.7, "mouthFrown": 0.6,
                  "eyeSquint": 0.7, "mouthShrugUpper": 0.2},
    "angry": {"browDown": 1.0, "eyeWide": 0.4, "eyeSquint": 0.3, "noseSneer": 0.45, "mouthPress": 0.9,
              "mouthRollUpper": 0.3, "mouthRollLower": 0.3, "mouthFrown": 0.45, "jawForward": 0.35},
    "contempt": {"mouthSmileLeft": 0.9, "mouthDimpleLeft": 0.9, "cheekSquintLeft": 0.4, "eyeSquint": 0.35,
                 "browOuterUpRight": 0.6, "mouthUpperUpLeft": 0.3, "mouthLeft": 0.25, "mouthPress": 0.15},
}  # fmt: skip
_INDEX = {name: i for i, name in enumerate(ACTIONS)}


def emotion_actions(emotion: int | str, intensity: float) -> np.ndarray:
    """(52,) actions of an expression.

    Args:
        emotion: id or name (see `EMOTIONS`).
        intensity: 0 (neutral) to 1 (as strong as it gets); every action grows with it.

    Raises:
        TalkfaceError: unknown emotion.
    """
    index = EMOTIONS.index(emotion) if emotion in EMOTIONS else emotion
    if not isinstance(index, int | np.integer) or not 0 <= index < len(EMOTIONS):
        raise TalkfaceError(f"emotion: {emotion!r}; allowed 0-{len(EMOTIONS) - 1} or {', '.join(EMOTIONS)}")
    out = np.zeros(len(ACTIONS), dtype=np.float32)
    for name, value in _PROTOTYPES[EMOTIONS[index]].items():
        sides = [name] if name in _INDEX else [name + "Left", name + "Right"]
        for side in sides:
            out[_INDEX[side]] = value * intensity
    return out
