"""The emotion model's parts fit each other, its time is counted over interruptions, and no result is packed twice."""

import argparse
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import train_emotion

from talkface.checkpoint import instantiate
from talkface.errors import TalkfaceError


def test_the_parts_fit_and_are_small():
    with torch.device("meta"):
        network = instantiate(train_emotion.NETWORK)
        conditioner = instantiate(train_emotion.CONDITIONER)
    conditioner.check_network(network, latent_channels=6)
    parameters = sum(p.numel() for part in (network, conditioner) for p in part.parameters())
    assert 2 * parameters < 30e6  # bytes in half precision
    assert sorted(conditioner.drop_rates) == ["actions", "emotion", "frames"]
    assert min(train_emotion.LEVELS) == 0 and max(train_emotion.LEVELS) == 999


def test_time_is_read_from_a_checkpoint(tmp_path):
    saved = {
        "state_dict": {},
        "callbacks": {"Timer": {"time_elapsed": {"train": 12.5}}, "ModelCheckpoint": {}},
    }
    torch.save(saved, tmp_path / "last.ckpt")
    assert train_emotion.trained_seconds(tmp_path / "last.ckpt") == 12.5
    torch.save({"state_dict": {}, "callbacks": {}}, tmp_path / "last.ckpt")
    assert train_emotion.trained_seconds(tmp_path / "last.ckpt") == 0.0


def test_packing_needs_a_model_and_a_folder(tmp_path):
    with pytest.raises(TalkfaceError, match="--out: not given"):
        train_emotion.pack(argparse.Namespace(out=None))
    with pytest.raises(
        TalkfaceError, match="holds no checkpoint of the emotion model; run --stage train first"
    ):
        train_emotion.pack(argparse.Namespace(out=tmp_path / "bundle", work=tmp_path))
