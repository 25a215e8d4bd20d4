"""The script that teaches the speech encoder with a reader: what readers are shown, and all stages on a tiny scale."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import finetune_articulation
from finetune_articulation import Speaker, both_sides
from safetensors.torch import load_file, save_file
from speech_windows import OUTPUTS

from talkface.checkpoint import load_bundle
from talkface.data.synthetic.visemes import MOUTH_ACTIONS
from talkface.head.model import ACTIONS
from talkface.training.speech import TeacherHead

LEXICON = {"map": [("M", 0.1), ("AE", 0.15), ("P", 0.1)], "fee": [("F", 0.12), ("IY", 0.2), ("SIL", 0.1)]}


def test_sides_of_an_action_are_one():
    actions = np.zeros((2, len(ACTIONS)), np.float32)
    actions[:, ACTIONS.index("mouthPressLeft")], actions[:, ACTIONS.index("mouthPressRight")] = 0.2, 0.4
    actions[:, ACTIONS.index("jawOpen")] = 0.5
    found = both_sides(actions)
    assert found.shape == (2, len(OUTPUTS))
    np.testing.assert_allclose(found[:, OUTPUTS.index("mouthPress")], 0.3, atol=1e-6)
    np.testing.assert_allclose(found[:, OUTPUTS.index("jawOpen")], 0.5)


def test_a_speaker_says_what_its_units_say():
    scale = torch.full((len(OUTPUTS),), 0.05)
    batch, again = Speaker(LEXICON, scale, 4).batch(3), Speaker(LEXICON, scale, 4).batch(3)
    assert torch.equal(batch.actions, again.actions) and batch.actions.shape[2] == len(OUTPUTS)
    assert (batch.lengths * 2 <= batch.actions.shape[1]).all() and (batch.viseme_counts >= 6).all()
    assert int(batch.viseme_counts.sum()) == len(batch.visemes) and (batch.visemes > 0).all()
    assert int(batch.character_counts.sum()) == len(batch.characters)
    press = batch.actions[..., OUTPUTS.index("mouthPress")]
    closed = batch.frame_visemes == finetune_articulation.VISEMES.index("pp")
    told = press[:, : closed.shape[1] * 2].unflatten(1, (-1, 2)).mean(2)
    assert not closed.any() or float(told[closed].mean()) > 0.15


def test_all_stages(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    cache, work = tmp_path / "cache", tmp_path / "work"
    cache.mkdir()
    work.mkdir()
    for name, columns in (("synthetic", len(MOUTH_ACTIONS)), ("real", 0)):
        np.savez(
            cache / f"{name}-001.npz",
            sound=(random.normal(size=480000) * 3000).astype(np.int16),
            features=random.normal(size=(1500, 384)).astype(np.float16),
            actions=random.random((1500 if columns else 0, columns)).astype(np.float16),
        )
    save_file(TeacherHead(384, len(OUTPUTS)).state_dict(), cache / "head.safetensors")
    (work / "words.json").write_text(json.dumps(LEXICON))
    arguments = [
        "--cache",
        str(cache),
        "--work",
        str(work),
        "--reader-seconds",
        "0.3",
        "--seconds",
        "0.3",
        "--cut",
        "10",
    ]
    monkeypatch.setattr(sys, "argv", ["finetune_articulation", *arguments])
    assert finetune_articulation.main() == 0
    capsys.readouterr()
    bundle, default = load_bundle(work / "bundle"), load_bundle("default")
    assert len(bundle.meta["guided_by"]) == len(default.meta.get("guided_by", [])) + 1
    taught, own = (load_file(one.folder / "speech.safetensors") for one in (bundle, default))
    changed = {name.split(".")[0] for name in own if not torch.equal(own[name].float(), taught[name].float())}
    assert changed <= {"blocks", "norm", "mouth"} and "mouth" in changed
    assert all(torch.equal(own[name], taught[name]) for name in own if name.startswith("blocks.9."))


def test_a_judge_needs_a_corpus(tmp_path, monkeypatch, capsys):
    arguments = ["--cache", str(tmp_path), "--work", str(tmp_path / "work"), "--stage", "judge"]
    monkeypatch.setattr(sys, "argv", ["finetune_articulation", *arguments])
    with pytest.raises(finetune_articulation.TalkfaceError, match="--corpus: none; allowed"):
        finetune_articulation.main()
