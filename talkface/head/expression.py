"""How facial actions add up: speech over an expression, and the expression that a speaking photograph rests in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from talkface.head.fit import FittedHead, HeadFitter
from talkface.head.model import ACTIONS

_INDEX = {name: number for number, name in enumerate(ACTIONS)}


def _columns(*names: str) -> list[int]:
    """Numbers of actions; a name without a side stands for both."""
    return [
        _INDEX[side] for name in names for side in (name, f"{name}Left", f"{name}Right") if side in _INDEX
    ]


_OPENING = _columns("jawOpen", "mouthLowerDown", "mouthUpperUp", "mouthFunnel")
_SPREADING = _columns("mouthSmile", "mouthStretch")
_PRESS = _columns("mouthPress")
_EXPRESSIVE = _columns(
    "mouthSmile", "mouthStretch", "mouthFrown", "noseSneer", "mouthShrugUpper", "mouthShrugLower"
)
_SMILE = _columns("mouthSmile")
_STRENGTH = np.ones(len(ACTIONS), dtype=np.float32)  # of the head's own actions in a full one as ARKit has it
_STRENGTH[_SMILE], _STRENGTH[_INDEX["mouthPucker"]] = 1.55, 1.2
# so much of an expressive action may be how a face is built; more is expression, and a strong one hides the build
_NEUTRAL, _STRONG = 0.2, (0.4, 0.8)
_MISSED = 0.25  # of a strong one is not found by the fit, and has to be taken back as well
_EAGER = 2.5  # closures told from sound are weaker than those of the corpus
_PARTED = 0.5  # of an emotion's opening of the mouth is left to one who speaks: more would hide the speech
_CLOSED = 0.03  # of the distance of the eyes' outer corners: lips that far apart count as closed
# metres that closed lips, which are soft, lie on each other: those that the model closes, and those that a photograph
# shows closed
_PRESSED, _MEETING = 0.0010, 0.0005
_CLOSE = _INDEX["mouthClose"]
_UPPER_LIP, _LOWER_LIP = [61, 62, 63], [67, 66, 65]  # landmarks of the inner lips


def combine(speech: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """Speech (T, 52) with an expression (T or 1, 52) laid over it, in [0, 1].

    While the lips are held together for p, b, m (or tucked for f, v) what the expression does to open them is
    taken back, and a pucker takes back the smile: the sound has to be made.
    """
    return np.clip(speech + _closing(speech) * _yielding(speech) * expression, 0.0, 1.0).astype(np.float32)


def speak_over(speech: np.ndarray, rest: np.ndarray, emotion: np.ndarray | None = None) -> np.ndarray:
    """Speech (T, 52) by a face whose lips are closed in `rest` (1, 52), as `resting_actions` gives it; in [0, 1].

    What the fit needed to explain closed lips (a little jaw, say) belongs to the rest and is never taken back. An
    `emotion` (T or 1, 52) is laid over both as `combine` does.
    """
    if emotion is not None:
        rest = rest + _closing(speech, eager=_EAGER) * while_speaking(emotion)
    return np.clip(speech + _yielding(speech) * rest, 0.0, 1.0).astype(np.float32)


def while_speaking(emotion: np.ndarray) -> np.ndarray:
    """An emotion (T or 1, 52) as one shows it who speaks: it opens the mouth half as far, so that speech stays
    readable. Lip opening keeps the distinctions of speech under every emotion (Magno Caldognetto et al. 2003)."""
    parted = np.ones(len(ACTIONS), dtype=np.float32)
    parted[_OPENING] = _PARTED
    return parted * emotion


def commanded(actions: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """What a face of expression `rest` (1, 52) shows when told facial actions (T, 52), 0 to 1 as ARKit means them.

    Commands take the place of the face's expression, not of its build; a smile and a pucker exclude each other. The
    result is in units of the head and reaches `_STRENGTH`; below 0 it takes back what the fit missed of a strong
    expression.
    """
    build = rest.copy()
    shown = build[:, _EXPRESSIVE]
    hidden = np.clip((shown - _STRONG[0]) / (_STRONG[1] - _STRONG[0]), 0.0, 1.0)
    build[:, _EXPRESSIVE] = np.minimum(shown, _NEUTRAL) * (1.0 - hidden)
    keep = _yielding(actions)
    # the gap is to follow the jaw evenly; a smile or rounded lips part as the head parts them
    shaped = np.maximum(
        actions[:, _SMILE].mean(1), actions[:, [_INDEX["mouthPucker"], _INDEX["mouthFunnel"]]].max(1)
    )
    keep[:, _CLOSE] = 1.0 - np.clip(shaped, 0.0, 1.0)
    keep[:, _SPREADING] = 1.0 - np.clip(actions[:, [_INDEX["mouthPucker"]]] / 0.8, 0.0, 1.0)
    keep[:, _INDEX["mouthPucker"]] = 1.0 - np.clip(actions[:, _SMILE].mean(1) / 0.5, 0.0, 1.0)
    shows = np.clip(actions * _STRENGTH + keep * build, 0.0, _STRENGTH)
    missed = np.zeros(len(ACTIONS), dtype=np.float32)
    missed[_EXPRESSIVE] = _MISSED * hidden[0]
    return (shows - missed * (1.0 - np.clip(actions, 0.0, 1.0))).astype(np.float32)


def as_commands(actions: np.ndarray) -> np.ndarray:
    """The head's own actions (T, 52) as `commanded` is told them."""
    return actions / _STRENGTH


