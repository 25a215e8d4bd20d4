"""Strangers' files: what Lightning leaves beside the weights is passed over, code is refused, errors are one line."""

from __future__ import annotations

import argparse
import os
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from talkface import cli
from talkface.checkpoint import read_weights
from talkface.errors import TalkfaceError


class Strange:
    """A class that nobody else has."""


class Harmful:
    """Unpickled without care, it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def lightning_checkpoint(**more) -> dict:
    return {
        "callbacks": {
            ModelCheckpoint: {
                "best_model_score": torch.tensor(1.0),
                "dirpath": Path("/x"),
                "best": np.float64(3),
            },
            EarlyStopping: {"wait": 0, "best_score": np.arange(3.0)},
        },
        "hyper_parameters": OmegaConf.create({"a": [1, 2, {"b": "c"}], "d": None, "e": 0.5}),
        "arguments": argparse.Namespace(lr=1e-4),
        "counts": defaultdict(int, {"a": 3}),
        "state_dict": OrderedDict(weight=torch.arange(3.0), step=torch.tensor(4)),
        **more,
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])
def test_what_lies_beside_the_weights_is_passed_over(tmp_path, zipped) -> None:
    checkpoint = lightning_checkpoint()
    if not zipped:  # of that format only plain containers are known beforehand
        checkpoint = {"state_dict": checkpoint["state_dict"], "arguments": checkpoint["arguments"]}
    torch.save(checkpoint, tmp_path / "last.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(Exception, match=r"Unsupported global|argparse"):
        torch.load(tmp_path / "last.ckpt", weights_only=True)
    before = set(torch.serialization.get_safe_globals())
    found = read_weights(tmp_path / "last.ckpt")
    assert list(found) == ["weight", "step"] and found["weight"].tolist() == [0, 1, 2]
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])
def test_code_is_refused_and_not_run(tmp_path, capsys, zipped) -> None:
    made = tmp_path / "made"
    torch.save(
        lightning_checkpoint(evil=Harmful(made)) if zipped else {"evil": Harmful(made)},
        tmp_path / "evil.ckpt",
        _use_new_zipfile_serialization=zipped,
    )
    command = [
        "import-checkpoint",
        str(tmp_path / "evil.ckpt"),
        "--kind",
        "taming-vqgan",
        "--out",
        str(tmp_path / "o"),
    ]
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert not made.exists() and not (tmp_path / "o").exists()
    assert "posix.mkdir" in said and len(said.strip().splitlines()) == 1


def test_a_class_of_a_stranger_is_named(tmp_path) -> None:
    torch.save({"model": Strange(), "state_dict": {"w": torch.zeros(1)}}, tmp_path / "x.ckpt")
    with pytest.raises(TalkfaceError, match=r"ask for code: .*Strange; only tensors are read.*torch\.save"):
        read_weights(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("name", "contents", "said"),
    [
        ("x.ckpt", b"not a checkpoint", "cannot be read safely"),
        ("x.safetensors", b"not a checkpoint", "are damaged"),
        ("x.ckpt", {"epoch": 3}, "hold no dictionary of tensors"),
        ("x.ckpt", [torch.zeros(3)], "hold no dictionary of tensors"),
    ],
)
def test_other_files(tmp_path, name, contents, said) -> None:
    path = tmp_path / name
    path.write_bytes(contents) if isinstance(contents, bytes) else torch.save(contents, path)
    with pytest.raises(TalkfaceError, match=said) as error:
        read_weights(path)
    assert "\n" not in str(error.value)


def test_a_file_cut_short(tmp_path) -> None:
    torch.save({"w": torch.zeros(5000)}, tmp_path / "x.ckpt")
    data = (tmp_path / "x.ckpt").read_bytes()
    (tmp_path / "x.ckpt").write_bytes(data[: len(data) // 2])
    with pytest.raises(TalkfaceError, match="cannot be read safely"):
        read_weights(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["nowhere.ckpt", "--kind", "thesis-ldm"], "FILE: nowhere.ckpt does not exist"),
        ([".", "--kind", "thesis-ldm"], "is a folder; give the checkpoint file for thesis-ldm"),
        (["x", "--kind", "vqgan"], "invalid choice: 'vqgan'"),
        (["x"], "the following arguments are required: --kind"),
        ([".", "--kind", "diffusers-vq", "--image-size", "0"], "0; allowed are whole numbers"),
    ],
)
def test_arguments(tmp_path, monkeypatch, capsys, command, said) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["import-checkpoint", *command, "--out", "bundle"]) == 2
    assert said in capsys.readouterr().err


def test_the_bundle_may_not_replace_other_files(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("mine")
    torch.save({"w": torch.zeros(1)}, tmp_path / "x.ckpt")
    command = ["import-checkpoint", str(tmp_path / "x.ckpt"), "--kind", "taming-vqgan", "--out"]
    assert cli.main([*command, str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
