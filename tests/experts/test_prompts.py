"""Prompts, templates, directions, and the cache of text features."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from talkface.errors import TalkfaceError
from talkface.experts.clip import FaceCLIP
from talkface.experts.prompts import (
    EMOTION_PROMPTS,
    GUIDING_PROMPTS,
    IMAGENET_TEMPLATES,
    directions,
    text_direction,
    text_features,
)


class Counting(FaceCLIP):
    """The small CLIP, which counts its sentences."""

    read = 0

    def encode_texts(self, texts):
        self.read += len(texts)
        return super().encode_texts(texts)


def small(seed: int = 0, dim: int = 8) -> Counting:
    torch.manual_seed(seed)
    return Counting(
        vocabulary=["happy", "sad", "face", "photo"], channels=(8, 8, 8, 8), blocks=(0, 0, 0, 0), dim=dim, text_dim=32,
        text_layers=1,
    ).eval()  # fmt: skip


def test_the_templates_are_those_79():
    assert len(IMAGENET_TEMPLATES) == len(set(IMAGENET_TEMPLATES)) == 79
    assert all(template.count("{}") == 1 for template in IMAGENET_TEMPLATES)
    for known in (
        "a bad photo of a {}.", "a photo of the hard to see {}.", "a {} in a video game.", "itap of my {}.",
        "a jpeg corrupted photo of the {}.", "graffiti of the {}.", "a origami {}.", "a photo of one {}.",
    ):  # fmt: skip
        assert known in IMAGENET_TEMPLATES
    assert "a photo of many {}." not in IMAGENET_TEMPLATES


def test_one_prompt_per_emotion():
    assert len(EMOTION_PROMPTS) == len(set(EMOTION_PROMPTS)) == len(GUIDING_PROMPTS) == 8
    assert [k for k, prompt in enumerate(GUIDING_PROMPTS) if prompt == "face"] == [0, 7]


def test_a_direction_is_the_mean_over_templates():
    source, target = torch.randn(5, 8), torch.randn(5, 8)
    got = text_direction(source, target)
    expected = sum(target[k] - source[k] for k in range(5)) / 5
    torch.testing.assert_close(got, expected / expected.norm())
    assert float(text_direction(source, source).norm()) == 0
    table = directions(torch.stack([source, target]))
    torch.testing.assert_close(table[0, 1], got)
    torch.testing.assert_close(table[1, 0], -got)
    assert float(table[0, 0].norm()) == 0


def test_text_features_are_computed_once(tmp_path):
    expert = small()
    prompts, templates = ("happy face", "sad face"), ("{}", "a photo of a {}.", "the {}")
    first = text_features(expert, prompts, templates, cache=tmp_path)
    assert first.shape == (2, 3, 8) and expert.read == 6
    torch.testing.assert_close(
        first[1, 1], expert.encode_texts(["a photo of a sad face."])[0], atol=1e-5, rtol=1e-5
    )
    expert.read = 0
    torch.testing.assert_close(text_features(expert, prompts, templates, cache=tmp_path), first)
    assert expert.read == 0
    text_features(expert, prompts[::-1], templates, cache=tmp_path)  # another wording
    text_features(small(1), prompts, templates, cache=tmp_path)  # another expert
    assert expert.read == 6 and len(list(tmp_path.iterdir())) == 3
    assert not first.requires_grad


def test_a_cached_file_of_another_size_is_named(tmp_path):
    expert = small()
    text_features(expert, ("happy face",), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    save_file({"features": torch.zeros(1, 1, 512)}, file)
    with pytest.raises(TalkfaceError, match=r"\(1, 1, 512\) .* gives \(1, 1, 8\); use the expert that wrote"):
        text_features(expert, ("happy face",), cache=tmp_path)
    file.write_bytes(b"no tensors")
    with pytest.raises(TalkfaceError, match=r"cannot be read .*delete the file"):
        text_features(expert, ("happy face",), cache=tmp_path)
    with pytest.raises(TalkfaceError, match="it has no"):
        text_features(expert, ("happy face",), ("a face",))
