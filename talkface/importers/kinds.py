"""The kinds of foreign weights, and the one call that turns a file of them into a bundle."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from talkface.checkpoint import instantiate, load_bundle, read_weights, save_bundle
from talkface.errors import TalkfaceError
from talkface.importers.auto_avsr import describe_lip_reader
from talkface.importers.command import KINDS, PRECISIONS, WEIGHTS
from talkface.importers.compvis import Imported, import_latent_diffusion, import_vqgan
from talkface.importers.diffusers import import_unet, import_vq_model
from talkface.importers.tensors import Tensors

CARD = """# Model card

Weights of {name}, imported as {kind} ({weights} weights). Not trained, evaluated or checked by talkface: data, licence
and limits are those of the source.
"""


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        folder: the bundle.
        parts: name -> number of parameters.
        weights: "ema" or "raw".
        ignored: reason -> number of tensors left out on purpose.
        notes: one line each: what the user should know.
    """

    folder: Path
    parts: dict[str, int]
    weights: str
    ignored: dict[str, int]
    notes: list[str]


def import_checkpoint(
    path: Path,
    kind: str,
    out: Path,
    *,
    weights: str | None = None,
    image_size: int | None = None,
    num_head_channels: int = 32,
    speech: str | None = None,
    units: Path | None = None,
    precision: str = "fp32",
) -> ImportReport:
    """Write the bundle `out`.

    Args:
        path: the checkpoint, or for the kinds of diffusers the folder with config.json.
        kind: one of KINDS.
        weights: "ema" = moving averages, "raw" = what the optimiser saw, None = averages where there are any.
        image_size: side in pixels of the pictures it was trained on (diffusers-unet: of its latents); None: 128 for the
            thesis, 256 for taming, the configuration's for diffusers.
        num_head_channels: channels per attention head, thesis-ldm only.
        speech: folder or hub name of the wav2vec 2.0 that the talking face was trained with; the bundle then also gets
            sound encoder and face finder, and `talkface sample-video` runs with it.
        units: vocabulary of auto-avsr, see `talkface.importers.auto_avsr`.
        precision: of the stored weights, "fp32" or "fp16".

    Raises:
        TalkfaceError: an argument or the file cannot be used; the message says why.
    """
    for name, value, allowed in (
        ("kind", kind, KINDS),
        ("weights", weights, (None, *WEIGHTS)),
        ("precision", precision, PRECISIONS),
    ):
        if value not in allowed:
            raise TalkfaceError(f"{name}: {value!r}; allowed: {', '.join(map(str, allowed))}")
    if units is not None and kind != "auto-avsr":
        raise TalkfaceError(f"--units: {units}; allowed only with --kind auto-avsr")
    imported, ignored = _read(Path(path), kind, weights, image_size, num_head_channels, units)
    notes = _add_sound(imported, speech)
    imported.meta |= {
        "licence": "that of the imported weights",
        "imported": {"kind": kind, "file": Path(path).name, "weights": imported.weights},
    }
    card = CARD.format(name=Path(path).name, kind=kind, weights=imported.weights)
    dtype = torch.float32 if precision == "fp32" else torch.float16
    folder = save_bundle(out, imported.parts, imported.specs, card, imported.meta, dtype)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in imported.parts.items()}
    return ImportReport(folder, counts, imported.weights, dict(ignored), notes)


def _read(
    path: Path,
    kind: str,
    weights: str | None,
    image_size: int | None,
    num_head_channels: int,
    units: Path | None,
) -> tuple[Imported, Counter[str]]:
    if kind.startswith("diffusers-"):
        if weights == "ema":
            raise TalkfaceError(
                f"--weights: ema with {kind}; allowed: raw (its folders hold one set of weights)"
            )
        return (import_vq_model if kind == "diffusers-vq" else import_unet)(path, image_size), Counter()
    if kind == "auto-avsr":
        if weights == "ema":
            raise TalkfaceError(
                "--weights: ema with auto-avsr; allowed: raw (its files hold one set of weights)"
            )
        imported = Imported()
        imported.add("lip_reader", *describe_lip_reader(path, units), path.name)
        return imported, Counter()
    tensors = Tensors(read_weights(path), path.name)
    if kind == "thesis-ldm":
        imported = import_latent_diffusion(tensors, image_size or 128, weights, num_head_channels)
    else:
        imported = import_vqgan(tensors, image_size or (128 if kind == "thesis-vqgan" else 256), weights)
    return imported, +tensors.ignored


def _add_sound(imported: Imported, speech: str | None) -> list[str]:
    """Sound encoder and face finder of a talking face, if it is one and `speech` names the encoder."""
    conditioners: dict[str, Any] = (
        imported.specs.get("conditioner", {}).get("init_args", {}).get("conditioners", {})
    )
    if "audio" not in conditioners:
        if speech is not None:
            raise TalkfaceError(
                f"--speech: {speech}; allowed only with a talking face; this model hears no sound"
            )
        return []
    wanted = conditioners["audio"]["init_args"]["feature_dim"]
    if speech is None:
        return [
            f"the sound encoder ({wanted} features) is not in the checkpoint; for sample-video import again with "
            "--speech FOLDER, the wav2vec 2.0 it was trained with (the thesis: facebook/wav2vec2-base-960h)"
        ]
    if Path(speech).is_dir():
        speech = str(Path(speech).resolve())  # the bundle names it, wherever it is read from
    # the thesis brings the convolutional features to the films' 30 frames a second before the transformer
    spec = {
        "class_path": "talkface.experts.speech.Wav2Vec2Encoder",
        "init_args": {"name_or_path": speech, "output": "last", "interpolate_before": 30.0},
    }
    encoder = instantiate(spec)
    if encoder.feature_dim != wanted:
        raise TalkfaceError(
            f"--speech: {speech} gives {encoder.feature_dim} features; allowed: {wanted}, what the checkpoint "
            "was trained with"
        )
    finder = load_bundle("default", parts=["landmarks"])
    imported.parts |= {"speech": encoder, "landmarks": finder.part("landmarks")}
    imported.specs |= {"speech": spec, "landmarks": finder.specs["landmarks"]}
    return []
