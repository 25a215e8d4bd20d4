"""Latents in, edited latents out: inversion under one expression, denoising under another, in fixed groups.

The thesis's section 4.4, eq. 4.18 and 4.19: z_0 is carried up to t_0 by a deterministic solver under the source's
conditioning, and back under the target's. Both branches of guidance go through the network in one batch, and so do
several pictures; every network call holds exactly `group` pictures (the last group is filled with copies), because
kernels round differently at other batch sizes. So a picture comes out the same whichever others it is edited with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from talkface.conditioning.base import ConditionerSet
from talkface.diffusion.base import NoisePredictor, Solver
from talkface.diffusion.dpmpp import DPMSolverPP
from talkface.diffusion.guidance import ClassifierFreeGuidance, guidance_bounds
from talkface.diffusion.plms import PLMS
from talkface.diffusion.schedule import NoiseSchedule
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import GRIDS, make_timesteps
from talkface.errors import TalkfaceError, check_range
from talkface.pipelines.device import autocast
from talkface.pipelines.expression import Expression, condition, unconditioned
from talkface.pipelines.sampling import frame_generator

STARTS = ("guide", "picture")
# name -> grid on which it inverts best
SOLVERS = {"ddim": "paper", "plms": "paper", "dpm++2m": "log_snr"}


@dataclass(frozen=True)
class EditSettings:
    """How far and how strongly to edit.

    Attributes:
        strength: t_0, 1 to 1000: how far towards noise. 500 changes the expression; more changes the person, too.
        num_inference_steps: 1 to `strength`, for each way.
        guidance_scale: weight of the target: 1 none, 0 as if no target were told.
        inversion_guidance_scale: weight of the source while inverting; None: as `guidance_scale` (the thesis).
        solver: "ddim" (the thesis), "plms" or "dpm++2m".
        grid: of the times, see `make_timesteps`; None: the solver's in `SOLVERS`.
        eta: noise of each step on the way back, 0 (the thesis) to 1; above 0 with DDIM only.
        seed: of that noise.
        start: of a guided network, what is inverted. "guide": the guide; the label's change is added to it. "picture":
            the picture, as in the thesis; what is told and guided is weighed against the picture, so that the guidance
            scale says how much of the edit is seen.
        overshoot: of a guided network with `start` "picture": how far guidance may carry the predicted clean latents
            beyond what lies between picture and guide, in latent standard deviations, 0 to 1000 (as far as the scale
            says). Without bounds large scales exaggerate (white chins), until nobody takes the face for what it should
            show.
    """

    strength: int = 500
    num_inference_steps: int = 40
    guidance_scale: float = 3.0
    inversion_guidance_scale: float | None = None
    solver: str = "ddim"
    grid: str | None = None
    eta: float = 0.0
    seed: int = 0
    start: str = "guide"
    overshoot: float = 0.07

    @property
    def source_scale(self) -> float:
        """Guidance scale while inverting."""
        given = self.inversion_guidance_scale
        return self.guidance_scale if given is None else given

    @property
    def used_grid(self) -> str:
        """Name of the grid."""
        return SOLVERS[self.solver] if self.grid is None else self.grid

    def check(self, schedule: NoiseSchedule) -> None:
        """Raises: TalkfaceError: a value is out of range."""
        if self.solver not in SOLVERS:
            raise TalkfaceError(f"solver: {self.solver}; allowed are {', '.join(SOLVERS)}")
        if self.start not in STARTS:
            raise TalkfaceError(f"start: {self.start}; allowed are {', '.join(STARTS)}")
        if self.grid is not None and self.grid not in GRIDS:
            raise TalkfaceError(f"grid: {self.grid}; allowed are {', '.join(GRIDS)}")
        check_range("guidance_scale", self.guidance_scale, 0, 50)
        check_range("inversion_guidance_scale", self.source_scale, 0, 50)
        check_range("overshoot", self.overshoot, 0, 1000)
        check_range("eta", self.eta, 0, 1)
        check_range("seed", self.seed, 0, 2**63 - 1)
        if self.eta > 0 and self.solver != "ddim":
            raise TalkfaceError(f"eta: {self.eta:g} with solver {self.solver}; allowed is 0, or solver ddim")
        make_timesteps(self.used_grid, self.num_inference_steps, schedule, self.strength)

    def solvers(self, schedule: NoiseSchedule, final_alpha: str) -> tuple[Solver, Solver]:
        """For inverting and for denoising."""
        if self.solver == "plms":
            solver: Solver = PLMS(schedule, final_alpha)
        elif self.solver == "dpm++2m":
            # the last step must be the inverse of the first one of the inversion
            solver = DPMSolverPP(schedule, final_alpha, lower_order_final=False)
        else:
            compat = "thesis" if self.used_grid == "paper" else None
            forward = DDIM(schedule, final_alpha=final_alpha, compat=compat)
            return forward, DDIM(schedule, eta=self.eta, final_alpha=final_alpha)
        return solver, solver


@dataclass(frozen=True)
class LatentEditor:
    """Inverts and denoises latents.

    Args:
        network: (x, timesteps, conditioning) -> output.
        conditioner: of `emotion`, and perhaps `actions` and `frames`; see `condition`.
        final_alpha: see `Solver`.
        group: pictures in every network call.
        dtype: precision of the network; solvers compute in float32.
    """

    network: Any
    conditioner: ConditionerSet
    schedule: NoiseSchedule
    prediction_type: str
    final_alpha: str
    group: int
    device: torch.device
    dtype: torch.dtype

    def invert(
        self,
        latents: Tensor,
        sources: Sequence[Expression],
        settings: EditSettings,
        keep_going: Callable[[], None] | None = None,
        shown: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Clean latents (N, C, h, w) -> latents at t_0, one source expression each.

        Args:
            keep_going: called at every step; raises to stop.
            shown: latents (N, C, h, w) of pictures of the people by name, for a network that is shown some.
        """
        scale = settings.source_scale
        return self._in_groups(latents, sources, settings, scale, True, keep_going, shown)

    def denoise(
        self,
        latents: Tensor,
        targets: Sequence[Expression],
        settings: EditSettings,
        keep_going: Callable[[], None] | None = None,
        shown: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Latents at t_0 (N, C, h, w) -> clean latents, one target expression each."""
        scale = settings.guidance_scale
        return self._in_groups(latents, targets, settings, scale, False, keep_going, shown)

    def edit(
        self,
        latents: Tensor,
        sources: Sequence[Expression],
        targets: Sequence[Expression],
        settings: EditSettings,
        keep_going: Callable[[], None] | None = None,
        shown: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Both ways."""
        noisy = self.invert(latents, sources, settings, keep_going, shown)
        return self.denoise(noisy, targets, settings, keep_going, shown)

    @torch.inference_mode()
    def _in_groups(
        self,
        latents: Tensor,
        expressions: Sequence[Expression],
        settings: EditSettings,
        scale: float,
        inverting: bool,
        keep_going: Callable[[], None] | None,
        shown: Mapping[str, Tensor] | None,
    ) -> Tensor:
        settings.check(self.schedule)
        times = make_timesteps(
            settings.used_grid,
            settings.num_inference_steps,
            self.schedule,
            settings.strength,
            ascending=inverting,
        )
        forward, back = settings.solvers(self.schedule, self.final_alpha)
        parts = []
        for start in range(0, len(latents), self.group):
            some, told = latents[start : start + self.group], list(expressions[start : start + self.group])
            x = self._filled(some)
            known = None
            if shown is not None:
                known = {
                    name: self._filled(values[start : start + self.group]) for name, values in shown.items()
                }
            unguided, bounds = None, None
            if known is not None and settings.start == "picture" and "reference" in known:
                unguided = known | {"guide": known["reference"]}
                bounds = guidance_bounds(known["reference"], known["guide"], settings.overshoot)
            told += told[-1:] * (len(x) - len(some))
            predict = self._predictor(told, scale, keep_going, known, unguided, bounds)
            with autocast(self.device, self.dtype):
                if inverting:
                    x = forward.sample(predict, x, times)
                else:
                    # every picture draws the same noise, so that none depends on its place among others
                    drawn = [frame_generator(settings.seed, 0, "edit") for _ in range(self.group)]
                    x = back.sample(predict, x, times, generator=drawn)
            parts.append(x[: len(some)])
        return torch.cat(parts) if parts else latents

    def _filled(self, latents: Tensor) -> Tensor:
        """A whole group: the last latents again where some are missing."""
        missing = self.group - len(latents)
        return torch.cat([latents, latents[-1:].expand(missing, -1, -1, -1)]).float().to(self.device)

    def _predictor(
        self,
        expressions: Sequence[Expression],
        scale: float,
        keep_going: Callable[[], None] | None,
        shown: Mapping[str, Tensor] | None,
        unguided: Mapping[str, Tensor] | None = None,
        bounds: tuple[Tensor, Tensor] | None = None,
    ) -> NoisePredictor:
        nothing = unconditioned(self.conditioner, len(expressions), self.device, unguided or shown)
        # a scale of 0 leaves nothing of the conditional branch, which then need not be computed
        told = nothing if scale == 0.0 else condition(self.conditioner, expressions, self.device, shown)
        scales = {} if scale in (0.0, 1.0) else {"expression": scale}
        guided = ClassifierFreeGuidance(
            self.network, self.schedule, self.prediction_type, told, {"expression": nothing}, scales, bounds
        )

        def predict(x: Tensor, timesteps: Tensor) -> Tensor:
            if keep_going is not None:
                keep_going()
            return guided(x, timesteps).float()

        return predict


def slerp(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Spherical interpolation of two latents (C, h, w), thesis eq. 4.12: 0 gives `one`, 1 gives `other`.

    The directions move along the great circle between them, the lengths along a line. For (nearly) parallel latents
    that circle is a line.
    """
    lengths = one.norm(), other.norm()
    a, b = one / lengths[0].clamp_min(1e-12), other / lengths[1].clamp_min(1e-12)
    angle = (a * b).sum().clamp(-1.0, 1.0).acos()
    if float(angle.sin()) < 1e-4:
        direction = torch.lerp(a, b, share)
    else:
        direction = (((1.0 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()
    return direction * torch.lerp(lengths[0], lengths[1], share)


def blend_expressions(one: Expression, other: Expression, share: float) -> Expression:
    """The expression between two: shares of emotions, and actions where both have them, move along a line."""
    if not one.shares or not other.shares:
        return one if share < 0.5 else other
    weights = {label: (1.0 - share) * weight for label, weight in one.shares}
    for label, weight in other.shares:
        weights[label] = weights.get(label, 0.0) + share * weight
    actions = one.actions if share < 0.5 else other.actions
    if one.actions is not None and other.actions is not None:
        actions = tuple(
            (1.0 - share) * a + share * b for a, b in zip(one.actions, other.actions, strict=True)
        )
    text = one.text if one == other else f"{one.text} to {other.text}"
    kept = tuple((label, weight) for label, weight in sorted(weights.items()) if weight > 0.0)
    return replace(one, text=text, shares=kept, actions=actions)
