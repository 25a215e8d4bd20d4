"""Classifier-free guidance with one scale per conditioner (Ho & Salimans 2022, arXiv 2207.12598, eq. 6).

eps = eps(c) + sum_i (s_i - 1) (eps(c) - eps(c without i)). With a single conditioner this is the usual
eps(null) + s (eps(c) - eps(null)). A wrapper around the network, so that no solver knows of guidance; the
result is a noise predictor (x, timesteps) -> eps whatever the network predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from talkface.diffusion.schedule import NoiseSchedule, check_prediction_type
from talkface.errors import TalkfaceError


class ClassifierFreeGuidance:
    """Noise predictor for a fixed conditioning.

    Args:
        network: (x, timesteps, conditioning) -> output.
        schedule: the one the network was trained with.
        prediction_type: what the network outputs: "epsilon", "velocity" or "x0".
        conditioning: for the whole batch (a `talkface.conditioning.base.Conditioning`, or None).
        nulls: per conditioner name, the conditioning in which only that one is null.
        scales: per conditioner name; 1 = no guidance from it and no evaluation spent on it; a name left out
            is 1.
        bounds: lowest and highest clean sample (B, ...) that guidance may lead to, element by element; large scales
            push past what any condition asks for (Saharia et al. 2022, arXiv 2205.11487, section 2.3, clip pixels at
            the ends of their range; latents have no such ends). What is not guided is not clipped. None: no bounds.
    Raises:
        TalkfaceError: a scale other than 1 without its null conditioning; unknown prediction type.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        schedule: NoiseSchedule,
        prediction_type: str,
        conditioning: Any,
        nulls: Mapping[str, Any] | None = None,
        scales: Mapping[str, float] | None = None,
        bounds: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.network, self.schedule = network, schedule
        self.prediction_type = check_prediction_type(prediction_type)
        self.scales = {name: scale for name, scale in (scales or {}).items() if scale != 1.0}
        self.bounds = bounds
        nulls = nulls or {}
        missing = [name for name in self.scales if name not in nulls]
        if missing:
            raise TalkfaceError(
                f"guidance scale for {missing}; allowed: {sorted(nulls)}, the conditioners given a null; "
                "set it to 1 or train with a drop rate above 0"
            )
        self.dtype = self._network_dtype(network)
        parts = [conditioning] + [nulls[name] for name in self.scales]
        # All variants go through the network in one batch, which is put together once for all steps.
        stacked = conditioning if len(parts) == 1 else type(conditioning).cat(parts)
        self.conditioning = stacked if stacked is None or self.dtype is None else stacked.to(self.dtype)

    @staticmethod
    def _network_dtype(network: Callable[..., Tensor]) -> torch.dtype | None:
        if not isinstance(network, nn.Module):
            return None
        return next((p.dtype for p in network.parameters() if p.is_floating_point()), None)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """x (B, ...), timesteps (B,) -> eps (B, ...) in the dtype of x, whatever that of the network."""
        variants = 1 + len(self.scales)
        many_x = torch.cat([x] * variants) if variants > 1 else x
        many_t = torch.cat([timesteps] * variants) if variants > 1 else timesteps
        inputs = many_x if self.dtype is None else many_x.to(self.dtype)
        output = self.network(inputs, many_t, self.conditioning).to(x.dtype)
        noises = self.schedule.to_epsilon(output, many_x, many_t, self.prediction_type).chunk(variants)
        guided = noises[0]
        for scale, without in zip(self.scales.values(), noises[1:], strict=True):
            guided = guided + (scale - 1.0) * (noises[0] - without)
        return guided if self.bounds is None or not self.scales else self._within_bounds(guided, x, timesteps)

    def _within_bounds(self, noise: Tensor, x: Tensor, timesteps: Tensor) -> Tensor:
        assert self.bounds is not None
        low, high = self.bounds
        x0 = self.schedule.to_x0(noise, x, timesteps, "epsilon")
        kept = (low <= x0) & (x0 <= high)
        clipped = self.schedule.to_epsilon(torch.clamp(x0, low, high), x, timesteps, "x0")
        # at the last times the way to x0 and back would round what needs no clipping
        return torch.where(kept, noise, clipped)


def guidance_bounds(reference: Tensor, guide: Tensor, overshoot: float) -> tuple[Tensor, Tensor]:
    """Lowest and highest latents, as far to each side of the picture's as its guide is from it, and `overshoot` more.

    To both sides: the way to a guide leads through changes that it does not show. A picture that is its own guide
    (inversion, a cycle) has no bounds: nothing is to be held near it that finds its way back by itself.

    Args:
        reference, guide: latents (B, C, h, w) of pictures, and of what they should look like.
        overshoot: in the latents' unit.
    """
    away = (guide - reference).abs()
    free = away.flatten(1).amax(dim=1) == 0.0
    room = (away + overshoot).masked_fill(free[:, None, None, None], float("inf"))
    return reference - room, reference + room
