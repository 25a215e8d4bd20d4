"""A conformer encoder and an attention decoder, with the names and shapes of ESPnet's and auto-avsr's.

Gulati et al., "Conformer: convolution-augmented transformer for speech recognition" (Interspeech 2020): every block is
half a feed-forward layer, self-attention with relative positions (Dai et al., "Transformer-XL", ACL 2019, eq. 4 of
section 3.3), a gated depthwise convolution over time, and the other half. Unlike in those programs, padding never
leaks into a shorter sequence of a batch: the convolution sees zeros there, too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EPSILON = 1e-12
"""Of the layer normalisations, as in the public models."""
POSITIONS = ("latest", "legacy")
LEGACY_START = 4999
"""Position that ESPnet's first relative attention gives to the last frame's distance table."""


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """(N,) positions -> (N, dim): sines at even, cosines at odd places."""
    rates = torch.exp(torch.arange(0, dim, 2, device=positions.device) * (-math.log(10000.0) / dim))
    angles = positions[:, None].float() * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Attention(nn.Module):
    """Multi-head attention.

    Args:
        dim: width; heads: divides it; dropout: on the weights.
        positions: score also the distance between query and key: "latest" as written in the paper, "legacy" as ESPnet
            had it before its pull request 2816 (some public lip readers were trained with that; what it says of two
            frames depends on the length of the clip, so that padding is not allowed); None: do not.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, positions: str | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q, self.linear_k = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.linear_v, self.linear_out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.positions = positions
        if positions is not None:
            self.linear_pos = nn.Linear(dim, dim, bias=False)
            self.pos_bias_u = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, dim // heads)))
            self.pos_bias_v = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, dim // heads)))

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """query (B, L, dim), memory (B, M, dim), mask broadcastable to (B, L, M), True where to look -> (B, L, dim)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.linear_q, query), (self.linear_k, memory), (self.linear_v, memory))
        )
        if self.positions is not None:
            scores = (q + self.pos_bias_u[:, None]) @ k.transpose(-2, -1)
            scores = scores + self._by_distance(q + self.pos_bias_v[:, None])
        else:
            scores = q @ k.transpose(-2, -1)
        scores = scores / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(dim=-1))
        return self.linear_out((weights @ v).transpose(1, 2).flatten(2))

    def _by_distance(self, q: Tensor) -> Tensor:
        """(B, heads, T, d) -> (B, heads, T, T): query i with the vector of the distance i - j."""
        length = q.shape[2]
        steps = torch.arange(length, device=q.device)
        if self.positions == "legacy":
            scores = nn.functional.pad(q @ self._table(LEGACY_START - steps, q).transpose(-2, -1), (1, 0))
            return scores.flatten(2)[:, :, length:].unflatten(2, (length, length))
        distances = torch.arange(length - 1, -length, -1, device=q.device)
        scores = q @ self._table(distances, q).transpose(-2, -1)
        place = length - 1 - (steps[:, None] - steps[None])
        return scores.gather(-1, place.expand(*scores.shape[:3], length))

    def _table(self, distances: Tensor, like: Tensor) -> Tensor:
        """(N,) distances -> (heads, N, d)."""
        table = self.linear_pos(sinusoids(distances, self.linear_pos.in_features).to(like.dtype))
        return table.unflatten(-1, (self.heads, -1)).transpose(0, 1)


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.dropout(torch.relu(self.w_1(x))))


class ConvolutionModule(nn.Module):
    """Gate, depthwise convolution over time, normalisation, swish: (B, T, C) -> (B, T, C)."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.pointwise_cov1 = nn.Conv1d(dim, 2 * dim, 1)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.BatchNorm1d(dim)
        self.pointwise_cov2 = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor, there: Tensor | None) -> Tensor:
        gated = nn.functional.glu(self.pointwise_cov1(x.transpose(1, 2)), dim=1)
        if there is not None:
            gated = gated * there[:, None]
        out = nn.functional.silu(self.norm(self.depthwise_conv(gated)))
        return self.pointwise_cov2(out).transpose(1, 2)


