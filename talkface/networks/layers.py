"""Building blocks shared by the networks: time embedding, residual block, attention, down- and upsampling.

The blocks of the latent diffusion UNet (Rombach et al. 2022, arXiv 2112.10752, appendix E; Dhariwal & Nichol
2021, arXiv 2105.05233). Sub-module names follow the layout in which latent diffusion checkpoints are
published, so that an importer only has to rename prefixes. Nothing here knows of schedules, losses or
guidance.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoids of geometrically spaced frequencies, cosines first (Vaswani et al. 2017, in DDPM's order).

    Args:
        timesteps: (B,) integer or fractional.
        dim: width of the embedding; an odd last column is zero.
    Returns:
        (B, dim) float32.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(max_period) * exponents)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    return F.pad(embedding, (0, dim - 2 * half))


def group_norm(channels: int, eps: float = 1e-5, groups: int | None = None) -> nn.GroupNorm:
    """GroupNorm with 32 groups, or fewer in narrow layers: each group has at least four channels.

    A group of one channel would normalise away whatever is added to that channel as a constant, and that is
    how the time embedding enters. `groups` sets another number: that of a network trained elsewhere.
    """
    if groups is None:
        groups = next(g for g in range(max(1, min(32, channels // 4)), 0, -1) if channels % g == 0)
    return GroupNorm(groups, channels, eps=eps)


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` around a kernel of the processor that takes eight times as long as it must.

    For small maps stored channels last torch reads the groups' few channels one value at a time; the detour over the
    other layout costs less. Results differ by rounding only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        if not self._is_slow(x):
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)

    def _is_slow(self, x: Tensor) -> bool:
        if x.device.type != "cpu" or x.dim() != 4 or x.is_contiguous():
            return False
        narrow = self.num_channels // self.num_groups < 8 or x.dtype != torch.float32
        return narrow and x.shape[2] * x.shape[3] < 1024


def zero_init(module: nn.Module) -> nn.Module:
    """Zero all parameters: the branch that ends in `module` starts as "add nothing"."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class TimeResBlock(nn.Module):
    """Residual block whose inner feature map is shifted per channel by the time embedding."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_dim: int,
        dropout: float = 0.0,
        norm_groups: int | None = None,
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            group_norm(in_channels, groups=norm_groups),
            nn.SiLU(),
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, out_channels))
        self.out_layers = nn.Sequential(
            group_norm(out_channels, groups=norm_groups),
            nn.SiLU(),
            nn.Dropout(dropout),
            zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = (
            nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, in, H, W), time (B, time_dim) -> (B, out, H, W)."""
        inner = self.in_layers(x) + self.emb_layers(time)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(inner)


class CrossAttention(nn.Module):
    """Multi-head attention from `x` to `context`, or to itself where no context dimension is given.

    Note: with one context token the softmax runs over a single key and is 1, so the result is the same value
    vector at every position and `to_q`, `to_k` receive no gradient. The thesis's configuration is of this
    kind.
    """

    def __init__(self, dim: int, context_dim: int | None, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        source = dim if context_dim is None else context_dim
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(source, dim, bias=False)
        self.to_v = nn.Linear(source, dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, N, dim), context (B, M, context_dim) or None for self-attention -> (B, N, dim)."""
        source = x if context is None else context

        def heads(t: Tensor) -> Tensor:
            return t.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

        attended = F.scaled_dot_product_attention(
            heads(self.to_q(x)), heads(self.to_k(source)), heads(self.to_v(source))
        )
        return self.to_out(attended.transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    """Linear layer; the first half of its outputs is gated by the exact GELU of the second (2002.05202)."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim_in, 2 * dim_out)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """dim -> 4 dim (GEGLU) -> dim, per token."""

    def __init__(self, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Dropout(dropout), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention (only where there is a context), feed-forward; pre-norm residuals."""

    def __init__(self, dim: int, num_heads: int, context_dim: int | None, dropout: float = 0.0) -> None:
        super().__init__()
        self.attn1 = CrossAttention(dim, None, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.attn2 = None if context_dim is None else CrossAttention(dim, context_dim, num_heads)
        self.norm2 = None if context_dim is None else nn.LayerNorm(dim)
        self.ff = FeedForward(dim, dropout)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        if self.attn2 is not None and self.norm2 is not None:
            x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """One transformer block over the pixels of a feature map, inside a residual whose last layer starts at
    zero.

    Raises:
        TalkfaceError: `num_head_channels` does not divide `channels`.
    """

    def __init__(
        self,
        channels: int,
        num_head_channels: int,
        context_dim: int | None,
        dropout: float = 0.0,
        norm_groups: int | None = None,
    ) -> None:
        super().__init__()
        if channels % num_head_channels:
            raise TalkfaceError(
                f"num_head_channels: {num_head_channels}; allowed: a divisor of the {channels} channels of "
                "the attention block; change num_head_channels or model_channels"
            )
        self.norm = group_norm(channels, eps=1e-6, groups=norm_groups)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(channels, channels // num_head_channels, context_dim, dropout)]
        )
        self.proj_out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """x (B, C, H, W), context (B, tokens, context_dim) or None -> (B, C, H, W)."""
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


class Downsample(nn.Module):
    """Halve height and width by a 3x3 convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a 3x3 convolution.

    Both together are one transposed 4x4 convolution of stride 2, whose taps are sums of the 3x3 kernel's: 4 products an
    output instead of 9. Without gradients processors take that way; results differ by rounding only.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W)."""
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            kernel = _joined_taps(_joined_taps(self.conv.weight, 2), 3).transpose(0, 1)
            return F.conv_transpose2d(
                x, kernel.contiguous(memory_format=torch.channels_last), self.conv.bias, stride=2, padding=1
            )
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _joined_taps(kernel: Tensor, dim: int) -> Tensor:
    """Three taps along `dim` over pairs of equal pixels -> four taps over single ones, in transposed order."""
    first, middle, last = kernel.unbind(dim)
    return torch.stack([last, middle + last, first + middle, first], dim=dim)
