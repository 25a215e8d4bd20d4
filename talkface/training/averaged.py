"""A plain training loop for small networks: some seconds or steps, resumable, weights averaged at the end.

No Lightning: it runs where only the base package is installed. AdamW, a warm-up of 100 steps and a cosine over the
budget; the weights that are kept are an exponential moving average.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor, nn


class Budget(TypedDict, total=False):
    """Arguments that trainings of single networks hand on to `train_averaged` as they are given."""

    seconds: float
    steps: int | None
    checkpoint: Path | None
    save_every: float
    log: Callable[[str], None] | None


class Sampler(Protocol):
    """What draws batches."""

    rng: np.random.Generator


def train_drawn(
    network: nn.Module,
    losses: Callable[[], dict[str, Tensor]],
    sampler: Sampler,
    *,
    learning_rate: float,
    average_decay: float,
    largest_norm: float = 5.0,
    **budget: Unpack[Budget],
) -> None:
    """`train_averaged` on what `sampler` draws, all parameters in one group; a resumed run draws other batches.

    Args:
        losses: draws from `sampler`.
        largest_norm: of the gradient.
    """

    def resumed(step: int) -> None:
        sampler.rng = np.random.default_rng([step, 1])

    train_averaged(
        network, losses, learning_rate=learning_rate, average_decay=average_decay, resumed=resumed,
        clip=[(network.parameters(), largest_norm)], **budget,
    )  # fmt: skip


def train_averaged(
    network: nn.Module,
    losses: Callable[[], dict[str, Tensor]],
    *,
    seconds: float = math.inf,
    steps: int | None = None,
    learning_rate: float = 2e-3,
    average_decay: float = 0.998,
    clip: Sequence[tuple[Iterable[nn.Parameter], float]] = (),
    checkpoint: Path | None = None,
    save_every: float = 60.0,
    resumed: Callable[[int], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> None:
    """Train `network` in place; afterwards it holds the averaged weights and is in evaluation mode.

    Args:
        losses: draws a batch and gives the terms whose sum is minimised, scalars by name.
        seconds: time budget, summed over interrupted runs; the learning rate follows a cosine over it.
        steps: instead of, or besides, the time budget: a number of steps; the first limit reached ends it.
        clip: groups of parameters and the largest norm of each group's gradient.
        checkpoint: state is written here every `save_every` seconds and read from here when it exists.
        resumed: called with the step of the checkpoint, to seed the data anew.
        log: receives one line every 100 steps.

    Raises:
        ValueError: neither `seconds` nor `steps` limits the run.
    """
    if math.isinf(seconds) and steps is None:
        raise ValueError("training: seconds and steps are both unlimited; give one of them")
    network.train()
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-3)
    clip = [(list(parameters), limit) for parameters, limit in clip]
    step, spent = 0, 0.0
    if checkpoint is not None and checkpoint.exists():
        device = next(network.parameters()).device
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["seconds"]
        if resumed is not None:
            resumed(step)

    def save() -> None:
        if checkpoint is None:
            return
        state = {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "step": step,
            "seconds": spent,
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state | {"optimizer": optimizer.state_dict()}, partial)
        partial.replace(checkpoint)

    began, saved = time.monotonic() - spent, time.monotonic()
    running: dict[str, float] = {}
    while spent < seconds and (steps is None or step < steps):
        progress = max(spent / seconds, 0.0 if steps is None else step / steps)
        warm_up = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warm_up * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        terms = losses()
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        for parameters, limit in clip:
            torch.nn.utils.clip_grad_norm_(parameters, limit)
        optimizer.step()
        step += 1
        _update_average(average, network, min(average_decay, 1 - 1 / (step + 1)))
        spent = time.monotonic() - began
        for name, term in terms.items():
            value = float(term.detach())
            running[name] = 0.98 * running.get(name, value) + 0.02 * value
        if log is not None and step % 100 == 0:
            means = " ".join(f"{name} {mean:.3f}" for name, mean in running.items())
            log(f"step {step} {spent:.0f}s {means}")
        if time.monotonic() - saved > save_every:
            save()
            saved = time.monotonic()
    save()
    network.load_state_dict(average.state_dict())
    network.eval()


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
