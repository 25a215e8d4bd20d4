"""Checkpoints in the CompVis layout: VQGANs, and the latent diffusion models of the thesis.

The thesis trained two diffusion models with that code: one conditional on an emotion class (arXiv 2308.03183), and the
talking face, whose conditioners are numbered (`cond_stage_model_1`, `cond_stage_model_2`) and are told apart here by
what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from talkface.diffusion.schedule import NoiseSchedule
from talkface.errors import TalkfaceError
from talkface.head.emotions import EMOTIONS
from talkface.importers.shapes import Spec, describe_unet, describe_vqgan
from talkface.importers.tensors import Tensors, build, shape

_FIRST_STAGE = "first_stage_model."
_UNET = "model.diffusion_model."
_CONDITIONER = re.compile(r"cond_stage_model(_\d+)?\.")
_BETAS = (1000, 0.0015, 0.0205)  # of both models of the thesis
_SCHEDULE_TABLES = (
    *(
        "alphas_cumprod",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
    ),
    *("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_", "logvar", "lvlb_weights"),
)
# networks of losses: of the VQGAN, of CLIP-guided finetuning, of lip-reading finetuning
_LOSSES = ("loss.", "clip_loss_func.", "id_loss_func.", "lip_reader.")


@dataclass
class Imported:
    """Built parts, what describes them, and what a pipeline must know.

    Attributes:
        parts, specs, meta: as `talkface.checkpoint.save_bundle` takes them.
        weights: "ema" or "raw", which were taken.
    """

    parts: dict[str, nn.Module] = field(default_factory=dict)
    specs: dict[str, Spec] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    weights: str = "raw"

    def add(self, name: str, spec: Spec, weights: Mapping[str, Tensor], source: str) -> Any:
        """Build a part and keep it."""
        self.specs[name], self.parts[name] = spec, build(spec, weights, source)
        return self.parts[name]


def import_vqgan(tensors: Tensors, image_size: int, weights: str | None = None) -> Imported:
    """A VQGAN of taming-transformers or of the thesis; also the one inside a checkpoint of a diffusion model.

    Raises:
        TalkfaceError: see `describe_vqgan`, `build` and `Tensors`.
    """
    imported = Imported()
    inside = tensors.has(_FIRST_STAGE)
    own = _take_vqgan(tensors, _FIRST_STAGE if inside else "")
    if inside:
        if weights == "ema":
            raise TalkfaceError(f"--weights: ema; averages in {tensors.source} are the UNet's; allowed: raw")
        tensors.ignore("", "the rest of the diffusion model")
    else:
        own, imported.weights = tensors.averaged(own, "", weights)
    imported.add(
        "first_stage", describe_vqgan(own, tensors.source, image_size=image_size), own, tensors.source
    )
    imported.meta = {"image_size": image_size}
    tensors.finish()
    return imported


def import_latent_diffusion(
    tensors: Tensors, image_size: int = 128, weights: str | None = None, num_head_channels: int = 32
) -> Imported:
    """Either diffusion model of the thesis, with its first stage, conditioners and noise schedule.

    Args:
        image_size: side of the pictures it was trained on.
        weights: "ema", "raw" or None = averages where there are any; of the UNet: the thesis averages nothing else.
        num_head_channels: the one number that no shape tells.

    Raises:
        TalkfaceError: a part is missing or unknown.
    """
    source = tensors.source
    imported = Imported()
    first_stage = _take_vqgan(tensors, _FIRST_STAGE)
    stage_spec = describe_vqgan(first_stage, source, image_size=image_size)
    stage = imported.add("first_stage", stage_spec, first_stage, source)
    unet, imported.weights = tensors.averaged(tensors.take(_UNET), "diffusion_model.", weights)
    size = image_size // int(stage.downsample_factor)
    network_spec = describe_unet(unet, source, image_size=size, num_head_channels=num_head_channels)
    imported.add("network", network_spec, unet, source)

    imported.meta = {
        "image_size": image_size,
        "schedule": _schedule(tensors),
        "prediction_type": "epsilon",
        "num_inference_steps": 40,
        "timestep_spacing": "leading",
        "final_alpha": "first",
    }
    scale = tensors.take_one("scale_factor")
    if scale is not None:
        channels = int(stage.latent_channels)
        stage.set_latent_statistics(torch.zeros(channels), torch.full((channels,), 1.0 / float(scale)))
    _add_conditioners(imported, tensors, size)
    for prefix in _LOSSES:
        tensors.ignore(prefix, "networks of losses")
    tensors.finish()
    return imported


def _take_vqgan(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    tensors.ignore(f"{prefix}loss.", "networks of losses")
    if prefix:
        tensors.ignore(
            f"{prefix}model_ema.", "moving averages of the first stage, which its own training used"
        )
    tensors.ignore(f"{prefix}colorize", "a colour map for segmentations")
    own: dict[str, Tensor] = {}
    for name in ("encoder.", "decoder.", "quant_conv.", "quantize.", "post_quant_conv."):
        if tensors.has(prefix + name):
            own.update({name + rest: value for rest, value in tensors.take(prefix + name).items()})
    if not own:
        tensors.take(f"{prefix}encoder.")  # raises, and says what there is
    return own


def _schedule(tensors: Tensors) -> Spec:
    """Which `NoiseSchedule` the table of betas is; the thesis's where the checkpoint has none."""
    betas = tensors.take_one("betas")
    for name in _SCHEDULE_TABLES:
        tensors.ignore(name, "tables that follow from the noise schedule")
    if betas is None:
        length, start, end = _BETAS
        kinds = ["sqrt_linear"]
    else:
        length, start, end = len(betas), *(float(f"{float(beta):.6g}") for beta in (betas[0], betas[-1]))
        kinds = ["sqrt_linear", "linear", "cosine"]
    for kind in kinds:
        arguments: Spec = {"kind": kind, "num_train_timesteps": length, "start": start, "end": end}
        signal = NoiseSchedule(**arguments).alpha_bar(torch.arange(length))
        if betas is None or torch.allclose(
            (1 - betas.double()).cumprod(0).float(), signal, rtol=1e-4, atol=1e-6
        ):
            return {"class_path": "talkface.diffusion.schedule.NoiseSchedule", "init_args": arguments}
    raise TalkfaceError(
        f"{tensors.source}: its {length} betas from {start} to {end} are no schedule of talkface; allowed: sqrt_linear "
        "(called linear by CompVis), linear, cosine"
    )


