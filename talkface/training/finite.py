"""A step that is no number stops a training before it touches the weights, and says which samples it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from talkface.errors import TalkfaceError
from talkface.training.start import data_module, training_corpus


def stop_unless_finite(
    value: Tensor, what: str, module: Any, batch: dict[str, Tensor], batch_idx: int
) -> None:
    """Raises: TalkfaceError: `value` holds nan or infinity. Checkpoints are as the step before left them.

    Args:
        what: name of the value.
        module: in training; its data module may have `picture_names(numbers)`, which reads batch["number"].
    """
    if bool(value.isfinite().all()):
        return
    names = getattr(data_module(module.trainer), "picture_names", None)
    shown = "" if names is None else f" (pictures {', '.join(names(batch['number'].tolist()))})"
    found = f"{float(value):g}" if value.numel() == 1 else "no number"
    raise TalkfaceError(
        f"{what} is {found} in batch {batch_idx} of epoch {module.current_epoch}{shown}; the weights before it are in "
        "the last checkpoint; lower learning_rate, or leave these samples out"
    )


def stop_with_clips(value: Tensor, what: str, module: Any, clips: Tensor | None) -> None:
    """The same for a batch of sequences. Raises: TalkfaceError: `value`, a scalar, is nan or infinite.

    Args:
        clips: (B,) numbers in the corpus of the training data.
    """
    if bool(value.isfinite()):
        return
    corpus = training_corpus(module.trainer)
    numbers = [] if clips is None else clips.tolist()
    told = ", ".join(str(n) if corpus is None else corpus.clips[n].id for n in numbers)
    raise TalkfaceError(
        f"{what} is {float(value):g} in batch {module.trainer.fit_loop.total_batch_idx} (clips {told}); the weights "
        "before it are in the last checkpoint; lower learning_rate, or leave these clips out"
    )


def gradients_of(parameters: Iterable[Tensor]) -> Tensor:
    """The sum of all gradients: finite if they are."""
    found = [parameter.grad.sum() for parameter in parameters if parameter.grad is not None]
    return sum(found[1:], found[0])
