"""Bundles: a trained model as a folder that can be read, checked and sent.

    default/
      bundle.json                what each part is (class path and constructor arguments), sha256 of its
                                 weights, and `meta`: what a pipeline must know (schedule, window, default
                                 steps, ...)
      network.safetensors ...    one file per part; parameters in half precision, buffers as they are
      MODEL_CARD.md              what it was trained on, what it may be used for, its licence

A bundle is data: class paths are resolved only to `torch.nn.Module`s and noise schedules defined inside
`talkface`, so reading a stranger's bundle runs none of the stranger's code. Weights that are no bundle (checkpoints of
a training, files of other programs) are read by `weight_files.py`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from talkface import __version__
from talkface.errors import TalkfaceError
from talkface.weight_files import read_training_checkpoint, read_weights

__all__ = [
    "CARD",
    "DESCRIPTION",
    "FORMAT",
    "FORMAT_VERSION",
    "WEIGHTS_FOLDER",
    "Bundle",
    "bundle_folder",
    "bundle_names",
    "instantiate",
    "load_bundle",
    "read_description",
    "read_training_checkpoint",
    "read_weights",
    "save_bundle",
    "verify_bundle",
]

FORMAT = "talkface-bundle"
FORMAT_VERSION = 1
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
DESCRIPTION = "bundle.json"
CARD = "MODEL_CARD.md"
_RANGE = {torch.float16: 65504.0}


@dataclass(frozen=True)
class Bundle:
    """Built parts (in eval mode, gradients off) and what a pipeline must know about them.

    `parts` of a talking-face bundle: first_stage, network, conditioner, speech, landmarks, and perhaps mouth (the
    second look at the lips) and change_decoder (a quick stand-in for the first stage's).
    `specs` holds each part's `{"class_path", "init_args"}`, `meta` plain JSON values.
    """

    parts: dict[str, nn.Module]
    specs: dict[str, dict[str, Any]]
    meta: dict[str, Any]
    folder: Path
    device: torch.device

    def part(self, name: str) -> Any:
        """The part called `name`. Raises: TalkfaceError when this bundle has none."""
        if name not in self.parts:
            raise TalkfaceError(
                f"the bundle {self.folder} has no part '{name}'; it has: {', '.join(sorted(self.parts))}; "
                "choose a bundle made for this task"
            )
        return self.parts[name]

    def value(self, name: str) -> Any:
        """`meta[name]`. Raises: TalkfaceError when it is not there."""
        if name not in self.meta:
            raise TalkfaceError(
                f"{self.folder / DESCRIPTION}: '{name}' is missing in meta; save the bundle again with it"
            )
        return self.meta[name]

    def build(self, name: str) -> Any:
        """The object that `meta[name]` describes by class path and arguments, for example the schedule."""
        return instantiate(self.value(name))


def bundle_names() -> list[str]:
    """The bundles that are installed with the package."""
    if not WEIGHTS_FOLDER.is_dir():
        return []
    return sorted(folder.name for folder in WEIGHTS_FOLDER.iterdir() if (folder / DESCRIPTION).is_file())


def bundle_folder(name_or_path: str | os.PathLike[str]) -> Path:
    """Where the bundle lies: a name known to `bundle_names()`, or a folder that holds a `bundle.json`.

    Raises:
        TalkfaceError: it is neither.
    """
    name = os.fspath(name_or_path)
    if name in bundle_names():
        return WEIGHTS_FOLDER / name
    folder = Path(name).expanduser()
    if (folder / DESCRIPTION).is_file():
        return folder
    if folder.is_dir():
        raise TalkfaceError(f"bundle: {folder} holds no {DESCRIPTION}; give the folder of a bundle")
    known = ", ".join(bundle_names()) or "none is installed"
    raise TalkfaceError(
        f"unknown bundle: {name}; allowed are a name ({known}) or the path of a bundle folder"
    )


def read_description(folder: Path) -> dict[str, Any]:
    """`bundle.json`, checked. Raises: TalkfaceError when it is damaged or made by a newer talkface."""
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']!r}")
        version = int(description["format_version"])
        for spec in description["parts"].values():
            _ = spec["class_path"], spec["init_args"], spec["sha256"]
            if Path(spec["file"]).name != spec["file"]:
                raise ValueError(f"file {spec['file']!r}")
        _ = description["meta"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TalkfaceError(
            f"{path} is damaged ({type(error).__name__}: {error}); "
            "copy the bundle again or reinstall talkface"
        ) from error
    if version > FORMAT_VERSION:
        raise TalkfaceError(
            f"bundle {folder} has format version {version}; this talkface {__version__} reads up to "
            f"{FORMAT_VERSION}; upgrade with: pip install --upgrade talkface"
        )
    return description


def verify_bundle(folder: Path, parts: Iterable[str] | None = None) -> None:
    """Compare the weights of `parts` (None = all) with the sha256 recorded when they were saved.

    Raises:
        TalkfaceError: a file is missing, cut short or changed.
    """
    specs = read_description(folder)["parts"]
    for name in specs if parts is None else parts:
        path = folder / specs[name]["file"]
        if not path.is_file():
            raise TalkfaceError(f"weights are missing: {path}; copy the bundle again or reinstall talkface")
        if _sha256(path) != specs[name]["sha256"]:
            raise TalkfaceError(
                f"weights are damaged or were changed: {path} (its sha256 is not the one in {DESCRIPTION}); "
                "copy the bundle again or reinstall talkface"
            )


def save_bundle(
    folder: str | os.PathLike[str],
    parts: Mapping[str, nn.Module],
    specs: Mapping[str, Mapping[str, Any]],
    card: str,
    meta: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a bundle; an existing one in `folder` is replaced only when the new one is complete.

    Args:
        parts: built networks by name.
        specs: for each part its `{"class_path", "init_args"}`; arguments are JSON values or again such pairs.
        card: text of the model card (data, intended use, licence).
        meta: JSON values for the pipeline; `licence` is shown by `talkface doctor`.
        dtype: of the stored parameters. Buffers keep theirs, as do parameters that would overflow.

    Raises:
        TalkfaceError: specs and parts differ, a class path is not allowed, or the folder cannot be written.
    """
    folder = Path(folder)
    if set(parts) != set(specs):
        raise TalkfaceError(f"parts {sorted(parts)} and specs {sorted(specs)} differ; give one spec per part")
    for spec in specs.values():
        _resolve(spec["class_path"])
    if folder.exists() and any(folder.iterdir()) and not (folder / DESCRIPTION).is_file():
        raise TalkfaceError(f"bundle folder: {folder} holds other files; choose a new or an empty folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise TalkfaceError(f"cannot write the bundle {folder}: {error.strerror or error}") from error
    try:
        described: dict[str, Any] = {}
        for name, module in parts.items():
            path = temporary / f"{name}.safetensors"
            save_file(_stored_tensors(module, dtype), path, metadata={"format": "pt", "part": name})
            path.chmod(0o644)  # written for the owner only, but installed for everybody
            described[name] = {
                "class_path": specs[name]["class_path"],
                "init_args": dict(specs[name].get("init_args", {})),
                "file": path.name,
                "sha256": _sha256(path),
                "parameters": sum(parameter.numel() for parameter in module.parameters()),
            }
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "talkface_version": __version__,
            "parts": described,
            "meta": dict(meta),
        }
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(card.rstrip() + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise TalkfaceError(f"cannot write the bundle {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load_bundle(
    name_or_path: str | os.PathLike[str] = "default",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    parts: Iterable[str] | None = None,
) -> Bundle:
    """Build the parts of a bundle (None = all) and load their weights, after checking the weights' sha256.

    Parameters and floating buffers become `dtype` on `device`. The global random state is left as it was.

    Raises:
        TalkfaceError: unknown bundle, newer format, damaged or foreign contents.
    """
    folder = bundle_folder(name_or_path)
    description = read_description(folder)
    specs = description["parts"]
    chosen = list(specs if parts is None else parts)
    if unknown := [name for name in chosen if name not in specs]:
        raise TalkfaceError(f"bundle {folder} has no part {', '.join(unknown)}; it has: {', '.join(specs)}")
    verify_bundle(folder, chosen)
    built: dict[str, nn.Module] = {}
    for name in chosen:
        spec, path = specs[name], folder / specs[name]["file"]
        with torch.random.fork_rng(devices=[]):
            module = instantiate(spec)
        try:
            module.load_state_dict(load_file(path), strict=True)
        except (RuntimeError, safetensors.SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TalkfaceError(f"weights {path} do not fit {spec['class_path']}: {reason}") from error
        built[name] = module.to(device=device, dtype=dtype).eval().requires_grad_(False)
    plain = {name: {key: specs[name][key] for key in ("class_path", "init_args")} for name in chosen}
    return Bundle(built, plain, description["meta"], folder, torch.device(device))


def instantiate(spec: Any) -> Any:
    """Build `{"class_path": ..., "init_args": {...}}`, nested ones first; other values are returned
    unchanged.

    Raises:
        TalkfaceError: the class is not a network or schedule of talkface, or refuses the arguments.
    """
    if isinstance(spec, Mapping):
        if "class_path" not in spec:
            return {key: instantiate(value) for key, value in spec.items()}
        cls = _resolve(spec["class_path"])
        arguments = {key: instantiate(value) for key, value in (spec.get("init_args") or {}).items()}
        try:
            return cls(**arguments)
        except (TypeError, ValueError) as error:
            raise TalkfaceError(
                f"{spec['class_path']} refuses the arguments of the bundle: {error}"
            ) from error
    if isinstance(spec, list | tuple):
        return [instantiate(value) for value in spec]
    return spec


def _resolve(class_path: Any) -> type:
    """The class behind a dotted path, if it is one that a bundle may name."""
    module_name, _, class_name = str(class_path).rpartition(".")
    if not module_name.startswith("talkface."):
        raise TalkfaceError(f"class path: {class_path}; only classes of talkface are allowed in a bundle")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise TalkfaceError(
            f"class path: {class_path} is not in talkface {__version__} ({error}); upgrade talkface or use "
            "a bundle made for this version"
        ) from error
    home = getattr(found, "__module__", "")
    allowed = inspect.isclass(found) and home.startswith("talkface.")
    if not allowed or not (issubclass(found, nn.Module) or home.startswith("talkface.diffusion.")):
        raise TalkfaceError(
            f"class path: {class_path}; only networks and noise schedules of talkface are allowed"
        )
    return found


def _stored_tensors(module: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """State of a module ready for safetensors: separate, contiguous, parameters in `dtype` where they fit."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    tensors = {}
    for name, value in module.state_dict().items():
        value = value.detach().cpu()
        if name in parameters and value.is_floating_point():
            limit = _RANGE.get(dtype)
            if limit is None or value.numel() == 0 or float(value.abs().max()) <= limit:
                value = value.to(dtype)
        tensors[name] = value.clone().contiguous()
    return tensors


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