def calmed(rest: np.ndarray, share: float) -> np.ndarray:
    """A resting face (1, 52) whose own expression of the mouth is taken back by `share` (0 to 1), for another one."""
    result = rest.copy()
    result[:, _EXPRESSIVE] *= 1.0 - share
    return result


def _closing(speech: np.ndarray, eager: float = 1.0) -> np.ndarray:
    """(T, 52) share of an expression that is left while the lips are held together: nothing that opens them.

    Args:
        eager: how many times less than a full closure of the corpus counts as one.
    """
    closing = speech[:, _INDEX["mouthPressLeft"]] / 0.30 + speech[:, _INDEX["mouthRollLower"]] / 0.55
    held = np.clip(eager * closing, 0.0, 1.0)[:, None]
    keep = np.ones((len(speech), len(ACTIONS)), dtype=np.float32)
    keep[:, _OPENING] = 1.0 - 0.95 * held
    return keep


def _yielding(speech: np.ndarray) -> np.ndarray:
    """(T, 52) share of an expression that speech leaves: a pucker takes the smile back, a vowel parts pressed lips."""
    keep = np.ones((len(speech), len(ACTIONS)), dtype=np.float32)
    rounded = np.clip(speech[:, _INDEX["mouthPucker"]] / 0.8, 0.0, 1.0)[:, None]
    keep[:, _SPREADING] = 1.0 - 0.6 * rounded
    keep[:, [*_PRESS, _CLOSE]] = 1.0 - np.clip(speech[:, [_INDEX["jawOpen"]]] / 0.25, 0.0, 1.0)
    return keep


def lip_distance(points: Tensor) -> Tensor:
    """(B, 68, 2) -> (B,) mean distance of the inner lips over the distance of the eyes' outer corners."""
    gaps = (points[:, _UPPER_LIP] - points[:, _LOWER_LIP]).norm(dim=2).mean(1)
    return gaps / (points[:, 36] - points[:, 45]).norm(dim=1).clamp(min=1e-6)


def lips_together(fitter: HeadFitter, fitted: FittedHead, points: Tensor) -> FittedHead:
    """The head (1) fitted to `points` (1, 68, 2); closed lips, which were fitted edge to edge, lie on each other.

    Lips are soft and hide where they meet; two edges of a mesh that only touch would show the teeth through a slit.
    """
    if float(lip_distance(points)) > _CLOSED:
        return fitted
    return replace(fitted, actions=_pressed(fitter, fitted.identity, fitted.actions, _MEETING))


def resting_actions(fitter: HeadFitter, fitted: FittedHead, points: Tensor) -> Tensor:
    """The actions (1, 52) of one photographed face when it is silent.

    Closed lips stay as they are. Open ones are closed by taking back, as far as needed, first what opens them, then
    up to half of the smile that parts them; the rest of the expression stays. A mouth without expression is not quite
    closed: what is left of the gap the lower lip closes, or a slit would show the teeth.

    Args:
        fitted: the one head, fitted to `points` (1, 68, 2).
    """
    if float(lip_distance(points)) <= _CLOSED:
        return fitted.actions
    actions = fitted.actions
    for columns, most in ((_OPENING, 1.0), (_EXPRESSIVE, 0.5)):
        shares = torch.linspace(0.0, most, 21)
        tried = actions.expand(len(shares), -1).clone()
        tried[:, columns] *= 1.0 - shares[:, None].to(tried)
        shape = fitter.shape(fitted.identity.double().expand(len(shares), -1), tried.double())
        seen = fitted[torch.zeros(len(shares), dtype=torch.long)].project(shape.float())
        closed = (lip_distance(seen[..., :2]) <= 0.5 * _CLOSED).nonzero()
        chosen = int(closed[0]) if len(closed) else len(shares) - 1
        actions = tried[chosen : chosen + 1]
        if len(closed):
            break
    return _pressed(fitter, fitted.identity, actions, _PRESSED)


def _pressed(fitter: HeadFitter, identity: Tensor, actions: Tensor, depth: float) -> Tensor:
    """Actions (1, 52) whose lower lip is lifted until the lips lie `depth` metres on each other, if they do not yet."""
    shape = fitter.shape(identity.double(), actions.double())
    gap = (shape[:, _UPPER_LIP, 1] - shape[:, _LOWER_LIP, 1]).mean(1)
    lifted = (fitter.actions[_CLOSE, _LOWER_LIP, 1] - fitter.actions[_CLOSE, _UPPER_LIP, 1]).mean()
    actions = actions.clone()
    actions[:, _CLOSE] += ((gap + depth) / lifted).clamp(0.0, 1.0).to(actions)
    return actions
