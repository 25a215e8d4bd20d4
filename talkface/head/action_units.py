"""Names for single facial movements: action units of FACS, and the 52 ARKit actions that stand for them here.

Action units are Ekman & Friesen's (Facial Action Coding System, 1978; 2002 edition). ARKit's actions were cut along the
same muscles, but not one to one: units that only tell how lips meet (13, 21 to 25 in part) have no counterpart and are
left out. A unit at 1 means its actions as strong as the head model has them, about FACS intensity E.
"""

from __future__ import annotations

import numpy as np

from talkface.errors import TalkfaceError
from talkface.head.model import ACTIONS

# Actions without a side move both sides alike, or only the named one of a unit such as AU12L.
ACTION_UNITS: dict[str, dict[str, float]] = {
    "AU1": {"browInnerUp": 1.0},
    "AU2": {"browOuterUp": 1.0},
    "AU4": {"browDown": 1.0},
    "AU5": {"eyeWide": 1.0},
    "AU6": {"cheekSquint": 1.0},
    "AU7": {"eyeSquint": 1.0},
    "AU8": {"mouthClose": 1.0},
    "AU9": {"noseSneer": 1.0},
    "AU10": {"mouthUpperUp": 1.0},
    "AU12": {"mouthSmile": 1.0},
    "AU14": {"mouthDimple": 1.0},
    "AU15": {"mouthFrown": 1.0},
    "AU16": {"mouthLowerDown": 1.0},
    "AU17": {"mouthShrugLower": 1.0},
    "AU18": {"mouthPucker": 1.0},
    "AU19": {"tongueOut": 1.0},
    "AU20": {"mouthStretch": 1.0},
    "AU22": {"mouthFunnel": 1.0},
    "AU24": {"mouthPress": 1.0},
    "AU26": {"jawOpen": 0.5},
    "AU27": {"jawOpen": 1.0},
    "AU28": {"mouthRollLower": 1.0, "mouthRollUpper": 1.0},
    "AU29": {"jawForward": 1.0},
    "AU34": {"cheekPuff": 1.0},
    "AU43": {"eyeBlink": 1.0},
    "AU61": {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0},
    "AU62": {"eyeLookOutRight": 1.0, "eyeLookInLeft": 1.0},
    "AU63": {"eyeLookUp": 1.0},
    "AU64": {"eyeLookDown": 1.0},
}
_SIDES = {"L": "Left", "R": "Right"}


def expand_action(name: str) -> dict[str, float]:
    """ARKit actions, with factors, behind a name.

    Args:
        name: an action ("mouthSmileLeft"; "mouthSmile" for both sides), or a unit ("AU12"; "AU12L", "AU12R" for the
            person's left or right). Upper and lower case do not matter.

    Raises:
        TalkfaceError: unknown; the message lists what is known.
    """
    actions = {action.lower(): action for action in ACTIONS}
    key = name.lower()
    if key in actions:
        return {actions[key]: 1.0}
    if f"{key}left" in actions:
        return {actions[f"{key}left"]: 1.0, actions[f"{key}right"]: 1.0}
    unit, side = (
        (name.upper(), "") if name.upper() in ACTION_UNITS else (name.upper()[:-1], name.upper()[-1:])
    )
    meant = ACTION_UNITS.get(unit)
    if meant is not None and side in ("", *_SIDES):
        found: dict[str, float] = {}
        for action, factor in meant.items():
            for one in expand_action(action):
                if not side or one.endswith(_SIDES[side]):
                    found[one] = factor
        if found:
            return found
    raise TalkfaceError(
        f"action: {name}; allowed are {', '.join(ACTION_UNITS)} (with L or R behind it for one side), and "
        f"{', '.join(known_actions())} (with Left or Right for one side)"
    )


def known_actions() -> list[str]:
    """The ARKit names, those of two sides once and without their side."""
    names = []
    for action in ACTIONS:
        stem = action.removesuffix("Left").removesuffix("Right")
        names.append(stem if f"{stem}Left" in ACTIONS and f"{stem}Right" in ACTIONS else action)
    return list(dict.fromkeys(names))


def action_vector(strengths: dict[str, float]) -> np.ndarray:
    """(52,) float32 in the order of `ACTIONS`: what the named actions or units add up to, at most 1 each.

    Args:
        strengths: name (see `expand_action`) -> 0 to 1.

    Raises:
        TalkfaceError: an unknown name, or a strength outside 0 to 1.
    """
    vector = np.zeros(len(ACTIONS), np.float32)
    for name, strength in strengths.items():
        if not 0.0 <= strength <= 1.0:
            raise TalkfaceError(f"action {name}: {strength:g}; allowed are 0 to 1")
        for action, factor in expand_action(name).items():
            vector[ACTIONS.index(action)] += factor * strength
    return vector.clip(0.0, 1.0)
