"""The table of experts, their fingerprints, loading what the training script wrote, and who may judge whom."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from talkface.doctor import EXTRAS
from talkface.errors import TalkfaceError
from talkface.experts.emotion import EmotionNetwork
from talkface.experts.registry import EXPERTS, Expert, check_judge, fingerprint, load_expert, status

TINY = {"channels": (8, 8, 8, 8), "blocks": (0, 0, 0, 1), "features": 16}


def tiny(seed: int) -> EmotionNetwork:
    torch.manual_seed(seed)
    return EmotionNetwork(**TINY).eval()


def write(folder, network, class_path="talkface.experts.emotion.EmotionNetwork", name="emotion0"):
    save_file(
        {key: value.contiguous() for key, value in network.state_dict().items()},
        folder / f"{name}.safetensors",
    )
    (folder / f"{name}.json").write_text(json.dumps({"class_path": class_path, "init_args": TINY}))
    return folder / f"{name}.safetensors"


def test_a_fingerprint_is_of_the_weights():
    one, other = tiny(0), tiny(1)
    assert fingerprint(one) == fingerprint(tiny(0)) != fingerprint(other)
    assert len(fingerprint(one)) == 16
    assert fingerprint(one.double()) == fingerprint(tiny(0))
    changed = tiny(0)
    with torch.no_grad():
        changed.emotion.bias[3] += 1e-4
    assert fingerprint(changed) != fingerprint(tiny(0))


def test_an_expert_without_weights_is_named_by_its_file(tmp_path):
    from torch import nn

    with pytest.raises(TalkfaceError, match="no weights that could name it"):
        fingerprint(nn.Identity())
    module = nn.Identity()
    (tmp_path / "a.onnx").write_bytes(b"one")
    module.weights_path = tmp_path / "a.onnx"
    before = fingerprint(module)
    (tmp_path / "a.onnx").write_bytes(b"two")
    assert fingerprint(module) != before


def test_what_was_written_is_read(tmp_path, monkeypatch):
    network = tiny(2)
    path = write(tmp_path, network)
    loaded = load_expert(path)
    assert fingerprint(loaded) == fingerprint(network)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(loaded(images), network(images))
    # by name, from the folder of experts
    monkeypatch.setenv("TALKFACE_CACHE", str(tmp_path))
    (tmp_path / "experts").mkdir()
    write(tmp_path / "experts", tiny(3), name="emotion7")
    assert fingerprint(load_expert("emotion7")) == fingerprint(tiny(3))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(
        TalkfaceError, match=r"none\.safetensors does not exist; give the \.safetensors that scripts/"
    ):
        load_expert(tmp_path / "none.safetensors")
    path = write(tmp_path, tiny(0), class_path="subprocess.Popen")
    with pytest.raises(TalkfaceError, match=r"subprocess\.Popen is no class of talkface\.experts"):
        load_expert(path)
    path = write(tmp_path, tiny(0))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TalkfaceError, match=r"cannot be loaded as its \.json says"):
        load_expert(path)


def test_an_expert_may_not_judge_what_it_guided():
    guide, judge = tiny(0), tiny(1)
    guided_by = [fingerprint(guide)]
    assert check_judge(judge, guided_by) == fingerprint(judge)
    with pytest.raises(TalkfaceError, match=r"also guided the training .* --allow-same-expert"):
        check_judge(guide, guided_by)
    assert check_judge(guide, guided_by, allow_same_expert=True) == fingerprint(guide)


def test_nobody_stands_twice_in_the_table():
    names = [(expert.role, expert.name) for expert in EXPERTS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("expert", EXPERTS, ids=lambda expert: f"{expert.role}-{expert.name}")
def test_the_table_is_true(expert):
    module, _, name = expert.class_path.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), type)
    assert (expert.extra in EXTRAS) if expert.modules else expert.extra == ""
    if expert.where == "file":
        assert expert.weights and expert.source


def test_status_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("TALKFACE_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    file = Expert("identity", "x", "", where="file", weights="w.onnx", source="on the moon")
    assert status(file) == (
        False,
        "no w.onnx",
        f"on the moon; give its path or put it into {tmp_path / 'experts'}",
    )
    (tmp_path / "experts").mkdir()
    (tmp_path / "experts" / "w.onnx").touch()
    assert status(file).ready
    hub = Expert("CLIP", "x", "", where="hub", weights="some/model")
    assert "downloaded on first use" in status(hub).fix
    (tmp_path / "hub" / "models--some--model").mkdir(parents=True)
    assert status(hub).ready
    lacking = Expert("CLIP", "x", "", ("no_such_module",), "finetune")
    assert status(lacking) == (False, "no no_such_module", "pip install 'talkface[finetune]'")
    assert status(Expert("emotion", "x", "", where="bundle", weights="emotion/classifier")).ready
    assert not status(Expert("emotion", "x", "", where="bundle", weights="emotion/nothing")).ready


def test_status_imports_nothing_heavy():
    program = (
        "import sys; from talkface.experts.registry import EXPERTS, status; [status(e) for e in EXPERTS]; "
        "print(*{'torch', 'transformers', 'onnxruntime', 'mediapipe', 'dlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
