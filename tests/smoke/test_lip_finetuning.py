"""Finetuning with a lip reader as a user runs it: one command, losses that fall, a checkpoint that says who guided."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("pytorch_lightning")

from talkface.checkpoint import instantiate
from talkface.data.base import Corpus
from talkface.experts.registry import fingerprint
from talkface.fit import main
from talkface.training.lip_finetune import LipFinetuneModule

SMOKE = Path(__file__).resolve().parents[2] / "conf" / "smoke" / "lipread_finetune.yaml"
STEPS = 16


def scalars(run: Path, name: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next(run.glob("events.*"))))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one batch, at one time, in an empty folder."""
    folder = tmp_path_factory.mktemp("lips")
    here = Path.cwd()
    os.chdir(folder)
    options = {"trainer.max_steps": STEPS, "trainer.overfit_batches": 1, "model.init_args.timesteps": "[700]"}
    options |= {"trainer.val_check_interval": 1, "trainer.check_val_every_n_epoch": 8}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    try:
        assert main(["fit", "--config", str(SMOKE), *arguments]) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.mark.timeout(600)
def test_the_terms_fall_on_one_batch(trained: Path) -> None:
    run = trained / "runs/smoke_lipread_finetune"
    # pixels of an untrained decoder, and a reader that knows nothing, tell little
    for name in ("loss", "latent"):
        values = scalars(run, f"train/{name}")
        assert len(values) == STEPS and all(value == value for value in values)
        assert sum(values[-4:]) < 0.9 * sum(values[:4]), name
    assert all(len(scalars(run, f"train/{name}")) == STEPS for name in ("reading", "pixel", "temporal"))


def test_the_checkpoint_holds_the_model_and_names_its_guide(trained: Path) -> None:
    path = trained / "runs/smoke_lipread_finetune/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert {name.partition(".")[0] for name in checkpoint["state_dict"]} == {
        "network",
        "first_stage",
        "conditioner",
    }
    assert len(checkpoint["guided_by"]) == 1
    module = LipFinetuneModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    assert module.tune_steps == 3 and module.network.model_channels == 16
    reader = module.objective.experts["reader"]
    assert fingerprint(reader) != checkpoint["guided_by"][0]  # an untrained reader is another one each time


def test_a_clip_without_landmarks_is_one_line(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    read = Corpus.read_truth

    def without(self, clip, names=None):
        truth = read(self, clip, names)
        return {**truth, "landmarks": truth["landmarks"] * float("nan")}

    monkeypatch.setattr(Corpus, "read_truth", without)
    assert main(["fit", "--config", str(SMOKE), "--trainer.max_steps", "1"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("talkface: error:")]
    assert len(lines) == 1 and "has no landmarks in frame" in lines[0] and "clip p0" in lines[0]


def test_a_loss_that_is_no_number_stops(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    arguments = ["--trainer.max_steps", "3", "--model.init_args.latent_weight", ".nan"]
    assert main(["fit", "--config", str(SMOKE), *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("talkface: error:")]
    assert len(lines) == 1 and "the loss is nan in batch 0 (clips p0" in lines[0]


def test_more_solver_steps_than_timesteps_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(SMOKE), "--model.init_args.timesteps", "[2, 900]"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("talkface: error:")]
    assert len(lines) == 1 and "tune_steps: 3 for latents noised to t = 2; allowed: 1 to 2" in lines[0]


def test_adapters_alone_are_trained(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.chdir(trained)
    options = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "0"]
    folder = trained / "lora"
    config = yaml.safe_load(SMOKE.read_text())
    config["model"]["init_args"]["lora_rank"] = 2
    config["trainer"]["callbacks"] = [
        {
            "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": str(folder), "save_last": True, "every_n_train_steps": 1},
        }
    ]
    path = trained / "lora.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(path), *options]) == 0
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    adapters = {name: value for name, value in checkpoint["state_dict"].items() if ".lora_" in name}
    group = checkpoint["optimizer_states"][0]["param_groups"][0]
    assert len(adapters) == len(group["params"]) > 10
    assert any(float(value.abs().max()) > 0 for name, value in adapters.items() if ".lora_B." in name)


def test_a_frame_rate_that_the_reader_does_not_know_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    config = yaml.safe_load(SMOKE.read_text())
    config["data"]["init_args"].pop("synthetic")
    assert instantiate(config["model"]["init_args"]["objective"]["init_args"]["reader"]).fps == 25
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(Corpus, "fps", property(lambda self: 30.0))
    assert main(["fit", "--config", str(tmp_path / "other.yaml"), "--trainer.max_steps", "1"]) == 2
    assert "fps of the data: 30; allowed: 25" in capsys.readouterr().err
