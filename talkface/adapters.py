"""Adapters: small changes of a network's layers (LoRA), several in one file, switched while it runs.

Hu et al., "LoRA: Low-rank adaptation of large language models", 2021 (arXiv 2106.09685): a layer's weights W stay, and
alpha / rank * B A is added to what they do, with A and B of so few rows that an adapter takes a fiftieth of the space.
The layers are those of the `peft` package (pip extra `finetune`); the file is ours: safetensors, and a JSON text in its
header that says of each adapter its rank, its alpha, for which network it is (a hash of the weights it was made on) and
what its maker told of it (`about`: the target, the experts that guided it, ...). Nothing of a file is executed.

    add_lora(network, rank=4, name="happy")      # then train what requires gradients
    save_adapter("emotions.safetensors", network, {"guided_by": [...]}, name="happy")
    load_adapter(network, "emotions.safetensors", "happy"); use_adapter(network, "happy"); use_adapter(network, None)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from talkface.errors import TalkfaceError, require

FORMAT, FORMAT_VERSION = "talkface-adapters", 1
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def network_key(network: nn.Module) -> str:
    """16 hexadecimal digits that name a network by its weights as a bundle stores them, without its adapters."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if ".lora_" in name:
            continue
        digest.update(name.replace(".base_layer.", ".").encode())
        # in half precision, so that a checkpoint and the bundle made of it are one network
        stored = value.detach().cpu().to(torch.float16 if value.is_floating_point() else torch.int64)
        digest.update(stored.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def add_lora(
    network: nn.Module,
    rank: int = 4,
    targets: Sequence[str] | None = None,
    *,
    name: str = "default",
    alpha: float | None = None,
) -> list[nn.Parameter]:
    """Give layers of a network low-rank branches, which at first change nothing, and freeze everything else.

    Args:
        network: changed in place; it is the same object, with the same results, afterwards.
        rank: rows of A, columns of B.
        targets: names of layers, or ends of names after a dot (`to_q`); None: every linear and convolutional layer.
        name: of the adapter, of letters, digits, `_` and `-`; it becomes the one in use.
        alpha: the branch counts alpha / rank; None: as rank, so that it counts 1.

    Returns:
        what there is to train.

    Raises:
        TalkfaceError: a name that is taken or not allowed, a rank below 1, no such layer; `peft` is missing.
    """
    if not _NAME.fullmatch(name):
        raise TalkfaceError(f"adapter name: {name!r}; allowed are letters, digits, _ and -")
    if rank < 1:
        raise TalkfaceError(f"rank: {rank}; allowed is 1 or more")
    if name in adapter_names(network):
        raise TalkfaceError(f"adapter name: {name}; the network has one of that name; choose another")
    layers = [path for path, _ in _layers(network) if targets is None or _is_meant(path, targets)]
    if not layers:
        raise TalkfaceError(
            f"targets: {', '.join(targets or ())}; allowed are names of linear and convolutional layers, as "
            f"{', '.join([path for path, _ in _layers(network)][-3:])}"
        )
    _inject(network, layers, rank, float(rank if alpha is None else alpha), name)
    trained: list[nn.Parameter] = [matrix for _, one in _branches(network, name) for matrix in one.values()]
    for parameter in trained:
        parameter.requires_grad_(True)
    return trained


def _inject(network: nn.Module, layers: list[str], rank: int, alpha: float, name: str) -> None:
    """Branches for these layers, in use; everything else frozen."""
    peft = require("peft", extra="finetune")
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers)
    training = network.training
    with warnings.catch_warnings():
        # that a network has several adapters is what is wanted here
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        peft.inject_adapter_in_model(config, network, name)
    network.train(training)  # the new layers begin in training mode
    network.requires_grad_(False)
    use_adapter(network, name)


