"""What helps lips? The default bundle trained on, one change each: the same start, as many steps, the same seeds.

    python scripts/ablate_talking.py --work runs/ablation --corpus runs/bundle/corpus --talk-corpus corpora/talk25 \
        --sync sync16.safetensors --judge sync5.safetensors --films FOLDER --task face_landmarker.task \
        --lpips-backbone vgg16.safetensors --judge-backbone alexnet.safetensors

Every row continues the recipe's last stage (scripts/train_bundle.py, `one_step`) from the same bundle; `ROWS` says what
it changes. A control row trains for `--minutes` or `--steps`, whichever is over first; its rows then take as many steps
as it did. Judged on people and films that no row was trained on (see ablation_judges.py). What a stage has finished is
not done again, so the command can be stopped and given once more, or with more `--rows`.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from ablation_judges import judge_films, judge_sequences, tables
from bundle_data import Latents, draw_pairs, encoded_pairs, masked_window, spoken_pairs, window_pixels
from finetune_lips import Few
from lip_data import Sequences, draw_sequences
from measuring import positive, run, save
from torch import nn
from torch.utils.data import DataLoader, Subset

from talkface import TalkingFacePipeline
from talkface.checkpoint import Bundle, instantiate, load_bundle, save_bundle
from talkface.data.base import Corpus
from talkface.diffusion.timesteps import uniform_timesteps
from talkface.errors import TalkfaceError
from talkface.experts.registry import load_expert
from talkface.experts.vision import LPIPS
from talkface.training.callbacks import EMAWeights
from talkface.training.diffusion import DiffusionModule
from talkface.training.lip_finetune import LipFinetuneModule
from talkface.training.lip_objective import LipObjective
from talkface.training.one_step import OneStepModule
from talkface.training.start import step_generator

START, SEQUENCES = "start", "sequences"
DATA: dict[str, dict[str, Any]] = {
    "recipe": {},
    "pose": {"reference": "pose"},
    "shared": {"independent_jitter": False},
}
"""Sets of pairs, the same target frames in each: options of `TalkingDataset` that differ from the recipe's."""


@dataclass(frozen=True)
class Row:
    """What a row changes.

    Attributes:
        says: in words. control: the row it is compared with.
        data: a name in `DATA`, or `SEQUENCES`: 16 consecutive frames a step instead of `--batch-size` pairs.
        audio_drop: drop rate of the sound; None: the bundle's.
        sync_weight: of the sync loss, for sequences.
        seed: of the order, of noise, and of what is dropped.
    """

    says: str
    control: str = "control"
    data: str = "recipe"
    audio_drop: float | None = None
    sync_weight: float = 0.0
    seed: int = 7


ROWS = {
    "control": Row("the recipe, continued"),
    "drop": Row("sound dropped for 20 % instead of 10 %", audio_drop=0.2),
    "pose": Row("reference of the same pose with another mouth", data="pose"),
    "shared": Row("one jitter for both crops instead of one each", data="shared"),
    "again": Row("the recipe, another seed", seed=8),
    SEQUENCES: Row("the recipe on sequences of 16 frames", SEQUENCES, SEQUENCES),
    "sync": Row("sync expert of 16 frames, weight 0.05", SEQUENCES, SEQUENCES, sync_weight=0.05),
}


def draw(options: argparse.Namespace) -> None:
    """The sets of pairs and of sequences that the rows ask for, and the sequences that are judged."""
    stage = load_bundle(options.bundle, parts=["first_stage"]).part("first_stage")
    wanted = {ROWS[name].data for name in options.rows}
    for name in [name for name in DATA if name in wanted]:
        folder = options.work / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "corpus").exists():
            (folder / "corpus").symlink_to(options.corpus.resolve())
        draw_pairs(folder, 1, 0, options.clips, **DATA[name])
        encoded_pairs(folder, stage, "cpu")
    splits = {"train": options.clips if SEQUENCES in wanted else 0, "test": options.judged_clips}
    for split, most in splits.items():
        folder, corpus = options.work / "sequences" / split, Corpus(options.talk_corpus, split)
        corpus = corpus.subset(corpus.clips[:most])
        if most and not finished(folder, len(corpus)):
            pipeline = TalkingFacePipeline.from_pretrained(options.bundle, device="cpu")
            draw_sequences(corpus, pipeline, folder, 16, 1, 3600.0, 5)


