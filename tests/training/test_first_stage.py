"""The first-stage module learns, starts its adversary when told, counts a step once, whitens latents."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from talkface.errors import TalkfaceError
from talkface.losses.first_stage import FirstStageLoss
from talkface.networks.vqgan import PatchDiscriminator
from talkface.training.first_stage import FirstStageModule


class Recorder(pl.Callback):
    """What was logged after every batch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def train(
    module: FirstStageModule, tiny: SimpleNamespace, steps: int, **options: Any
) -> tuple[pl.Trainer, Recorder]:
    recorder = Recorder()
    trainer = pl.Trainer(
        max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        accelerator="cpu", enable_model_summary=False, callbacks=[recorder], num_sanity_val_steps=0,
        **options,
    )  # fmt: skip
    trainer.fit(module, tiny.loader(8), tiny.loader(8))
    return trainer, recorder


def test_reconstruction_improves_and_steps_count_once(tiny: SimpleNamespace) -> None:
    torch.manual_seed(0)
    module = FirstStageModule(
        tiny.vqgan(),
        FirstStageLoss(adversarial_start=6),
        PatchDiscriminator(channels=8, num_layers=2),
        learning_rate=2e-3,
    )
    before = {name: value.clone() for name, value in module.discriminator.state_dict().items()}
    trainer, recorder = train(module, tiny, 24)
    assert trainer.global_step == 24 == len(recorder.rows)
    losses = [row["train/pixel"] for row in recorder.rows]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert all("train/discriminator" not in row for row in recorder.rows[:6])
    assert recorder.rows[-1]["train/discriminator"] > 0 and recorder.rows[-1]["train/adversarial_weight"] > 0
    assert any(
        not torch.equal(value, before[name]) for name, value in module.discriminator.state_dict().items()
    )
    assert 1 <= recorder.rows[0]["codebook/perplexity"] <= 32
    assert recorder.rows[-1]["val/psnr"] > 3


def test_latents_are_whitened_on_request(tiny: SimpleNamespace) -> None:
    module = FirstStageModule(tiny.vqgan(), FirstStageLoss(), normalize_latents=True)
    train(module, tiny, 3)
    images = torch.cat([batch["images"] for batch in tiny.loader(8)])
    latents = module.first_stage.eval().encode(images).detach()
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(3), atol=0.01)


def test_half_precision_with_scaling_is_refused(tiny: SimpleNamespace, tmp_path: Path) -> None:
    module = FirstStageModule(tiny.vqgan(), FirstStageLoss())
    trainer: Any = SimpleNamespace(precision="16-mixed")
    module._trainer = trainer
    with pytest.raises(TalkfaceError, match="precision: 16-mixed"):
        module.on_fit_start()
