"""Train the default bundle from nothing: corpus, speech encoder, landmarks, first stage, talking face; then pack it.

    python scripts/train_bundle.py --work runs/bundle --minutes 120 --lpips-backbone vgg16.safetensors

Every stage keeps its state in `--work` and continues there when it is run again; `--stage` runs only some of them.
`--minutes` is shared out by `SHARES`. On a GPU give `--device cuda` and `--identities 20000`; the recipe is the same,
only larger. What a stage does not find (voices, the teacher of the speech encoder) it says in one line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import speech_windows
import torch
import train_landmarks
import train_mouth
import train_speech
import train_speech_emotion
from bundle_change import train_change_decoder
from bundle_data import (
    Crops,
    Latents,
    draw_pairs,
    masked_window,
    picture_sources,
    spoken_pairs,
    window_pixels,
)
from bundle_spec import CHANGE_DECODER, FIRST_STAGE, META, NETWORK, SCHEDULE, STEPS, conditioner_spec
from make_textures import write_textures
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from training_stages import run_stages

from talkface.checkpoint import instantiate, save_bundle
from talkface.data.synthetic.clips import SyntheticRecipe, prepare_synthetic
from talkface.diffusion.timesteps import uniform_timesteps
from talkface.errors import TalkfaceError
from talkface.experts.vision import LPIPS
from talkface.losses.first_stage import FirstStageLoss
from talkface.pipelines.device import fast_layout
from talkface.training.callbacks import EMAWeights
from talkface.training.diffusion import DiffusionModule
from talkface.training.first_stage import FirstStageModule
from talkface.training.one_step import OneStepModule

STAGES = (
    "corpus", "speech", "landmarks", "mouth", "pairs", "first_stage", "talking", "one_step", "change_decoder", "pack",
)  # fmt: skip
SHARES = {
    "speech": 0.13,
    "landmarks": 0.10,
    "mouth": 0.07,
    "first_stage": 0.25,
    "talking": 0.25,
    "one_step": 0.10,
    "change_decoder": 0.10,
}


class FewPerceptual(nn.Module):
    """The perceptual distance of the first few pictures of a batch: the costliest term, at a fraction of its price."""

    def __init__(self, distance: nn.Module, count: int) -> None:
        super().__init__()
        self.distance, self.count = distance, count

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return self.distance(images[: self.count], others[: self.count])


def corpus(options: argparse.Namespace) -> None:
    """Render people who speak. 5 frames per second: neighbours in time teach little that is new."""
    recipe = SyntheticRecipe(
        identities=options.identities,
        clips_per_identity=1,
        seed=1,
        fps=5,
        size=160,
        max_seconds=3.6,
        val_share=0.02,
        test_share=0.01,
        clips_per_shard=12,
    )
    prepare_synthetic(options.work / "corpus", recipe, options.workers, options.device)
    write_textures(options.work / "textures", num=500, size=160, seed=0)


def keep(options: argparse.Namespace, name: str, folder: Path) -> None:
    """Take over weights and specification that another script wrote into `folder`."""
    torch.save(load_file(folder / f"{name}.safetensors"), options.work / f"{name}.pt")
    (options.work / f"{name}.json").write_text((folder / f"{name}.json").read_text())


def speech(options: argparse.Namespace) -> None:
    """The articulation encoder, distilled from a speech recogniser (see train_speech.py), and its emotion branch."""
    folder = options.work / "speech"
    speech_windows.prepare(folder, [Path(path) for path in options.recordings], 90, 0)
    seconds = 60 * options.minutes * SHARES["speech"]
    plain = train_speech.train(folder, folder / "speech.safetensors", seconds, 0, bfloat16=True)
    train_speech_emotion.train(plain, folder / "heard", folder / "emotional" / plain.name)
    keep(options, "speech", folder / "emotional")


def landmarks(options: argparse.Namespace) -> None:
    """The network that finds faces and their landmarks (see train_landmarks.py)."""
    folder = options.work / "landmarks"
    seconds = 60 * options.minutes * SHARES["landmarks"]
    train_landmarks.train(folder, pictures=10 * options.identities, seconds=seconds, device=options.device)
    keep(options, "landmarks", folder)


def mouth(options: argparse.Namespace) -> None:
    """The network that looks at the lips again from close by (see train_mouth.py)."""
    folder = options.work / "mouth"
    seconds = 60 * options.minutes * SHARES["mouth"]
    train_mouth.train(folder, pictures=5 * options.identities, seconds=seconds, device=options.device)
    keep(options, "mouth", folder)


def trainer(options: argparse.Namespace, name: str, minutes: float, *callbacks: Any) -> pl.Trainer:
    checkpoints = ModelCheckpoint(
        dirpath=options.work / name,
        save_last=True,
        every_n_train_steps=200,
        save_top_k=0,
        save_on_exception=True,
        enable_version_counter=False,  # a resumed run goes on writing the same file
    )
    return pl.Trainer(
        accelerator="cuda" if options.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed",
        max_time=timedelta(minutes=minutes),
        max_epochs=-1,
        callbacks=[checkpoints, *callbacks],
        logger=CSVLogger(options.work / name, name="log", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=20,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )


def pairs(options: argparse.Namespace) -> None:
    """The training pairs of the diffusion model as pictures: drawing them takes longer than encoding them."""
    draw_pairs(options.work, options.pairs_per_clip, options.workers)


def last(options: argparse.Namespace, name: str) -> str | None:
    path = options.work / name / "last.ckpt"
    return str(path) if path.is_file() else None


def first_stage(options: argparse.Namespace) -> None:
    """Pixels and LPIPS; then, for the last quarter of the time, a lower rate."""
    network = instantiate(FIRST_STAGE)
    if options.start_from and (options.start_from / "first_stage.pt").is_file():
        take_over(network, torch.load(options.start_from / "first_stage.pt", weights_only=True))
    distance = fast_layout(LPIPS("vgg", options.lpips_backbone))
    loss = FirstStageLoss(FewPerceptual(distance, 2), perceptual_weight=0.25)
    crops = Crops(picture_sources(options.work, options.pictures), size=64, seed=int(time.time()))
    loader = DataLoader(crops, batch_size=8)
    minutes = options.minutes * SHARES["first_stage"]
    for phase, (rate, share) in enumerate(((7e-4, 0.75), (1.5e-4, 0.25))):
        name = f"first_stage/{phase}"
        module = FirstStageModule(network, loss, learning_rate=rate, betas=(0.9, 0.99), gradient_clip=1.0)
        trainer(options, name, minutes * share).fit(module, loader, ckpt_path=last(options, name))
    latents = torch.cat(
        [network(batch["images"]).latents for batch, _ in zip(loader, range(30), strict=False)]
    )
    flat = latents.detach().double().transpose(0, 1).flatten(1)
    network.set_latent_statistics(flat.mean(1).float(), flat.std(1).float())
    torch.save(network.state_dict(), options.work / "first_stage.pt")


def take_over(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy what fits; a tensor of another size fills the corner that both have, the rest keeps its start."""
    for name, own in network.state_dict().items():
        given = weights.get(name)
        if given is None or given.dim() != own.dim():
            continue
        corner = tuple(slice(min(a, b)) for a, b in zip(own.shape, given.shape, strict=True))
        own[corner] = given[corner].to(own)


