"""Motion and emotions of a talking picture, through the whole pipeline with a tiny bundle."""

from __future__ import annotations

import numpy as np
import pytest

from talkface.errors import TalkfaceError
from talkface.head.emotions import EMOTIONS, emotion_actions
from talkface.media import Audio, VideoWriter
from talkface.pipelines.face_painter import NO_EMOTION
from talkface.pipelines.liveliness import DEFAULT_MOTION, Feeling, Liveliness, choose_emotion, choose_motion

SOUND = Audio(np.repeat(np.random.default_rng(0).uniform(-0.3, 0.3, 40), 800).astype(np.float32), 16000)


@pytest.fixture(scope="module")
def picture(draw_faces) -> np.ndarray:
    return draw_faces(160, 240, [(60, 20, 128)])


def frames(result) -> np.ndarray:
    return np.stack(list(result))


def mean_change(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second).mean())


@pytest.mark.parametrize("mode", ["windowed", "autoregressive"])
def test_a_living_picture_moves_as_a_whole_and_obeys_the_seed(tiny_pipeline, picture, mode):
    still = frames(tiny_pipeline(SOUND, picture, fps=10, motion="none", mode=mode, seed=1))
    lively = [
        frames(tiny_pipeline(SOUND, picture, fps=10, motion="lively", mode=mode, seed=1, batch_size=size))
        for size in (1, 16)
    ]
    assert np.array_equal(lively[0], lively[1]), "batches change nothing"
    forehead = np.s_[:, 30:60, 90:160]
    assert mean_change(lively[0][forehead], still[forehead]) > 1
    assert np.array_equal(still[forehead], np.broadcast_to(still[0][forehead[1:]], still[forehead].shape))
    for edge in (np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1]):
        assert np.abs(lively[0][edge].astype(int) - still[edge]).max() <= 2
    other = frames(tiny_pipeline(SOUND, picture, fps=10, motion="lively", mode=mode, seed=2))
    assert mean_change(other[forehead], lively[0][forehead]) > 0.3


def test_the_square_moves_with_the_picture(tiny_pipeline, picture):
    still, lively = (
        frames(tiny_pipeline(SOUND, picture, fps=10, motion=motion, crop=True))
        for motion in ("none", "lively")
    )
    assert still.shape == lively.shape
    assert mean_change(still[0], lively[0]) < 3, "the film begins with the photograph"
    assert mean_change(still[-5:], lively[-5:]) > 1


def test_the_default_is_said_and_films_keep_their_own_motion(tiny_pipeline, picture, tmp_path):
    assert tiny_pipeline(SOUND, picture).metadata["motion"] == DEFAULT_MOTION
    path = tmp_path / "film.mp4"
    with VideoWriter(path, 25) as writer:
        for _ in range(6):
            writer.write(picture)
    assert tiny_pipeline(SOUND, film=path).metadata["motion"] == "none"
    with pytest.raises(TalkfaceError, match="motion: subtle; it is for pictures"):
        tiny_pipeline(SOUND, film=path, motion="subtle")
    with pytest.raises(TalkfaceError, match="motion: wild; allowed are none, subtle, lively"):
        choose_motion("wild", False)


def test_intensity_is_checked_and_none_of_it_is_no_emotion(tiny_pipeline, picture):
    plain, zero, half, full = (
        frames(tiny_pipeline(SOUND, picture, fps=10, motion="none", seed=1, **options))
        for options in (
            {},
            {"emotion": "surprised", "emotion_intensity": 0},
            {"emotion": "surprised", "emotion_intensity": 0.5},
            {"emotion": "surprised"},
        )
    )
    assert np.array_equal(plain, zero)
    brows = np.s_[:, 45:75, 80:170]
    assert 0 < mean_change(plain[brows], half[brows]) < mean_change(plain[brows], full[brows])
    with pytest.raises(TalkfaceError, match="emotion_intensity: 2; allowed are 0 to 1"):
        tiny_pipeline(SOUND, picture, fps=10, emotion="happy", emotion_intensity=2)


def test_who_is_told_which_emotion():
    told = choose_emotion("happy", 0.5, list(EMOTIONS), False, "b")
    assert told.number == 1
    np.testing.assert_array_equal(told.actions, emotion_actions("happy", 0.5))
    shown = choose_emotion("happy", 0.5, [], True, "b")
    assert shown.number == NO_EMOTION
    np.testing.assert_array_equal(shown.actions, told.actions)
    own = choose_emotion("sleepy", 1.0, ["sleepy"], True, "b")
    assert own.number == 0
    assert not own.actions.any(), "an emotion of the bundle's own is the network's alone"
    assert choose_emotion(None, 1.0, [], False, "b").strength == 0
    with pytest.raises(TalkfaceError, match="the bundle b has no emotions"):
        choose_emotion("happy", 1.0, [], False, "b")
    with pytest.raises(TalkfaceError, match="emotion: bored; allowed are neutral, happy"):
        choose_emotion("bored", 1.0, [], True, "b")


def test_the_mouth_of_an_emotion_goes_to_the_guide_and_the_rest_to_the_picture():
    happy = Feeling(1, emotion_actions("happy", 1.0), 1.0)
    life = Liveliness("none", happy, SOUND, 0)
    mouth, whole = life.mouth([0.5, 1.0]), life.at(0.5).actions
    np.testing.assert_array_equal(whole[0], happy.actions)
    assert mouth.shape == (2, 52)
    assert mouth.sum() < 2 * whole.sum()
    assert ((mouth[0] == 0) | (mouth[0] == whole[0])).all()
