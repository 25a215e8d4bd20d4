"""Faces from an emotion: a picture depends on its seed, emotion and number alone; guidance; which bundles can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from talkface.checkpoint import load_bundle, save_bundle
from talkface.errors import TalkfaceError
from talkface.pipelines.generate import EmotionPipeline


@pytest.fixture(scope="module")
def pipeline(tiny_emotion_bundle: Path) -> EmotionPipeline:
    return EmotionPipeline.from_pretrained(tiny_emotion_bundle, "cpu", "fp32")


def test_a_picture_does_not_depend_on_what_is_made_beside_it(pipeline: EmotionPipeline) -> None:
    wanted = [(emotion, number) for emotion in ("happy", "fear") for number in range(6)]
    together = list(pipeline(wanted, seed=4))
    assert len(together) == 12 and together[0].shape == (32, 32, 3) and together[0].dtype == np.uint8
    assert len({picture.tobytes() for picture in together}) == 12
    for place in (0, 5, 11):
        assert np.array_equal(next(pipeline([wanted[place]], seed=4)), together[place])
    backwards = list(pipeline(wanted[::-1], seed=4))[::-1]
    assert all(map(np.array_equal, together, backwards))
    assert not np.array_equal(next(pipeline(wanted[:1], seed=5)), together[0])
    assert not np.array_equal(next(pipeline(wanted[:1], seed=4, eta=0.5)), together[0])
    # ids do as well as names
    assert np.array_equal(next(pipeline([(1, 0)], seed=4)), together[0])


def test_other_groups_change_rounding_only(pipeline: EmotionPipeline, tiny_emotion_bundle: Path) -> None:
    other = EmotionPipeline(load_bundle(tiny_emotion_bundle), "fp32", group=3)
    wanted = [("sad", number) for number in range(4)]
    difference = np.subtract(list(pipeline(wanted)), list(other(wanted)), dtype=np.float64)
    assert np.abs(difference).mean() < 0.05


def test_guidance_zero_forgets_the_emotion_and_one_costs_nothing(pipeline: EmotionPipeline) -> None:
    calls: list[int] = []
    hook = pipeline.network.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    embedding = pipeline.conditioner.conditioners["emotion"].embedding.weight
    try:
        plain = next(pipeline([("happy", 0)], guidance_scale=1))
        assert calls == [8] * 3
        calls.clear()
        without = next(pipeline([("happy", 0)], guidance_scale=0))
        assert calls == [16] * 3
        saved = embedding.clone()
        with torch.no_grad():
            embedding[1] = embedding[8]
        null = next(pipeline([("happy", 0)], guidance_scale=1))
        with torch.no_grad():
            embedding.copy_(saved)
    finally:
        hook.remove()
    assert np.abs(np.subtract(plain, without, dtype=np.float64)).mean() > 1
    assert np.abs(np.subtract(null, without, dtype=np.float64)).max() <= 1


def test_bad_values_are_named(pipeline: EmotionPipeline) -> None:
    for options, words in (
        ({"num_inference_steps": 0}, "num_inference_steps: 0; allowed are 1 to 1000"),
        ({"num_inference_steps": 1001}, "num_inference_steps: 1001"),
        ({"guidance_scale": -1}, "guidance_scale: -1"),
        ({"eta": 1.5}, "eta: 1.5; allowed are 0 to 1"),
        ({"seed": -1}, "seed: -1"),
    ):
        with pytest.raises(TalkfaceError, match=words):
            pipeline([("happy", 0)], **options)
    for emotion in ("joy", 8, -1, True):
        with pytest.raises(TalkfaceError, match=r"allowed are neutral, happy, .*contempt \(or 0 to 7\)"):
            pipeline([(emotion, 0)])
    assert list(pipeline([])) == []


def test_a_talking_face_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(TalkfaceError, match=r"is told audio, emotion, frames; allowed is a model"):
        EmotionPipeline.from_pretrained(tiny_bundle)


def test_a_bundle_may_do_both(tiny_bundle: Path, tiny_emotion_bundle: Path, tmp_path: Path) -> None:
    """Talking face and emotions with one first stage."""
    talking, emotions = load_bundle(tiny_bundle), load_bundle(tiny_emotion_bundle)
    parts, specs = dict(talking.parts), dict(talking.specs)
    for name in ("network", "conditioner"):
        parts[f"emotion_{name}"], specs[f"emotion_{name}"] = emotions.parts[name], emotions.specs[name]
    model = {"num_inference_steps": 3, "guidance_scale": {"emotion": 1.0}}
    both = save_bundle(tmp_path / "both", parts, specs, "# Both", talking.meta | {"emotion_model": model})
    expected = next(EmotionPipeline(emotions, "fp32")([("happy", 0)]))
    assert np.array_equal(
        next(EmotionPipeline.from_pretrained(both, "cpu", "fp32")([("happy", 0)])), expected
    )
