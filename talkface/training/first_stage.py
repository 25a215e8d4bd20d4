"""Training of the first stage: VQGAN against a patch discriminator (Esser et al. 2021, arXiv 2012.09841).

Two optimizers by hand: the autoencoder takes its step, then, once the adversarial part has started, the
discriminator. The losses are `talkface.losses.first_stage`; codebook statistics and the revival of dead codes
belong to the quantizer and are logged here.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.losses.first_stage import FirstStageLoss
from talkface.networks.quantizer import VectorQuantizer
from talkface.networks.vqgan import VQGAN, PatchDiscriminator
from talkface.training.start import objects_not_saved


class FirstStageModule(pl.LightningModule):
    """Trains a VQGAN on batches with `images` (B, 3, S, S) in [-1, 1].

    A training step counts once, although two optimizers step.

    Args:
        first_stage: the autoencoder.
        loss: its losses, with the perceptual expert inside.
        discriminator: None trains without adversary.
        learning_rate, betas: of both Adams (the thesis: 3.6e-5; 0.5, 0.9).
        gradient_clip: largest norm of the gradient; None = no clipping (the thesis).
        normalize_latents: at each validation, measure mean and deviation of the latents and let the first
            stage hand out latents of about unit variance (the thesis does not).
    """

    def __init__(
        self,
        first_stage: VQGAN,
        loss: FirstStageLoss,
        discriminator: PatchDiscriminator | None = None,
        *,
        learning_rate: float = 3.6e-5,
        betas: tuple[float, float] = (0.5, 0.9),
        gradient_clip: float | None = None,
        normalize_latents: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=objects_not_saved("first_stage", "loss", "discriminator"))
        self.automatic_optimization = False
        self.first_stage, self.loss, self.discriminator = first_stage, loss, discriminator
        self.learning_rate, self.betas = learning_rate, betas
        self.gradient_clip, self.normalize_latents = gradient_clip, normalize_latents
        self._moments: list[Tensor] = []

    def on_fit_start(self) -> None:
        if self.trainer.precision == "16-mixed":
            raise TalkfaceError("precision: 16-mixed; allowed for a first stage are 32-true and bf16-mixed")

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        images = batch["images"]
        step = self.trainer.fit_loop.total_batch_idx
        optimizers: Any = self.optimizers()
        first, *others = optimizers if isinstance(optimizers, list) else [optimizers]

        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
        made = self.first_stage(images)
        terms = self.loss.autoencoder(
            images,
            made.reconstruction,
            made.codebook_loss,
            discriminator=self.discriminator,
            last_layer=self.first_stage.last_layer,
            step=step,
        )
        self._step(first, terms.total, self.first_stage)
        values = {
            "total": terms.total,
            "pixel": terms.pixel,
            "perceptual": terms.perceptual,
            "codebook": terms.codebook,
            "adversarial": terms.adversarial,
            "adversarial_weight": terms.adversarial_weight,
        }
        if self.discriminator is not None and self.loss.uses_discriminator(step):
            self.discriminator.requires_grad_(True)
            values["discriminator"] = self.loss.discriminator(self.discriminator, images, made.reconstruction)
            # the wrapped optimizer would count this as one more training step
            self._step(others[0].optimizer, values["discriminator"], self.discriminator)
        self.log_dict({f"train/{name}": value.detach() for name, value in values.items()})
        self.log("train/loss", terms.total.detach(), prog_bar=True)
        quantizer = self.first_stage.quantize
        if isinstance(quantizer, VectorQuantizer) and self.trainer.fit_loop.total_batch_idx % 50 == 0:
            self.log("codebook/perplexity", quantizer.perplexity())
            self.log("codebook/share_used", quantizer.share_used())

    def _step(self, optimizer: Any, loss: Tensor, module: nn.Module) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), self.gradient_clip)
        optimizer.step()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        images = batch["images"]
        made = self.first_stage(images)
        terms = self.loss.autoencoder(images, made.reconstruction, made.codebook_loss)
        mse = (made.reconstruction.clamp(-1, 1) - images).square().flatten(1).mean(1) / 4.0
        values = {
            "val/loss": terms.total,
            "val/pixel": terms.pixel,
            "val/perceptual": terms.perceptual,
            "val/psnr": -10.0 * mse.clamp(min=1e-10).log10().mean(),
        }
        self.log_dict(values, sync_dist=True, batch_size=len(images), prog_bar=False)
        latents = made.latents.double().transpose(0, 1).flatten(1)
        count = torch.full_like(latents[:, 0], latents.shape[1])
        self._moments.append(torch.stack([count, latents.sum(1), latents.square().sum(1)]))

    def on_validation_epoch_end(self) -> None:
        moments, self._moments = self._moments, []
        if not self.normalize_latents or self.trainer.sanity_checking or not moments:
            return
        gathered: Any = self.all_gather(torch.stack(moments))
        count, total, square = gathered.reshape(-1, *moments[0].shape).sum(0)
        mean = total / count
        std = (square / count - mean.square()).clamp(min=1e-8).sqrt()
        self.first_stage.set_latent_statistics(mean.float(), std.float())

    def configure_optimizers(self) -> Any:
        modules = [self.first_stage, *([] if self.discriminator is None else [self.discriminator])]
        return [
            torch.optim.Adam(
                [parameter for parameter in module.parameters() if parameter.requires_grad],
                lr=self.learning_rate,
                betas=self.betas,
            )
            for module in modules
        ]
