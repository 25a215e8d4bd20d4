"""Training as a user runs it: a fresh folder, one command, a kill, a resume, exactly the same losses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("pytorch_lightning")

from talkface.fit import main
from talkface.training.diffusion import DiffusionModule

REPOSITORY = Path(__file__).resolve().parents[2]
TALKING = str(REPOSITORY / "conf" / "smoke" / "talking.yaml")
STEPS = 15


def losses(run: Path) -> dict[int, float]:
    """Step -> training loss over all sessions of a run; later sessions overwrite."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[int, float] = {}
    for file in sorted(run.glob("events.*"), key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(file))
        events.Reload()
        if "train/loss" in events.Tags()["scalars"]:
            found |= {event.step: event.value for event in events.Scalars("train/loss")}
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / "runs/smoke_talking/checkpoints/last.ckpt", weights_only=True)
    return checkpoint["current_model_state"] | {
        f"average.{k}": v for k, v in checkpoint["state_dict"].items()
    }


def changed(folder: Path, before: str, after: str) -> str:
    """A copy of the YAML with one text replaced."""
    text = Path(TALKING).read_text()
    assert before in text
    copy = folder / "changed.yaml"
    copy.write_text(text.replace(before, after))
    return str(copy)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run in an empty folder."""
    folder = tmp_path_factory.mktemp("whole")
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["fit", "--config", TALKING, "--trainer.max_steps", str(STEPS)]) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.mark.timeout(600)
def test_killed_and_resumed_equals_uninterrupted(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpora").symlink_to(whole / "corpora")
    command = [
        sys.executable,
        "-m",
        "talkface.fit",
        "fit",
        "--config",
        TALKING,
        "--trainer.max_steps",
        str(STEPS),
    ]
    environment = dict(os.environ, OMP_NUM_THREADS=str(torch.get_num_threads()), CUDA_VISIBLE_DEVICES="")
    last = tmp_path / "runs/smoke_talking/checkpoints/last.ckpt"
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    while not last.is_file() and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, f"ended before the first checkpoint: {log.read_text()[-2000:]}"
    process.kill()
    process.wait()
    stopped_at = torch.load(last, weights_only=True)["global_step"]
    assert 5 <= stopped_at < STEPS

    monkeypatch.chdir(tmp_path)
    arguments = ["--config", TALKING, "--trainer.max_steps", str(STEPS), "--ckpt_path", "last"]
    assert main(["fit", *arguments]) == 0
    expected, got = losses(whole / "runs/smoke_talking"), losses(tmp_path / "runs/smoke_talking")
    assert sorted(expected) == list(range(STEPS))
    assert {step: got[step] for step in range(stopped_at, STEPS)} == {
        step: expected[step] for step in range(stopped_at, STEPS)
    }
    resumed = weights(tmp_path)
    for name, value in weights(whole).items():
        assert torch.equal(value, resumed[name]), name


def test_checkpoint_rebuilds_the_model(whole: Path) -> None:
    path = whole / "runs/smoke_talking/checkpoints/last.ckpt"
    module = DiffusionModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    assert module.network.model_channels == 16 and module.network.image_size == 8
    assert module.conditioner is not None and module.conditioner.conditioners["audio"].window == 4
    assert module.prediction_type == "velocity"
    state = torch.load(path, weights_only=True)["state_dict"]
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_checkpoint_can_be_validated(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(whole)
    arguments = ["validate", "--config", TALKING, "--ckpt_path"]
    assert main([*arguments, "runs/smoke_talking/checkpoints/last.ckpt"]) == 0
    assert "val/loss" in capsys.readouterr().out
    assert main([*arguments, "runs/none.ckpt"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("talkface: error:")]
    assert len(lines) == 1 and "none.ckpt" in lines[0]


def test_first_stage_then_talking(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second training takes the first stage of the first one."""
    (tmp_path / "corpora").symlink_to(whole / "corpora")
    monkeypatch.chdir(tmp_path)
    first = str(REPOSITORY / "conf" / "smoke" / "vqgan.yaml")
    assert (
        main(["fit", "--config", first, "--trainer.max_steps", "2", "--trainer.val_check_interval", "2"]) == 0
    )
    checkpoint = tmp_path / "runs/smoke_vqgan/checkpoints/last.ckpt"
    second = changed(tmp_path, "learning_rate: 1.0e-3", f"first_stage_weights: {checkpoint}")
    assert (
        main(["fit", "--config", second, "--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]) == 0
    )
    trained = torch.load(checkpoint, weights_only=True)["state_dict"]
    used = weights(tmp_path)
    name = "first_stage.encoder.conv_in.weight"
    assert torch.equal(used[name], trained[name]) and torch.equal(used[f"average.{name}"], trained[name])


def test_missing_corpus_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = Path(TALKING).read_text()
    config = changed(tmp_path, text[text.index("    synthetic:") :], "    preparation: data_prep/mead.py")
    assert main(["fit", "--config", config]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("talkface: error:")]
    assert len(lines) == 1 and "corpora/smoke does not exist; make it with: data_prep/mead.py" in lines[0]
