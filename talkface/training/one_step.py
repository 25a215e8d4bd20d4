"""A trained network becomes a painter in one step, judged by what it shows.

A sampler of one step shows the network's mean of all clean pictures, which is soft. Here that one step is decoded and
laid over the guide as the pipeline does it, and the result is compared with the true picture in pixels and in a
perceptual distance (Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018).
Painting a face in one step with such losses follows Zhang et al., "MuseTalk", 2024, section 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.training.diffusion import DiffusionModule
from talkface.training.window import Edges, Window


class OneStepModule(DiffusionModule):
    """Fine-tunes a network at one noise level.

    The batch is that of `DiffusionModule` with `guide_latents` and a window of two pictures besides, each (B, 3, h, w)
    in [-1, 1]: `target_pixels`, `guide_pixels`.

    Args:
        perceptual: distance of pictures (B, 3, h, w) twice -> (B,); frozen. None: pixels alone.
        window: left, top, right, bottom of the windows in pixels of the model's pictures.
        latent_weight, pixel_weight, perceptual_weight: of the denoising loss, the mean absolute difference, and the
            perceptual distance.
        options: of `DiffusionModule`; its `timesteps` must be one.

    Raises:
        TalkfaceError: more than one noise level, or a window that does not lie on the grid of the latents.
    """

    def __init__(
        self,
        *parts: Any,
        perceptual: nn.Module | None,
        window: Edges,
        latent_weight: float = 0.1,
        pixel_weight: float = 1.0,
        perceptual_weight: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(*parts, **options)
        if len(self.levels) != 1:
            raise TalkfaceError(
                f"timesteps: {len(self.levels)} noise levels; allowed is one, the sampler's only step"
            )
        self.perceptual = None if perceptual is None else perceptual.eval().requires_grad_(False)
        self.window = Window(self.first_stage, window)
        self.latent_weight, self.pixel_weight, self.perceptual_weight = (
            latent_weight,
            pixel_weight,
            perceptual_weight,
        )

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, drop: bool) -> Tensor:
        made = self.denoise(batch, generator, drop)
        with torch.no_grad():
            unchanged = self.window.decode(made.inputs["guide_latents"])
        painted = self.window.decode(made.clean)  # clamping as the pipeline does would stop the gradient
        shown = batch["guide_pixels"] + painted - unchanged
        if "guide" in made.drops:  # without a guide the painting itself is shown
            shown = torch.where(made.drops["guide"].to(shown.device)[:, None, None, None], painted, shown)
        target = batch["target_pixels"].to(shown)
        total = self.latent_weight * made.loss + self.pixel_weight * (shown - target).abs().mean()
        if self.perceptual is not None:
            total = total + self.perceptual_weight * self.perceptual(shown, target).mean()
        return total
