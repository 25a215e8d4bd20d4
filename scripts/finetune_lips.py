"""Finetune the default bundle with a lip reader: its one step is decoded, laid over the guide (or not), and read.

    python scripts/finetune_lips.py --corpus corpora/synth --work runs/lips --reader reader0.safetensors --minutes 20

Draws sequences of the training split (stage `sequences`), trains network and conditioner (`tune`), and writes a bundle
whose meta names the experts that guided it (`pack`). With `--guide none` the network is told no guide and paints by
the sound alone, as the paper's does, and so does the bundle. Every stage goes on where it stopped; the corpus has 25
frames a second. Judge the result with another reader: scripts/evaluate_lips.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from bundle_data import masked_window
from lip_data import Sequences, draw_sequences
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from talkface import TalkingFacePipeline
from talkface.arguments import number
from talkface.checkpoint import instantiate, load_bundle, save_bundle
from talkface.data.base import Corpus
from talkface.diffusion.timesteps import uniform_timesteps
from talkface.errors import TalkfaceError
from talkface.experts.registry import load_expert
from talkface.experts.vision import LPIPS
from talkface.training.callbacks import EMAWeights
from talkface.training.lip_finetune import LipFinetuneModule
from talkface.training.lip_objective import LipObjective
from talkface.training.start import step_generator

STAGES = ("sequences", "tune", "pack")


class Few(nn.Module):
    """A perceptual distance of every n-th picture: the costliest term, at a fraction of its price."""

    def __init__(self, distance: nn.Module, every: int) -> None:
        super().__init__()
        self.distance, self.every = distance, every

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return self.distance(images[:: self.every], others[:: self.every])


def sequences(options: argparse.Namespace) -> None:
    """Sequences of people who speak, with their guides."""
    pipeline = TalkingFacePipeline.from_pretrained(options.bundle, device="cpu")
    corpus = Corpus(options.corpus, "train")
    seconds = 60 * options.draw_minutes
    draw_sequences(
        corpus,
        pipeline,
        options.work / "train",
        options.frames,
        options.rounds,
        seconds,
        options.seed,
        options.other_voices,
    )


def tune(options: argparse.Namespace) -> None:
    """The sampler's only step, judged by the reader and by its pixels."""
    bundle = load_bundle(options.bundle)
    data = Sequences(options.sequences or options.work / "train", bundle.part("first_stage"), options.most)
    network, conditioner = bundle.part("network"), bundle.part("conditioner")
    for part in (network, conditioner):
        part.requires_grad_(True)
    if "guide" not in conditioner.conditioners:
        raise TalkfaceError(f"--bundle: {options.bundle} is told no guide; give one that is, such as default")
    if options.guide == "none":
        conditioner.conditioners["guide"].drop_rate = 1.0
    perceptual = Few(LPIPS("vgg", options.lpips_backbone), 16) if options.perceptual else None
    objective = LipObjective(
        load_expert(options.reader),
        None if options.sync is None else load_expert(options.sync),
        perceptual,
        features=options.features,
        reading=options.reading,
        pixel=options.pixel,
        perceptual_weight=options.perceptual,
        temporal=options.temporal,
        sync_weight=options.sync_weight,
    )
    module = LipFinetuneModule(
        objective=objective,
        network=network,
        first_stage=bundle.part("first_stage"),
        schedule=bundle.build("schedule"),
        conditioner=conditioner,
        prediction_type=str(bundle.value("prediction_type")),
        timesteps=uniform_timesteps(1, spacing="trailing").tolist(),
        tune_steps=1,
        shared_noise=True,
        over_guide=True,
        window=masked_window(),
        latent_weight=options.latent,
        checkpointing=False,
        learning_rate=options.learning_rate,
        betas=(0.9, 0.99),
        warmup_steps=20,
        seed=options.seed,
    )
    if options.reading:
        objective.weights["reading"] *= balance(module, data)
        print(f"weight of the reader: {objective.weights['reading']:.3f}", flush=True)
    checkpoints = ModelCheckpoint(
        dirpath=options.work / "tune",
        save_last=True,
        every_n_train_steps=25,
        save_top_k=0,
        save_on_exception=True,
        enable_version_counter=False,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        precision="bf16-mixed",
        max_time=timedelta(minutes=options.minutes),
        max_epochs=-1,
        gradient_clip_val=1.0,
        callbacks=[checkpoints, EMAWeights(0.99)],
        logger=CSVLogger(options.work / "tune", name="log", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=5,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    last = options.work / "tune" / "last.ckpt"
    loader = DataLoader(data, batch_size=options.batch_size, shuffle=True, drop_last=True)
    trainer.fit(module, loader, ckpt_path=str(last) if last.is_file() else None)
    kept = {name: getattr(module, name).state_dict() for name in ("network", "conditioner")}
    torch.save(kept | {"guided_by": objective.guided_by}, options.work / "tuned.pt")


@torch.no_grad()
def balance(module: LipFinetuneModule, data: Sequences, count: int = 8) -> float:
    """How much larger the term of pixels is than the reader's, whose scale is its own, before training."""
    sums = {"pixel": 0.0, "reading": 1e-9}
    for place in range(min(count, len(data))):
        batch = {name: value[None] for name, value in data[place].items()}
        clean, inputs, drops = module.tune(batch, step_generator(0, place), drop=True)
        shown, true = module.shown(clean, inputs, drops), module.window.cut(inputs["target"])
        film = module.window.paste(shown, inputs["target"])
        terms = module.objective.terms(film[None], shown[None], true[None], batch)
        sums = {name: value + float(terms[name]) for name, value in sums.items()}
    return sums["pixel"] / sums["reading"]


def pack(options: argparse.Namespace) -> None:
    """The bundle with the finetuned parts in place."""
    bundle = load_bundle(options.bundle)
    tuned = torch.load(options.work / "tuned.pt", weights_only=True)
    parts = dict(bundle.parts)
    for name in ("network", "conditioner"):
        parts[name] = instantiate(bundle.specs[name]).eval()
        parts[name].load_state_dict(tuned[name])
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    meta = bundle.meta | {"guided_by": [*bundle.meta.get("guided_by", []), *tuned["guided_by"]]}
    if options.guide == "none":
        meta["guide"] = "none"
    save_bundle(options.work / "bundle", parts, bundle.specs, card, meta)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="synthetic corpus of 25 frames a second")
    add("--work", type=Path, required=True, help="folder of everything in between; the bundle is WORK/bundle")
    add("--stage", choices=STAGES, nargs="*", default=STAGES)
    add("--bundle", default="default", help="what is finetuned")
    add("--guide", default="refined", choices=("refined", "none"), help="none: the paper's way, sound alone")
    add("--reader", type=Path, help="the lip reader that guides (scripts/train_expert.py lips)")
    add("--sync", type=Path, help="a sync expert that guides too")
    add("--lpips-backbone", type=Path, help="VGG-16 weights; without it torchvision's are used")
    add("--minutes", type=float, default=20, help="time for training")
    add("--draw-minutes", type=float, default=10, help="time for drawing sequences")
    add("--sequences", type=Path, help="folder of sequences that another run drew; default: WORK/train")
    add("--most", type=int, default=10**6, help="of these sequences are used")
    add("--rounds", type=int, default=2, help="sequences of each clip")
    add("--frames", type=int, default=16, help="of a sequence")
    add(
        "--other-voices",
        type=number(0, 1),
        default=0.0,
        help="share of the sounds that are said from another throat (pyworld)",
    )
    add("--batch-size", type=int, default=1, help="sequences")
    add("--features", default="frames", choices=("frames", "sequence"))
    add(
        "--reading",
        type=float,
        default=1.0,
        help="the reader's cosine distance, in times the term of pixels at the start",
    )
    add("--latent", type=float, default=0.1, help="weight of the squared error of the latents")
    add("--pixel", type=float, default=1.0, help="weight of the absolute difference of pixels")
    add("--perceptual", type=float, default=0.5, help="weight of LPIPS; 0: none")
    add("--temporal", type=float, default=0.5, help="weight of the difference of changes")
    add("--sync-weight", type=float, default=0.05)
    add("--learning-rate", type=float, default=2e-4)
    add("--seed", type=int, default=7)
    options = parser.parse_args()
    if "tune" in options.stage and options.reader is None:
        raise TalkfaceError("--reader: none; allowed: the .safetensors of a lip reader that guides")
    pl.seed_everything(options.seed)
    for stage in options.stage:
        started = time.monotonic()
        globals()[stage](options)
        print(f"{stage}: {(time.monotonic() - started) / 60:.1f} min", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"finetune_lips: error: {error}", file=sys.stderr)
        sys.exit(2)
