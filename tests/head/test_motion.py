"""Life of a head: natural rates, bounds, and nothing but time, seed and sound decides."""

import numpy as np
import pytest

from talkface.errors import TalkfaceError
from talkface.head import ACTIONS
from talkface.head.motion import EMPHASIS_RATE, LOOK_AHEAD, STYLES, LivingHead, blink_shape, emphasis

LEFT, RIGHT, BROW = (ACTIONS.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight", "browInnerUp"))
MINUTES = np.arange(0, 300, 0.02)
QUIET = np.zeros(10)


def speech(seconds, seed=0):
    """Loudness of syllables with pauses."""
    random = np.random.default_rng(seed)
    return np.repeat(random.uniform(0, 0.2, round(seconds * 5)), 5)


def test_blinks_come_at_a_natural_rate_and_fall_faster_than_they_rise():
    closed = LivingHead("subtle", 1)(MINUTES, QUIET).actions
    assert np.array_equal(closed[:, LEFT], closed[:, RIGHT])
    shut = closed[:, LEFT] > 0.1
    starts, ends = (np.nonzero(np.diff(shut.astype(int)) == step)[0] for step in (1, -1))
    assert 12 <= len(starts) / 5 <= 26
    durations = (ends[: len(starts)] - starts[: len(ends)]) * 0.02
    assert durations.min() >= 0.12
    assert durations.max() <= 0.28
    peaks = [
        first + int(closed[first : last + 1, LEFT].argmax())
        for first, last in zip(starts, ends, strict=False)
    ]
    falls, rises = (np.abs(np.subtract(peaks, side[: len(peaks)])).mean() for side in (starts, ends))
    assert falls < 0.8 * rises
    assert closed[peaks, LEFT].min() > 0.85


def test_the_shape_of_a_blink():
    assert blink_shape(
        np.array([-0.1, -0.05, 0.0, 0.02, 0.12, 0.3]), 0.1, 0.02, 0.2
    ).tolist() == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.5, 0.0])


@pytest.mark.parametrize("motion", list(STYLES))
def test_heads_turn_a_little_and_smoothly(motion):
    loud = emphasis(speech(300))
    moments = LivingHead(motion, 2)(MINUTES, loud)
    style = STYLES[motion]
    assert np.abs(moments.rotation).max() < style.largest
    assert np.abs(moments.rotation).max() > style.largest / 3
    assert np.abs(np.diff(moments.rotation, axis=0)).max() / 0.02 < 6 * style.largest
    assert np.abs(moments.shift).max() < 5 * style.shift
    assert not moments.rotation[0].any()
    assert not moments.shift[0].any()


def test_lively_moves_more_than_subtle_and_none_not_at_all():
    loud = emphasis(speech(60))
    none, subtle, lively = (
        LivingHead(name, 0)(MINUTES[:3000], loud) for name in ("none", "subtle", "lively")
    )
    assert not none.actions.any()
    assert not none.rotation.any()
    assert (none.swell == 1).all()
    assert lively.rotation.std() > 1.5 * subtle.rotation.std() > 0
    assert lively.actions[:, BROW].max() > 1.5 * subtle.actions[:, BROW].max() > 0


def test_the_seed_decides_and_the_order_of_asking_does_not():
    loud = emphasis(speech(130))
    times = np.array([0.3, 59.9, 61.0, 125.0])
    together = LivingHead("lively", 4)(times, loud)
    alone = [LivingHead("lively", 4)(np.array([time]), loud) for time in times[::-1]][::-1]
    for name in ("actions", "rotation", "shift", "swell"):
        single = np.concatenate([getattr(moment, name) for moment in alone])
        np.testing.assert_allclose(single, getattr(together, name), atol=1e-6)
    assert not np.allclose(together.rotation, LivingHead("lively", 5)(times, loud).rotation)


def test_emphasis_is_where_speech_gets_louder():
    loudness = np.full(200, 0.03)
    loudness[100:108] = 0.15
    found = emphasis(loudness)
    assert 96 <= int(found.argmax()) <= 112
    assert found.max() > 0.3
    assert found[20:90].max() < 0.05
    assert not emphasis(np.zeros(200)).any()
    assert not emphasis(np.random.default_rng(0).uniform(0, 0.002, 200)).any(), "noise is no speech"
    assert len(emphasis(np.zeros(0))) == 0


def test_emphasis_looks_ahead_no_farther_than_it_says():
    whole = speech(10)
    known = 150
    ahead = round(LOOK_AHEAD * EMPHASIS_RATE)
    np.testing.assert_array_equal(emphasis(whole[:known])[: known - ahead], emphasis(whole)[: known - ahead])


def test_brows_rise_with_emphasis_only():
    loudness = np.full(500, 0.03)
    loudness[250:260] = 0.2
    raised = max(
        LivingHead("subtle", seed)(np.array([10.2]), emphasis(loudness)).actions[0, BROW] for seed in range(5)
    )
    assert raised > 0.05
    assert LivingHead("subtle", 0)(np.array([5.0]), emphasis(loudness)).actions[0, BROW] < 0.01


def test_an_unknown_motion_is_refused():
    with pytest.raises(TalkfaceError, match="motion: wild; allowed are none, subtle, lively"):
        LivingHead("wild")
