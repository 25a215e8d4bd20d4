"""Visemes: lips that close for p b m, open for vowels, rest in silence."""

import numpy as np
import pytest

from talkface.data.synthetic.phonemes import PHONEMES
from talkface.data.synthetic.visemes import (
    MOUTH_ACTIONS,
    VISEMES,
    SpeakingStyle,
    frame_labels,
    speech_actions,
    viseme_of,
)
from talkface.head.model import ACTIONS

TIMES = np.arange(0, 1.6, 0.01)


def word(*symbols, start=0.3, length=0.12):
    return [(s, start + i * length, start + (i + 1) * length) for i, s in enumerate(symbols)]


def column(actions, name):
    return actions[:, ACTIONS.index(name)]


def opening(actions):
    """What parts the lips: the jaw where the lips do not follow it, and the lips on their own."""
    return (
        column(actions, "jawOpen")
        - column(actions, "mouthClose")
        + 0.3 * column(actions, "mouthLowerDownLeft")
    )


@pytest.mark.parametrize("symbol", ["P", "B", "M"])
def test_bilabials_close_between_open_vowels(symbol):
    gap = opening(speech_actions(word("AA1", symbol, "AA1"), TIMES))
    vowel = gap[(TIMES > 0.3) & (TIMES < 0.42)].max()
    consonant = gap[(TIMES > 0.42) & (TIMES < 0.54)].min()
    assert vowel > 0.3
    assert consonant < 0.02


def test_short_bilabials_are_reached_at_25_frames_per_second():
    phonemes = [("AE1", 0.3, 0.45), ("P", 0.45, 0.49), ("IY0", 0.49, 0.6)]
    for offset in np.linspace(0, 0.04, 9):
        gap = opening(speech_actions(phonemes, np.arange(offset, 1, 0.04)))
        assert gap[(np.arange(offset, 1, 0.04) > 0.4) & (np.arange(offset, 1, 0.04) < 0.53)].min() < 0.04


def test_closure_is_anticipated():
    press = column(speech_actions(word("AA1", "M", "AA1"), TIMES), "mouthPressLeft")
    assert press[np.searchsorted(TIMES, 0.40)] > 0.05  # 20 ms before the segment
    assert press[np.searchsorted(TIMES, 0.32)] < 0.01


def test_vowels_are_ordered_by_aperture_and_rounding():
    peak = {v: speech_actions(word("T", v + "1", "T"), TIMES).max(0) for v in ("AA", "AE", "IH", "IY", "UW")}
    jaw = [peak[v][ACTIONS.index("jawOpen")] for v in ("AA", "IH", "IY", "UW")]
    assert jaw == sorted(jaw, reverse=True)
    pucker, smile = ACTIONS.index("mouthPucker"), ACTIONS.index("mouthStretchLeft")
    assert peak["UW"][pucker] > 0.4 > 5 * peak["IY"][pucker]
    assert peak["IY"][smile] > 3 * peak["UW"][smile]


def test_labiodental_tucks_the_lower_lip():
    actions = speech_actions(word("AA1", "F", "AA1"), TIMES)
    middle = np.searchsorted(TIMES, 0.48)
    assert column(actions, "mouthRollLower")[middle] > 0.4
    assert column(actions, "mouthRollLower")[np.searchsorted(TIMES, 0.34)] < 0.05


def test_coarticulation_rounds_before_a_rounded_vowel():
    """The s of 'soon' is rounder than the s of 'seen'."""
    soon, seen = (speech_actions(word("S", v, "N"), TIMES) for v in ("UW1", "IY1"))
    inside = (TIMES > 0.34) & (TIMES < 0.42)
    assert column(soon, "mouthPucker")[inside].mean() > column(seen, "mouthPucker")[inside].mean() + 0.15


def test_silence_rests():
    assert np.abs(speech_actions([], TIMES)).max() == 0
    times = np.arange(0, 4, 0.01)
    actions = speech_actions(word("AA1", start=1.5), times)
    assert actions[times < 0.8].max() < 0.02
    assert actions[times > 2.1].max() < 0.02


def test_lips_part_before_a_phrase_but_not_after():
    gap = opening(speech_actions(word("AA1", "T", start=1.0), TIMES))
    assert gap[np.searchsorted(TIMES, 0.85)] > 0.08 > 10 * gap[np.searchsorted(TIMES, 0.3)]
    assert gap[np.searchsorted(TIMES, 1.24 + 0.25)] < 0.02


def test_only_the_mouth_moves_and_stays_in_range():
    actions = speech_actions(word("AO1", "B", "IY1", "SH", "W", "F", "TH"), TIMES, style=5)
    still = [i for i, n in enumerate(ACTIONS) if n not in MOUTH_ACTIONS]
    assert actions.shape == (len(TIMES), 52) and actions.dtype == np.float32
    assert np.all(actions[:, still] == 0) and actions.min() >= 0 and actions.max() <= 1


def test_motion_is_smooth_and_does_not_depend_on_the_sampling():
    phonemes = word("AA1", "P", "IY1", "UW1", length=0.08)
    fine = speech_actions(phonemes, TIMES)
    assert np.abs(np.diff(fine, axis=0)).max() < 0.12
    assert np.allclose(speech_actions(phonemes, TIMES[::4]), fine[::4])


def test_styles_differ_mildly_and_repeat():
    phonemes = word("AA1", "B", "UW1")
    average = speech_actions(phonemes, TIMES)
    assert np.array_equal(
        speech_actions(phonemes, TIMES, 3), speech_actions(phonemes, TIMES, SpeakingStyle.sample(3))
    )
    for seed in range(8):
        other = speech_actions(phonemes, TIMES, seed)
        assert 0 < np.abs(other - average).max() < 0.35
    assert np.all(
        opening(speech_actions(phonemes, TIMES, SpeakingStyle(amplitude=0.6))) <= opening(average) + 0.02
    )


def test_every_phoneme_has_a_viseme_and_a_target():
    for symbol in PHONEMES:
        assert viseme_of(symbol) in VISEMES
        assert np.isfinite(speech_actions([(symbol, 0.2, 0.4)], TIMES)).all()


def test_frame_labels():
    symbols, visemes = frame_labels([("B", 0.1, 0.2), ("AA1", 0.2, 0.4)], np.array([0.05, 0.15, 0.3, 0.5]))
    assert symbols == ["SIL", "B", "AA", "SIL"] and visemes == ["sil", "pp", "aa", "sil"]