def _add_conditioners(imported: Imported, tensors: Tensors, latent_size: int) -> None:
    """The part `conditioner`, and what follows from it for pipelines."""
    source = tensors.source
    prefixes = sorted({match[0] for name in tensors.names if (match := _CONDITIONER.match(name))})
    specs: dict[str, Spec] = {}
    weights: dict[str, Tensor] = {}
    for prefix in prefixes:
        name, spec, own = _describe_conditioner(tensors.take(prefix), f"{source}: {prefix}*")
        if name in specs:
            raise TalkfaceError(f"{source}: two conditioners of the kind '{name}'; allowed: one of each kind")
        specs[name] = spec
        weights.update({f"conditioners.{name}.{key}": value for key, value in own.items()})
    network = imported.specs["network"]["init_args"]
    channels = imported.specs["first_stage"]["init_args"]["latent_channels"]
    pictures, rest = divmod(network["in_channels"] - channels, channels)
    if rest or pictures not in (0, 2):
        raise TalkfaceError(
            f"{source}: the network reads {network['in_channels']} channels; allowed: {channels} (latents) or "
            f"{3 * channels} (latents, masked picture, reference)"
        )
    if pictures:
        specs["frames"] = {
            "class_path": "talkface.conditioning.frames.FramesConditioner",
            "init_args": {
                "latent_channels": channels,
                "latent_size": latent_size,
                "order": ["masked", "reference"],
            },
        }
    spec = {
        "class_path": "talkface.conditioning.base.ConditionerSet",
        "init_args": {"context_mode": "concatenate", "conditioners": specs},
    }
    conditioner: Any = imported.add("conditioner", spec, weights, source)
    conditioner.check_network(imported.parts["network"], channels)
    imported.meta["guidance_scale"] = {name: 1.0 for name in specs if name in ("emotion", "audio")}
    if "emotion" in specs:
        labels = specs["emotion"]["init_args"]["num_classes"]
        imported.meta["emotions"] = (
            list(EMOTIONS) if labels == len(EMOTIONS) else [f"class_{index}" for index in range(labels)]
        )
    if "audio" in specs:
        imported.meta |= {
            "window": specs["audio"]["init_args"]["window"],
            "window_rate": None,
            "mask": "thesis",
            "guide": "none",
        }


def _describe_conditioner(own: dict[str, Tensor], source: str) -> tuple[str, Spec, dict[str, Tensor]]:
    """Name, spec and renamed weights of one conditioner of the thesis."""
    if "embedding.weight" in own:
        null = own.pop("uncond_embedding.weight", None)
        if null is not None:  # of the class-conditional model; the talking face has it as its last row
            own["embedding.weight"] = torch.cat([own["embedding.weight"], null])
        rows, dim = shape(own, "embedding.weight", source)
        arguments: dict[str, Any] = {
            "num_classes": rows - 1,
            "dim": dim,
            "fills": "context",
            "drop_rate": 0.2,
        }
        return "emotion", _conditioner("face.EmotionConditioner", arguments), own
    if "attentionNet.0.weight" in own:
        features = shape(own, "attentionConvNet.0.weight", source)[1]
        length = shape(own, "attentionNet.0.weight", source)[0]
        mode = "expanded_attention" if "expander.0.weight" in own else "attention"
        if any(name.startswith("audio_encoder.") for name in own):
            raise TalkfaceError(
                f"{source}: a sound encoder trained along; allowed: features of a frozen encoder"
            )
        arguments = {"feature_dim": features, "window": length // 2, "mode": mode, "drop_rate": 0.0}
        renamed = {f"attention.{name}": value for name, value in own.items()}
        return "audio", _conditioner("audio.AudioConditioner", arguments), renamed
    if "net.0.weight" in own:
        landmarks, dim = shape(own, "net.0.weight", source)[1] // 2, shape(own, "net.8.weight", source)[0]
        arguments = {"dim": dim, "num_landmarks": landmarks}
        return "landmarks", _conditioner("face.LandmarkConditioner", arguments), own
    raise TalkfaceError(
        f"{source}: holds {', '.join(list(own)[:3])}; allowed: an embedding of emotions, the attention over sound "
        "(attentionNet.*) or the network of landmarks (net.*) of the thesis"
    )


def _conditioner(name: str, arguments: dict[str, Any]) -> Spec:
    return {"class_path": f"talkface.conditioning.{name}", "init_args": arguments}