def use_adapter(network: nn.Module, name: str | None) -> None:
    """Switch to an adapter that the network has, or with None to the network as it was. What is trained stays so.

    Raises:
        TalkfaceError: it has no such adapter.
    """
    if name is not None and name not in (known := adapter_names(network)):
        raise TalkfaceError(f"adapter: {name}; the network has {', '.join(known) or 'none'}; load it first")
    wanted = {parameter: parameter.requires_grad for parameter in network.parameters()}
    for layer in _adapted(network):
        layer.enable_adapters(name is not None)
        if name is not None:
            layer.set_adapter(name)
    for parameter, flag in wanted.items():  # peft trains the adapter in use, and no other
        parameter.requires_grad_(flag)


def adapter_names(network: nn.Module) -> list[str]:
    """Adapters that a network has, in the order in which they came."""
    return list(dict.fromkeys(name for layer in _adapted(network) for name in layer.lora_A))


def save_adapter(
    path: str | os.PathLike[str],
    network: nn.Module,
    about: Mapping[str, Any],
    name: str = "default",
    stored_as: str | None = None,
) -> Path:
    """Write an adapter of a network into a file, in half precision; others in the file stay.

    Args:
        about: JSON values; `guided_by`, fingerprints of the experts that trained it, tells who must not judge it.
        stored_as: its name in the file; None: the same.

    Raises:
        TalkfaceError: the network has no such adapter; the file is damaged or of another network; it cannot be written.
    """
    path, stored = Path(path), stored_as or name
    branches = dict(_branches(network, name))
    if not branches:
        raise TalkfaceError(f"adapter: {name}; the network has {', '.join(adapter_names(network)) or 'none'}")
    if not _NAME.fullmatch(stored):
        raise TalkfaceError(f"adapter name: {stored!r}; allowed are letters, digits, _ and -")
    key = network_key(network)
    adapters: dict[str, dict[str, Any]] = {}
    tensors: dict[str, Tensor] = {}
    if path.is_file():
        adapters, tensors = _read(path)
        others = {known: one for known, one in adapters.items() if one["network"] != key and known != stored}
        if others:
            raise TalkfaceError(
                f"adapters: {path} holds {', '.join(others)} of another network; give another file"
            )
        tensors = {full: value for full, value in tensors.items() if not full.startswith(f"{stored}/")}
    layer = next(layer for layer in _adapted(network) if name in layer.r)
    adapters[stored] = {
        "network": key,
        "rank": int(layer.r[name]),
        "alpha": float(layer.lora_alpha[name]),
        "about": dict(about),
    }
    for place, matrices in branches.items():
        for letter, matrix in matrices.items():
            tensors[f"{stored}/{place}.{letter}"] = matrix.detach().cpu().half().contiguous()
    header = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "adapters": json.dumps(adapters)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata=header)
        temporary.chmod(0o644)  # written for the owner only, but given away
        os.replace(temporary, path)
    except OSError as error:
        raise TalkfaceError(f"cannot write the adapter {path}: {error.strerror or error}") from error
    return path


