"""Train the emotion model of the bundle: a small class-conditional latent diffusion model of synthetic faces.

    python data_prep/synthetic_faces.py --out corpora/faces
    python scripts/train_expert.py emotion --corpus corpora/faces --out build/experts --minutes 8
    python scripts/train_emotion.py --work build/emotion --corpus corpora/faces --minutes 90

Guides are drawn, and latents of all pictures computed, once, with the first stage of the default bundle. The run may be
stopped and given again at any time; `--minutes` counts what was trained before, too, so a larger number goes on
training. `--stage pack` writes the bundle; without `--out` nothing installed is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from emotion_data import EditPairs, draw_guides, encode_guides, pictures
from pytorch_lightning.callbacks import ModelCheckpoint, Timer
from pytorch_lightning.loggers import CSVLogger
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from training_stages import run_stages

from talkface.checkpoint import instantiate, load_bundle, read_training_checkpoint, save_bundle
from talkface.data.base import EMOTIONS
from talkface.data.emotion_modules import show_progress
from talkface.data.latents import LatentStore, compute_latents
from talkface.errors import TalkfaceError
from talkface.training.callbacks import EMAWeights
from talkface.training.diffusion import DiffusionModule

STAGES = ("train", "pack")
IMAGE_SIZE, EMBEDDING = 128, 128
SCHEDULE = {"class_path": "talkface.diffusion.schedule.NoiseSchedule", "init_args": {}}
NETWORK = {
    "class_path": "talkface.networks.unet.UNet",
    "init_args": {
        "in_channels": 18,  # noisy latents, those of the guide and of the reference
        "out_channels": 6,
        "model_channels": 96,
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
        "attention_downsamples": [2],
        "num_head_channels": 32,
        "embedding_dim": 2 * EMBEDDING,
        "image_size": IMAGE_SIZE // 4,
        "patch_size": 2,
        "input_skip": True,
    },
}
CONDITIONER = {
    "class_path": "talkface.conditioning.base.ConditionerSet",
    "init_args": {
        "conditioners": {
            "emotion": {
                "class_path": "talkface.conditioning.face.EmotionConditioner",
                "init_args": {"dim": EMBEDDING, "fills": "embedding", "drop_rate": 0.15, "intensity": True},
            },
            # actions say all that the emotion says, and more: they are told seldom, or the emotion would not be learnt
            "actions": {
                "class_path": "talkface.conditioning.face.ActionConditioner",
                "init_args": {"dim": EMBEDDING, "fills": "embedding", "drop_rate": 0.75},
            },
            # the person with another expression, and the same picture animated to this one by its fitted head: what is
            # left to learn is what a mesh does not know; without both the model makes faces of nobody
            "frames": {
                "class_path": "talkface.conditioning.frames.FramesConditioner",
                "init_args": {
                    "latent_channels": 6,
                    "latent_size": 32,
                    "order": ["guide", "reference"],
                    "drop_rate": 0.15,
                },
            },
        }
    },
}
PHASES = ((4e-4, 0.75), (8e-5, 0.25))  # learning rate and share of the time
LEVELS = [*range(1000), *range(700)]  # those that editing visits are trained twice as often
META: dict[str, Any] = {
    "licence": "Apache-2.0",
    "image_size": IMAGE_SIZE,
    "schedule": SCHEDULE,
    "prediction_type": "velocity",
    "num_inference_steps": 50,
    "guidance_scale": {"emotion": 2.0},
    "timestep_spacing": "trailing",
    "final_alpha": "one",
    "emotions": list(EMOTIONS),
    "editing": {
        "strength": 500,
        "guidance_scale": 3.0,
        "inversion_guidance_scale": 1.0,
        "num_inference_steps": 40,
    },
}


def train(options: argparse.Namespace) -> None:
    """Two phases, the second at a fifth of the learning rate for the last quarter of the time."""
    stage = load_bundle(options.first_stage, parts=["first_stage"]).part("first_stage")
    stage = stage.to(memory_format=torch.channels_last)
    network, conditioner = instantiate(NETWORK), instantiate(CONDITIONER)
    pairs = prepare(options, stage)
    data = DataLoader(pairs, options.batch_size, shuffle=True, drop_last=True)
    for phase, (rate, share) in enumerate(PHASES):
        folder = options.work / f"phase{phase}"
        module = DiffusionModule(
            network,
            stage,
            instantiate(SCHEDULE),
            conditioner,
            prediction_type="velocity",
            timesteps=LEVELS,
            start_share=0.5,
            start_from="guide",
            learning_rate=rate,
            betas=(0.9, 0.99),
            warmup_steps=100,
        )
        checkpoint = folder / "last.ckpt"
        limit = 60 * options.minutes * share
        if checkpoint.is_file() and trained_seconds(checkpoint) >= limit:
            module.load_state_dict(read_training_checkpoint(checkpoint)["state_dict"])
            continue
        # what a later phase made of an earlier state is void now
        for later in range(phase + 1, len(PHASES)):
            shutil.rmtree(options.work / f"phase{later}", ignore_errors=True)
        trainer(options.device, folder, limit).fit(
            module, data, ckpt_path=str(checkpoint) if checkpoint.is_file() else None
        )


def prepare(options: argparse.Namespace, stage: nn.Module) -> EditPairs:
    """Draw guides, and encode them and the pictures, here in bfloat16: three times as fast on a processor, and off by
    a hundredth of what the first stage itself loses."""
    draw_guides(options.corpus, options.work, IMAGE_SIZE, options.guides, os.cpu_count() or 1)
    data, stage = pictures(options.corpus, IMAGE_SIZE), stage.to(options.device)
    variant = f"{IMAGE_SIZE}-canonical"
    with torch.autocast(options.device, torch.bfloat16):
        folder = compute_latents(
            data.corpus, data.pictures, data.read, stage, variant, options.device, progress=show_progress
        )
    return EditPairs(data, LatentStore(folder), encode_guides(options.work, stage, options.device))


def trainer(device: str, folder: Path, seconds: float) -> pl.Trainer:
    """A trainer that stops after `seconds`, summed over interrupted runs, and saves itself every few minutes."""
    saves = ModelCheckpoint(
        dirpath=folder, save_last=True, every_n_train_steps=100, save_top_k=0, enable_version_counter=False
    )  # a resumed run goes on writing the same file
    return pl.Trainer(
        accelerator="cuda" if device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed",
        max_epochs=-1,
        callbacks=[saves, Timer(timedelta(seconds=seconds)), EMAWeights(0.998)],
        logger=CSVLogger(folder, name="log", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        log_every_n_steps=20,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )


def trained_seconds(checkpoint: Path) -> float:
    """How long a phase has been trained already."""
    callbacks = read_training_checkpoint(checkpoint)["callbacks"]
    timers = [state for name, state in callbacks.items() if name.startswith("Timer")]
    return float(timers[0]["time_elapsed"]["train"]) if timers else 0.0


def pack(options: argparse.Namespace) -> None:
    """Write the bundle from the newest checkpoint."""
    if options.out is None:
        raise TalkfaceError("--out: not given; give the folder of the bundle to write")
    folders = [options.work / f"phase{phase}" for phase in reversed(range(len(PHASES)))]
    found = [path for folder in folders if (path := folder / "last.ckpt").is_file()]
    if not found:
        raise TalkfaceError(
            f"--work: {options.work} holds no checkpoint of the emotion model; run --stage train first"
        )
    state = read_training_checkpoint(found[0])["state_dict"]
    coder = load_bundle(options.first_stage, parts=["first_stage"])
    parts: dict[str, nn.Module] = {"first_stage": coder.part("first_stage")}
    specs: dict[str, Any] = {
        "first_stage": coder.specs["first_stage"],
        "network": NETWORK,
        "conditioner": CONDITIONER,
    }
    for name in ("network", "conditioner"):
        parts[name] = instantiate(specs[name])
        own = {
            key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")
        }
        parts[name].load_state_dict(own)
    if options.classifier is not None:
        specs["classifier"] = json.loads(options.classifier.with_suffix(".json").read_text())
        parts["classifier"] = instantiate(specs["classifier"])
        parts["classifier"].load_state_dict(load_file(options.classifier))
    card = (
        options.card.read_text() if options.card else "# Model card\n\nTrained by scripts/train_emotion.py.\n"
    )
    save_bundle(options.out, parts, specs, card, META)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--corpus", type=Path, default=Path("corpora/faces"))
    parser.add_argument("--stage", choices=STAGES, nargs="*", default=["train"])
    parser.add_argument(
        "--minutes", type=float, default=90, help="time for training, interrupted runs included"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="processor threads (0: all)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--guides", type=int, default=1, help="rounds of guides: so many for each picture")
    parser.add_argument("--first-stage", default="default", help="bundle whose first stage is taken over")
    parser.add_argument("--out", type=Path, help="folder of the bundle, for --stage pack")
    parser.add_argument(
        "--classifier", type=Path, help=".safetensors of scripts/train_expert.py, with its .json beside it"
    )
    parser.add_argument("--card", type=Path, help="model card to put into the bundle")
    options = parser.parse_args()
    run_stages(options, {name: globals()[name] for name in STAGES})
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"train_emotion: error: {error}", file=sys.stderr)
        sys.exit(2)
