"""Where a training starts and how it proceeds: weights of a first stage, learning rate, seeds of a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.core.mixins.hparams_mixin import _given_hyperparameters
from torch import nn

from talkface.errors import TalkfaceError


def objects_not_saved(*names: str) -> list[str]:
    """Which of a module's arguments `save_hyperparameters` should ignore.

    The command line records objects as class paths, from which a checkpoint rebuilds everything. Built by
    hand they
    are the objects themselves, which must not be pickled into a checkpoint: loading then takes them as
        arguments.
    """
    return [] if _given_hyperparameters.get() is not None else list(names)


def step_generator(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on `numbers` (0 or more each) only."""
    seed = np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))


def data_module(trainer: pl.Trainer) -> Any:
    """The data module of a training, of whatever class; None when it was given loaders.

    Lightning sets this attribute without declaring it, so that a type checker does not know of it.
    """
    return getattr(trainer, "datamodule", None)


def training_corpus(trainer: pl.Trainer) -> Any:
    """The corpus that a training reads; None where its data have none."""
    return getattr(getattr(data_module(trainer), "train_set", None), "corpus", None)


def learning_rate_factor(warmup_steps: int, total_steps: int | None) -> Callable[[int], float]:
    """Factor of the learning rate at a step: linear up to 1, then constant, or a cosine to 0."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if total_steps is None:
            return 1.0
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return 0.5 * (1.0 + math.cos(math.pi * progress))

    return factor


def load_first_stage(first_stage: nn.Module, source: str) -> None:
    """Fill a first stage from a checkpoint (`.ckpt`) of its training, or from a bundle (name or folder).

    Raises:
        TalkfaceError: no such source, it holds no first stage, or one of another size.
    """
    from talkface.checkpoint import load_bundle, read_training_checkpoint

    if source.endswith(".ckpt"):
        prefix = "first_stage."
        state = {
            key.removeprefix(prefix): value
            for key, value in read_training_checkpoint(source)["state_dict"].items()
            if key.startswith(prefix)
        }
    else:
        state = load_bundle(source, parts=["first_stage"]).part("first_stage").state_dict()
    try:
        first_stage.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise TalkfaceError(
            f"first_stage_weights: {source} do not fit {type(first_stage).__name__}: {reason}; "
            "give the model the first stage that was trained"
        ) from error


def load_base(module: Any, source: str) -> None:
    """Fill `network`, `conditioner` and `first_stage` of a module with those of a trained model.

    Args:
        source: a checkpoint (`.ckpt`) of its training, or a bundle (name or folder).

    Raises:
        TalkfaceError: no such source, it lacks a part, or has one of another size.
    """
    from talkface.checkpoint import load_bundle, read_training_checkpoint

    names = ("network", "conditioner", "first_stage")
    if source.endswith(".ckpt"):
        state = read_training_checkpoint(source)["state_dict"]
    else:
        parts = load_bundle(source, parts=names).parts
        state = {f"{name}.{key}": v for name, part in parts.items() for key, v in part.state_dict().items()}
    for name in names:
        own = {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}
        try:
            getattr(module, name).load_state_dict(own)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise TalkfaceError(
                f"start_from: the {name} of {source} does not fit {type(getattr(module, name)).__name__}: {reason}; "
                "describe the model as it was trained"
            ) from error
