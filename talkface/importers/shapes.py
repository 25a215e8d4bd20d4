"""From the shapes of tensors in the CompVis layout to the arguments of our networks.

The layout of latent-diffusion and taming-transformers (Rombach et al. 2022, arXiv 2112.10752; Esser et al. 2021, arXiv
2012.09841), which our networks share. What no shape tells (attention heads, picture size, groups of the
normalisations) is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from typing import Any

from torch import Tensor

from talkface.errors import TalkfaceError
from talkface.importers.tensors import shape

COMPVIS_GROUPS = 32
Spec = dict[str, Any]


def describe_vqgan(
    weights: Mapping[str, Tensor],
    source: str,
    *,
    image_size: int,
    norm_groups: int = COMPVIS_GROUPS,
    legacy_beta: bool = True,
) -> Spec:
    """Class path and arguments of the VQGAN that these weights are of.

    Args:
        weights: `encoder.`, `decoder.`, `quant_conv.`, `quantize.`, `post_quant_conv.`
        image_size: side in pixels of its training pictures, for which its attention resolutions are counted.
        legacy_beta: see `VectorQuantizer`; matters in further training only.

    Raises:
        TalkfaceError: no codebook, widths that are no multiples, an image size that does not fit.
    """
    if "quantize.embedding.weight" not in weights:
        raise TalkfaceError(
            f"{source} has no codebook (quantize.embedding.weight); allowed: a VQGAN with nearest codes, "
            "not an AutoencoderKL nor a Gumbel VQGAN"
        )
    channels = shape(weights, "encoder.conv_in.weight", source)[0]
    widths = []
    for level in count():
        if f"encoder.down.{level}.block.0.conv1.weight" not in weights:
            break
        widths.append(shape(weights, f"encoder.down.{level}.block.0.conv1.weight", source)[0])
    blocks = _length(weights, "encoder.down.0.block.{}.conv1.weight")
    decoder_blocks = _length(weights, "decoder.up.0.block.{}.conv1.weight")
    codes, latent_channels = shape(weights, "quantize.embedding.weight", source)
    features = shape(weights, "quant_conv.weight", source)[1]
    factor = 2 ** max(0, len(widths) - 1)
    if image_size % factor or image_size < factor:
        raise TalkfaceError(f"--image-size: {image_size}; allowed: a multiple of {factor} for {source}")
    arguments: Spec = {
        "channels": channels,
        "channel_mult": _multiples(widths, channels, source),
        "num_res_blocks": blocks,
        "attention_resolutions": [
            image_size // 2**level
            for level in range(len(widths))
            if f"encoder.down.{level}.attn.0.norm.weight" in weights
        ],
        "image_size": image_size,
        "latent_channels": latent_channels,
        "codebook_size": codes,
        "legacy_beta": legacy_beta,
        "middle_attention": "encoder.mid.attn_1.norm.weight" in weights,
        "norm_groups": norm_groups,
    }
    if decoder_blocks != blocks + 1:
        arguments["decoder_num_res_blocks"] = decoder_blocks
    if features != latent_channels:
        arguments["feature_channels"] = features
    return {"class_path": "talkface.networks.vqgan.VQGAN", "init_args": arguments}


def describe_unet(
    weights: Mapping[str, Tensor],
    source: str,
    *,
    image_size: int,
    num_head_channels: int = 32,
    num_heads: int | Sequence[int] | None = None,
    norm_groups: int = COMPVIS_GROUPS,
) -> Spec:
    """Class path and arguments of the UNet that these weights are of.

    Args:
        weights: `time_embed.`, `input_blocks.`, `middle_block.`, `output_blocks.`, `out.`
        image_size: height and width of its training latents.
        num_head_channels: channels per attention head, or
        num_heads: heads, one number or one per level, instead.

    Raises:
        TalkfaceError: widths that are no multiples, heads that do not divide them, contexts of several widths.
    """
    model_channels = shape(weights, "time_embed.0.weight", source)[1]
    widths, blocks, attention = [0], [0], [False]
    for index in count(1):
        if f"input_blocks.{index}.0.op.weight" in weights:
            widths, blocks, attention = [*widths, 0], [*blocks, 0], [*attention, False]
        elif f"input_blocks.{index}.0.in_layers.2.weight" in weights:
            widths[-1] = shape(weights, f"input_blocks.{index}.0.in_layers.2.weight", source)[0]
            blocks[-1] += 1
            attention[-1] |= f"input_blocks.{index}.1.norm.weight" in weights
        else:
            break
    contexts = {
        value.shape[1]
        for name, value in weights.items()
        if name.endswith("transformer_blocks.0.attn2.to_k.weight")
    }
    if len(contexts) > 1:
        raise TalkfaceError(
            f"{source}: contexts of widths {sorted(contexts)}; allowed: one width in all blocks"
        )
    arguments: Spec = {
        "in_channels": shape(weights, "input_blocks.0.0.weight", source)[1],
        "out_channels": shape(weights, "out.2.weight", source)[0],
        "model_channels": model_channels,
        "channel_mult": _multiples(widths, model_channels, source),
        "num_res_blocks": blocks[0] if len(set(blocks)) == 1 else blocks,
        "attention_downsamples": [2**level for level, has in enumerate(attention) if has],
        "num_head_channels": num_head_channels
        if num_heads is None
        else _head_channels(widths, attention, num_heads, source),
        "context_dim": next(iter(contexts), None),
        "image_size": image_size,
        "norm_groups": norm_groups,
    }
    return {"class_path": "talkface.networks.unet.UNet", "init_args": arguments}


def _length(weights: Mapping[str, Tensor], pattern: str) -> int:
    """How many of the names `pattern` with 0, 1, 2, ... there are."""
    return sum(1 for _ in takewhile(lambda index: pattern.format(index) in weights, count()))


def _multiples(widths: Sequence[int], base: int, source: str) -> list[int]:
    if not widths or any(width == 0 or width % base for width in widths):
        raise TalkfaceError(
            f"{source}: widths {list(widths)}; allowed: multiples of the first layer's {base}"
        )
    return [width // base for width in widths]


def _head_channels(
    widths: Sequence[int], attention: Sequence[bool], num_heads: int | Sequence[int], source: str
) -> int | list[int]:
    heads = [num_heads] * len(widths) if isinstance(num_heads, int) else list(num_heads)
    used = [
        *attention[:-1],
        True,
    ]  # the middle block attends at the last width, whether its level does or not
    if len(heads) != len(widths) or any(w % h for w, h, use in zip(widths, heads, used, strict=False) if use):
        raise TalkfaceError(
            f"{source}: {heads} attention heads for widths {list(widths)}; allowed: divisors of them"
        )
    channels = [w // h if use else w for w, h, use in zip(widths, heads, used, strict=True)]
    return channels[0] if len(set(channels)) == 1 else channels
