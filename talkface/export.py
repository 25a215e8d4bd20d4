"""From a training run to a bundle that `sample-video` or `sample-images` reads.

The checkpoint of `talkface fit` knows the trained networks (class paths, arguments, averaged weights). A talking face
also needs what the YAML of the run says of its data (sound encoder, window, mask). The face finder comes from
another bundle. A model that is told an emotion and nothing else needs the checkpoint only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from talkface.checkpoint import Bundle, instantiate, load_bundle, read_training_checkpoint, save_bundle
from talkface.data.base import EMOTIONS
from talkface.errors import TalkfaceError

TRAINED = ("network", "first_stage", "conditioner")
CARD = "# Model card\n\nTrained with `talkface fit`, exported from {checkpoint}. Not evaluated, no licence.\n"


def export_bundle(
    checkpoint: Path,
    config: Path | None,
    out: Path,
    base: str = "default",
    card: Path | None = None,
) -> Path:
    """Write the bundle `out` and return its folder.

    Args:
        checkpoint: `.ckpt` of `talkface.training.diffusion.DiffusionModule`; its averaged weights are taken. Of a
            finetuning that started from a bundle, everything but the network is that bundle's.
        config: the YAML that was trained with; only talking faces need it.
        base: bundle whose face finder is taken over.
        card: model card to put into the bundle.

    Raises:
        TalkfaceError: a file is missing, damaged or of another kind of training.
    """
    trained = trained_bundle(checkpoint)
    text = card.read_text(encoding="utf-8") if card else CARD.format(checkpoint=checkpoint.name)
    start = trained.meta.get("finetuned", {}).get("start_from")
    if start is not None and not start.endswith(".ckpt"):
        return _finetuned(trained, start, out, text)
    parts, specs, meta = dict(trained.parts), dict(trained.specs), dict(trained.meta)
    conditioners = specs["conditioner"]["init_args"].get("conditioners", {})
    if set(conditioners) != {"emotion"}:
        if config is None:
            raise TalkfaceError(
                f"config: none; {checkpoint} is no emotion model (its network is told {', '.join(conditioners)}) and "
                "needs the YAML of its training; give --config"
            )
        data = _data_section(config)
        specs["speech"] = _spec(data, "encoder", config)
        parts["speech"] = instantiate(specs["speech"])
        specs["speech"]["init_args"].pop("weights", None)  # the bundle brings them
        # without facial actions from the sound there is nothing to animate by
        guided = "guide" in conditioners and hasattr(parts["speech"], "to_actions")
        meta |= {
            "image_size": int(data.get("image_size", 128)),
            "window": int(data.get("window", 4)),
            "window_rate": data.get("window_rate"),
            "mask": str(data.get("mask_kind", "lower_face")),
            "num_inference_steps": 20,
            "guidance_scale": {"audio": 1.0},
            "timestep_spacing": "trailing",
            "guide": "refined" if guided else "none",
        }
    finder = load_bundle(base, parts=["landmarks"])
    specs["landmarks"], parts["landmarks"] = finder.specs["landmarks"], finder.part("landmarks")
    return save_bundle(out, parts, specs, text, meta)


def _finetuned(trained: Bundle, start: str, out: Path, card: str) -> Path:
    """The bundle that a finetuning started from, with the finetuned network in place of its own."""
    base = load_bundle(start)
    parts, meta = dict(base.parts), dict(base.meta)
    parts["network"] = trained.part("network")
    told = dict(trained.meta["finetuned"])
    meta |= {"guided_by": [*meta.get("guided_by", []), *told["guided_by"]], "finetuned": told}
    return save_bundle(out, parts, base.specs, card, meta)


def trained_bundle(checkpoint: Path, device: str | torch.device = "cpu") -> Bundle:
    """The networks of a checkpoint as a bundle in memory: enough for a model that is told an emotion and nothing else.

    Raises:
        TalkfaceError: the file is missing, damaged or of another kind of training.
    """
    trained = read_training_checkpoint(checkpoint)
    if any(".lora_" in name for name in trained["state_dict"]):
        raise TalkfaceError(
            f"{checkpoint} is the training of an adapter; edit with the adapters.safetensors beside it (--adapter) and "
            "the bundle that it started from"
        )
    arguments = trained.get("hyper_parameters", {})
    specs = {name: _spec(arguments, name, checkpoint) for name in TRAINED}
    parts = {
        name: _build(spec, trained["state_dict"], name, checkpoint).to(device).eval().requires_grad_(False)
        for name, spec in specs.items()
    }
    told = specs["conditioner"]["init_args"].get("conditioners", {})
    meta = {
        "image_size": int(getattr(parts["first_stage"], "image_size", 128)),
        "schedule": _spec(arguments, "schedule", checkpoint),
        "prediction_type": str(arguments.get("prediction_type", "epsilon")),
        "num_inference_steps": 50,
        "guidance_scale": {"emotion": 1.0},
        "emotions": list(EMOTIONS) if "emotion" in told else [],
    }
    if "finetuned" in trained:
        about = dict(trained["finetuned"])
        meta |= {"finetuned": about, "guided_by": list(about["guided_by"])}
    return Bundle(parts, specs, meta, checkpoint, torch.device(device))


def _data_section(config: Path) -> Mapping[str, Any]:
    try:
        loaded: Any = OmegaConf.to_container(OmegaConf.load(config), resolve=True)
        return dict(loaded["data"]["init_args"])
    except (OSError, ValueError, KeyError, TypeError, OmegaConfBaseException) as error:
        raise TalkfaceError(
            f"config: {config} has no readable data section ({type(error).__name__}); "
            "give the YAML of the training"
        ) from error


def _spec(arguments: Mapping[str, Any], name: str, source: Path) -> dict[str, Any]:
    spec = arguments.get(name)
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        raise TalkfaceError(
            f"{source}: '{name}' is not described by a class path; give a training of a diffusion model "
            "(DiffusionModule)"
        )
    return {"class_path": spec["class_path"], "init_args": dict(spec.get("init_args") or {})}


def _build(spec: dict[str, Any], state: Mapping[str, Any], name: str, source: Path) -> nn.Module:
    module = instantiate(spec)
    own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise TalkfaceError(
            f"{source}: the weights of '{name}' do not fit its description: {reason}"
        ) from error
    return module
