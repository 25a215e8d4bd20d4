"""AffectNet as a user trains on it: its own folder in, one epoch of the paper's configuration, faces out."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("pytorch_lightning")

from talkface import cli
from talkface.data import Corpus
from talkface.data.prepare.affectnet_tables import COLUMNS
from talkface.data.synthetic.appearance import sample_person
from talkface.data.synthetic.scene import Scene, render
from talkface.head import HeadModel
from talkface.head.emotions import EMOTIONS, emotion_actions
from talkface.media import read_image

CONF = Path(__file__).resolve().parents[2] / "conf"
SIDE = 112


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "AffectNet"
    rendered_faces(folder)
    return folder


def rendered_faces(folder: Path) -> None:
    """AffectNet as distributed: two rendered people, eight emotions each, a repeated row, a label left out."""
    head = HeadModel.load()
    actions = torch.from_numpy(np.stack([emotion_actions(label, 1.0) for label in range(len(EMOTIONS))]))
    for person, table in enumerate(("training", "validation")):
        made = render(
            head, sample_person(person, head), actions, scene=Scene(person), size=SIDE, supersample=1
        )
        place = folder / "Manually_Annotated_Images" / str(person)
        place.mkdir(parents=True)
        with (folder / f"{table}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for label, (image, points) in enumerate(zip(made.images, made.landmarks, strict=True)):
                cv2.imwrite(str(place / f"{label}.jpg"), image.numpy()[..., ::-1])
                (left, top), (right, bottom) = points.amin(0).tolist(), points.amax(0).tolist()
                box = [round(value) for value in (left, top, right - left, bottom - top)]
                landmarks = ";".join(f"{value:.1f}" for value in points.flatten().tolist())
                writer.writerow([f"{person}/{label}.jpg", *box, landmarks, label, 0.1 * label, -0.1 * label])
            writer.writerow([f"{person}/1.jpg", *box, landmarks, 1, 0, 0])
            writer.writerow([f"{person}/none.jpg", *box, landmarks, 8, -2, -2])


@pytest.mark.timeout(300)
def test_one_epoch_of_the_papers_configuration_then_faces(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": 1,
        "trainer.log_every_n_steps": 1,
        "trainer.num_sanity_val_steps": 0,
        "trainer.enable_progress_bar": "false",
        "model.first_stage_weights": "null",
        "model.network.model_channels": 16,
        "model.network.num_res_blocks": 1,
        "model.network.num_head_channels": 16,
        "model.network.context_dim": 32,
        "model.conditioner.conditioners.emotion.init_args.dim": 32,
        "model.first_stage.channels": 16,
        "model.first_stage.num_res_blocks": 1,
        "model.first_stage.attention_resolutions": "[]",
        "model.first_stage.codebook_size": 64,
        "data.raw": str(raw),
        "data.image_size": 128,
        "data.batch_size": 4,
        "data.num_workers": 0,
        "data.cache_latents": "true",
        "data.mirror": "true",
        "data.balanced": "true",
    }
    arguments = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    assert cli.main(["fit", "--config", str(CONF / "ldm_affectnet.yaml"), *arguments]) == 0
    corpus = Corpus(tmp_path / "corpora" / "affectnet")
    assert [clip.emotion for clip in Corpus(corpus.folder, "train")] == list(range(8))
    assert len(list((corpus.folder / "latents").glob("*"))) == 2  # plain and mirrored
    checkpoint = tmp_path / "runs" / "ldm_affectnet" / "checkpoints" / "best.ckpt"
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["epoch"] == 0 and saved["global_step"] == 2
    capsys.readouterr()

    sample = [
        "sample-images",
        "--checkpoint",
        str(checkpoint),
        "--device",
        "cpu",
        "--num-inference-steps",
        "4",
    ]
    assert cli.main([*sample, "--emotion", "all", "--num", "2", "--out", "faces.png"]) == 0
    assert "faces.png: 16 faces; neutral, happy" in capsys.readouterr().out
    grid = read_image(tmp_path / "faces.png")
    assert grid.shape == (8 * 128, 2 * 128, 3) and grid.std() > 1
    assert cli.main([*sample, "--emotion", "happy", "--num", "1", "--out", "faces"]) == 0
    assert np.array_equal(read_image(tmp_path / "faces" / "happy_00000.png"), grid[128:256, :128])


def test_faces_of_the_bundled_finder_are_aligned(raw: Path, tmp_path: Path) -> None:
    """The house's own finder on rendered heads: eyes where the truth, aligned, has them."""
    from talkface.data.prepare.affectnet import AffectNetRecipe, prepare_affectnet

    for name, landmarks in (("found", "found"), ("truth", "annotated")):
        prepare_affectnet(
            raw, tmp_path / name, AffectNetRecipe(landmarks=landmarks), report=lambda line: None
        )
    found, truth = Corpus(tmp_path / "found"), Corpus(tmp_path / "truth")
    assert [clip.id for clip in found] == [clip.id for clip in truth]
    errors = [
        np.abs(found.read_frame(one, 0).astype(float) - truth.read_frame(other, 0)).mean()
        for one, other in zip(found, truth, strict=True)
    ]
    assert max(errors) < 12
    assert yaml.safe_load((tmp_path / "found" / "corpus.json").read_text())["config"]["landmarks"].startswith(
        "Network"
    )