def finished(folder: Path, count: int) -> bool:
    """Whether at least `count` sequences were drawn there."""
    progress = folder / "progress.json"
    return progress.is_file() and json.loads(progress.read_text())["done"] >= count


def train(options: argparse.Namespace) -> None:
    """One row after the other, each in a folder of its own; a bundle and `row.json` are what it leaves."""
    for name in options.rows:
        if not (options.work / "rows" / name / "row.json").is_file():
            train_row(options, name)


def train_row(options: argparse.Namespace, name: str) -> None:
    """Raises: TalkfaceError: a row whose control was not trained."""
    row, folder = ROWS[name], options.work / "rows" / name
    steps = options.steps
    if name != row.control:
        control = options.work / "rows" / row.control / "row.json"
        if not control.is_file():
            raise TalkfaceError(f"--rows: {name} without {row.control}, its control; name that one before it")
        steps = json.loads(control.read_text())["steps"]
    started = time.process_time()
    pl.seed_everything(row.seed, verbose=False)
    bundle = load_bundle(options.bundle)
    specs = copy.deepcopy(bundle.specs)
    if row.audio_drop is not None:
        specs["conditioner"]["init_args"]["conditioners"]["audio"]["init_args"]["drop_rate"] = row.audio_drop
    parts = dict(bundle.parts)
    parts["conditioner"] = instantiate(specs["conditioner"])
    parts["conditioner"].load_state_dict(bundle.part("conditioner").state_dict())
    learning = {part: parts[part].train().requires_grad_(True) for part in ("network", "conditioner")}
    begun = digest(learning)
    module, data, count = lesson(options, row, bundle, parts)
    order = torch.cat([torch.randperm(len(data), generator=step_generator(row.seed, n)) for n in range(99)])
    loader = DataLoader(Subset(data, order[: options.steps * count].tolist()), batch_size=count)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        precision="bf16-mixed",
        max_steps=steps,
        max_epochs=1,
        max_time=timedelta(minutes=options.minutes) if name == row.control else None,
        gradient_clip_val=1.0,
        callbacks=[EMAWeights(0.98)],
        logger=False,  # it would write the perceptual network out as text, for a minute
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "bundle", ignore_errors=True)
    guided = module.objective.guided_by if isinstance(module, LipFinetuneModule) else []
    meta = bundle.meta | {"guided_by": [*bundle.meta.get("guided_by", []), *guided]}
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    save_bundle(folder / "bundle", {name: part.eval() for name, part in parts.items()}, specs, card, meta)
    told = {
        **asdict(row),
        "steps": trainer.global_step,
        "samples": count,
        "drop_rates": parts["conditioner"].drop_rates,
        "start": begun,
        "end": digest(learning),
        "seconds": round(time.process_time() - started, 1),
    }
    (folder / "row.json").write_text(json.dumps(told, indent=1))
    print(f"{name}: {trainer.global_step} steps, {told['seconds']} s of processor time", flush=True)


def digest(parts: dict[str, nn.Module]) -> str:
    """A name for weights: the same only for the same."""
    made = hashlib.sha256()
    for part in parts.values():
        for key, value in sorted(part.state_dict().items()):
            made.update(key.encode() + value.detach().float().numpy().tobytes())
    return made.hexdigest()[:16]


