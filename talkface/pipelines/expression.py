"""What a face is told to show: emotions in shares, facial actions, or both; read from text, turned into a conditioning.

The network learns one vector per emotion. Mixtures and intensities lie between them: a mixture is the weighted mean of
the conditionings of its emotions, and what its shares lack to 1 is neutral. So nothing but labels need be trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkface.conditioning.base import ConditionerSet, Conditioning
from talkface.errors import TalkfaceError
from talkface.head.action_units import action_vector
from talkface.head.emotions import EMOTIONS, emotion_actions
from talkface.head.expression import as_commands
from talkface.head.model import ACTIONS

UNKNOWN = "none"
_NO_LABEL = -1


@dataclass(frozen=True)
class Expression:
    """What a face shows.

    Attributes:
        text: as it was written.
        shares: of each emotion, (emotion id, share) with shares that sum to 1; empty: no emotion is told.
        actions: (52,) facial actions in [0, 1]; None: not told.
    """

    text: str
    shares: tuple[tuple[int, float], ...] = ()
    actions: tuple[float, ...] | None = None

    @property
    def emotion(self) -> int | None:
        """Id of the emotion with the largest share; None where no emotion is told."""
        return max(self.shares, key=lambda share: share[1])[0] if self.shares else None


def single(emotion: int, names: Sequence[str]) -> Expression:
    """One emotion in full."""
    return Expression(names[emotion], ((emotion, 1.0),))


def parse_expression(text: str, names: Sequence[str], knows_actions: bool, option: str = "to") -> Expression:
    """Read `happy`, `happy:0.5`, `happy:0.6,surprised:0.4`, `AU12=0.8,AU6=0.5`, `mouthSmileLeft=0.8`, or `none`.

    Args:
        names: of the emotions, in the order of their ids.
        knows_actions: whether the model was trained with facial actions.
        option: for messages.

    Raises:
        TalkfaceError: unknown names, shares outside 0 to 1 or above 1 together, actions that the model was not told.
    """
    if text.strip() == UNKNOWN:
        return Expression(UNKNOWN)
    shares: dict[str, float] = {}
    actions: dict[str, float] = {}
    for item in text.split(","):
        item = item.strip()
        sign = "=" if "=" in item else ":"
        name, _, value = item.partition(sign)
        place = actions if sign == "=" else shares
        name = name.strip()
        if place is shares and name not in names:
            more = ", or facial actions as AU12=0.8" if knows_actions else ""
            raise TalkfaceError(f"{option}: {name or text!r}; allowed are {', '.join(names)}{more}")
        if name in place:
            raise TalkfaceError(f"{option}: {name} is given twice in {text!r}; give it once")
        place[name] = _amount(value, item, option) if value or sign in item else 1.0
    if actions and not knows_actions:
        raise TalkfaceError(
            f"{option}: {text}; this model was trained without facial actions, allowed are {', '.join(names)}"
        )
    told = tuple(action_vector(actions).tolist()) if actions else None
    return Expression(text.strip(), _with_neutral(shares, names, text, option), told)


def _amount(value: str, item: str, option: str) -> float:
    try:
        amount = float(value)
    except ValueError:
        amount = float("nan")
    if not 0.0 <= amount <= 1.0:
        raise TalkfaceError(f"{option}: {item}; allowed is a number from 0 to 1 behind the name")
    return amount


def _with_neutral(
    shares: Mapping[str, float], names: Sequence[str], text: str, option: str
) -> tuple[tuple[int, float], ...]:
    if not shares:
        return ()
    total = sum(shares.values())
    if total > 1.0 + 1e-6:
        raise TalkfaceError(
            f"{option}: the shares of {text} sum to {total:g}; allowed is at most 1, the rest is {names[0]}"
        )
    weights = {names.index(name): share for name, share in shares.items()}
    weights[0] = weights.get(0, 0.0) + max(0.0, 1.0 - total)
    return tuple((label, share) for label, share in sorted(weights.items()) if share > 0.0)


def wanted_actions(expression: Expression, names: Sequence[str]) -> np.ndarray | None:
    """(52,) facial actions of an expression, 0 to 1 as ARKit means them; None where nothing is told.

    Args:
        names: of the emotions, in the order of their ids; what `talkface.head.emotions` does not know moves nothing.
    """
    if not expression.shares and expression.actions is None:
        return None
    wanted = np.zeros(len(ACTIONS), np.float32)
    for label, share in expression.shares:
        if names[label] in EMOTIONS:
            wanted += share * as_commands(emotion_actions(names[label], 1.0))
    if expression.actions is not None:
        wanted = np.maximum(wanted, np.array(expression.actions, np.float32))
    return wanted.clip(0.0, 1.0)


def condition(
    conditioner: ConditionerSet,
    expressions: Sequence[Expression],
    device: torch.device,
    shown: Mapping[str, Tensor] | None = None,
) -> Conditioning:
    """One row for each expression: the mean of its emotions' conditionings, weighted by their shares.

    Args:
        conditioner: of `emotion`, and perhaps `actions`, which reads batch["actions"] (B, 52), and `frames`, a
            `FramesConditioner`.
        shown: latents (B, C, h, w) of pictures of the people, by their names in `frames`; None: nobody is shown.
    """
    owners: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    for owner, expression in enumerate(expressions):
        for label, share in expression.shares or ((_NO_LABEL, 1.0),):
            owners.append(owner)
            labels.append(label)
            weights.append(share)
    told = [expressions[owner].actions for owner in owners]
    batch = {
        "emotion": torch.tensor(labels, device=device),
        "actions": torch.tensor([actions or (0.0,) * len(ACTIONS) for actions in told], device=device),
    }
    drop = {}
    if "actions" in conditioner.conditioners:
        drop["actions"] = torch.tensor([actions is None for actions in told], device=device)
    if "frames" in conditioner.conditioners:
        frames: Any = conditioner.conditioners["frames"]  # a FramesConditioner; to mypy any Module
        if shown is None:
            batch |= nobody(frames, len(owners), device)
        else:
            batch |= {f"{name}_latents": shown[name].to(device)[owners] for name in frames.order}
    rows = conditioner(batch, drop)
    index, share_of = torch.tensor(owners, device=device), torch.tensor(weights, device=device)

    def mean(values: Tensor) -> Tensor:
        weighted = values * share_of.to(values).view(-1, *[1] * (values.dim() - 1))
        return values.new_zeros(len(expressions), *values.shape[1:]).index_add_(0, index, weighted)

    fields = {name: getattr(rows, name) for name in ("context", "concat", "embedding")}
    return Conditioning(**{name: mean(value) for name, value in fields.items() if value is not None})


def unconditioned(
    conditioner: ConditionerSet,
    count: int,
    device: torch.device,
    shown: Mapping[str, Tensor] | None = None,
) -> Conditioning:
    """`count` rows in which no expression is told."""
    return condition(conditioner, [Expression(UNKNOWN)] * count, device, shown)


def nobody(frames: Any, count: int, device: torch.device) -> dict[str, Tensor]:
    """What a `FramesConditioner` reads when no picture is shown: zeros, which are its null."""
    size = (count, frames.latent_channels, frames.latent_size, frames.latent_size)
    return {f"{name}_latents": torch.zeros(size, device=device) for name in frames.order}
