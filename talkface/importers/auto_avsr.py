"""Public lip readers of Ma, Petridis & Pantic: checkpoints of auto-avsr and of its predecessor, video only.

Two layouts: auto-avsr's (`frontend.`, `proj_encoder.`, `encoder.`, `decoder.`, `ctc.`; in Lightning checkpoints under
`model.`), and that of "Visual Speech Recognition for Multiple Languages" (LRS3_V_WER32.3 and others), where the front
end is part of the encoder (`encoder.frontend.`, `encoder.embed.0.`). What no shape tells: swish from ReLU (the public
models use swish), and which relative attention the older programs trained with: their configuration (`model.json`
beside the weights) says it, `rel_pos_type` "latest" or none, which means the legacy one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from talkface.checkpoint import read_weights
from talkface.errors import TalkfaceError
from talkface.importers.tensors import build, shape

BLANK, END = "<blank>", "<eos>"
_RENAMED = (
    ("encoder.frontend.", "frontend."),
    ("encoder.embed.0.", "proj_encoder."),
    ("encoder.norm.", "encoder.after_norm."),
    ("decoder.norm.", "decoder.after_norm."),
    ("decoder.output_norm.", "decoder.after_norm."),
)


def read_lip_reader(
    path: str | Path,
    units: str | Path | None = None,
    activation: str | None = None,
    positions: str | None = None,
) -> nn.Module:
    """The reader (`talkface.experts.lipreading.LipReader`) of a public checkpoint, frozen.

    Args:
        path: `vsr_trlrs3_base.pth` and the like, or `model.pth`. No code of the file is run.
        units: text file of the vocabulary, a unit and its number a line (`unigram5000_units.txt`); the blank before and
            the end after them are added. None: the file of that name beside the checkpoint; without it features and
            probabilities are right, but what is read has numbers in place of words.
        activation: "swish" or "relu", None: swish; PReLU is seen in the file.
        positions: "latest" or "legacy"; None: what `model.json` beside the checkpoint says, without it latest for
            auto-avsr's layout and legacy for the older one.

    Raises:
        TalkfaceError: a file is missing or damaged; a tensor is missing, left over, or of another shape; the vocabulary
            has another size.
    """
    path = Path(path)
    spec, weights = describe_lip_reader(path, units, activation, positions)
    return build(spec, weights, path.name)


def describe_lip_reader(
    path: Path, units: str | Path | None = None, activation: str | None = None, positions: str | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Class path with arguments, and tensors under our names; see `read_lip_reader`."""
    weights, source = read_weights(path), path.name
    if any(name.startswith("model.frontend.") for name in weights):
        weights = {name.removeprefix("model."): value for name, value in weights.items()}
    older = any(name.startswith("encoder.frontend.") for name in weights)
    weights = {_renamed(name): value for name, value in weights.items()}
    stem = shape(weights, "frontend.frontend3D.0.weight", source)
    if len(stem) != 5:
        raise TalkfaceError(
            f"{source}: frontend.frontend3D.0.weight has the shape {stem}; allowed: a reader of films, not of sound"
        )
    configuration = _configuration(path)
    if positions is None:
        told = configuration.get("rel_pos_type")
        positions = "latest" if told == "latest" or (not older and told is None) else "legacy"
    prelu = "frontend.frontend3D.2.weight" in weights
    total, dim = shape(weights, "ctc.ctc_lo.weight", source)
    layers = _count(weights, "encoder.encoders.{}.norm_mha.weight")
    if layers == 0:
        raise TalkfaceError(
            f"{source} has no tensor encoder.encoders.0.norm_mha.weight; allowed: a conformer encoder; give a video "
            "model of auto-avsr"
        )
    arguments: dict[str, Any] = {
        "vocabulary": _vocabulary(path, units, total),
        "channels": stem[0],
        "blocks": [_count(weights, f"frontend.trunk.layer{n}.{{}}.conv1.weight") for n in range(1, 5)],
        "activation": "prelu" if prelu else activation or "swish",
        "dim": dim,
        "heads": shape(weights, "encoder.encoders.0.self_attn.pos_bias_u", source)[0],
        "hidden": shape(weights, "encoder.encoders.0.feed_forward.w_1.weight", source)[0],
        "layers": layers,
        "kernel": shape(weights, "encoder.encoders.0.conv_module.depthwise_conv.weight", source)[2],
        "positions": positions,
        "decoder_layers": _count(weights, "decoder.decoders.{}.norm1.weight"),
    }
    return {"class_path": "talkface.experts.lipreading.LipReader", "init_args": arguments}, weights


def _renamed(name: str) -> str:
    for old, new in _RENAMED:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """How many of the names `pattern` with 0, 1, 2, ... there are."""
    return sum(1 for _ in takewhile(lambda index: pattern.format(index) in weights, count()))


def _configuration(path: Path) -> dict[str, Any]:
    """Training arguments that the older programs keep in model.json: a dictionary, or the third of a list."""
    file = path.with_suffix(".json")
    if not file.is_file():
        return {}
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TalkfaceError(f"{file} is not valid JSON ({error}); fetch it again, or move it away") from error
    found = read[2] if isinstance(read, list) and len(read) > 2 else read
    return found if isinstance(found, dict) else {}


def _vocabulary(path: Path, units: str | Path | None, total: int) -> list[str]:
    """The names of the units; numbers where there is no list of them."""
    file = path.with_name("unigram5000_units.txt") if units is None else Path(units)
    if not file.is_file():
        if units is not None:
            raise TalkfaceError(
                f"units: {file} does not exist; give the vocabulary of the reader, one unit a line"
            )
        width = int(math.log10(max(total, 10))) + 1
        return [BLANK, *(f"<{number:0{width}d}>" for number in range(1, total - 1)), END]
    lines = file.read_text(encoding="utf-8").splitlines()
    names = [BLANK, *(line.split()[0] for line in lines if line.strip()), END]
    if len(names) != total:
        raise TalkfaceError(
            f"units: {file} has {len(names) - 2} units; allowed: {total - 2}, as {path.name} says; give the list that "
            "belongs to it"
        )
    return names
