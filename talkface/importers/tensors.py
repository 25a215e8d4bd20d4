"""The tensors of a checkpoint and an account of them: each is taken by a part, ignored on purpose, or an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from talkface.checkpoint import instantiate
from talkface.errors import TalkfaceError

_AVERAGED = "model_ema."


class Tensors:
    """Tensors by name, taken one prefix after the other.

    Args:
        tensors: all of a checkpoint.
        source: what messages call it.

    Attributes:
        ignored: reason -> how many tensors were left on purpose.
    """

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self.source = source
        self.ignored: Counter[str] = Counter()
        self._left = dict(tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    @property
    def names(self) -> list[str]:
        """Of the tensors neither taken nor ignored yet."""
        return list(self._left)

    def has(self, prefix: str) -> bool:
        """Whether a name begins with `prefix`."""
        return any(name.startswith(prefix) for name in self._left)

    def take(self, prefix: str) -> dict[str, Tensor]:
        """All tensors whose names begin with `prefix`, without it. Raises: TalkfaceError when there are none."""
        names = [name for name in self._left if name.startswith(prefix)]
        if not names:
            raise TalkfaceError(
                f"{self.source} has no tensor called {prefix}...; it has: {self._overview()}; choose another --kind"
            )
        return {name.removeprefix(prefix): self._left.pop(name) for name in names}

    def take_one(self, name: str) -> Tensor | None:
        """The tensor of exactly this name, if there is one."""
        return self._left.pop(name, None)

    def ignore(self, prefix: str, reason: str) -> None:
        """Leave the tensors whose names begin with `prefix`, and remember why."""
        for name in [name for name in self._left if name.startswith(prefix)]:
            del self._left[name]
            self.ignored[reason] += 1

    def averaged(
        self, weights: dict[str, Tensor], within: str, choice: str | None
    ) -> tuple[dict[str, Tensor], str]:
        """`weights` or their moving averages, which CompVis stores as `model_ema.` + name without its dots.

        Args:
            weights: what `take` gave.
            within: the part of their names that the averaged module sees before theirs, "" or "diffusion_model.".
            choice: "ema"; "raw"; None: averages where there are any.

        Returns:
            The tensors, and which they are: "ema" or "raw". A tensor that was not trained has no average: its own
            value is its average.

        Raises:
            TalkfaceError: "ema" is asked for and there are no averages; an average that is no weight's.
        """
        self.ignore(f"{_AVERAGED}decay", "counters of the averages")
        self.ignore(f"{_AVERAGED}num_updates", "counters of the averages")
        found = {name for name in self._left if name.startswith(_AVERAGED)}
        if choice == "ema" and not found:
            raise TalkfaceError(
                f"--weights: ema; {self.source} holds no averages (model_ema.*); allowed: raw"
            )
        if choice == "raw" or not found:
            self.ignore(_AVERAGED, "moving averages (--weights raw)")
            return weights, "raw"
        chosen = {}
        for name, value in weights.items():
            key = _AVERAGED + (within + name).replace(".", "")
            found.discard(key)
            average = self._left.pop(key, None)
            chosen[name] = value if average is None else average
            self.ignored["weights that averages replace (--weights ema)"] += average is not None
        if found:
            raise TalkfaceError(
                f"{self.source}: averages of nothing: {', '.join(sorted(found)[:3])} ({len(found)} in all); "
                "import with --weights raw"
            )
        return chosen, "ema"

    def finish(self) -> None:
        """Raises: TalkfaceError: tensors are left that nobody took, so the model is not the one that was built."""
        if self._left:
            raise TalkfaceError(
                f"{self.source} has {len(self._left)} tensors that this kind does not know: {self._overview()}; "
                "choose another --kind"
            )

    def _overview(self) -> str:
        heads = Counter(".".join(name.split(".")[:2]) for name in self._left)
        listed = [f"{head}... ({count})" if count > 1 else head for head, count in list(heads.items())[:4]]
        return ", ".join(listed + ["..."] * (len(heads) > 4)) or "nothing"


def shape(weights: Mapping[str, Tensor], name: str, source: str) -> tuple[int, ...]:
    """The sizes of one tensor. Raises: TalkfaceError when it is missing."""
    if name not in weights:
        raise TalkfaceError(
            f"{source} has no tensor {name}; the file is another network: choose another --kind"
        )
    return tuple(weights[name].shape)


def build(spec: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> nn.Module:
    """The module that `spec` describes, with these weights; buffers that others do not have keep their start.

    A linear layer over pixels is a 1x1 convolution, and read as such.

    Raises:
        TalkfaceError: a parameter is missing, one is left, or one has another shape.
    """
    with torch.random.fork_rng(devices=[]):
        module = instantiate(spec)
    own = module.state_dict()
    parameters = {name for name, _ in module.named_parameters()}
    given: dict[str, Tensor] = {}
    wrong = []
    for name, value in weights.items():
        wanted = tuple(own[name].shape) if name in own else None
        if wanted is not None and value.dim() == 2 and wanted == (*value.shape, 1, 1):
            value = value[:, :, None, None]
        if wanted != tuple(value.shape):
            wrong.append(f"{name} {tuple(value.shape)} where {wanted or 'nothing'} is expected")
        given[name] = value
    wrong += [f"{name} is missing" for name in sorted(parameters - given.keys())]
    if wrong:
        raise TalkfaceError(
            f"{source} is not a {spec['class_path'].rpartition('.')[2]} that talkface knows: {'; '.join(wrong[:3])} "
            f"({len(wrong)} differences); see docs/importing.md for what can be imported"
        )
    module.load_state_dict(given, strict=False)
    return module.eval().requires_grad_(False)