def talking(options: argparse.Namespace) -> None:
    """The latent diffusion model, on pairs that the first stage encoded once; the last quarter at a lower rate."""
    stage = load_part(options, "first_stage", FIRST_STAGE)
    data, feature_dim = training_pairs(options, stage)
    network, conditioner = instantiate(NETWORK), instantiate(conditioner_spec(feature_dim))
    if options.start_from and (options.start_from / "network.pt").is_file():
        for name, part in (("network", network), ("conditioner", conditioner)):
            take_over(part, torch.load(options.start_from / f"{name}.pt", weights_only=True))
    loader = DataLoader(Latents(data), batch_size=32, shuffle=True, drop_last=True)
    minutes = options.minutes * SHARES["talking"]
    for phase, (rate, share) in enumerate(((5e-4, 0.75), (1e-4, 0.25))):
        name = f"talking/{phase}"
        module = DiffusionModule(
            network,
            stage,
            instantiate(SCHEDULE),
            conditioner,
            prediction_type="velocity",
            timesteps=uniform_timesteps(STEPS, spacing="trailing").tolist(),
            region_weight=8.0,
            learning_rate=rate,
            betas=(0.9, 0.99),
            warmup_steps=100,
        )
        trainer(options, name, minutes * share, EMAWeights(0.998)).fit(
            module, loader, ckpt_path=last(options, name)
        )
    torch.save(network.state_dict(), options.work / "network.pt")
    torch.save(conditioner.state_dict(), options.work / "conditioner.pt")


def one_step(options: argparse.Namespace) -> None:
    """The sampler's only step, judged by the pixels that it shows."""
    stage = load_part(options, "first_stage", FIRST_STAGE)
    data, feature_dim = training_pairs(options, stage)
    window = masked_window()
    data |= window_pixels(options.work, window)
    spec = conditioner_spec(feature_dim)
    network, conditioner = load_part(options, "network", NETWORK), load_part(options, "conditioner", spec)
    module = OneStepModule(
        network,
        stage,
        instantiate(SCHEDULE),
        conditioner,
        perceptual=LPIPS("vgg", options.lpips_backbone),
        window=window,
        prediction_type="velocity",
        timesteps=uniform_timesteps(1, spacing="trailing").tolist(),
        region_weight=8.0,
        learning_rate=1e-4,
        betas=(0.9, 0.99),
        warmup_steps=50,
    )
    loader = DataLoader(Latents(data), batch_size=8, shuffle=True, drop_last=True)
    trainer(options, "one_step", options.minutes * SHARES["one_step"], EMAWeights(0.995)).fit(
        module, loader, ckpt_path=last(options, "one_step")
    )
    torch.save(network.state_dict(), options.work / "network_one_step.pt")
    torch.save(conditioner.state_dict(), options.work / "conditioner_one_step.pt")


