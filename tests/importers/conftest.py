"""The CompVis layout, written down a second time: names and shapes from the architecture, and its arithmetic by name.

Nothing here uses talkface: tensors are random, and a forward pass reads them by key with torch.nn.functional, so that
an import is compared with what the layout means and not with our own networks.
"""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

Shapes = dict[str, tuple[int, ...]]
State = dict[str, torch.Tensor]


# --- names and shapes ---------------------------------------------------------------------------------------------


def conv(name: str, inputs: int, outputs: int, *kernel: int, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outputs, inputs, *kernel)}
    return shapes | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def vqgan_block(name: str, inputs: int, outputs: int) -> Shapes:
    shapes = norm(f"{name}.norm1", inputs) | conv(f"{name}.conv1", inputs, outputs, 3, 3)
    shapes |= norm(f"{name}.norm2", outputs) | conv(f"{name}.conv2", outputs, outputs, 3, 3)
    return shapes | (conv(f"{name}.nin_shortcut", inputs, outputs, 1, 1) if inputs != outputs else {})


def vqgan_attention(name: str, channels: int) -> Shapes:
    shapes = norm(f"{name}.norm", channels)
    for layer in ("q", "k", "v", "proj_out"):
        shapes |= conv(f"{name}.{layer}", channels, channels, 1, 1)
    return shapes


def vqgan_middle(name: str, channels: int) -> Shapes:
    shapes = vqgan_block(f"{name}.block_1", channels, channels) | vqgan_attention(f"{name}.attn_1", channels)
    return shapes | vqgan_block(f"{name}.block_2", channels, channels)


