"""Which experts there are, where their weights come from, and who is who: the table that `talkface doctor` prints.

An expert is a frozen network with a role (CLIP, identity, emotion, ...). The reference of a role is a public network
whose weights are the user's; the built one is trained by `scripts/train_expert.py` on renders. What a script wrote is
`<name>.safetensors` and `<name>.json` (class path and arguments): `load_expert` reads both.

An expert that guided a training must not judge its result: `fingerprint` names an expert by its weights, finetuned
bundles and adapters store the names of those that guided them, `check_judge` compares.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from talkface.errors import TalkfaceError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Expert:
    """One line of the table.

    Args:
        role: what it is asked for.
        name: what people call it.
        class_path: the class that loads it.
        modules: packages beyond the base installation that it needs.
        extra: the pip extra that brings them; "" when none are needed.
        weights: file name or hub repository; "" when the weights come with talkface or with a package.
        source: where the weights are published, or the command that makes them.
    """

    role: str
    name: str
    class_path: str
    modules: tuple[str, ...] = ()
    extra: str = ""
    weights: str = ""
    source: str = ""


EXPERTS: tuple[Expert, ...] = (
    Expert(
        "lip reader",
        "auto-avsr",
        "talkface.experts.lipreading.LipReader",
        weights="vsr_trlrs3_base.pth",
        source="github.com/mpc001/auto_avsr, then: talkface import-checkpoint --kind auto-avsr",
    ),
    Expert(
        "lip reader",
        "characters and visemes of renders",
        "talkface.experts.lipreading.LipReader",
        weights="reader0.safetensors",
        source="scripts/train_expert.py lipreading",
    ),
)


def fingerprint(module: nn.Module) -> str:
    """Content hash (16 hexadecimal digits) of an expert's weights: names, shapes and values, read as float32.

    The same for an expert in a bundle and in a file of its own, in half or single precision, on any device. An expert
    whose weights torch does not hold (ONNX) is named by its file, which it keeps as `weights_path`.

    Raises:
        TalkfaceError: it has neither weights nor a file.
    """
    import torch

    digest = hashlib.sha256()
    state = module.state_dict()
    for name in sorted(state):
        value = state[name].detach().cpu()
        value = value.float() if value.is_floating_point() else value.to(torch.int64)
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    if not state:
        path = getattr(module, "weights_path", None)
        if path is None:
            raise TalkfaceError(f"{type(module).__name__} has no weights that could name it")
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]


def check_judge(judge: nn.Module, guided_by: Iterable[str], allow_same_expert: bool = False) -> str:
    """The fingerprint of `judge`, when it may judge a model that was guided by the experts `guided_by`.

    Raises:
        TalkfaceError: it is one of them, and `allow_same_expert` is not set.
    """
    own = fingerprint(judge)
    if own in set(guided_by) and not allow_same_expert:
        raise TalkfaceError(
            f"the judge ({type(judge).__name__}, {own}) also guided the training of this model, so it would judge "
            "itself; give another judge, or --allow-same-expert to measure it all the same"
        )
    return own


def load_expert(path: str | os.PathLike[str], device: str = "cpu") -> nn.Module:
    """What `scripts/train_expert.py` wrote, frozen and in evaluation mode.

    Args:
        path: the `.safetensors` file, its `.json` beside it.

    Raises:
        TalkfaceError: a file is missing, damaged, or does not fit the class that the `.json` names; the class is not
            one of `talkface.experts`.
    """
    weights, spec = Path(path).with_suffix(".safetensors"), Path(path).with_suffix(".json")
    for file in (weights, spec):
        if not file.is_file():
            raise TalkfaceError(
                f"expert: {file} does not exist; give the .safetensors that scripts/train_expert.py wrote, with its "
                ".json beside it"
            )
    from safetensors.torch import load_file

    try:
        read = json.loads(spec.read_text())
        module_name, _, class_name = read["class_path"].rpartition(".")
        if not module_name.startswith("talkface.experts."):
            raise ValueError(f"{read['class_path']} is no class of talkface.experts")
        network = getattr(importlib.import_module(module_name), class_name)(**read.get("init_args", {}))
        network.load_state_dict(load_file(weights))
    except TalkfaceError:
        raise
    except (
        Exception
    ) as error:  # json, safetensors and torch have classes of their own for every kind of damage
        reason = " ".join(str(error).split())[:160]
        raise TalkfaceError(f"expert {weights} cannot be loaded as its .json says: {reason}") from error
    frozen: nn.Module = network.to(device).eval().requires_grad_(False)
    return frozen
