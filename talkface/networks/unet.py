"""The UNet of (latent) diffusion models.

Rombach et al. 2022 (arXiv 2112.10752) as in the thesis: residual blocks shifted by the time embedding, and
spatial transformers that attend to a context. The talking-face network is `UNet(in_channels=9,
out_channels=3, model_channels=160, context_dim=1024)`: noisy, masked and identity latents in, noise out. The
same class serves pixel diffusion (no context, few attention levels) and small CPU-friendly networks. It knows
nothing of noise schedules, losses or guidance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from talkface.errors import TalkfaceError
from talkface.networks.layers import (
    Downsample,
    SpatialTransformer,
    TimeResBlock,
    Upsample,
    group_norm,
    timestep_embedding,
    zero_init,
)


class ConditioningLike(Protocol):
    """What the network reads of a conditioning; each field may be None."""

    context: Tensor | None
    concat: Tensor | None
    embedding: Tensor | None


class UNetStage(nn.ModuleList):
    """Blocks run in order; residual blocks also get the time embedding, transformers the context."""

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None, save_memory: bool) -> Tensor:
        for block in self:
            if isinstance(block, TimeResBlock):
                x = checkpoint(block, x, time, use_reentrant=False) if save_memory else block(x, time)
            elif isinstance(block, SpatialTransformer):
                x = checkpoint(block, x, context, use_reentrant=False) if save_memory else block(x, context)
            else:
                x = block(x)
        return x


class UNet(nn.Module):
    """Predicts the noise (or velocity, or clean data) in `x` at `timesteps`.

    Args:
        in_channels: channels of `x` plus those of `conditioning.concat`.
        out_channels: channels predicted, those of `x`.
        model_channels: width at full resolution; the time embedding is four times as wide.
        channel_mult: width multiplier per level; each further level halves height and width.
        num_res_blocks: residual blocks per level on the way down (one more on the way up); one number or one
            per level.
        attention_downsamples: downsampling factors (1 = full resolution) whose levels get a spatial
            transformer after each residual block. Empty: no attention at all, not even in the middle.
        num_head_channels: channels per attention head; one number, or one per level.
        context_dim: width of the context tokens; None: transformers only attend to the picture itself.
        embedding_dim: width of `conditioning.embedding`, which a linear layer adds to the time embedding.
        image_size: height and width the network is meant for (it runs on other sizes too).
        dropout: rate inside residual and feed-forward blocks.
        gradient_checkpointing: recompute block activations in the backward pass; same gradients, less memory.
        norm_groups: groups of every normalisation; None: see `layers.group_norm`. Weights trained elsewhere have 32.
        patch_size: fold squares of this many positions a side into channels before the first layer, and unfold them
            after the last one (Shi et al. 2016, arXiv 1609.05158). 1, the thesis: none. 2 leaves out the layers at
            full resolution, which cost a small network most of its time; `attention_downsamples` then counts from
            the folded map.
        input_skip: add `x`, and every map of `conditioning.concat` that has its channels, to the output, each channel
            times a number that a linear layer tells from the time. What is linear in them (noise that is there
            already, the unchanged part of a reference) then need not be carried through the layers: cf. the
            skip connection of Karras et al. 2022 (arXiv 2206.00364, eq. 7), whose weights are given instead of learnt.
    Raises:
        TalkfaceError: sizes that do not fit together.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        channel_mult: Sequence[int] = (1, 2, 4),
        num_res_blocks: int | Sequence[int] = 2,
        attention_downsamples: Sequence[int] = (1, 2, 4),
        num_head_channels: int | Sequence[int] = 32,
        context_dim: int | None = None,
        embedding_dim: int | None = None,
        image_size: int = 32,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        norm_groups: int | None = None,
        patch_size: int = 1,
        input_skip: bool = False,
    ) -> None:
        super().__init__()
        levels = len(channel_mult)
        blocks_per_level = (
            [num_res_blocks] * levels if isinstance(num_res_blocks, int) else list(num_res_blocks)
        )
        head_channels = (
            [num_head_channels] * levels if isinstance(num_head_channels, int) else list(num_head_channels)
        )
        self._check_sizes(
            {"num_res_blocks": blocks_per_level, "num_head_channels": head_channels},
            attention_downsamples,
            levels,
            context_dim,
            image_size,
            patch_size,
        )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.model_channels, self.image_size = model_channels, image_size
        self.context_dim, self.embedding_dim = context_dim, embedding_dim
        self.gradient_checkpointing = gradient_checkpointing
        self.patch_size = patch_size
        self.size_divisor = patch_size * 2 ** (levels - 1)

        time_dim = 4 * model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim)
        )
        self.input_gates = None
        if input_skip:
            if in_channels % out_channels:
                raise TalkfaceError(
                    f"in_channels: {in_channels} with input_skip; allowed: multiples of out_channels, {out_channels}"
                )
            self.input_gates = zero_init(nn.Linear(time_dim, in_channels))
        self.embedding_projection = None if embedding_dim is None else nn.Linear(embedding_dim, time_dim)

        def res_block(inputs: int, outputs: int) -> TimeResBlock:
            return TimeResBlock(inputs, outputs, time_dim, dropout, norm_groups)

        def transformer(width: int, level: int) -> SpatialTransformer:
            return SpatialTransformer(width, head_channels[level], context_dim, dropout, norm_groups)

        width = model_channels
        self.input_blocks = nn.ModuleList(
            [UNetStage([nn.Conv2d(patch_size**2 * in_channels, width, 3, padding=1)])]
        )
        skip_widths = [width]
        for level, multiplier in enumerate(channel_mult):
            for _ in range(blocks_per_level[level]):
                stage: list[nn.Module] = [res_block(width, multiplier * model_channels)]
                width = multiplier * model_channels
                if 2**level in attention_downsamples:
                    stage.append(transformer(width, level))
                self.input_blocks.append(UNetStage(stage))
                skip_widths.append(width)
            if level < levels - 1:
                self.input_blocks.append(UNetStage([Downsample(width)]))
                skip_widths.append(width)

        middle_attention = [transformer(width, levels - 1)] if len(attention_downsamples) > 0 else []
        self.middle_block = UNetStage([res_block(width, width), *middle_attention, res_block(width, width)])

        self.output_blocks = nn.ModuleList()
        for level in reversed(range(levels)):
            for index in range(blocks_per_level[level] + 1):
                outputs = channel_mult[level] * model_channels
                stage = [res_block(width + skip_widths.pop(), outputs)]
                width = outputs
                if 2**level in attention_downsamples:
                    stage.append(transformer(width, level))
                if level > 0 and index == blocks_per_level[level]:
                    stage.append(Upsample(width))
                self.output_blocks.append(UNetStage(stage))

        self.out = nn.Sequential(
            group_norm(width, groups=norm_groups),
            nn.SiLU(),
            zero_init(nn.Conv2d(width, patch_size**2 * out_channels, 3, padding=1)),
        )

    @staticmethod
    def _check_sizes(
        per_level: Mapping[str, list[int]],
        attention_downsamples: Sequence[int],
        levels: int,
        context_dim: int | None,
        image_size: int,
        patch_size: int,
    ) -> None:
        if patch_size < 1:
            raise TalkfaceError(f"patch_size: {patch_size}; allowed: 1 or more")
        factors = [2**level for level in range(levels)]
        for name, numbers in per_level.items():
            if len(numbers) != levels:
                raise TalkfaceError(
                    f"{name}: {numbers}; allowed: one number, or {levels}, one per entry of channel_mult"
                )
        if wrong := [f for f in attention_downsamples if f not in factors]:
            raise TalkfaceError(
                f"attention_downsamples: {wrong}; allowed: {factors}, the factors that channel_mult makes"
            )
        if context_dim is not None and len(attention_downsamples) == 0:
            raise TalkfaceError(
                f"context_dim: {context_dim} without attention_downsamples; a context is read by attention "
                "only: name at least one level, or leave context_dim out"
            )
        if image_size % (divisor := patch_size * factors[-1]):
            raise TalkfaceError(f"image_size: {image_size}; allowed: a multiple of {divisor}")

    def forward(self, x: Tensor, timesteps: Tensor, conditioning: ConditioningLike | None = None) -> Tensor:
        """Run the network.

        Args:
            x: (B, C, H, W), about unit variance; H and W multiples of `size_divisor`.
            timesteps: (B,) in the units the schedule uses (0..999); integer or fractional.
            conditioning: `context` (B, tokens, context_dim), `concat` (B, in_channels - C, H, W), `embedding`
                (B, embedding_dim), each present exactly if the network was built for it.
        Returns:
            (B, out_channels, H, W).
        Raises:
            TalkfaceError: an input that the network was not built for, with both sizes.
        """
        context = None if conditioning is None else conditioning.context
        concat = None if conditioning is None else conditioning.concat
        embedding = None if conditioning is None else conditioning.embedding
        self._check_inputs(x, context, concat, embedding)
        if concat is not None:
            x = torch.cat([x, concat.to(x.dtype)], dim=1)
        inputs = x
        if self.patch_size > 1:
            x = F.pixel_unshuffle(x, self.patch_size)

        dtype = next(self.time_embed.parameters()).dtype
        time = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(dtype))
        gates = None if self.input_gates is None else self.input_gates(time)
        if self.embedding_projection is not None and embedding is not None:
            time = time + self.embedding_projection(embedding)

        save_memory = self.gradient_checkpointing and torch.is_grad_enabled()
        skips = []
        for stage in self.input_blocks:
            x = stage(x, time, context, save_memory)
            skips.append(x)
        x = self.middle_block(x, time, context, save_memory)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), time, context, save_memory)
        x = self.out(x)
        x = F.pixel_shuffle(x, self.patch_size) if self.patch_size > 1 else x
        if gates is None:
            return x
        maps = inputs.unflatten(1, (-1, self.out_channels))
        return x + (gates.unflatten(1, maps.shape[1:3])[..., None, None] * maps).sum(dim=1)

    def _check_inputs(
        self, x: Tensor, context: Tensor | None, concat: Tensor | None, embedding: Tensor | None
    ) -> None:
        concat_channels = 0 if concat is None else concat.shape[1]
        if x.shape[1] + concat_channels != self.in_channels:
            raise TalkfaceError(
                f"channels: {x.shape[1]} of x + {concat_channels} of conditioning.concat; allowed: "
                f"{self.in_channels} in all, the network's in_channels; change it or the conditioners"
            )
        if x.shape[2] % self.size_divisor or x.shape[3] % self.size_divisor:
            raise TalkfaceError(
                f"height x width of x: {x.shape[2]} x {x.shape[3]}; allowed: multiples of {self.size_divisor}"
            )
        for name, given, built in (
            ("context", context, self.context_dim),
            ("embedding", embedding, self.embedding_dim),
        ):
            width = None if given is None else given.shape[-1]
            if width != built:
                raise TalkfaceError(
                    f"width of conditioning.{name}: {width}; allowed: {built}, the network's {name}_dim; "
                    "change it or the conditioners"
                )
