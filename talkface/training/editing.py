"""An emotion model and a batch while it is finetuned: pictures to noise, back under their targets, shares right.

The settings of the way are in `edit_path.py`, the training itself in `finetune.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from talkface.diffusion.tuning import denoise_with_gradients
from talkface.training.diffusion import DiffusionModule
from talkface.training.edit_path import EditPath, edit_predictor

ACCURACY = "val/accuracy"


class EditingModule(DiffusionModule):
    """An emotion model that edits pictures along a path.

    Attributes:
        path: settings of the way, given by the module that trains.
    """

    path: EditPath

    def predictor(self, labels: Tensor, scale: float, batch: dict[str, Tensor], own: bool = False) -> Any:
        """Noise predictor for a batch; `own`: the picture as its own guide."""
        shown = None
        if "reference_latents" in batch:
            guide = batch["reference_latents" if own else "guide_latents"]
            shown = {"reference": batch["reference_latents"], "guide": guide}
        conditioner: Any = self.conditioner
        return edit_predictor(
            self.network,
            conditioner,
            self.schedule,
            self.prediction_type,
            labels,
            scale,
            shown,
            self.path.overshoot,
        )

    @torch.no_grad()
    def inverted(self, images: Tensor, labels: Tensor, guides: Tensor | None) -> dict[str, Tensor]:
        """What is kept of pictures (B, 3, S, S) with labels (B,) and perhaps guides (B, T, 3, S, S)."""
        stage = self.first_stage
        latents = stage.encode(images)
        made = {"source": stage.decode(latents).clamp(-1, 1)}
        if guides is not None:
            made["reference_latents"] = latents
            made["guide_latents"] = stage.encode(guides.flatten(0, 1)).unflatten(0, guides.shape[:2])
        solver, times = self.path.inversion(self.schedule)
        predict = self.predictor(labels, self.path.source_scale, made, own=True)
        return made | {"noisy_latents": solver.sample(predict, latents, times)}

    def edit(self, batch: dict[str, Tensor], memory: str, generator: torch.Generator | None = None) -> Tensor:
        """The batch as it looks with its targets, (B, 3, S, S), in training with gradients."""
        steps = self.path.tuning_steps if torch.is_grad_enabled() else self.path.validation_steps
        solver, times = self.path.back(self.schedule, steps)
        predict = self.predictor(batch["target"], self.path.guidance_scale, batch)
        latents = denoise_with_gradients(solver, predict, batch["noisy_latents"], times, memory, generator)
        return self.first_stage.decode(latents)


def by_target(hits: Tensor, targets: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """What is logged of a judge's hits (B,): all of them as `val/accuracy`, those of each target with its name.

    Args:
        targets: (B,) emotions.
        names: of the emotions.
    """
    parts = {f"{ACCURACY}_{names[target]}": hits[targets == target] for target in targets.unique().tolist()}
    return {ACCURACY: hits} | parts
