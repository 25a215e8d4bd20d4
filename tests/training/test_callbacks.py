"""Averages follow their formula, pictures and films arrive in TensorBoard, seeds depend on the step only."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from talkface.losses.first_stage import FirstStageLoss
from talkface.training.callbacks import EMAWeights, ReconstructionGrid, SampleGrid, SeedEveryStep, ema_weight
from talkface.training.first_stage import FirstStageModule


def make_trainer(folder: Path, callbacks: list[pl.Callback], steps: int, log: bool = False) -> pl.Trainer:
    return pl.Trainer(
        max_steps=steps, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=1, val_check_interval=1,
        callbacks=callbacks,
        logger=TensorBoardLogger(folder, name="", version="") if log else False,
    )  # fmt: skip


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_warm_up_of_the_average() -> None:
    assert ema_weight(0, 0.9999) == pytest.approx(0.1)
    assert ema_weight(90, 0.9999) == pytest.approx(0.91)
    assert ema_weight(10**6, 0.9999) == 0.9999


def test_average_follows_the_formula(tiny: SimpleNamespace, tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
            seen.append(pl_module.network.out[2].weight.detach().clone())

    module = tiny.talking(learning_rate=0.01)
    make_trainer(tmp_path, [Watch(), EMAWeights(0.15)], 4).fit(module, tiny.loader())
    expected = seen[0]
    for number, weights in enumerate(seen[1:], start=1):
        keep = min(0.15, (1 + number) / (10 + number))
        expected = keep * expected + (1 - keep) * weights
    assert torch.allclose(module.network.out[2].weight, expected, atol=1e-6)
    assert not torch.allclose(expected, seen[-1], atol=1e-5)


def test_samples_and_film_are_logged(tiny: SimpleNamespace, tmp_path: Path) -> None:
    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> Any:
            return tiny.loader()

        val_dataloader = train_dataloader

        def film_batch(self, num_frames: int) -> dict[str, torch.Tensor]:
            return {name: value[:num_frames] for name, value in next(iter(tiny.loader(8))).items()}

    grid = SampleGrid(num_images=3, num_inference_steps=2, scales={"audio": 2.0}, film_frames=5)
    make_trainer(tmp_path, [grid], 2, log=True).fit(tiny.talking(), datamodule=Data())
    found = events(tmp_path)
    assert {"samples", "film"} <= set(found.Tags()["images"])
    picture = Image.open(io.BytesIO(found.Images("samples")[0].encoded_image_string))
    assert picture.size == (3 * tiny.size, 4 * tiny.size)
    film = Image.open(io.BytesIO(found.Images("film")[0].encoded_image_string))
    assert film.format == "GIF" and film.n_frames == 5 and film.size == (2 * tiny.size, tiny.size)


def test_reconstructions_are_logged(tiny: SimpleNamespace, tmp_path: Path) -> None:
    module = FirstStageModule(tiny.vqgan(), FirstStageLoss())
    make_trainer(tmp_path, [ReconstructionGrid(2)], 1, log=True).fit(module, tiny.loader(), tiny.loader())
    picture = Image.open(io.BytesIO(events(tmp_path).Images("reconstruction")[0].encoded_image_string))
    assert picture.size == (2 * tiny.size, 2 * tiny.size)


def test_seed_depends_on_the_batch_number_only() -> None:
    def draw(number: int, before: int) -> torch.Tensor:
        torch.rand(before)
        trainer: Any = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=number), global_rank=0)
        module: Any = None  # not looked at
        SeedEveryStep(1).on_train_batch_start(trainer, module, None, 0)
        return torch.rand(2)

    assert torch.equal(draw(3, 1), draw(3, 5))
    assert not torch.equal(draw(3, 1), draw(4, 1))
