"""`VQModel` and `UNet2DConditionModel` of the library diffusers: config.json and safetensors -> our layout.

Only names differ; the arithmetic is that of the CompVis layout, for the settings allowed here. A setting that changes
the arithmetic in a way that our networks do not have is refused. The library itself is not needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from talkface.checkpoint import read_weights
from talkface.errors import TalkfaceError
from talkface.importers.compvis import Imported
from talkface.importers.shapes import describe_unet, describe_vqgan

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
# settings that change no arithmetic, or that the shapes tell
_FREE = {
    *(
        "in_channels",
        "out_channels",
        "block_out_channels",
        "layers_per_block",
        "sample_size",
        "norm_num_groups",
    ),
    *("down_block_types", "up_block_types", "dropout", "upcast_attention", "force_upcast", "scaling_factor"),
    *(
        "latent_channels",
        "num_vq_embeddings",
        "vq_embed_dim",
        "mid_block_add_attention",
        "cross_attention_dim",
    ),
    *("attention_head_dim", "use_linear_projection", "addition_embed_type_num_heads"),
}
# what the others must be; a setting named nowhere must be off (None or False)
_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "norm_type": ("group",),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "norm_eps": (1e-5,),
    "transformer_layers_per_block": (1,),
    "resnet_time_scale_shift": ("default",),
    "resnet_out_scale_factor": (1.0,),
    "time_embedding_type": ("positional",),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
}
_BLOCKS = {
    "VQModel": {"DownEncoderBlock2D", "AttnDownEncoderBlock2D", "UpDecoderBlock2D", "AttnUpDecoderBlock2D"},
    "UNet2DConditionModel": {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"},
}
# in the order in which they are applied
_VQ_NAMES = (
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.", r".\1.\2.block.\3."),
    (r"\.(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.", r".\1.\2.attn.\3."),
    (r"\.(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.", r".\1.\2.\3sample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.group_norm\.", ".norm."),
    (r"\.(?:to_(q|k|v))\.", r".\1."),
    (r"\.query\.", ".q."),  # these four: as written before diffusers 0.16
    (r"\.key\.", ".k."),
    (r"\.value\.", ".v."),
    (r"\.(?:to_out\.0|proj_attn)\.", ".proj_out."),
)
_RESNET_NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def import_vq_model(folder: Path, image_size: int | None = None) -> Imported:
    """A folder of `VQModel.save_pretrained`. Its `scaling_factor` is not applied: latents come as `encode` gives them.

    Raises:
        TalkfaceError: another class, a setting that our VQGAN does not have, damaged files.
    """
    config, tensors = _read(folder, "VQModel")
    levels = len(config["block_out_channels"])
    weights = {}
    for name, value in tensors.items():
        for pattern, ours in _VQ_NAMES:
            name = re.sub(pattern, ours, name)
        # its decoder counts from the lowest resolution, CompVis's from the highest
        name = re.sub(
            r"^decoder\.up\.(\d+)\.", lambda found: f"decoder.up.{levels - 1 - int(found[1])}.", name
        )
        weights[name] = value
    size = _size(config, image_size, 2 ** (levels - 1))
    groups = config.get("norm_num_groups", 32)
    # the library weighs the commitment term, not the codes'
    spec = describe_vqgan(weights, str(folder), image_size=size, norm_groups=groups, legacy_beta=False)
    imported = Imported(meta={"image_size": size})
    imported.add("first_stage", spec, weights, str(folder))
    return imported


def import_unet(folder: Path, image_size: int | None = None) -> Imported:
    """A folder of `UNet2DConditionModel.save_pretrained`.

    Args:
        image_size: height and width of its latents; None: the configuration's sample_size.

    Raises:
        TalkfaceError: another class, a setting that our UNet does not have, damaged files.
    """
    config, tensors = _read(folder, "UNet2DConditionModel")
    levels = len(config["block_out_channels"])
    layers = config.get("layers_per_block", 2)
    layers = [layers] * levels if isinstance(layers, int) else list(layers)
    weights = {_unet_name(name, layers): value for name, value in tensors.items()}
    for name in [name for name in weights if ".upsample." in name]:
        stage = name.partition(".upsample.")[0]  # comes after the attention, if that stage has one
        place = 2 if f"{stage}.1.norm.weight" in weights else 1
        weights[name.replace(".upsample.", f".{place}.")] = weights.pop(name)
    size = _size(config, image_size, 2 ** (levels - 1))
    # attention_head_dim is the number of heads in this class, in spite of its name
    spec = describe_unet(
        weights,
        str(folder),
        image_size=size,
        num_heads=config.get("attention_head_dim", 8),
        norm_groups=config.get("norm_num_groups", 32),
    )
    imported = Imported(meta={"latent_size": size})
    imported.add("network", spec, weights, str(folder))
    return imported


def _unet_name(name: str, layers: list[int]) -> str:
    """One name in the CompVis layout, whose stages are counted through all levels."""
    body, _, kind = name.rpartition(".")
    if body in _UNET_ENDS:
        return f"{_UNET_ENDS[body]}.{kind}"
    found = re.match(
        r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name
    )
    middle = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name)
    if middle:
        block = 1 if middle[1] == "attentions" else 2 * int(middle[2])
        return f"middle_block.{block}.{_inner(middle[1], middle[3])}"
    if not found:
        return name  # unknown: `build` will say so
    side, level, part, index, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if side == "down":
        stage = 1 + sum(layers[:level]) + level + (layers[level] if part == "downsamplers" else index)
        place = {"resnets": "0.", "attentions": "1.", "downsamplers": "0."}[part]
        rest = rest.replace("conv.", "op.") if part == "downsamplers" else _inner(part, rest)
        return f"input_blocks.{stage}.{place}{rest}"
    counts = [count + 1 for count in reversed(layers)]
    stage = sum(counts[:level]) + (counts[level] - 1 if part == "upsamplers" else index)
    place = {"resnets": "0.", "attentions": "1.", "upsamplers": "upsample."}[part]
    return f"output_blocks.{stage}.{place}{rest if part == 'upsamplers' else _inner(part, rest)}"


def _inner(part: str, rest: str) -> str:
    """Names inside a residual block; those inside a transformer are the same."""
    head, dot, tail = rest.partition(".")
    return f"{_RESNET_NAMES.get(head, head)}{dot}{tail}" if part == "resnets" else rest


def _read(path: Path, class_name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a folder (or of the weights file in it), the configuration checked."""
    folder = path if path.is_dir() else path.parent
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = config.get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise TalkfaceError(
            f"{folder / 'config.json'} cannot be read ({type(error).__name__}); give the folder that save_pretrained "
            f"of {class_name} wrote"
        ) from error
    if found != class_name:
        raise TalkfaceError(f"{folder} holds a {found}; allowed with this --kind: {class_name}")
    _check(config, folder, class_name)
    names = [path.name] if path.is_file() else [name for name in _WEIGHTS if (folder / name).is_file()]
    if not names:
        raise TalkfaceError(
            f"{folder} holds no {' or '.join(_WEIGHTS)}; save it again in one piece, without a variant"
        )
    return config, read_weights(folder / names[0])


