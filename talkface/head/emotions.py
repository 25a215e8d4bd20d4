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
    "happy": {"mouthSmile": 0.75, "cheekSquint": 0.6, "eyeSquint": 0.3, "mouthDimple": 0.2, "browOuterUp": 0.1,
              "mouthUpperUp": 0.2, "mouthStretch": 0.15},
    "sad": {"mouthFrown": 0.65, "browInnerUp": 0.8, "browDown": 0.15, "mouthShrugLower": 0.35, "eyeSquint": 0.2,
            "eyeLookDown": 0.2, "mouthPress": 0.1},
    "surprised": {"browInnerUp": 0.8, "browOuterUp": 0.8, "eyeWide": 0.8, "jawOpen": 0.3, "mouthFunnel": 0.1},
    "fear": {"browInnerUp": 0.9, "browOuterUp": 0.3, "browDown": 0.2, "eyeWide": 0.65, "mouthStretch": 0.6,
             "mouthFrown": 0.2, "jawOpen": 0.12},
    "disgusted": {"noseSneer": 0.9, "mouthUpperUp": 0.55, "browDown": 0.5, "cheekSquint": 0.45, "mouthFrown": 0.3,
                  "eyeSquint": 0.35, "mouthShrugUpper": 0.15},
    "angry": {"browDown": 0.95, "eyeWide": 0.25, "eyeSquint": 0.3, "noseSneer": 0.4, "mouthPress": 0.45,
              "mouthFrown": 0.35, "jawForward": 0.2, "mouthLowerDown": 0.2},
    "contempt": {"mouthSmileLeft": 0.6, "mouthDimpleLeft": 0.6, "cheekSquintLeft": 0.25, "eyeSquint": 0.25,
                 "browOuterUpRight": 0.3, "mouthUpperUpLeft": 0.2, "mouthPress": 0.1},
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