def lesson(
    options: argparse.Namespace, row: Row, bundle: Bundle, parts: dict[str, nn.Module]
) -> tuple[DiffusionModule, Latents | Sequences, int]:
    """The module that trains a row, what it is trained on, and how many items of that a step takes."""
    perceptual = LPIPS("vgg", options.lpips_backbone) if options.lpips_backbone else None
    shared: dict[str, Any] = {
        "prediction_type": str(bundle.value("prediction_type")),
        "timesteps": uniform_timesteps(1, spacing="trailing").tolist(),
        "learning_rate": options.learning_rate,
        "betas": (0.9, 0.99),
        "warmup_steps": 10,
        "seed": row.seed,
    }
    network, conditioner, stage = (parts[name] for name in ("network", "conditioner", "first_stage"))
    schedule = bundle.build("schedule")
    module: DiffusionModule
    if row.data != SEQUENCES:
        folder = options.work / "data" / row.data
        stored = spoken_pairs(folder, stage, bundle.part("speech"), "cpu")
        pairs = Latents(stored | window_pixels(folder, masked_window()))
        module = OneStepModule(
            network,
            stage,
            schedule,
            conditioner,
            perceptual=Few(perceptual, options.batch_size) if perceptual else None,
            window=masked_window(),
            region_weight=8.0,
            **shared,
        )
        return module, pairs, options.batch_size
    objective = LipObjective(
        None,
        load_expert(options.sync) if row.sync_weight else None,
        Few(perceptual, 16) if perceptual else None,
        pixel=1.0,
        perceptual_weight=0.5,
        sync_weight=row.sync_weight,
    )
    module = LipFinetuneModule(
        objective=objective,
        network=network,
        first_stage=stage,
        schedule=schedule,
        conditioner=conditioner,
        tune_steps=1,
        shared_noise=True,
        over_guide=True,
        window=masked_window(),
        latent_weight=0.1,
        checkpointing=False,
        **shared,
    )
    return module, Sequences(options.work / "sequences" / "train", stage, options.clips), 1


def judge(options: argparse.Namespace) -> None:
    """What the judges say of the start and of every row that is trained."""
    trained = [name for name in options.rows if (options.work / "rows" / name / "row.json").is_file()]
    folders = {name: str(options.work / "rows" / name / "bundle") for name in trained}
    folders[START] = options.bundle
    perceptual = LPIPS("alex", options.judge_backbone) if options.judge_backbone else None
    judge_sequences(options.work, folders, options.judge, perceptual)
    if options.films:
        judge_films(options.work, folders, options.films, options.task, perceptual)


def table(options: argparse.Namespace) -> None:
    """All rows that are judged, and what each differs from its control by."""
    names = [START, *(name for name in options.rows if name in ROWS)]
    says = {START: "the bundle as it was"} | {name: row.says for name, row in ROWS.items()}
    controls = {name: ROWS[name].control for name in options.rows if ROWS[name].control != name}
    text, results = tables(options.work, names, says, {START: "control"} | controls)
    save(options.work, "ablation", text, results)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add(
        "--work",
        type=Path,
        required=True,
        help="folder of everything in between; the table is WORK/ablation.md",
    )
    add("--corpus", type=Path, required=True, help="what the bundle was trained on (train_bundle.py)")
    add("--talk-corpus", type=Path, required=True, help="synthetic corpus of 25 frames a second")
    add("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    stages = {"draw": draw, "train": train, "judge": judge, "table": table}
    add("--stage", nargs="+", choices=list(stages), default=list(stages))
    add("--bundle", default="default", help="the common start")
    add("--steps", type=positive, default=60, help="a control row trains for so many steps at most")
    add("--minutes", type=float, default=6, help="and for no longer than this")
    add("--batch-size", type=positive, default=8, help="pairs")
    add("--learning-rate", type=float, default=2e-4)
    add("--clips", type=positive, default=240, help="of each corpus are trained on, once each")
    add(
        "--judged-clips",
        type=positive,
        default=16,
        help="held-out clips of the second corpus that are judged",
    )
    add("--sync", type=Path, help="the sync expert that guides a row")
    add("--judge", type=Path, required=True, help="the sync expert that judges, another one")
    add("--films", type=Path, help="folder of real films that are judged, too")
    add("--task", type=Path, help="MediaPipe's face_landmarker.task, for these")
    add("--lpips-backbone", type=Path, help="VGG-16 weights, for training; without them only pixels count")
    add("--judge-backbone", type=Path, help="AlexNet weights, for judging; without them there is no LPIPS")
    options = parser.parse_args(argv)
    if any(ROWS[name].sync_weight for name in options.rows) and options.sync is None:
        raise TalkfaceError(
            "--sync: none; allowed: the .safetensors of a sync expert of 16 frames, or leave out row sync"
        )
    if options.films and options.task is None:
        raise TalkfaceError("--task: none; allowed: MediaPipe's face_landmarker.task, which judges --films")
    torch.set_num_threads(1)
    for stage in options.stage:
        stages[stage](options)
    return 0


if __name__ == "__main__":
    run("ablate_talking", main)
