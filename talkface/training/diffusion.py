"""One module trains every diffusion model here: class-conditional, talking face, pixel space.

Encode the pictures (Rombach et al. 2022, arXiv 2112.10752, section 3.1), draw a time and noise per sample,
corrupt (Ho et al. 2020, arXiv 2006.11239, eq. 4), predict, weigh, log. What makes a task is the batch and the
conditioners, given in a YAML. No sampling here: see `talkface.diffusion.solvers`, and `callbacks.py` for
pictures during training.

Noise, times and dropped conditions come from a generator seeded by (seed, training batch number, rank), so a
resumed training takes the same path as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.conditioning.audio import AudioConditioner
from talkface.conditioning.base import ConditionerSet
from talkface.diffusion.schedule import NoiseSchedule, check_prediction_type
from talkface.errors import TalkfaceError
from talkface.losses.denoising import denoising_loss
from talkface.training.start import (
    data_module,
    learning_rate_factor,
    load_first_stage,
    objects_not_saved,
    step_generator,
)

PICTURES = ("masked", "reference", "guide")


class Denoised(NamedTuple):
    """The loss; the clean latents (B, C, h, w) as predicted; the batch with its latents; which samples lost what."""

    loss: Tensor
    clean: Tensor
    inputs: dict[str, Tensor]
    drops: dict[str, Tensor]


class DiffusionModule(pl.LightningModule):
    """Trains `network` (and the conditioners) to denoise latents of a frozen first stage.

    Batch keys: `target` or `images` (B, 3, S, S), or `target_latents` instead; `masked`, `reference`, `guide`
    (B, 3, S, S), encoded for the conditioners as `<name>_latents`; whatever else the conditioners read.

    Args:
        network: (x, timesteps, conditioning) -> output; its in_channels are checked here.
        first_stage: encode and decode; frozen.
        schedule: the noise levels.
        conditioner: None for an unconditional model.
        first_stage_weights: where a new training takes the first stage from: a `.ckpt` of FirstStageModule,
            or a bundle; None keeps it as built. Not read when resuming or loading.
        timesteps: train at these noise levels only, those that a sampler of few steps will visit; None (the
            thesis): at all of them.
        prediction_type: "epsilon" (the thesis), "velocity" or "x0".
        min_snr_gamma: see `losses.denoising`; None (the thesis) is no weight.
        region_weight: weight of the masked region relative to the rest of the picture (the thesis: 1).
        start_share: share of the samples whose noisy latents show another picture of the batch instead of the target;
            the network then learns to believe what it is told rather than what it sees, which is what editing asks of
            it. They are judged by the error of the clean latents: no noise leads from one picture to the other.
        start_from: that picture, "reference" or "guide".
        normalize_features: measure the sound features at the start and let the audio conditioner whiten them.
        learning_rate, betas, weight_decay: of AdamW.
        warmup_steps, total_steps: linear warm-up, and cosine decay to zero; 0 and None = constant (the
            thesis).
        seed: of noise, times and drops.

    Attributes:
        objects: arguments that are objects.
    """

    objects: tuple[str, ...] = ("network", "first_stage", "schedule", "conditioner")
    # a Module with encode, decode and latent_channels: to a type checker those of a plain Module are Tensors or Modules
    first_stage: Any

    def __init__(
        self,
        network: nn.Module,
        first_stage: nn.Module,
        schedule: NoiseSchedule,
        conditioner: ConditionerSet | None = None,
        *,
        first_stage_weights: str | None = None,
        timesteps: Sequence[int] | None = None,
        prediction_type: str = "epsilon",
        min_snr_gamma: float | None = None,
        region_weight: float = 1.0,
        start_share: float = 0.0,
        start_from: str = "reference",
        normalize_features: bool = False,
        learning_rate: float = 3.2e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
        warmup_steps: int = 0,
        total_steps: int | None = None,
        seed: int = 23,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=objects_not_saved(*self.objects))
        self.prediction_type = check_prediction_type(prediction_type)
        levels = range(schedule.num_train_timesteps) if timesteps is None else timesteps
        if len(levels) == 0 or not all(0 <= level < schedule.num_train_timesteps for level in levels):
            raise TalkfaceError(
                f"timesteps: {list(levels)}; allowed: one or more in 0 .. {schedule.num_train_timesteps - 1}"
            )
        self.levels = torch.tensor(levels)
        self.network, self.conditioner, self.schedule = network, conditioner, schedule
        self.first_stage = first_stage.eval().requires_grad_(False)
        self.first_stage_weights, self.normalize_features = first_stage_weights, normalize_features
        self.min_snr_gamma, self.region_weight = min_snr_gamma, region_weight
        self.start_share, self.start_from = start_share, start_from
        self.learning_rate, self.betas, self.weight_decay = learning_rate, betas, weight_decay
        self.warmup_steps, self.total_steps, self.seed = warmup_steps, total_steps, seed
        (conditioner or ConditionerSet({})).check_network(network, self.first_stage.latent_channels)

    def setup(self, stage: str) -> None:
        if stage != "fit" or self.trainer.ckpt_path is not None:
            return
        if self.first_stage_weights is not None:
            load_first_stage(self.first_stage, self.first_stage_weights)
        if self.normalize_features and self.conditioner is not None:
            mean, std = data_module(self.trainer).feature_statistics()
            for conditioner in self.conditioner.conditioners.values():
                if isinstance(conditioner, AudioConditioner):
                    conditioner.set_feature_statistics(mean, std)

    def train(self, mode: bool = True) -> DiffusionModule:
        """As nn.Module.train, but the first stage stays in evaluation mode."""
        super().train(mode)
        self.first_stage.eval()
        return self

    @torch.no_grad()
    def encode(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The latents to learn (B, C, h, w), and the batch with `<name>_latents` for the conditioners.

        All pictures of the batch go through the first stage in one call.
        """
        inputs = dict(batch)
        if "label" in batch:
            inputs.setdefault("emotion", batch["label"])
        pictures = {
            name: batch[name] for name in PICTURES if name in batch and f"{name}_latents" not in batch
        }
        if "target_latents" not in batch:
            pictures["target"] = batch["target"] if "target" in batch else batch["images"]
        if pictures:
            encoded = self.first_stage.encode(torch.cat(list(pictures.values())))
            for name, latents in zip(pictures, encoded.chunk(len(pictures)), strict=True):
                inputs[f"{name}_latents"] = latents
        return inputs["target_latents"], inputs

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, drop: bool) -> Tensor:
        """The denoising loss of a batch; with `drop`, conditioners are dropped at their rates, per sample."""
        return self.denoise(batch, generator, drop).loss

    def denoise(self, batch: dict[str, Tensor], generator: torch.Generator, drop: bool) -> Denoised:
        """One corruption of a batch and what the network makes of it."""
        latents, inputs = self.encode(batch)
        count = latents.shape[0]
        # drawn on the CPU, so that a seed means the same on every device
        timesteps = self.levels[torch.randint(len(self.levels), (count,), generator=generator)]
        timesteps = timesteps.to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        conditioning, drops = None, {}
        if self.conditioner is not None:
            drops = self.conditioner.draw_drops(count, generator) if drop else {}
            conditioning = self.conditioner(inputs, drops)
        noisy, weights = self.schedule.add_noise(latents, noise, timesteps), None
        if self.start_share > 0.0:
            noisy, noise, weights = self._start_elsewhere(inputs, noise, timesteps, noisy, generator)
        output = self.network(noisy, timesteps, conditioning)
        region = None
        if self.region_weight != 1.0 and "mask" in batch:
            mask = F.interpolate(batch["mask"].to(latents), size=latents.shape[2:], mode="area")
            region = 1.0 + (self.region_weight - 1.0) * mask
        loss = denoising_loss(
            output,
            latents,
            noise,
            timesteps,
            self.schedule,
            self.prediction_type,
            min_snr_gamma=self.min_snr_gamma,
            sample_weights=weights,
            region_weights=region,
        )
        clean = self.schedule.to_x0(output.float(), noisy, timesteps, self.prediction_type)
        return Denoised(loss, clean, inputs, drops)

    def _start_elsewhere(
        self,
        inputs: dict[str, Tensor],
        noise: Tensor,
        timesteps: Tensor,
        noisy: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `start_share`: noisy latents, the noise that leads from them to the target, weights (B,)."""
        chosen = torch.rand(len(noise), generator=generator) < self.start_share
        chosen = chosen.to(noise.device).view(-1, 1, 1, 1)
        other = self.schedule.add_noise(inputs[f"{self.start_from}_latents"], noise, timesteps)
        noisy = torch.where(chosen, other, noisy)
        signal, sigma = self.schedule.signal_and_noise(timesteps, noisy)
        needed = (noisy - signal * inputs["target_latents"]) / sigma
        # an error of the clean latents counts the same at every level
        scale = {"epsilon": sigma / signal, "velocity": sigma, "x0": torch.ones_like(sigma)}[
            self.prediction_type
        ]
        weights = torch.where(chosen, scale**2, 1.0).flatten()
        return noisy, torch.where(chosen, needed, noise), weights

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        number = self.trainer.fit_loop.total_batch_idx
        loss = self.loss(batch, step_generator(self.seed, 0, number, self.global_rank), drop=True)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        # the same noise at every validation: differences are the model's
        loss = self.loss(batch, step_generator(self.seed, 1, batch_idx, self.global_rank), drop=False)
        count = next(iter(batch.values())).shape[0]
        self.log("val/loss", loss, prog_bar=True, sync_dist=True, batch_size=count)

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay
        )
        if self.warmup_steps == 0 and self.total_steps is None:
            return optimizer
        factor = learning_rate_factor(self.warmup_steps, self.total_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