def _check(config: Mapping[str, Any], folder: Path, class_name: str) -> None:
    for name, value in config.items():
        if name.startswith("_") or name in _FREE:
            continue
        allowed = _FIXED.get(name, (None, False))
        if value not in allowed:
            raise TalkfaceError(
                f"{folder / 'config.json'}: {name} = {value!r}; allowed: {' or '.join(map(repr, allowed))}; "
                "talkface has no such network"
            )
    kinds = [*config.get("down_block_types", ()), *config.get("up_block_types", ())]
    if wrong := sorted(set(kinds) - _BLOCKS[class_name]):
        raise TalkfaceError(
            f"{folder / 'config.json'}: blocks {', '.join(wrong)}; allowed: {', '.join(sorted(_BLOCKS[class_name]))}"
        )
    if not isinstance(config.get("block_out_channels"), list) or not config["block_out_channels"]:
        raise TalkfaceError(f"{folder / 'config.json'} has no block_out_channels; save the model again")


def _size(config: Mapping[str, Any], asked: int | None, factor: int) -> int:
    """The side that the model is meant for; where the configuration's does not fit, a side that does."""
    if asked is not None:
        return asked
    size = config.get("sample_size") or 32
    size = int(size[0] if isinstance(size, list) else size)
    return size if size % factor == 0 else factor * max(1, round(size / factor))
