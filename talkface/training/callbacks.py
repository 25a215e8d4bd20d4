"""What happens around training: exact randomness, averaged weights, pictures and films in TensorBoard.

Pictures are drawn during validation, when the averaged weights are in place. The sampling itself is that of
`talkface.diffusion.solvers`; nothing here takes part in the loss.
"""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.callbacks.weight_averaging import WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from talkface.diffusion.guidance import ClassifierFreeGuidance
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import uniform_timesteps
from talkface.media import to_uint8
from talkface.training.diffusion import DiffusionModule
from talkface.training.first_stage import FirstStageModule
from talkface.training.sequences import per_frame
from talkface.training.start import data_module, step_generator


class SeedEveryStep(Callback):
    """Seeds the global generators from (seed, number of the training batch, rank) before every batch.

    What uses them (dropout) then does not depend on the past of the process, so a resumed training takes
    the path of an uninterrupted one.
    """

    def __init__(self, seed: int = 23) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        numbers = [self.seed, trainer.fit_loop.total_batch_idx + 1, trainer.global_rank]
        first, second, third = (int(n) for n in np.random.SeedSequence(numbers).generate_state(3))
        torch.manual_seed(first)
        np.random.seed(second)
        random.seed(third)


def ema_weight(num_averaged: Tensor | int, decay: float) -> float:
    """Share of the old average kept at update n: min(decay, (1 + n) / (10 + n)), the thesis' warm-up."""
    n = float(num_averaged)
    return min(decay, (1.0 + n) / (10.0 + n))


class EMAWeights(WeightAveraging):
    """Exponential moving average of all weights, used for validation, for checkpoints and at the end.

    The thesis averages the network only, not the conditioners; here both are averaged, so that what is
    saved fits together.

    Args:
        decay: the limit that `ema_weight` warms up to.
    """

    def __init__(self, decay: float = 0.9999) -> None:
        def average(averaged: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
            return torch.lerp(current, averaged, ema_weight(num_averaged, decay))

        # buffers are statistics, not weights: they are copied
        super().__init__(use_buffers=False, avg_fn=average)


class ReconstructionGrid(Callback):
    """Pictures above, their reconstructions below, at every validation of a first stage.

    Args:
        num_images: how many of the first validation batch.
    """

    def __init__(self, num_images: int = 8) -> None:
        self.num_images = num_images

    @torch.no_grad()
    # Lightning allows every module here; this callback is for one kind
    def on_validation_batch_end(  # type: ignore[override]
        self,
        trainer: pl.Trainer,
        pl_module: FirstStageModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx > 0 or trainer.sanity_checking or not trainer.is_global_zero:
            return
        images = batch["images"][: self.num_images]
        made = pl_module.first_stage.decode(pl_module.first_stage.encode(images))
        log_picture(trainer, "reconstruction", tile([images, made]))


class SampleGrid(Callback):
    """Samples of a diffusion model, and a short film of a talking face, at validation.

    Rows for a talking face: masked, reference, sample, target; otherwise the samples alone.

    Args:
        num_images: of the first validation batch.
        num_inference_steps: DDIM steps.
        scales: guidance scale by conditioner, 1 = none.
        film_frames: frames of the film, 0 = no film.
        every_n_validations: sampling is slow; skip the validations between.
        seed: of the noise, the same every time so that progress is visible.
    """

    def __init__(
        self,
        num_images: int = 8,
        num_inference_steps: int = 20,
        scales: dict[str, float] | None = None,
        film_frames: int = 0,
        every_n_validations: int = 1,
        seed: int = 0,
    ) -> None:
        self.num_images = num_images
        self.num_inference_steps = num_inference_steps
        self.scales = scales or {}
        self.film_frames = film_frames
        self.every_n_validations = every_n_validations
        self.seed = seed
        self._validations = 0

    @torch.no_grad()
    # Lightning allows every module here; this callback is for one kind
    def on_validation_batch_end(  # type: ignore[override]
        self,
        trainer: pl.Trainer,
        pl_module: DiffusionModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx > 0 or trainer.sanity_checking or not trainer.is_global_zero:
            return
        self._validations += 1
        if (self._validations - 1) % self.every_n_validations:
            return
        frames_of = per_frame(batch) if "target" in batch and batch["target"].dim() == 5 else batch
        few = {name: value[: self.num_images] for name, value in frames_of.items()}
        made = self._sample(pl_module, few)
        rows = [few["masked"], few["reference"], made, few["target"]] if "masked" in few else [made]
        log_picture(trainer, "samples", tile(rows))
        film = getattr(data_module(trainer), "film_batch", None)
        if self.film_frames and film is not None:
            frames = {name: value.to(pl_module.device) for name, value in film(self.film_frames).items()}
            parts = [
                self._sample(
                    pl_module,
                    {name: value[start : start + self.num_images] for name, value in frames.items()},
                )
                for start in range(0, len(frames["target"]), self.num_images)
            ]
            log_film(trainer, "film", torch.cat([frames["target"], torch.cat(parts)], dim=3), fps=25.0)

    def _sample(self, module: DiffusionModule, batch: dict[str, Tensor]) -> Tensor:
        latents, inputs = module.encode(batch)
        conditioning: Any = None
        nulls: dict[str, Any] = {}
        if module.conditioner is not None:
            guided = [name for name, scale in self.scales.items() if scale != 1.0]
            conditioning, nulls = module.conditioner.with_nulls(inputs, guided)
        # one noise for all: frames of a film then differ only in what conditions them
        noise = torch.randn(latents.shape[1:], generator=step_generator(self.seed)).to(latents)
        predictor = ClassifierFreeGuidance(
            module.network, module.schedule, module.prediction_type, conditioning, nulls, self.scales
        )
        times = uniform_timesteps(self.num_inference_steps, module.schedule.num_train_timesteps)
        made = DDIM(module.schedule).sample(
            predictor, noise.expand_as(latents).clone(), times.to(latents.device)
        )
        return module.first_stage.decode(made).clamp(-1, 1)


def tile(rows: list[Tensor]) -> np.ndarray:
    """Rows of pictures (B, 3, H, W) in [-1, 1] -> one uint8 picture (rows * H, B * W, 3)."""
    return np.concatenate([np.concatenate(list(to_uint8(row.float().cpu())), axis=1) for row in rows], axis=0)


def log_picture(trainer: pl.Trainer, name: str, picture: np.ndarray) -> None:
    """Send a uint8 (H, W, 3) picture to every TensorBoard logger."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, trainer.global_step, dataformats="HWC")


def log_film(trainer: pl.Trainer, name: str, frames: Tensor, fps: float) -> None:
    """Send frames (T, 3, H, W) in [-1, 1] to every TensorBoard logger, as the animated GIF it can play."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    pictures = [Image.fromarray(frame) for frame in to_uint8(frames.float().cpu())]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0
    )
    width, height = pictures[0].size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=buffer.getvalue())
    summary = Summary(value=[Summary.Value(tag=name, image=image)])
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment._get_file_writer().add_summary(summary, trainer.global_step)
