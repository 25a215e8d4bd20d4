"""Encoder and decoder of the VQGAN: a convolutional autoencoder without its bottleneck.

Esser et al. 2021 (arXiv 2012.09841), appendix; sub-module names follow the layout in which VQGAN checkpoints
are published. The quantizer, the latents' scale and the pictures' range are the business of `vqgan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from talkface.networks.layers import Upsample, group_norm

_EPS = 1e-6


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions, pre-normalised, around a residual."""

    def __init__(
        self, in_channels: int, out_channels: int, dropout: float = 0.0, norm_groups: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, _EPS, norm_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, _EPS, norm_groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x)))
        inner = self.conv2(self.dropout(F.silu(self.norm2(inner))))
        return inner + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class PixelAttention(nn.Module):
    """Single-head self-attention over the pixels of a feature map."""

    def __init__(self, channels: int, norm_groups: int | None = None) -> None:
        super().__init__()
        self.norm = group_norm(channels, _EPS, norm_groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (layer(normed).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.proj_out(attended.transpose(1, 2).unflatten(2, x.shape[2:]))


class PaddedDownsample(nn.Module):
    """3x3 convolution of stride 2 with one row and column of zeros at the bottom and right only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """The blocks of one resolution, each followed by attention if wanted, then the change of size."""

    downsample: nn.Module
    upsample: nn.Module

    def __init__(
        self, widths: Sequence[int], attention: bool, dropout: float, norm_groups: int | None
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            [ResnetBlock(inputs, outputs, dropout, norm_groups) for inputs, outputs in pairwise(widths)]
        )
        self.attn = nn.ModuleList(
            [PixelAttention(width, norm_groups) for width in widths[1:]] if attention else []
        )

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn) > 0:
                x = self.attn[index](x)
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        if hasattr(self, "upsample"):
            x = self.upsample(x)
        return x


class Middle(nn.Module):
    """Residual block, attention where wanted, residual block, at the lowest resolution."""

    def __init__(self, channels: int, attention: bool, dropout: float, norm_groups: int | None) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, dropout, norm_groups)
        self.attn_1 = PixelAttention(channels, norm_groups) if attention else nn.Identity()
        self.block_2 = ResnetBlock(channels, channels, dropout, norm_groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Pictures (B, 3, H, W) -> features (B, out_channels, H / f, W / f), f = 2 ** (levels - 1)."""

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        image_size: int,
        dropout: float,
        middle_attention: bool,
        norm_groups: int | None,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.down = nn.ModuleList()
        width = channels
        for index, multiplier in enumerate(channel_mult):
            widths = [width] + [multiplier * channels] * num_res_blocks
            level = Level(widths, image_size // 2**index in attention_resolutions, dropout, norm_groups)
            width = widths[-1]
            if index < len(channel_mult) - 1:
                level.downsample = PaddedDownsample(width)
            self.down.append(level)
        self.mid = Middle(width, middle_attention, dropout, norm_groups)
        self.norm_out = group_norm(width, _EPS, norm_groups)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_in(images)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Features (B, in_channels, h, w) -> pictures (B, 3, h * f, w * f), unbounded (the caller clamps)."""

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        image_size: int,
        dropout: float,
        middle_attention: bool,
        norm_groups: int | None,
    ) -> None:
        super().__init__()
        width = channels * channel_mult[-1]
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.mid = Middle(width, middle_attention, dropout, norm_groups)
        levels = []
        for index in reversed(range(len(channel_mult))):
            widths = [width] + [channel_mult[index] * channels] * num_res_blocks
            level = Level(widths, image_size // 2**index in attention_resolutions, dropout, norm_groups)
            width = widths[-1]
            if index > 0:
                level.upsample = Upsample(width)
            levels.append(level)
        # Stored by resolution like the encoder's levels, run from the lowest to the highest.
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = group_norm(width, _EPS, norm_groups)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        x = self.mid(self.conv_in(features))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))
