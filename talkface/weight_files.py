"""Weights that are no bundle: checkpoints of a training, and files of other programs. No code of a file is run.

Nothing is unpickled except by torch itself with `weights_only=True`. Bundles: `talkface.checkpoint`.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file

from talkface.errors import TalkfaceError

# What Lightning puts beside the weights: classes of callbacks (its dictionary of them had classes as keys before
# version 1.5), hyper-parameters in omegaconf's containers, scores as numpy scalars.
_BESIDE_WEIGHTS = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy.")
_BESIDE_WEIGHTS_EXACTLY = (
    *("argparse.Namespace", "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "typing.Any"),
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "int", "float", "str", "bool", "object")),
)


def read_training_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A Lightning checkpoint as a dictionary (`state_dict`, `hyper_parameters`, ...), on the CPU.

    Raises:
        TalkfaceError: the file is missing, damaged, or holds Python objects instead of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise TalkfaceError(
            f"checkpoint: {path} does not exist; give the .ckpt file that `talkface fit` wrote"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and key errors here
        reason = " ".join(str(error).split())[:160]
        raise TalkfaceError(f"checkpoint {path} cannot be read safely: {reason}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise TalkfaceError(
            f"checkpoint {path} has no state_dict; give the .ckpt file that `talkface fit` wrote"
        )
    return checkpoint


def read_weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors by name of a file that another program wrote, on the CPU.

    `.safetensors`, or a torch file: a dictionary of tensors, or one that holds such as `state_dict`. It is read with
    `weights_only=True`: no code of the file runs. The objects that Lightning and omegaconf put beside the weights
    would be refused; an empty object stands in for each of them and is dropped.

    Raises:
        TalkfaceError: the file is missing or damaged, asks for code, or holds no tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise TalkfaceError(f"weights: {path} does not exist; give a .ckpt, .pt, .bin or .safetensors file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise TalkfaceError(
                f"weights {path} are damaged ({' '.join(str(error).split())[:160]}); fetch the file again"
            ) from error
    state = _unpickle_tensors(path)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise TalkfaceError(
            f"weights {path} hold no dictionary of tensors; give a checkpoint with a state_dict, or save "
            "model.state_dict() alone"
        )
    return {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}


class _StandIn:
    """In place of an object that only lies beside the weights: takes whatever it is given, and keeps nothing."""

    def __init__(self, *args: Any) -> None:
        pass

    def __new__(cls, *args: Any) -> _StandIn:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def _empty_dictionary(*_: Any) -> dict[Any, Any]:
    return {}


def _unpickle_tensors(path: Path) -> Any:
    """`torch.load` without code; see `read_weights`."""
    try:
        zipped = zipfile.is_zipfile(path)
        # the older format is not listed before it is read; there only the exact names are stood in for
        asked = torch.serialization.get_unsafe_globals_in_checkpoint(str(path)) if zipped else []
        refused = sorted(
            name
            for name in asked
            if name not in (*_BESIDE_WEIGHTS_EXACTLY, "collections.defaultdict")
            and not name.startswith(_BESIDE_WEIGHTS)
        )
        if refused:
            raise TalkfaceError(
                f"weights {path} ask for code: {', '.join(refused[:3])}; only tensors are read. If you trust the "
                "file, load it where that code is installed, and save the tensors alone: "
                "torch.save(checkpoint['state_dict'], 'weights.pt')"
            )
        names = [*_BESIDE_WEIGHTS_EXACTLY, *(name for name in asked if name != "collections.defaultdict")]
        allowed = [(_StandIn, name) for name in names]
        with torch.serialization.safe_globals([*allowed, (_empty_dictionary, "collections.defaultdict")]):
            # mapped: a checkpoint of Lightning is three times as large as its weights
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except TalkfaceError:
        raise
    except Exception as error:  # torch raises pickle, zip, runtime and key errors here
        reason = " ".join(str(error).replace("\n", ". ").split())
        if found := re.search(r"GLOBAL (\S+)", reason):
            reason = f"it asks for code: {found[1]}; only tensors are read"
        raise TalkfaceError(
            f"weights {path} cannot be read safely ({reason[:160]}); save the tensors alone, with safetensors or "
            "torch.save(model.state_dict(), 'weights.pt')"
        ) from error
