"""Performances: expressions grow with their level, eyes blink, speech stays readable."""

import numpy as np
import pytest

from talkface.data.base import EMOTIONS
from talkface.data.synthetic.motion import EFFORT, LEVELS, emotion_actions, emotional_speech, performance
from talkface.data.synthetic.visemes import speech_actions
from talkface.data.synthetic.voices import SAMPLE_RATE, Utterance
from talkface.errors import TalkfaceError
from talkface.head.expression import combine
from talkface.head.model import ACTIONS


@pytest.fixture
def utterance():
    """Six seconds of syllables; performances use the times only, so the sound may be empty."""
    symbols = ["B", "AA1", "T", "IY0", "M", "UW1", "S", "EH1"] * 5
    phonemes = [(s, 0.4 + 0.125 * i, 0.525 + 0.125 * i) for i, s in enumerate(symbols)]
    return Utterance(np.zeros(6 * SAMPLE_RATE, np.float32), phonemes, "")


@pytest.mark.parametrize("emotion", EMOTIONS[1:])
def test_every_expression_grows_with_its_level(emotion):
    strength = [emotion_actions(emotion, level) for level in LEVELS]
    assert strength[0].sum() > 0.3
    assert np.all(strength[0] <= strength[1]) and np.all(strength[1] <= strength[2])
    assert strength[2].sum() > 1.8 * strength[0].sum()
    assert strength[2].max() <= 1


def test_expressions_differ_from_each_other():
    vectors = [emotion_actions(e, 1.0) for e in EMOTIONS]
    for i, a in enumerate(vectors):
        for b in vectors[i + 1 :]:
            assert np.abs(a - b).max() > 0.3
    assert not vectors[0].any()


def test_unknown_emotion_and_level_are_errors(utterance):
    with pytest.raises(TalkfaceError, match="happy"):
        emotion_actions("bored", 1.0)
    with pytest.raises(TalkfaceError, match="0-7"):
        emotion_actions(8, 1.0)
    with pytest.raises(TalkfaceError, match="level"):
        performance(utterance, "happy", 4)


@pytest.mark.parametrize("fps", [25.0, 29.97, 23.976])
def test_length_ranges_and_determinism(utterance, fps):
    one, two = (performance(utterance, "happy", 2, fps, seed=4) for _ in range(2))
    assert one.actions.shape == (round(6 * fps), 52) and one.pose.shape == (round(6 * fps), 6)
    assert len(one.phonemes) == len(one.visemes) == round(6 * fps)
    assert one.actions.min() >= 0 and one.actions.max() <= 1
    assert np.array_equal(one.actions, two.actions) and np.array_equal(one.pose, two.pose)
    assert not np.array_equal(one.pose, performance(utterance, "happy", 2, fps, seed=5).pose)


def test_blinks_occur_and_are_short(utterance):
    for seed in range(6):
        lid = performance(utterance, seed=seed).actions[:, ACTIONS.index("eyeBlinkLeft")]
        assert lid.max() > 0.6
        assert 0.01 < (lid > 0.4).mean() < 0.3


def test_head_moves_slowly_and_a_little(utterance):
    pose = np.concatenate([performance(utterance, seed=s).pose for s in range(5)])
    assert np.abs(pose[:, :3]).max() <= 0.35 and np.abs(pose[:, 3:]).max() < 0.03
    one = performance(utterance, seed=1).pose
    assert 1e-4 < np.abs(np.diff(one[:, :3], axis=0)).max() < 0.02


@pytest.mark.parametrize("emotion", ["happy", "surprised", "disgusted", "fear"])
def test_lips_still_close_under_an_expression(emotion):
    times = np.arange(0, 1, 0.01)
    speech = speech_actions([("AA1", 0.3, 0.45), ("M", 0.45, 0.6), ("AA1", 0.6, 0.75)], times)
    both = combine(speech, emotion_actions(emotion, 1.0)[None])
    middle = np.searchsorted(times, 0.52)
    opened = both[middle, ACTIONS.index("jawOpen")] - both[middle, ACTIONS.index("mouthClose")]
    assert opened < 0.05
    assert both[middle, ACTIONS.index("mouthLowerDownLeft")] < 0.05


def test_neutral_is_level_zero(utterance):
    quiet = performance(utterance, "neutral", 3)
    assert (quiet.emotion, quiet.level) == (0, 0)
    assert performance(utterance, "angry", 3).emotion == EMOTIONS.index("angry")


def test_effort_moves_the_jaw_of_the_angry_farther_and_of_the_sad_less_far(utterance):
    times = np.arange(0.4, 5.4, 0.02)
    jaw = ACTIONS.index("jawOpen")
    plain, angry, half, sad = (
        emotional_speech(utterance.phonemes, times, emotion, intensity)
        for emotion, intensity in (
            ("neutral", 1.0),
            ("angry", 1.0),
            ("angry", 0.5),
            (EMOTIONS.index("sad"), 1.0),
        )
    )
    np.testing.assert_array_equal(plain, speech_actions(utterance.phonemes, times))
    wide = plain[:, jaw] > 0.1
    assert wide.any()
    for one, effort in (
        (angry, EFFORT["angry"]),
        (half, 1 + 0.5 * (EFFORT["angry"] - 1)),
        (sad, EFFORT["sad"]),
    ):
        np.testing.assert_allclose(one[wide, jaw] / plain[wide, jaw], effort, rtol=1e-3)


def test_one_who_speaks_opens_the_mouth_half_as_far_for_an_emotion():
    silent = emotional_speech([], np.array([0.1]), "surprised", 1.0)
    shown = emotion_actions("surprised", 1.0)
    jaw, brow = ACTIONS.index("jawOpen"), ACTIONS.index("browInnerUp")
    assert silent[0, jaw] == pytest.approx(0.5 * shown[jaw]) and silent[0, brow] == pytest.approx(shown[brow])
