"""Editing by inversion: to noise under the source's conditioning, and back under the target's.

Follows the thesis's section 4.4 (eq. 4.18 and 4.19). It guides both ways with one scale; here each way has a
noise predictor of its own, so that each may have its own scale. Which solver, which grid, and what is predicted
from what, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from talkface.diffusion.base import Generators, NoisePredictor, Solver, is_ascending
from talkface.errors import TalkfaceError


class Inverted(NamedTuple):
    """latents (B, ...): x at t_0, reusable for any number of targets; result (B, ...): back at the clean end."""

    latents: Tensor
    result: Tensor


def invert_and_denoise(
    solver: Solver,
    x: Tensor,
    timesteps: Tensor,
    predict_source: NoisePredictor,
    predict_target: NoisePredictor,
    *,
    denoiser: Solver | None = None,
    generator: Generators = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Inverted:
    """Invert x under the source, denoise it under the target.

    With `predict_target` = `predict_source` this is the cycle, and `result` should be x again. Further targets
    need no second inversion: `solver.sample(predict_other, latents, timesteps.flip(0))`.

    Args:
        solver: inverts, and denoises unless there is a `denoiser`.
        x: clean, (B, ...).
        timesteps: (S,) strictly ascending, as `make_timesteps(..., ascending=True)`; the way back takes the
            same times.
        predict_source, predict_target: (x, timesteps) -> eps: `ClassifierFreeGuidance`, each with its own
            conditioning and scale. The thesis gives both the same scale; 1 for the source costs half, and
            inverts what the model itself believes.
        denoiser: another solver for the way back, e.g. DDIM with `eta` > 0.
        generator: noise for a `denoiser` that adds some; one, or one per sample.
        callback: called after each step with its index, counted on over both ways, and the new x.
    Raises:
        TalkfaceError: timesteps not ascending.
    """
    if not is_ascending(timesteps):
        raise TalkfaceError(
            f"timesteps: {timesteps.tolist()[:8]}...; allowed: strictly ascending (the way back is derived)"
        )
    taken = 0

    def count(_: int, moved: Tensor) -> None:
        nonlocal taken
        if callback is not None:
            callback(taken, moved)
        taken += 1

    latents = solver.sample(predict_source, x, timesteps, callback=count)
    result = (denoiser or solver).sample(
        predict_target, latents, timesteps.flip(0), generator=generator, callback=count
    )
    return Inverted(latents, result)
