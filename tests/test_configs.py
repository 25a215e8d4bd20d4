"""Every YAML under conf/ parses and builds; mistakes stop with one line; shared values reach the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("pytorch_lightning")
pytest.importorskip("jsonargparse")

from talkface.checkpoint import instantiate
from talkface.errors import TalkfaceError
from talkface.fit import build, main, shorten

CONF = Path(__file__).resolve().parent.parent / "conf"
ALL = sorted(CONF.rglob("*.yaml"))
RUNS = [path for path in ALL if path.parent.name not in ("data", "network", "solver")]
PAPER = [path for path in RUNS if path.stem == "talking_mead" or path.parent.name == "talking_mead"]


def name(path: Path) -> str:
    return str(path.relative_to(CONF))


def without_downloads(path: Path, folder: Path) -> Path:
    """A copy of the YAML in which random numbers replace what a hub or a cache would give."""
    config = yaml.safe_load(path.read_text())
    if "vision.LPIPS" in path.read_text():
        torchvision = pytest.importorskip("torchvision")
        weights = folder / "vgg16.pth"
        if not weights.is_file():
            state = torchvision.models.vgg16(weights=None).features.state_dict()
            torch.save({f"features.{key}": value for key, value in state.items()}, weights)
        perceptual = config["model"]["init_args"]["loss"]["init_args"]["perceptual"]
        perceptual["init_args"]["backbone"] = str(weights)
    objective = config["model"]["init_args"].get("objective")
    if objective is not None and "experts/" in str(objective["init_args"]["reader"]):
        # a reader that is not at hand: the same parts, small
        objective["init_args"]["reader"] = {
            "class_path": "talkface.experts.lipreading.LipReader",
            "init_args": {"vocabulary": ["<blank>", "a"], "channels": 4, "dim": 16, "heads": 2, "layers": 1},
        }
    if "encoder" in config["data"]["init_args"]:
        # built for real in `test_sound_encoders_fit`; the meta device has no numbers to compute filters from
        config["data"]["init_args"]["encoder"] = None
    if "ClipGuide" in path.read_text():
        model = config["model"]["init_args"]
        own = "talkface.experts"
        words = {"class_path": f"{own}.clip.FaceCLIP", "init_args": {"vocabulary": ["face"]}}
        model["guide"]["init_args"] |= {
            "clip": words,
            "recogniser": {"class_path": f"{own}.recognition.FaceEmbedder"},
        }
        model["judge"] = {"class_path": f"{own}.emotion.EmotionNetwork"}
    copy = folder / path.name
    copy.write_text(yaml.safe_dump(config))
    return copy


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def build_without_memory(path: Path, folder: Path) -> Any:
    """Build everything a YAML names; parameters take no memory (meta device)."""
    with torch.device("meta"):
        return build(["--config", str(without_downloads(path, folder))], run=False)


def test_the_sweep_sees_all_files() -> None:
    assert len(RUNS) >= 15 and len(PAPER) == 10
    assert {path.parent.name for path in ALL} == {
        "conf",
        "data",
        "network",
        "smoke",
        "solver",
        "synth",
        "talking_mead",
    }


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_builds(path: Path, weights_folder: Path) -> None:
    assert path.read_text().startswith(f"# talkface fit --config conf/{name(path)}\n")
    cli = build_without_memory(path, weights_folder)
    module, data = cli.model, cli.datamodule
    batch_image = 128 if "smoke" not in path.parts else 32
    first_stage = module.first_stage
    assert first_stage.image_size == batch_image
    if hasattr(module, "network"):
        assert module.network.image_size == batch_image // first_stage.downsample_factor
        if "frames" in module.conditioner.conditioners:
            assert module.conditioner.conditioners["frames"].latent_size == module.network.image_size
        if "audio" in module.conditioner.conditioners:
            assert module.conditioner.conditioners["audio"].window == data.window
    if cli.trainer.logger is not None:
        checkpoints = [c for c in cli.trainer.callbacks if type(c).__name__ == "ModelCheckpoint"]
        assert all(one.dirpath.endswith("checkpoints") for one in checkpoints)
        # whatever is best, an interrupted run goes on from its last checkpoint
        assert any((one.save_last or one.filename == "last") and one.monitor is None for one in checkpoints)


@pytest.mark.parametrize("path", [p for p in RUNS if "LogMelEncoder" in p.read_text()], ids=name)
def test_sound_encoders_fit(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    encoder = instantiate(config["data"]["init_args"]["encoder"])
    audio = config["model"]["init_args"]["conditioner"]["init_args"]["conditioners"]["audio"]
    assert audio["init_args"]["feature_dim"] == encoder.feature_dim


@pytest.mark.parametrize("path", [p for p in ALL if p not in RUNS and p.parent.name != "data"], ids=name)
def test_single_objects_build(path: Path) -> None:
    with torch.device("meta"):
        made = instantiate(yaml.safe_load(path.read_text()))
    assert type(made).__name__ in ("UNet", "VQGAN", "DDIM", "PLMS", "DPMSolverPP")


@pytest.mark.parametrize("path", [p for p in ALL if p.parent.name == "data"], ids=name)
def test_data_modules_build(path: Path, tmp_path: Path) -> None:
    """Each takes the place of the data of a whole configuration, and its values reach the model."""
    told = yaml.safe_load(path.read_text())
    config = yaml.safe_load((CONF / "smoke" / "vqgan.yaml").read_text()) | {"data": told}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    with torch.device("meta"):
        cli = build(["--config", str(tmp_path / "run.yaml")], run=False)
    assert type(cli.datamodule).__name__ == told["class_path"].rpartition(".")[2]
    assert cli.datamodule.corpus == told["init_args"]["corpus"]
    assert cli.model.first_stage.image_size == told["init_args"]["image_size"]
    assert cli.datamodule.synthetic is None
    cli.datamodule.corpus = str(tmp_path / "none")
    with pytest.raises(TalkfaceError, match="does not exist; make it with"):
        cli.datamodule.prepare_data()


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_numbers_of_the_thesis(weights_folder: Path) -> None:
    cli = build_without_memory(CONF / "talking_mead.yaml", weights_folder)
    assert count(cli.model.network) == 163_158_883
    assert count(cli.model.first_stage) == 60_605_598
    assert count(cli.model.conditioner.conditioners["audio"]) == 483_091
    assert count(cli.model.conditioner.conditioners["emotion"]) == 2_304
    assert (
        cli.model.learning_rate == 3.2e-5
        and cli.datamodule.batch_size == 32
        and cli.trainer.max_epochs == 250
    )


def test_numbers_of_the_emotion_model(weights_folder: Path) -> None:
    """arXiv 2308.03183 and thesis chapter 4: sizes, optimizer, schedule, drops, averaging."""
    first = build_without_memory(CONF / "vqgan_affectnet.yaml", weights_folder)
    cli = build_without_memory(CONF / "ldm_affectnet.yaml", weights_folder)
    assert count(first.model.first_stage) == count(cli.model.first_stage) == 60_605_598
    assert first.model.learning_rate == pytest.approx(3.6e-5) and first.datamodule.batch_size == 8
    assert first.trainer.max_epochs == 6
    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    assert count(model.network) == 156_760_483
    assert count(model.conditioner) == 9 * 512
    assert (model.first_stage.latent_channels, model.network.image_size, data.image_size) == (3, 32, 128)
    schedule = model.schedule
    assert (schedule.kind, schedule.num_train_timesteps) == ("sqrt_linear", 1000)
    assert (schedule.start, schedule.end) == (0.0015, 0.0205)
    assert model.prediction_type == "epsilon" and model.min_snr_gamma is None
    assert (model.learning_rate, model.weight_decay, model.warmup_steps, model.total_steps) == (
        pytest.approx(2.4e-5),
        0.01,
        0,
        None,
    )
    assert (data.batch_size, data.augmentation["mirror"], data.augmentation["balanced"]) == (24, False, False)
    assert model.conditioner.drop_rates == {"emotion": 0.2}
    assert trainer.gradient_clip_val is None and trainer.precision == "32-true"
    assert cli.config["seed_everything"] == 23 and model.seed == 23
    assert any(type(callback).__name__ == "EMAWeights" for callback in trainer.callbacks)


def test_numbers_of_the_clip_guided_finetuning(weights_folder: Path) -> None:
    """Thesis section 4.5: weights, path, optimizer, data; its one model for each target."""
    cli = build_without_memory(CONF / "clip_finetune_affectnet.yaml", weights_folder)
    model, data = cli.model, cli.datamodule
    assert model.guide.weights == {"direction": 2.0, "identity": 1.0, "pixels": 1.0}
    assert model.guide.pixel_power == 2 and model.guide.prompts[0] == model.guide.prompts[7] == "face"
    path = model.path
    assert (path.strength, path.inversion_steps, path.tuning_steps, path.validation_steps) == (500, 40, 6, 40)
    assert path.back(model.schedule, 6)[1].tolist() == [500, 400, 300, 200, 100, 1]
    assert (model.learning_rate, model.weight_decay) == (pytest.approx(2e-6), 0.01)
    assert (data.batch_size, data.counts, cli.trainer.max_epochs) == (4, (1000, 100), 20)
    assert model.lora_rank is None and data.targets == [1]
    assert count(model.network) == 156_760_483
    text = (CONF / "clip_finetune_affectnet.yaml").read_text()
    assert "CLIPExpert" in text and "ArcFaceRecogniser" in text and "HSEmotionClassifier" in text


def test_rows_of_the_tables_differ_as_they_say(weights_folder: Path) -> None:
    found = {}
    for path in PAPER:
        cli = build_without_memory(path, weights_folder)
        found[path.stem] = (
            sorted(cli.model.conditioner.conditioners),
            cli.model.conditioner.context_dim,
            cli.model.network.in_channels,
            cli.datamodule.window,
        )
    emotion, plain = ["audio", "emotion", "frames"], ["audio", "frames"]
    assert found == {
        "talking_mead": (emotion, 1024, 9, 8),
        "emotion_no_mask": (emotion, 1024, 6, 4),
        "window_4": (emotion, 1024, 9, 4),
        "mask_landmarks": (["audio", "frames", "landmarks"], 896, 9, 4),
        "mask": (plain, 768, 9, 4),
        "asr_mask": (plain, 64, 9, 4),
        "window_1": (emotion, 1024, 9, 1),
        "window_2": (emotion, 1024, 9, 2),
        "window_16": (emotion, 1024, 9, 16),
        "asr_window_8": (emotion, 320, 9, 8),
    }


def test_numbers_of_lip_finetuning(weights_folder: Path) -> None:
    """Thesis, section 5.3, and its code: AdamW 8e-6, eight samples a step, T_tune 8, lambda 1, sound alone, w = 8."""
    cli = build_without_memory(CONF / "lipread_finetune_mead.yaml", weights_folder)
    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    assert model.learning_rate == pytest.approx(8e-6) and model.weight_decay == 0.01
    assert data.batch_size * trainer.accumulate_grad_batches == 8 and data.same["sequence_length"] == 16
    assert (model.tune_steps, model.solver.eta, model.solver.final_alpha, model.latent_weight) == (
        8,
        1.0,
        "first",
        1,
    )
    assert model.levels.shape == (1000 - 8,), "no time below T_tune"
    assert model.objective.features == "frames"
    assert {name: weight for name, weight in model.objective.weights.items() if weight} == {"reading": 1.0}
    assert sorted(model.conditioner.conditioners) == ["audio", "frames"] and data.window == 8
    untuned = build_without_memory(CONF / "talking_mead" / "mask.yaml", weights_folder)
    assert count(model.network) == count(untuned.model.network)
    assert count(model) == count(untuned.model) + 17**2 + 17 - 9**2 - 9, "the reader is not trained"


SMOKE = CONF / "smoke" / "talking.yaml"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("learning_rate: 1.0e-3", "lerning_rate: 1.0e-3", "lerning_rate"),
        ("model_channels: 16", "model_chanels: 16", "model_chanels"),
        ("feature_dim: 80", "feature_dims: 80", "feature_dims"),
        ("batch_size: 4", "batchsize: 4", "batchsize"),
        ("max_steps: 20", "max_step: 20", "max_step"),
        ("networks.unet.UNet", "networks.unet.Unet", "Unet"),
        ("max_steps: 20", "max_steps: many", "many"),
        ("identities: 3", "identity: 3", "identity"),
        ("in_channels: 9", "in_channels: 6", "in_channels of the network: 6; allowed: 9"),
        ("window: 4, mode", "window: 7, mode", "audio.window: 7; the data says 4"),
        ("dim: 16, embedding_dim: 32", "dim: 16, dim: 32", "duplicate key"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    before: str, after: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SMOKE.read_text()
    assert before in text
    broken = tmp_path / "broken.yaml"
    broken.write_text(text.replace(before, after, 1))
    assert main(["fit", "--config", str(broken)]) == 2
    error = capsys.readouterr().err.strip()
    lines = [line for line in error.splitlines() if line.startswith("talkface: error:")]
    assert len(lines) == 1 and expected in lines[0]
    assert "Traceback" not in error
    assert not list(tmp_path.glob("runs"))


def test_missing_files_and_verbs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    with pytest.raises(TalkfaceError, match="verb: train; allowed fit"):
        main(["train"])


def test_shorten_keeps_a_plain_message() -> None:
    assert "something odd" in shorten("something odd")
