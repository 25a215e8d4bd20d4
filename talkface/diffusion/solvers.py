"""DDIM, in both directions (Song et al. 2021, arXiv 2010.02502, eq. 12).

The order of the timesteps is the direction: descending ones denoise, ascending ones invert (turn a picture
into the noise that leads back to it). Solvers see a noise predictor, any callable (x, timesteps) -> eps;
guidance and window fusion wrap it. Nothing here switches gradients off: finetuning differentiates through the
whole chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from talkface.diffusion.schedule import NoiseSchedule
from talkface.errors import TalkfaceError

NoisePredictor = Callable[[Tensor, Tensor], Tensor]
Generators = torch.Generator | Sequence[torch.Generator] | None


def uniform_timesteps(
    num_inference_steps: int, num_train_timesteps: int = 1000, offset: int = 1, spacing: str = "leading"
) -> Tensor:
    """Evenly spaced times, descending.

    Args:
        num_inference_steps: S.
        num_train_timesteps: N.
        offset: added to the leading grid.
        spacing: "leading" (the thesis): 0, N / S, 2 N / S, ... plus `offset`; 200 steps: 996, 991, ..., 6, 1.
            "trailing": counted down from N - 1 (arXiv 2305.08891, table 2); with few steps the noisiest time
                is
            then really noise, as at training.
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
    return ((steps * stride + 1e-6).long() + offset).clamp(max=num_train_timesteps - 1).flip(0)


def editing_timesteps(num_inference_steps: int, strength: float, num_train_timesteps: int = 1000) -> Tensor:
    """The thesis's grid for inversion and editing: evenly spaced from 1 to `strength` of the range,
    ascending.

    40 steps, strength 0.5: 1, 12, 25, 38, ..., 487, 500. Strength 1 ends at the last trained time.

    Returns:
        (num_inference_steps,) int64, ascending; flip it to denoise.
    Raises:
        TalkfaceError: fewer than two steps, strength outside (0, 1], or more steps than times.
    """
    last = min(int(num_train_timesteps * strength), num_train_timesteps - 1)
    if not 0.0 < strength <= 1.0 or not 2 <= num_inference_steps <= last:
        raise TalkfaceError(
            f"num_inference_steps {num_inference_steps} with strength {strength}; allowed: strength in "
            f"(0, 1] and 2 to {max(last, 2)} steps"
        )
    grid = (torch.linspace(0.0, 1.0, num_inference_steps, dtype=torch.float64) * last + 1e-6).long()
    grid[0] = 1
    return grid


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


class DDIM:
    """First-order deterministic solver (`eta` 0), or ancestral sampling (`eta` 1).

    Args:
        schedule: the noise levels the network was trained with.
        eta: 0 deterministic .. 1 as noisy as DDPM; only for denoising.
        final_alpha: noise level at the clean end: "first" = that of t = 0 (the thesis; abar .9985), "one" =
            no noise at all: the last step returns the predicted clean data.
    Raises:
        TalkfaceError: unknown `final_alpha`.
    """

    def __init__(self, schedule: NoiseSchedule, eta: float = 0.0, final_alpha: str = "first") -> None:
        if final_alpha not in ("first", "one"):
            raise TalkfaceError(f"final_alpha: '{final_alpha}'; allowed: 'first', 'one'")
        self.schedule, self.eta, self.final_alpha = schedule, eta, final_alpha

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

        Denoising: `x` is at the level of timesteps[0]; each step asks for the noise at its own (higher) level
            and
        the last one ends at the clean end. Inversion: `x` is clean and ends at the level of timesteps[-1];
        each step asks for the noise of the current `x`, with the time it is going to, as the thesis does (so
        that both directions call the network at the same times).

        Args:
            predict_noise: (x (B, ...), timesteps (B,)) -> eps (B, ...).
            x: (B, ...).
            timesteps: (S,), strictly descending or strictly ascending; a single one denoises.
            generator: for `eta` > 0; one, or one per sample.
            callback: called after each step with its index and the new x.
        Returns:
            (B, ...).
        Raises:
            TalkfaceError: timesteps not monotonic, or inversion with `eta` > 0.
        """
        inverting = self._is_inversion(timesteps)
        clean = torch.ones(1) if self.final_alpha == "one" else self.schedule.alpha_bar(torch.zeros(1))
        levels = self.schedule.alpha_bar(timesteps.cpu())
        starts = torch.cat([clean, levels[:-1]]) if inverting else levels
        ends = levels if inverting else torch.cat([levels[1:], clean])
        times = timesteps.to(x.device)
        for index in range(len(timesteps)):
            noise = predict_noise(x, times[index].expand(x.shape[0]))
            x = self._step(x, noise, starts[index].item(), ends[index].item(), generator)
            if callback is not None:
                callback(index, x)
        return x

    def _step(self, x: Tensor, noise: Tensor, start: float, end: float, generator: Generators) -> Tensor:
        # 1. clean data that the predicted noise implies; 2. how much of the noise is fresh (eq. 16); 3.
        # recombine.
        x0 = (x - (1.0 - start) ** 0.5 * noise) / start**0.5
        fresh = self.eta * ((1.0 - end) / (1.0 - start) * (1.0 - start / end)) ** 0.5 if self.eta > 0 else 0.0
        x = end**0.5 * x0 + max(1.0 - end - fresh**2, 0.0) ** 0.5 * noise
        return x + fresh * draw_noise(x, generator) if fresh > 0 else x

    def _is_inversion(self, timesteps: Tensor) -> bool:
        differences = timesteps.diff()
        ascending = len(differences) > 0 and bool((differences > 0).all())
        if len(timesteps) == 0 or not (ascending or bool((differences < 0).all())):
            raise TalkfaceError(
                f"timesteps: {timesteps.tolist()[:8]}...; allowed: strictly descending (denoise) or strictly "
                "ascending (invert)"
            )
        if ascending and self.eta > 0:
            raise TalkfaceError(f"eta: {self.eta}; allowed: 0 for inversion (ascending timesteps)")
        return ascending
