"""Films as a model in finetuning makes them: true latents, noised, denoised with gradients, and what is shown.

The settings, the loss and the training itself are in `lip_finetune.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from talkface.conditioning.base import Conditioning
from talkface.diffusion.checkpointing import checkpointed
from talkface.diffusion.guidance import ClassifierFreeGuidance
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import make_timesteps
from talkface.training.diffusion import DiffusionModule
from talkface.training.sequences import in_range, per_frame
from talkface.training.window import Window


class TunedFilm(DiffusionModule):
    """A diffusion model of sequences whose last solver steps have gradients.

    Attributes:
        levels, solver, tune_steps, scales, shared_noise, checkpointing, window, over_guide: see `LipFinetuneModule`,
            which sets them.
    """

    solver: DDIM
    tune_steps: int
    scales: dict[str, float]
    shared_noise: bool
    checkpointing: bool
    window: Window
    over_guide: bool

    def tune(
        self, batch: dict[str, Tensor], generator: torch.Generator, drop: bool
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Clean latents (B * T, C, h, w) as the solver ends with; the batch frame by frame; which frames lost what."""
        count, length = batch["target"].shape[:2]
        if "reference" in batch and "reference_latents" not in batch:  # once, not for every frame
            with torch.no_grad():
                batch = {**batch, "reference_latents": self.first_stage.encode(batch["reference"])}
        latents, inputs = self.encode(per_frame(batch))
        drops: dict[str, Tensor] = {}
        told: Conditioning | None = None
        nulls: dict[str, Conditioning] = {}
        if self.conditioner is not None:
            if drop:
                drawn = self.conditioner.draw_drops(count, generator)
                drops = {name: lost.repeat_interleave(length) for name, lost in drawn.items()}
            guiding = [name for name, scale in self.scales.items() if scale != 1.0]
            told, nulls = self.conditioner(inputs, drops), self.conditioner.with_nulls(inputs, guiding)[1]
        made = []
        for first in range(0, count * length, length):
            part = slice(first, first + length)
            untold = {name: null[part] for name, null in nulls.items()}
            made.append(
                self._denoised(latents[part], None if told is None else told[part], untold, generator)
            )
        return torch.cat(made), inputs, drops

    def _denoised(
        self,
        latents: Tensor,
        told: Conditioning | None,
        untold: dict[str, Conditioning],
        generator: torch.Generator,
    ) -> Tensor:
        """A sequence (T, C, h, w), noised to one time and denoised from there."""
        time = self.levels[torch.randint(len(self.levels), (1,), generator=generator)]
        shape = (1 if self.shared_noise else len(latents), *latents.shape[1:])
        noise = torch.randn(shape, generator=generator).to(latents).expand_as(latents)
        noisy = self.schedule.add_noise(latents, noise, time.expand(len(latents)))
        predict = ClassifierFreeGuidance(
            self.network, self.schedule, self.prediction_type, told, untold, self.scales
        )
        times = make_timesteps("trailing", self.tune_steps, self.schedule, int(time)).to(latents.device)
        return self.solver.sample(
            checkpointed(predict) if self.checkpointing else predict, noisy, times, generator=generator
        )

    def shown(self, clean: Tensor, inputs: dict[str, Tensor], drops: dict[str, Tensor]) -> Tensor:
        """The window (N, 3, h, w) as the sampler shows it, in [-1, 1]."""
        painted = self.window.decode(clean)
        if not self.over_guide:
            return in_range(painted)
        with torch.no_grad():
            unchanged = self.window.decode(inputs["guide_latents"])
        over = self.window.cut(inputs["guide"]) + painted - unchanged
        if "guide" in drops:  # without a guide the painting itself is shown
            over = torch.where(drops["guide"].to(over.device)[:, None, None, None], painted, over)
        return in_range(over)