def change_decoder(options: argparse.Namespace) -> None:
    """A small stand-in for the first stage's decoder: a sixth of the time of a frame is saved."""
    stage = load_part(options, "first_stage", FIRST_STAGE)
    data, feature_dim = training_pairs(options, stage)
    parts = []
    for name, spec in (("network", NETWORK), ("conditioner", conditioner_spec(feature_dim))):
        finer = f"{name}_one_step"
        parts.append(load_part(options, finer if (options.work / f"{finer}.pt").is_file() else name, spec))
    module = DiffusionModule(
        parts[0],
        fast_layout(stage),
        instantiate(SCHEDULE),
        parts[1],
        prediction_type="velocity",
        timesteps=uniform_timesteps(1, spacing="trailing").tolist(),
    )
    seconds = 60 * options.minutes * SHARES["change_decoder"]
    with (options.work / "change_decoder.log").open("w", buffering=1) as lines:
        decoder = train_change_decoder(
            data,
            module.eval().to(options.device),
            CHANGE_DECODER,
            seconds,
            options.device,
            lambda line: print(line, file=lines),
        )
    torch.save(decoder.state_dict(), options.work / "change_decoder.pt")


def training_pairs(options: argparse.Namespace, stage: nn.Module) -> tuple[dict[str, Tensor], int]:
    """What the diffusion model reads, and the size of a feature of sound."""
    encoder = load_part(options, "speech", json.loads((options.work / "speech.json").read_text()))
    stored = spoken_pairs(options.work, stage, encoder, options.device)
    return stored, int(encoder.feature_dim)


def pack(options: argparse.Namespace) -> None:
    """Write the bundle from the finished parts."""
    speech_spec = json.loads((options.work / "speech.json").read_text())
    landmarks_spec = json.loads((options.work / "landmarks.json").read_text())
    speech = load_part(options, "speech", speech_spec)
    specs = {
        "first_stage": FIRST_STAGE,
        "network": NETWORK,
        "conditioner": conditioner_spec(int(speech.feature_dim)),
        "speech": speech_spec,
        "landmarks": landmarks_spec,
    }
    if (options.work / "mouth.json").is_file():  # a bundle is complete without it, its lips are coarser
        specs["mouth"] = json.loads((options.work / "mouth.json").read_text())
    if (options.work / "change_decoder.pt").is_file():  # and without it, only slower
        specs["change_decoder"] = CHANGE_DECODER
    parts = {name: load_part(options, name, spec) for name, spec in specs.items()}
    for name in ("network", "conditioner"):  # as the one step left them, if it was taken
        if (finer := options.work / f"{name}_one_step.pt").is_file():
            parts[name].load_state_dict(torch.load(finer, weights_only=True))
    card = (
        options.card.read_text() if options.card else "# Model card\n\nTrained by scripts/train_bundle.py.\n"
    )
    save_bundle(options.out, parts, specs, card, META)


def load_part(options: argparse.Namespace, name: str, spec: dict[str, Any]) -> Any:
    part = instantiate(spec).eval()
    part.load_state_dict(torch.load(options.work / f"{name}.pt", weights_only=True))
    return part


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of everything in between")
    parser.add_argument("--out", type=Path, default=Path("talkface/weights/default"))
    parser.add_argument("--stage", choices=STAGES, nargs="*", default=STAGES)
    parser.add_argument("--minutes", type=float, default=120, help="time for all training together")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="processor threads (0: all)")
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    parser.add_argument("--identities", type=int, default=1200)
    parser.add_argument("--pairs-per-clip", type=int, default=16, help="training pairs drawn from each clip")
    parser.add_argument("--card", type=Path, help="model card to put into the bundle")
    parser.add_argument(
        "--start-from", type=Path, help="folder with first_stage.pt, network.pt, conditioner.pt to go on from"
    )
    parser.add_argument("--recordings", nargs="*", default=[], help="folders of real speech for the encoder")
    parser.add_argument(
        "--pictures", nargs="*", default=[], help="folders of your own pictures for the first stage"
    )
    parser.add_argument(
        "--lpips-backbone", type=Path, help="VGG-16 weights; without it torchvision's are used"
    )
    options = parser.parse_args()
    run_stages(options, {name: globals()[name] for name in STAGES})
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"train_bundle: error: {error}", file=sys.stderr)
        sys.exit(2)
