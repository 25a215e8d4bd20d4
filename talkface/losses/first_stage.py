"""The losses of the VQGAN (Esser et al. 2021, arXiv 2012.09841, eq. 4-7).

Absolute error + perceptual distance + codebook loss + hinge adversarial loss, whose weight adapts so that its
gradient at the decoder's last layer is as long as that of the reconstruction. The perceptual expert and the
discriminator are arguments; nothing here owns trained weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def adaptive_weight(reconstruction_loss: Tensor, adversarial_loss: Tensor, last_layer: Tensor) -> Tensor:
    """Ratio of the two gradients' lengths at `last_layer`, at most 1e4; a constant scalar."""
    reconstruction_gradient = torch.autograd.grad(reconstruction_loss, last_layer, retain_graph=True)[0]
    adversarial_gradient = torch.autograd.grad(adversarial_loss, last_layer, retain_graph=True)[0]
    return (reconstruction_gradient.norm() / (adversarial_gradient.norm() + 1e-4)).clamp(0.0, 1e4).detach()


@dataclass
class FirstStageTerms:
    """The parts of the autoencoder's loss, each a scalar; `total` is the one to minimise."""

    total: Tensor
    pixel: Tensor
    perceptual: Tensor
    codebook: Tensor
    adversarial: Tensor
    adversarial_weight: Tensor


class FirstStageLoss(nn.Module):
    """Loss of the autoencoder, and loss of its discriminator.

    Args:
        perceptual: (images, images) in [-1, 1] -> (B,) distances (or any shape with B elements); frozen here;
            None: no such term.
        pixel_weight, perceptual_weight, codebook_weight, adversarial_weight: of the terms (the thesis: 1
            each).
        adversarial_start: training step from which the discriminator takes part.
        adaptive: scale the adversarial term by `adaptive_weight`.
    """

    def __init__(
        self,
        perceptual: nn.Module | None = None,
        pixel_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        codebook_weight: float = 1.0,
        adversarial_weight: float = 1.0,
        adversarial_start: int = 0,
        adaptive: bool = True,
    ) -> None:
        super().__init__()
        self.perceptual = None if perceptual is None else perceptual.eval().requires_grad_(False)
        self.pixel_weight, self.perceptual_weight = pixel_weight, perceptual_weight
        self.codebook_weight, self.adversarial_weight = codebook_weight, adversarial_weight
        self.adversarial_start, self.adaptive = adversarial_start, adaptive

    def train(self, mode: bool = True) -> FirstStageLoss:
        """As nn.Module.train, but the expert stays in evaluation mode."""
        super().train(mode)
        if self.perceptual is not None:
            self.perceptual.eval()
        return self

    def uses_discriminator(self, step: int) -> bool:
        """Whether the adversarial part is on at this training step."""
        return self.adversarial_weight > 0 and step >= self.adversarial_start

    def autoencoder(
        self,
        images: Tensor,
        reconstruction: Tensor,
        codebook_loss: Tensor,
        *,
        discriminator: nn.Module | None = None,
        last_layer: Tensor | None = None,
        step: int = 0,
        region_weights: Tensor | None = None,
    ) -> FirstStageTerms:
        """What the autoencoder minimises.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            reconstruction: (B, 3, H, W), of the VQGAN on them.
            codebook_loss: its codebook loss, a scalar.
            discriminator: images -> scores; None: no adversarial term.
            last_layer: the decoder's last weight, `VQGAN.last_layer`; needed in training with `adaptive`;
                None: the adversarial term keeps its fixed weight.
            step: training step.
            region_weights: (B, 1, H, W), multiplies the absolute error per pixel, relative to its mean.
        """
        zero = images.new_zeros(())
        error = (images - reconstruction).abs()
        if region_weights is not None:
            error = error * (region_weights / region_weights.mean().clamp(min=1e-8))
        pixel = error.mean()
        perceptual = zero
        if self.perceptual is not None and self.perceptual_weight > 0:
            perceptual = self.perceptual(images, reconstruction).mean()
        similarity = self.pixel_weight * pixel + self.perceptual_weight * perceptual
        adversarial, weight = zero, zero
        if discriminator is not None and self.uses_discriminator(step):
            adversarial = -discriminator(reconstruction).mean()
            weight = zero + self.adversarial_weight
            if self.adaptive and last_layer is not None and adversarial.requires_grad:
                weight = weight * adaptive_weight(similarity, adversarial, last_layer)
        total = similarity + self.codebook_weight * codebook_loss + weight * adversarial
        return FirstStageTerms(total, pixel, perceptual, codebook_loss, adversarial, weight)

    def discriminator(self, discriminator: nn.Module, images: Tensor, reconstruction: Tensor) -> Tensor:
        """What the discriminator minimises: hinge loss on real pictures (B, 3, H, W) and on made ones."""
        real = discriminator(images.detach())
        made = discriminator(reconstruction.detach())
        return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + made).mean())
