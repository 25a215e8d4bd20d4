"""An emotion told by the speech encoder's branch, through the whole pipeline."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from talkface.checkpoint import load_bundle
from talkface.experts.speech import ArticulationEncoder
from talkface.experts.speech_emotion import EmotionalSpeech
from talkface.head.emotions import EMOTIONS, emotion_actions
from talkface.head.model import ACTIONS
from talkface.media import Audio
from talkface.pipelines.face_guide import FaceGuide
from talkface.pipelines.film_settings import listener
from talkface.pipelines.liveliness import Feeling, Liveliness
from talkface.pipelines.talking_face import TalkingFacePipeline

OUTPUTS = [
    "jawOpen", "jawForward", "mouthClose", "mouthPucker", "mouthFunnel", "mouthPress", "mouthRollLower",
    "mouthRollUpper", "mouthShrugLower", "mouthLowerDown", "mouthUpperUp", "mouthStretch", "mouthSmile",
    "mouthDimple", "cheekPuff", "tongueOut",
]  # fmt: skip
BRANCH = {"emotions": list(EMOTIONS[1:]), "actions": ["jawOpen", "mouthSmileLeft", "mouthSmileRight"]}
SMILE, JAW = ACTIONS.index("mouthSmileLeft"), ACTIONS.index("jawOpen")


def make_encoder(branch: dict | None) -> ArticulationEncoder:
    torch.manual_seed(2)
    made = ArticulationEncoder(OUTPUTS, channels=16, dilations=(1, 2), bands=20, branch=branch).eval()
    if made.branch is not None:
        with torch.no_grad():
            made.branch.pose.weight[:, 0] = 0.4  # jaw, in proportion to the intensity
            made.branch.pose.weight[:, 1:3] = 0.7
    return made.requires_grad_(False)


def make_pipeline(folder, finder, branch: dict | None) -> TalkingFacePipeline:
    bundle = load_bundle(folder)
    parts = bundle.parts | {"speech": make_encoder(branch)}
    return TalkingFacePipeline(dataclasses.replace(bundle, parts=parts), "fp32", finder, workers=1)


@pytest.fixture(scope="module")
def pipeline(tiny_bundle, drawn_face_finder) -> TalkingFacePipeline:
    return make_pipeline(tiny_bundle, drawn_face_finder, BRANCH)


@pytest.fixture(scope="module")
def without(tiny_bundle, drawn_face_finder) -> TalkingFacePipeline:
    return make_pipeline(tiny_bundle, drawn_face_finder, None)


@pytest.fixture(scope="module")
def picture(draw_faces) -> np.ndarray:
    return draw_faces(160, 240, [(60, 20, 128)])


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.repeat(np.random.default_rng(0).uniform(-0.3, 0.3, 12), 400).astype(np.float32)


def frames(result) -> np.ndarray:
    return np.stack(list(result))


def test_without_an_emotion_the_branch_changes_no_bit(pipeline, without, picture, samples):
    sound = Audio(samples, 16000)
    for options in ({}, {"emotion": "neutral"}, {"emotion": "happy", "emotion_intensity": 0}):
        own, other = (
            frames(one(sound, picture, fps=10, guide="warp", **options)) for one in (pipeline, without)
        )
        assert np.array_equal(own, other), options


def test_the_branch_shows_the_emotion_and_the_network_hears_what_it_always_did(
    pipeline, without, picture, samples
):
    sound = Audio(samples, 16000)
    options = {"fps": 10, "emotion": "happy", "motion": "none"}
    told, ruled = (frames(one(sound, picture, guide="warp", **options)) for one in (pipeline, without))
    assert not np.array_equal(told, ruled)
    half = frames(pipeline(sound, picture, guide="warp", emotion_intensity=0.5, **options))
    assert not np.array_equal(told, half)
    # where no guide shows faces, the network alone is told, and with the same features
    own, other = (frames(one(sound, picture, guide="none", **options)) for one in (pipeline, without))
    assert np.array_equal(own, other)


@pytest.mark.parametrize("size", [700, 10**6])
def test_a_stream_with_an_emotion_is_the_whole_film(pipeline, picture, samples, size):
    options = {"guide": "warp", "motion": "none", "emotion": "surprised", "emotion_intensity": 0.7}
    whole = frames(pipeline(Audio(samples, 16000), picture, **options))
    level = pipeline.speech.level(torch.from_numpy(samples)[None])
    chunks = (samples[start : start + size] for start in range(0, len(samples), size))
    live = pipeline.stream(chunks, picture, lookahead=None, level=level, group=8, **options)
    assert np.array_equal(frames(live), whole)
    plain = frames(pipeline(Audio(samples, 16000), picture, guide="warp", motion="none"))
    assert not np.array_equal(plain, whole)


def test_who_listens(pipeline, without):
    happy = Feeling(1, emotion_actions("happy", 0.5), 0.5, "happy")
    heard = listener(pipeline.speech, happy, "refined")
    assert isinstance(heard, EmotionalSpeech) and heard.emotion == "happy"
    assert listener(pipeline.speech, happy, "none") is pipeline.speech
    assert listener(without.speech, happy, "warp") is without.speech
    calm = Feeling(0, emotion_actions("neutral", 1.0), 1.0, "neutral")
    assert listener(pipeline.speech, calm, "warp") is pipeline.speech


def test_the_intensity_of_the_moment_is_what_the_branch_is_told(picture, drawn_face_finder):
    """Also while it swells; the photograph's own rest stays below it."""
    from talkface.pipelines.sources import find_in_picture

    found = find_in_picture("p", picture, drawn_face_finder, 0, lambda points: 64)
    speech = EmotionalSpeech(make_encoder(BRANCH), "happy")
    features = torch.zeros(20, speech.feature_dim)
    features[:, :16] = speech.encoder.from_actions(torch.zeros(20, 52), ACTIONS)
    features[:, 16:22] = speech.encoder.branch.pose.weight[0]
    life = Liveliness("lively", Feeling(1, emotion_actions("happy", 0.6), 0.6, "happy"), None, 0)
    guide = FaceGuide(
        found.crop, found.points, speech, features, 50.0, still=True, life=life, device=torch.device("cpu")
    )
    times = [0.02, 0.3]
    strength = life.intensity(times)
    assert ((strength > 0.4) & (strength <= 0.6)).all() and strength[0] != strength[1]
    told = guide.actions(times).numpy() - guide.rest
    np.testing.assert_allclose(told[:, SMILE], 0.7 * strength, atol=1e-3)
    np.testing.assert_allclose(told[:, JAW], 0.4 * strength, atol=1e-3)
