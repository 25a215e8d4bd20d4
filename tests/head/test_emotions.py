"""Eight emotions as facial actions."""

import numpy as np
import pytest

from talkface.errors import TalkfaceError
from talkface.head import ACTIONS
from talkface.head.emotions import EMOTIONS, emotion_actions


def test_actions_grow_with_intensity_from_none():
    for name in EMOTIONS:
        full = emotion_actions(name, 1.0)
        np.testing.assert_allclose(emotion_actions(name, 0.5), full / 2)
        assert full.max() <= 1
        assert bool(full.any()) is (name != "neutral")
        np.testing.assert_array_equal(full, emotion_actions(EMOTIONS.index(name), 1.0))


def test_contempt_is_one_sided():
    smile = [
        emotion_actions("contempt", 1.0)[ACTIONS.index(f"mouthSmile{side}")] for side in ("Left", "Right")
    ]
    assert smile[0] > 0.5
    assert smile[1] == 0


def test_an_unknown_emotion_is_refused():
    with pytest.raises(TalkfaceError, match="'bored'; allowed 0-7 or neutral"):
        emotion_actions("bored", 1.0)
