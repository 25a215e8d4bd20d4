"""Grids: the times that a solver steps through.

The grid decides how a given number of steps is spent. Solvers of higher order want one on which the noise is a
smooth function of the step: evenly spaced in the log signal-to-noise ratio (Lu et al. 2022, arXiv 2206.00927,
section 3.4). The clean end is not part of a grid; solvers add it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from talkface.diffusion.schedule import NoiseSchedule
from talkface.errors import TalkfaceError

GRIDS = ("leading", "trailing", "paper", "log_snr")


def uniform_timesteps(
    num_inference_steps: int, num_train_timesteps: int = 1000, offset: int = 1, spacing: str = "leading"
) -> Tensor:
    """Evenly spaced times, descending.

    Args:
        num_inference_steps: S.
        num_train_timesteps: N.
        offset: added to the leading grid, as far as its last time allows.
        spacing: "leading" (the thesis): 0, N / S, 2 N / S, ... plus `offset`; 200 steps: 996, 991, ..., 6, 1.
            "trailing": counted down from N - 1 (arXiv 2305.08891, table 2); with few steps the noisiest time
            is then really noise, as at training.
    Returns:
        (S,) int64, descending.
    Raises:
        TalkfaceError: no steps, more steps than trained timesteps, or unknown spacing.
    """
    if not 1 <= num_inference_steps <= num_train_timesteps:
        raise TalkfaceError(
            f"num_inference_steps: {num_inference_steps}; allowed: 1 to {num_train_timesteps}"
        )
    if spacing not in ("leading", "trailing"):
        raise TalkfaceError(f"timestep spacing: '{spacing}'; allowed: 'leading', 'trailing'")
    steps = torch.arange(num_inference_steps, dtype=torch.float64)
    stride = num_train_timesteps / num_inference_steps
    if spacing == "trailing":
        return (num_train_timesteps - steps * stride).round().long() - 1
    times = (steps * stride + 1e-6).long()
    return (times + min(offset, num_train_timesteps - 1 - int(times[-1]))).flip(0)


def editing_timesteps(num_inference_steps: int, strength: int, num_train_timesteps: int = 1000) -> Tensor:
    """The thesis's grid for inversion and editing: evenly spaced from 1 to t_0, ascending.

    40 steps, strength 500: 1, 12, 25, 38, ..., 487, 500. Where the thesis's rounding repeats the first time
    (more than about half as many steps as times) the times move up, so that they ascend strictly.

    Args:
        num_inference_steps: S; a single step is t_0.
        strength: t_0, 1 to `num_train_timesteps`; the largest is the last trained time, one below.
    Returns:
        (S,) int64, ascending; flip it to denoise.
    Raises:
        TalkfaceError: strength outside its range, or more steps than times.
    """
    last = _last_time(num_inference_steps, strength, num_train_timesteps)
    if num_inference_steps == 1:
        return torch.tensor([last])
    if num_inference_steps > last:
        raise TalkfaceError(
            f"num_inference_steps: {num_inference_steps} with strength {strength}; allowed: 1 to {last}"
        )
    grid = (torch.linspace(0.0, 1.0, num_inference_steps, dtype=torch.float64) * last + 1e-6).long()
    return grid.maximum(torch.arange(1, num_inference_steps + 1))


def log_snr_timesteps(num_inference_steps: int, schedule: NoiseSchedule, last: float) -> Tensor:
    """Times evenly spaced in log SNR from time 0, the clean end, which is left out, to `last`; ascending.

    With the clean end, which solvers add, these are `num_inference_steps` equal steps.

    Returns:
        (S,) float32, fractional, ascending; the last one is `last`.
    """
    ends = schedule.snr(torch.tensor([0.0, last])).double().log()
    levels = torch.linspace(ends[0], ends[1], num_inference_steps + 1, dtype=torch.float64)
    times = schedule.timesteps_at(levels[1:])
    times[-1] = last
    return times


def make_timesteps(
    grid: str,
    num_inference_steps: int,
    schedule: NoiseSchedule,
    strength: int | None = None,
    *,
    ascending: bool = False,
) -> Tensor:
    """The grid of that name, for denoising from t_0 or for inversion up to t_0.

    Args:
        grid: "leading", "trailing" (see `uniform_timesteps`; "leading" ends a stride below t_0), "paper"
            (`editing_timesteps`) or "log_snr" (`log_snr_timesteps`).
        num_inference_steps: S, 1 to `strength`.
        strength: t_0 in timesteps, 1 to the number of trained ones; that number stands for the last trained
            time. None: all of them.
        ascending: for inversion; one of a single step begins with the clean end, 0, which tells the
            direction and takes no step of its own.
    Returns:
        (S,) int64, or float32 for "log_snr"; the same times in both directions.
    Raises:
        TalkfaceError: unknown grid, strength outside its range, more steps than `strength`.
    """
    if grid not in GRIDS:
        raise TalkfaceError(f"grid: '{grid}'; allowed: {', '.join(GRIDS)}")
    count = schedule.num_train_timesteps
    strength = count if strength is None else strength
    last = _last_time(num_inference_steps, strength, count)
    if grid == "paper":
        times = editing_timesteps(num_inference_steps, strength, count)
    elif grid == "log_snr":
        end = schedule.max_timestep if strength == count else float(last)
        times = log_snr_timesteps(num_inference_steps, schedule, end)
    else:
        times = uniform_timesteps(num_inference_steps, last + 1, spacing=grid).flip(0)
    if not ascending:
        return times.flip(0)
    return times if len(times) > 1 else torch.cat([times.new_zeros(1), times])


def _last_time(num_inference_steps: int, strength: int, num_train_timesteps: int) -> int:
    if not 1 <= strength <= num_train_timesteps or int(strength) != strength:
        raise TalkfaceError(
            f"strength: {strength}; allowed: whole timesteps, 1 to {num_train_timesteps} (how far towards noise)"
        )
    if not 1 <= num_inference_steps <= strength:
        raise TalkfaceError(
            f"num_inference_steps: {num_inference_steps} with strength {strength}; allowed: 1 to {strength}, "
            "at most one step per timestep"
        )
    return min(int(strength), num_train_timesteps - 1)
