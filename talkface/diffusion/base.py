"""What every solver shares: the direction, the levels between which it steps, the loop, and fresh noise.

The order of the timesteps is the direction: descending ones denoise, ascending ones invert (turn a picture
into the noise that leads back to it). Solvers see a noise predictor, any callable (x, timesteps) -> eps;
guidance and window fusion wrap it. What a solver remembers of earlier steps are local variables of one call,
and nothing here switches gradients off: finetuning differentiates through the whole chain.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from talkface.diffusion.schedule import NoiseSchedule
from talkface.errors import TalkfaceError

NoisePredictor = Callable[[Tensor, Tensor], Tensor]
Generators = torch.Generator | Sequence[torch.Generator] | None


def draw_noise(like: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal noise shaped like `like` (B, ...).

    Args:
        generator: one for the whole batch, or one per sample: then a sample's noise does not depend on which
            batch it is in. Noise is drawn in float32 on the generator's device, so the same seed gives the
            same numbers whatever the device and precision of `like`.
    Raises:
        TalkfaceError: another number of generators than samples.
    """
    if generator is None:
        return torch.randn_like(like)
    if isinstance(generator, torch.Generator):
        return torch.randn(like.shape, generator=generator, device=generator.device).to(like)
    if len(generator) != like.shape[0]:
        raise TalkfaceError(
            f"generators: {len(generator)}; allowed: {like.shape[0]}, one per sample, or a single one"
        )
    return torch.stack([torch.randn(like.shape[1:], generator=g, device=g.device) for g in generator]).to(
        like
    )


def is_ascending(timesteps: Tensor) -> bool:
    """Whether `timesteps` (S,) invert; a single one denoises.

    Raises:
        TalkfaceError: no timesteps, or neither strictly ascending nor strictly descending.
    """
    differences = timesteps.diff()
    ascending = len(differences) > 0 and bool((differences > 0).all())
    if len(timesteps) == 0 or not (ascending or bool((differences < 0).all())):
        raise TalkfaceError(
            f"timesteps: {timesteps.tolist()[:8]}...; allowed: strictly descending (denoise) or strictly "
            "ascending (invert)"
        )
    return ascending


def transfer(x: Tensor, noise: Tensor, start: float, end: float, fresh: float = 0.0) -> Tensor:
    """Move x from level `start` to level `end` as if `noise` were the same all the way (DDIM, eq. 12).

    Args:
        x, noise: (B, ...).
        start, end: abar, (0, 1].
        fresh: deviation of the noise that the caller will add, which is room left at the level `end`.
    """
    x0 = (x - (1.0 - start) ** 0.5 * noise) / start**0.5
    return end**0.5 * x0 + max(1.0 - end - fresh**2, 0.0) ** 0.5 * noise


@dataclass(frozen=True)
class Path:
    """The points between which a solver steps, one more than steps, in the order in which they are visited.

    Args:
        times: (steps + 1,), on the device of x.
        levels: abar at each of them, (0, 1].
        inverting: from clean to noisy.
    """

    times: Tensor
    levels: list[float]
    inverting: bool

    @property
    def steps(self) -> int:
        return len(self.levels) - 1

    def time(self, index: int, x: Tensor) -> Tensor:
        """Time of a point for every sample of x, (B,)."""
        return self.times[index].expand(x.shape[0])

    def half_log_snr(self, index: int) -> float:
        """log(sqrt(abar) / sqrt(1 - abar)) at a point; infinite where there is no noise."""
        level = self.levels[index]
        return 0.5 * math.log(level / (1.0 - level)) if level < 1.0 else math.inf


class Solver(ABC):
    """Base of the solvers.

    Args:
        schedule: the noise levels the network was trained with.
        final_alpha: noise level at the clean end: "first" = that of t = 0 (the thesis; abar .9985), "one" =
            no noise at all: the last step of denoising returns the predicted clean data. At the clean end the
            network is asked with time 0 in both cases.
    Raises:
        TalkfaceError: unknown `final_alpha`.
    """

    def __init__(self, schedule: NoiseSchedule, final_alpha: str = "first") -> None:
        if final_alpha not in ("first", "one"):
            raise TalkfaceError(f"final_alpha: '{final_alpha}'; allowed: 'first', 'one'")
        self.schedule, self.final_alpha = schedule, final_alpha

    def sample(
        self,
        predict_noise: NoisePredictor,
        x: Tensor,
        timesteps: Tensor,
        *,
        generator: Generators = None,
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Run all steps.

        Denoising: `x` is at the level of timesteps[0] and ends at the clean end. Inversion: `x` is clean and
        ends at the level of timesteps[-1]. There is one step per time, but none for a time that is the clean
        end itself (0 with `final_alpha` "first").

        Args:
            predict_noise: (x (B, ...), timesteps (B,)) -> eps (B, ...).
            x: (B, ...).
            timesteps: (S,), strictly descending or strictly ascending, integer or fractional; a single one
                denoises.
            generator: for solvers that add noise; one, or one per sample.
            callback: called after each step with its index and the new x.
        Returns:
            (B, ...).
        Raises:
            TalkfaceError: timesteps not monotonic or outside the schedule; inversion with `eta` > 0.
        """
        path = self._path(timesteps, x.device)
        for index, moved in enumerate(self._trajectory(predict_noise, x, path, generator)):
            x = moved
            if callback is not None:
                callback(index, x)
        return x

    @abstractmethod
    def _trajectory(
        self, predict_noise: NoisePredictor, x: Tensor, path: Path, generator: Generators
    ) -> Iterator[Tensor]:
        """Yield x (B, ...) at every point of the path but the first, where it starts."""

    def _path(self, timesteps: Tensor, device: torch.device) -> Path:
        ascending = is_ascending(timesteps)
        times = timesteps if ascending else timesteps.flip(0)
        if times[0] < 0 or times[-1] > self.schedule.max_timestep:
            raise TalkfaceError(
                f"timesteps: {times[0].item()} to {times[-1].item()}; allowed: 0 to "
                f"{self.schedule.max_timestep:g}, what the schedule has levels for"
            )
        if times[0] > 0 or self.final_alpha == "one":
            times = torch.cat([times.new_zeros(1), times])
        levels = self.schedule.alpha_bar(times.cpu()).tolist()
        if self.final_alpha == "one":
            levels[0] = 1.0
        if not ascending:
            times, levels = times.flip(0), levels[::-1]
        return Path(times.to(device), levels, ascending)