class ConformerBlock(nn.Module):
    """One block, normalised before each of its parts and once at the end."""

    def __init__(
        self, dim: int, heads: int, hidden: int, kernel: int, dropout: float, positions: str = "latest"
    ) -> None:
        super().__init__()
        self.feed_forward_macaron = FeedForward(dim, hidden, dropout)
        self.self_attn = Attention(dim, heads, positions=positions)
        self.conv_module = ConvolutionModule(dim, kernel)
        self.feed_forward = FeedForward(dim, hidden, dropout)
        self.norm_ff_macaron, self.norm_mha, self.norm_conv, self.norm_ff, self.norm_final = (
            nn.LayerNorm(dim, EPSILON) for _ in range(5)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, there: Tensor | None) -> Tensor:
        x = x + 0.5 * self.dropout(self.feed_forward_macaron(self.norm_ff_macaron(x)))
        seen = self.norm_mha(x)
        x = x + self.dropout(self.self_attn(seen, seen, None if there is None else there[:, None]))
        x = x + self.dropout(self.conv_module(self.norm_conv(x), there))
        x = x + 0.5 * self.dropout(self.feed_forward(self.norm_ff(x)))
        return self.norm_final(x)


class Conformer(nn.Module):
    """(B, T, dim) -> (B, T, dim).

    Args:
        dim, heads, hidden: widths; kernel: of the depthwise convolution, odd; layers: blocks.
        positions: see `Attention`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        layers: int,
        kernel: int = 31,
        dropout: float = 0.1,
        positions: str = "latest",
    ) -> None:
        super().__init__()
        self.scale = math.sqrt(dim)
        self.dropout = nn.Dropout(dropout)
        self.encoders = nn.ModuleList(
            ConformerBlock(dim, heads, hidden, kernel, dropout, positions) for _ in range(layers)
        )
        self.after_norm = nn.LayerNorm(dim, EPSILON)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        """`there`: (B, T) bool, False where a shorter sequence is padded."""
        x = self.dropout(x * self.scale)
        for block in self.encoders:
            x = block(x, there)
        return self.after_norm(x)


class TemporalBlock(nn.Module):
    """A dilated convolution over time beside a shortcut: (B, T, C) -> (B, T, C)."""

    def __init__(self, dim: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.spread = nn.Conv1d(dim, dim, kernel, padding=dilation * (kernel // 2), dilation=dilation)
        self.mix = nn.Conv1d(dim, dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, there: Tensor | None) -> Tensor:
        seen = self.norm(x)
        if there is not None:
            seen = seen * there[..., None]
        out = self.mix(nn.functional.gelu(self.spread(seen.transpose(1, 2)))).transpose(1, 2)
        return x + self.dropout(out)


class TemporalConvolution(nn.Module):
    """The other encoder: dilated convolutions (Martinez et al., "Lipreading using temporal convolutional networks",
    ICASSP 2020, in one scale). Dilations go 1, 2, 4, 1, 2, 4, ...
    """

    def __init__(self, dim: int, layers: int, kernel: int = 5, dropout: float = 0.1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TemporalBlock(dim, kernel, 2 ** (number % 3), dropout) for number in range(layers)
        )
        self.after_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, there)
        return self.after_norm(x)


class DecoderBlock(nn.Module):
    """Attention to what was said, to what is seen, and a feed-forward layer."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads, dropout)
        self.src_attn = Attention(dim, heads, dropout)
        self.feed_forward = FeedForward(dim, hidden, dropout)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim, EPSILON) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor, there: Tensor | None) -> Tensor:
        said = self.norm1(x)
        x = x + self.dropout(self.self_attn(said, said, mask))
        seen = None if there is None else there[:, None]
        x = x + self.dropout(self.src_attn(self.norm2(x), memory, seen))
        return x + self.dropout(self.feed_forward(self.norm3(x)))


class AttentionDecoder(nn.Module):
    """Which unit comes next, given those before and the encoder's features.

    Args:
        units: size of the vocabulary; its last unit begins and ends a sentence.
    """

    def __init__(
        self, units: int, dim: int, heads: int, hidden: int, layers: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Embedding(units, dim))
        self.decoders = nn.ModuleList(DecoderBlock(dim, heads, hidden, dropout) for _ in range(layers))
        self.after_norm = nn.LayerNorm(dim, EPSILON)
        self.output_layer = nn.Linear(dim, units)
        self.scale = math.sqrt(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, memory: Tensor, there: Tensor | None = None) -> Tensor:
        """tokens (B, L) ids, beginning with the last unit; memory (B, T, dim) -> (B, L, units) logits of the next."""
        length = tokens.shape[1]
        places = sinusoids(torch.arange(length, device=tokens.device), memory.shape[-1])
        x = self.dropout(self.embed(tokens) * self.scale + places.to(memory.dtype))
        mask = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()[None]
        for block in self.decoders:
            x = block(x, mask, memory, there)
        return self.output_layer(self.after_norm(x))
