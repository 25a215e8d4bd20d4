"""A small decoder of what changed between latents, in place of a first stage that decodes both.

A refined frame shows its guide plus the difference of two decoded pictures: that of what the network made of the
guide's latents, and that of these. This student learns the difference itself (Hinton et al. 2015, arXiv 1503.02531), at
a sixth of the price. It has no normalisation, so a part of a picture is decoded as within the whole, but for the rim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.networks.layers import zero_init

__all__ = ["ChangeDecoder"]


class PlainBlock(nn.Module):
    """Two 3x3 convolutions around a residual, without normalisation; adds nothing at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = zero_init(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class ChangeDecoder(nn.Module):
    """Latents and those before -> the change of pixels.

    Args:
        latent_channels, downsample_factor: of the first stage; the factor is even.
        channels, num_blocks: at the size of the latents.
        fine_channels: of a block at twice that size.
    """

    def __init__(
        self,
        latent_channels: int = 6,
        downsample_factor: int = 4,
        channels: int = 96,
        num_blocks: int = 2,
        fine_channels: int = 48,
    ) -> None:
        super().__init__()
        rest = downsample_factor // 2
        self.layers = nn.Sequential(
            nn.Conv2d(2 * latent_channels, channels, 3, padding=1),
            *(PlainBlock(channels) for _ in range(num_blocks)),
            nn.Conv2d(channels, 4 * fine_channels, 1),
            nn.PixelShuffle(2),
            PlainBlock(fine_channels),
            nn.Conv2d(fine_channels, 3 * rest**2, 3, padding=1),
            nn.PixelShuffle(rest),
        )

    def forward(self, latents: Tensor, before: Tensor) -> Tensor:
        """Latents (B, C, h, w) twice -> decoded picture less the one before, (B, 3, h * f, w * f), in [-2, 2]."""
        return self.layers(torch.cat([latents - before, before], dim=1))