def read_adapters(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """What a file says of its adapters, by name: `about`, `rank`, `alpha`, `network`. Raises: TalkfaceError."""
    return _read(Path(path))[0]


def load_adapter(
    network: nn.Module, path: str | os.PathLike[str], name: str | None = None, loaded_as: str | None = None
) -> dict[str, Any]:
    """Add an adapter of a file to a network, frozen and in use; the network's other adapters stay.

    Args:
        name: in the file; None: its only one.
        loaded_as: its name in the network; None: the same.

    Returns:
        what the file says `about` it.

    Raises:
        TalkfaceError: no such file or adapter, a damaged file, an adapter of another network; `peft` is missing.
    """
    path = Path(path)
    adapters, tensors = _read(path)
    if name is None and len(adapters) > 1:
        raise TalkfaceError(
            f"adapter: {path} holds {', '.join(adapters)}; say which, as {path}:{next(iter(adapters))}"
        )
    name = next(iter(adapters)) if name is None else name
    if name not in adapters:
        raise TalkfaceError(f"adapter: {path} holds no {name!r}; it holds {', '.join(adapters)}")
    one = adapters[name]
    if one["network"] != (key := network_key(network)):
        raise TalkfaceError(
            f"adapter: {path}:{name} was made for another network ({one['network']}, this one is {key}); give the "
            "bundle or checkpoint that it was trained on"
        )
    own = {full.partition("/")[2]: value for full, value in tensors.items() if full.startswith(f"{name}/")}
    inside = loaded_as or name
    if inside in adapter_names(network):
        raise TalkfaceError(f"adapter name: {inside}; the network has one of that name; load it once")
    layers = sorted({place.rpartition(".")[0] for place in own})
    if unknown := sorted(set(layers) - {place for place, _ in _layers(network)}) or (
        [] if layers else ["nothing"]
    ):
        raise TalkfaceError(
            f"adapter: {path}:{name} is damaged (it changes {unknown[0]}); fetch the file again"
        )
    _inject(network, layers, int(one["rank"]), float(one["alpha"]), inside)
    wanted = {
        f"{place}.{letter}": m for place, both in _branches(network, inside) for letter, m in both.items()
    }
    if wrong := sorted(
        place
        for place in wanted.keys() | own.keys()
        if place not in wanted or place not in own or wanted[place].shape != own[place].shape
    ):
        raise TalkfaceError(
            f"adapter: {path}:{name} is damaged ({wrong[0]} does not fit); fetch the file again"
        )
    with torch.no_grad():
        for place, matrix in wanted.items():
            matrix.copy_(own[place])
            matrix.requires_grad_(False)
    return dict(one["about"])


def split_adapter(text: str) -> tuple[Path, str | None]:
    """`FILE` or `FILE:NAME` as the command line has it."""
    file, colon, name = text.rpartition(":")
    # a file may have a colon in its name
    if not colon or Path(text).is_file() or not _NAME.fullmatch(name):
        return Path(text), None
    return Path(file), name


def _adapted(network: nn.Module) -> Iterator[Any]:
    """Layers with branches."""
    return (layer for layer in network.modules() if hasattr(layer, "lora_A") and hasattr(layer, "base_layer"))


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and layers that can have branches; one that has keeps its name."""
    for path, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and ".lora_" not in path:
            yield path.removesuffix(".base_layer"), layer


def _is_meant(path: str, targets: Sequence[str]) -> bool:
    return any(path == one or path.endswith(f".{one}") for one in targets)


def _branches(network: nn.Module, name: str) -> Iterator[tuple[str, dict[str, nn.Parameter]]]:
    """Name of a layer, its `A` and `B`."""
    for path, layer in network.named_modules():
        if hasattr(layer, "lora_A") and hasattr(layer, "base_layer") and name in layer.lora_A:
            yield path, {"A": layer.lora_A[name].weight, "B": layer.lora_B[name].weight}


def _read(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """What the header says of each adapter, and all tensors."""
    if not path.is_file():
        raise TalkfaceError(f"adapter: {path} does not exist; give the .safetensors file that training wrote")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise TalkfaceError(
                    f"adapter: {path} holds no adapters of talkface; give a file that it wrote"
                )
            if int(header["format_version"]) > FORMAT_VERSION:
                raise TalkfaceError(
                    f"adapter: {path} has format version {header['format_version']}; this talkface reads up to "
                    f"{FORMAT_VERSION}; upgrade with: pip install --upgrade talkface"
                )
            adapters = json.loads(header["adapters"])
            for one in adapters.values():
                _ = int(one["rank"]), float(one["alpha"]), str(one["network"]), dict(one["about"])
            names: list[str] = file.keys()  # no dict: what was opened cannot be iterated over
            return adapters, {key: file.get_tensor(key) for key in names}
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise TalkfaceError(f"adapter: {path} is damaged ({reason}); fetch the file again") from error