def vqgan_shapes(ch=128, mult=(1, 2, 4), blocks=2, attention=(2,), z=3, codes=16384, embed=None) -> Shapes:
    """`attention`: levels that have it, 0 = full resolution. The defaults are the thesis's."""
    embed = z if embed is None else embed
    widths = [ch * m for m in mult]
    shapes = conv("encoder.conv_in", 3, ch, 3, 3)
    width = ch
    for level, wide in enumerate(widths):
        for index in range(blocks):
            shapes |= vqgan_block(f"encoder.down.{level}.block.{index}", width, wide)
            width = wide
            if level in attention:
                shapes |= vqgan_attention(f"encoder.down.{level}.attn.{index}", wide)
        if level < len(mult) - 1:
            shapes |= conv(f"encoder.down.{level}.downsample.conv", wide, wide, 3, 3)
    shapes |= vqgan_middle("encoder.mid", width) | norm("encoder.norm_out", width)
    shapes |= conv("encoder.conv_out", width, z, 3, 3) | conv("decoder.conv_in", z, width, 3, 3)
    shapes |= vqgan_middle("decoder.mid", width)
    for level in reversed(range(len(mult))):
        for index in range(blocks + 1):
            shapes |= vqgan_block(f"decoder.up.{level}.block.{index}", width, widths[level])
            width = widths[level]
            if level in attention:
                shapes |= vqgan_attention(f"decoder.up.{level}.attn.{index}", width)
        if level > 0:
            shapes |= conv(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    shapes |= norm("decoder.norm_out", width) | conv("decoder.conv_out", width, 3, 3, 3)
    shapes |= conv("quant_conv", z, embed, 1, 1) | conv("post_quant_conv", embed, z, 1, 1)
    return shapes | {"quantize.embedding.weight": (codes, embed)}


def unet_block(name: str, inputs: int, outputs: int, time: int) -> Shapes:
    shapes = norm(f"{name}.in_layers.0", inputs) | conv(f"{name}.in_layers.2", inputs, outputs, 3, 3)
    shapes |= conv(f"{name}.emb_layers.1", time, outputs) | norm(f"{name}.out_layers.0", outputs)
    shapes |= conv(f"{name}.out_layers.3", outputs, outputs, 3, 3)
    return shapes | (conv(f"{name}.skip_connection", inputs, outputs, 1, 1) if inputs != outputs else {})


def transformer(name: str, channels: int, context: int) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    shapes = norm(f"{name}.norm", channels)
    shapes |= conv(f"{name}.proj_in", channels, channels, 1, 1) | conv(
        f"{name}.proj_out", channels, channels, 1, 1
    )
    for attention, source in (("attn1", channels), ("attn2", context)):
        shapes |= conv(f"{block}.{attention}.to_q", channels, channels, bias=False)
        for layer in ("to_k", "to_v"):
            shapes |= conv(f"{block}.{attention}.{layer}", source, channels, bias=False)
        shapes |= conv(f"{block}.{attention}.to_out.0", channels, channels)
    shapes |= conv(f"{block}.ff.net.0.proj", channels, 8 * channels)
    shapes |= conv(f"{block}.ff.net.2", 4 * channels, channels)
    for layer in ("norm1", "norm2", "norm3"):
        shapes |= norm(f"{block}.{layer}", channels)
    return shapes


def unet_shapes(
    inputs=9, outputs=3, ch=160, mult=(1, 2, 4), blocks=2, attention=(0, 1, 2), context=1024
) -> Shapes:
    """`attention`: levels that have it. The defaults are the thesis's talking face."""
    time = 4 * ch
    shapes = conv("time_embed.0", ch, time) | conv("time_embed.2", time, time)
    shapes |= conv("input_blocks.0.0", inputs, ch, 3, 3)
    width, stage, skips = ch, 1, [ch]
    for level, m in enumerate(mult):
        for _ in range(blocks):
            shapes |= unet_block(f"input_blocks.{stage}.0", width, m * ch, time)
            width = m * ch
            if level in attention:
                shapes |= transformer(f"input_blocks.{stage}.1", width, context)
            skips.append(width)
            stage += 1
        if level < len(mult) - 1:
            shapes |= conv(f"input_blocks.{stage}.0.op", width, width, 3, 3)
            skips.append(width)
            stage += 1
    shapes |= unet_block("middle_block.0", width, width, time) | transformer("middle_block.1", width, context)
    shapes |= unet_block("middle_block.2", width, width, time)
    stage = 0
    for level in reversed(range(len(mult))):
        for index in range(blocks + 1):
            shapes |= unet_block(f"output_blocks.{stage}.0", width + skips.pop(), mult[level] * ch, time)
            width = mult[level] * ch
            if level in attention:
                shapes |= transformer(f"output_blocks.{stage}.1", width, context)
            if level > 0 and index == blocks:
                place = 2 if level in attention else 1
                shapes |= conv(f"output_blocks.{stage}.{place}.conv", width, width, 3, 3)
            stage += 1
    return shapes | norm("out.0", width) | conv("out.2", width, outputs, 3, 3)


def sound_attention_shapes(features=768, length=17, expand=False) -> Shapes:
    scores = (features, 16, 8, 4, 2, 1) if expand else (features, 192, 64, 16, 4, 1)
    shapes: Shapes = {}
    for index, (inputs, outputs) in enumerate(pairwise(scores)):
        shapes |= conv(f"attentionConvNet.{2 * index}", inputs, outputs, 3)
    for index, (inputs, outputs) in enumerate(pairwise((features, 32, 64, 64) if expand else ())):
        shapes |= conv(f"expander.{2 * index}", inputs, outputs, 3)
    return shapes | conv("attentionNet.0", length, length)


def landmark_shapes(points=48, out=128) -> Shapes:
    shapes: Shapes = {}
    for index, (inputs, outputs) in enumerate(pairwise((2 * points, 128, 256, 512, 256, out))):
        shapes |= conv(f"net.{2 * index}", inputs, outputs)
    return shapes


def prefixed(prefix: str, values: dict) -> dict:
    return {prefix + name: value for name, value in values.items()}


def fill(shapes: Shapes, seed: int = 0) -> State:
    """Random tensors that keep activations near unit size."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            is_gain = name.endswith("weight")
            state[name] = 0.1 * value + (1.0 if is_gain else 0.0)
        elif "embedding" in name:
            state[name] = value
        else:
            state[name] = value / math.sqrt(math.prod(shape[1:]))
    return state


# --- arithmetic by name -------------------------------------------------------------------------------------------


def apply_conv(
    s: State, name: str, x: torch.Tensor, stride: int = 1, padding: int | None = None
) -> torch.Tensor:
    weight = s[f"{name}.weight"]
    padding = weight.shape[-1] // 2 if padding is None else padding
    layer = F.conv2d if weight.dim() == 4 else F.conv1d
    return layer(x, weight, s[f"{name}.bias"], stride=stride, padding=padding)


def apply_linear(s: State, name: str, x: torch.Tensor) -> torch.Tensor:
    y = x @ s[f"{name}.weight"].T
    return y + s[f"{name}.bias"] if f"{name}.bias" in s else y


def apply_norm(s: State, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    grouped = x.reshape(x.shape[0], 32, -1)
    centred = grouped - grouped.mean(dim=2, keepdim=True)
    x = (centred / (centred.square().mean(dim=2, keepdim=True) + eps).sqrt()).reshape(x.shape)
    return x * s[f"{name}.weight"][:, None, None] + s[f"{name}.bias"][:, None, None]


def silu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


def double(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def run_vqgan_block(s: State, name: str, x: torch.Tensor) -> torch.Tensor:
    h = apply_conv(s, f"{name}.conv1", silu(apply_norm(s, f"{name}.norm1", x, 1e-6)))
    h = apply_conv(s, f"{name}.conv2", silu(apply_norm(s, f"{name}.norm2", h, 1e-6)))
    return h + (apply_conv(s, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in s else x)


def run_vqgan_attention(s: State, name: str, x: torch.Tensor) -> torch.Tensor:
    b, c, height, width = x.shape
    h = apply_norm(s, f"{name}.norm", x, 1e-6)
    q, k, v = (apply_conv(s, f"{name}.{layer}", h).reshape(b, c, height * width) for layer in "qkv")
    weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(c), dim=2)
    h = torch.einsum("bij,bcj->bci", weights, v).reshape(x.shape)
    return x + apply_conv(s, f"{name}.proj_out", h)


def run_vqgan_level(s: State, name: str, x: torch.Tensor) -> torch.Tensor:
    index = 0
    while f"{name}.block.{index}.conv1.weight" in s:
        x = run_vqgan_block(s, f"{name}.block.{index}", x)
        if f"{name}.attn.{index}.norm.weight" in s:
            x = run_vqgan_attention(s, f"{name}.attn.{index}", x)
        index += 1
    return x


def run_vqgan_middle(s: State, name: str, x: torch.Tensor) -> torch.Tensor:
    x = run_vqgan_attention(s, f"{name}.attn_1", run_vqgan_block(s, f"{name}.block_1", x))
    return run_vqgan_block(s, f"{name}.block_2", x)


def levels_of(s: State) -> int:
    return 1 + max(int(name.split(".")[2]) for name in s if name.startswith("encoder.down."))


def encode(s: State, images: torch.Tensor) -> torch.Tensor:
    """Latents before the codebook."""
    x = apply_conv(s, "encoder.conv_in", images)
    for level in range(levels_of(s)):
        x = run_vqgan_level(s, f"encoder.down.{level}", x)
        if level < levels_of(s) - 1:
            x = apply_conv(
                s, f"encoder.down.{level}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2, padding=0
            )
    x = silu(apply_norm(s, "encoder.norm_out", run_vqgan_middle(s, "encoder.mid", x), 1e-6))
    return apply_conv(s, "quant_conv", apply_conv(s, "encoder.conv_out", x))


def decode(s: State, latents: torch.Tensor) -> torch.Tensor:
    """Pictures of the nearest codes."""
    codes = s["quantize.embedding.weight"]
    places = latents.permute(0, 2, 3, 1)
    nearest = (places[..., None, :] - codes).square().sum(dim=-1).argmin(dim=-1)
    x = apply_conv(s, "post_quant_conv", codes[nearest].permute(0, 3, 1, 2))
    x = run_vqgan_middle(s, "decoder.mid", apply_conv(s, "decoder.conv_in", x))
    for level in reversed(range(levels_of(s))):
        x = run_vqgan_level(s, f"decoder.up.{level}", x)
        if level > 0:
            x = apply_conv(s, f"decoder.up.{level}.upsample.conv", double(x))
    return apply_conv(s, "decoder.conv_out", silu(apply_norm(s, "decoder.norm_out", x, 1e-6)))


def run_unet_block(s: State, name: str, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    h = apply_conv(s, f"{name}.in_layers.2", silu(apply_norm(s, f"{name}.in_layers.0", x, 1e-5)))
    h = h + apply_linear(s, f"{name}.emb_layers.1", silu(time))[:, :, None, None]
    h = apply_conv(s, f"{name}.out_layers.3", silu(apply_norm(s, f"{name}.out_layers.0", h, 1e-5)))
    return h + (apply_conv(s, f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in s else x)


def run_attention(s: State, name: str, x: torch.Tensor, source: torch.Tensor, head: int) -> torch.Tensor:
    b, n, c = x.shape
    q, k, v = (
        apply_linear(s, f"{name}.to_{layer}", y).reshape(b, -1, c // head, head)
        for layer, y in (("q", x), ("k", source), ("v", source))
    )
    weights = torch.softmax(torch.einsum("bihd,bjhd->bhij", q, k) * head**-0.5, dim=3)
    return apply_linear(s, f"{name}.to_out.0", torch.einsum("bhij,bjhd->bihd", weights, v).reshape(b, n, c))


def run_transformer(s: State, name: str, x: torch.Tensor, context: torch.Tensor, head: int) -> torch.Tensor:
    block = f"{name}.transformer_blocks.0"

    def layer_norm(layer: str, y: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(y, y.shape[-1:], s[f"{block}.{layer}.weight"], s[f"{block}.{layer}.bias"], 1e-5)

    h = apply_conv(s, f"{name}.proj_in", apply_norm(s, f"{name}.norm", x, 1e-6))
    t = h.flatten(2).transpose(1, 2)
    y = layer_norm("norm1", t)
    t = t + run_attention(s, f"{block}.attn1", y, y, head)
    t = t + run_attention(s, f"{block}.attn2", layer_norm("norm2", t), context, head)
    value, gate = apply_linear(s, f"{block}.ff.net.0.proj", layer_norm("norm3", t)).chunk(2, dim=-1)
    gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    t = t + apply_linear(s, f"{block}.ff.net.2", value * gelu)
    return x + apply_conv(s, f"{name}.proj_out", t.transpose(1, 2).reshape(h.shape))


def run_unet(
    s: State, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, head: int = 32
) -> torch.Tensor:
    """x: noisy latents and whatever is stacked onto them."""
    dim = s["time_embed.0.weight"].shape[1]
    frequencies = 10000.0 ** (-torch.arange(dim // 2) / (dim // 2))
    angles = timesteps[:, None].float() * frequencies
    sinusoids = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
    time = apply_linear(s, "time_embed.2", silu(apply_linear(s, "time_embed.0", sinusoids)))

    def stage(name: str, x: torch.Tensor) -> torch.Tensor:
        for place in range(3):
            inner = f"{name}.{place}"
            if f"{inner}.in_layers.0.weight" in s:
                x = run_unet_block(s, inner, x, time)
            elif f"{inner}.proj_in.weight" in s:
                x = run_transformer(s, inner, x, context, head)
            elif f"{inner}.op.weight" in s:
                x = apply_conv(s, f"{inner}.op", x, stride=2)
            elif f"{inner}.conv.weight" in s:
                x = apply_conv(s, f"{inner}.conv", double(x))
            elif f"{inner}.weight" in s:
                x = apply_conv(s, inner, x)
        return x

    def stages(part: str) -> int:
        return 1 + max(int(name.split(".")[1]) for name in s if name.startswith(part))

    skips = []
    for index in range(stages("input_blocks.")):
        x = stage(f"input_blocks.{index}", x)
        skips.append(x)
    x = stage("middle_block", x)
    for index in range(stages("output_blocks.")):
        x = stage(f"output_blocks.{index}", torch.cat([x, skips.pop()], dim=1))
    return apply_conv(s, "out.2", silu(apply_norm(s, "out.0", x, 1e-5)))


def attend_sound(s: State, features: torch.Tensor) -> torch.Tensor:
    """features (B, steps, D) -> (B, D), or (B, 64) with an expander."""

    def net(name: str, x: torch.Tensor) -> torch.Tensor:
        index = 0
        while f"{name}.{index}.weight" in s:
            x = apply_conv(s, f"{name}.{index}", x)
            x = torch.where(x > 0, x, 0.02 * x)
            index += 2
        return x

    columns = features.transpose(1, 2)
    weights = torch.softmax(apply_linear(s, "attentionNet.0", net("attentionConvNet", columns)[:, 0]), dim=1)
    return (net("expander", columns) * weights[:, None]).sum(dim=2)


def average_names(weights: dict, within: str) -> dict:
    """The names under which averages of these weights are stored."""
    return {"model_ema." + (within + name).replace(".", ""): value for name, value in weights.items()}


@pytest.fixture(scope="session")
def compvis() -> SimpleNamespace:
    """Everything above."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if callable(value)})
