"""Lip-gap curves: constructed curves whose lag, correlation, amplitude and closures are known."""

import numpy as np
import pytest

from talkface.metrics.articulation import (
    amplitude_ratio,
    bilabial_closure,
    closed_level,
    closure_ratio,
    correlation,
    lip_gap,
    loudness,
    phone_gaps,
    silence_ratio,
)
from talkface.metrics.interval import bootstrap_interval


@pytest.fixture
def curve() -> np.ndarray:
    """A smooth random mouth of 100 frames."""
    noise = np.random.default_rng(0).normal(size=110)
    return np.convolve(noise, np.hanning(9), mode="valid")[:100]


def test_lip_gap_of_points_that_we_place():
    points = np.zeros((3, 68, 2))
    points[:, 36], points[:, 45] = (10, 50), (90, 50)
    points[:, 62] = (50, 100)
    points[:, 66] = [(50, 100), (50, 108), (50, 124)]
    assert lip_gap(points).tolist() == pytest.approx([0, 0.1, 0.3])
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert lip_gap(3 * points @ turn.T + 7).tolist() == pytest.approx([0, 0.1, 0.3])


@pytest.mark.parametrize("lag", [-3, -1, 0, 2, 3])
def test_correlation_finds_the_lag(curve, lag):
    """generated[t] = 2 real[t - lag] + 5: correlation 1, late by `lag`."""
    generated = 2 * np.roll(curve, lag) + 5
    if lag > 0:
        generated[:lag] = np.nan
    elif lag < 0:
        generated[lag:] = np.nan
    value, found = correlation(curve, generated)
    assert (value, found) == (pytest.approx(1.0), lag)


def test_correlation_known_values(curve):
    assert correlation(curve, -curve, max_lag=0)[0] == pytest.approx(-1)
    assert correlation(curve, np.full(100, 0.3)) == (0.0, 0)
    value, lag = correlation(curve, np.roll(curve, 5), max_lag=3)
    assert value < 0.95 and lag == 3  # out of reach
    noisy = curve + np.random.default_rng(1).normal(size=100)
    expected = np.corrcoef(curve, noisy)[0, 1]
    assert correlation(curve, noisy, max_lag=0)[0] == pytest.approx(expected)


def test_correlation_leaves_missing_faces_and_extra_frames_out(curve):
    generated = np.concatenate([curve, [99.0, -99.0]])
    generated[10:20] = np.nan
    assert correlation(curve, generated) == (pytest.approx(1.0), 0)
    assert correlation(curve, np.full(100, np.nan)) == (0.0, 0)


def test_amplitude_and_silence(curve):
    assert amplitude_ratio(curve, 0.5 * curve + 3) == pytest.approx(0.5)
    assert silence_ratio(curve, np.zeros(50)) == 0
    assert silence_ratio(curve, 0.1 * curve) == pytest.approx(0.1)


def test_bilabial_closure_counts_what_closes():
    fps = 25
    real = np.full(100, 0.2)
    real[[9, 10, 11, 49, 50, 51, 90, 91]] = 0.0
    level = closed_level(real)
    assert 0 < level < 0.2
    spans = [(0.40, 0.48), (2.00, 2.08), (3.60, 3.64), (3.99, 4.0)]
    assert bilabial_closure(real, spans, fps, level) == (3, 4)
    lazy = np.where(real == 0, 0.15, real)
    assert bilabial_closure(lazy, spans, fps, level) == (0, 4)
    late = np.roll(real, 4)
    assert bilabial_closure(late, spans, fps, level)[0] < 3
    assert bilabial_closure(real, [(50.0, 51.0)], fps, level) == (0, 0)


def test_loudness_follows_the_envelope():
    rate = 16000
    t = np.arange(2 * rate) / rate
    envelope = np.where(t < 1, 0.1, 0.5)
    times = (np.arange(50) + 0.5) / 25
    result = loudness(envelope * np.sin(2 * np.pi * 400 * t), rate, times)
    assert result[:24] == pytest.approx(0.1 / np.sqrt(2), rel=1e-2)
    assert result[26:] == pytest.approx(0.5 / np.sqrt(2), rel=1e-2)
    assert (loudness(np.zeros(0), rate, times) == 0).all()


def test_bootstrap_interval_covers_the_mean():
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(60):
        low, high = bootstrap_interval(generator.normal(2.0, 1.0, size=40), seed=trial, draws=400)
        hits += low <= 2.0 <= high
    assert 50 <= hits <= 60
    wide, narrow = (bootstrap_interval(generator.normal(size=n)) for n in (10, 1000))
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 4
    assert bootstrap_interval([3.0, float("nan")]) == (3.0, 3.0)
    assert np.isnan(bootstrap_interval([])).all()


def test_gaps_of_phones_and_their_ratio():
    curve = np.full(50, 0.05)
    curve[10:13] = [0.02, 0.01, 0.02]  # 0.40 to 0.52 s
    curve[20:25] = [0.06, 0.09, 0.10, 0.08, 0.06]  # 0.80 to 1.00 s
    phones = [("B", 0.4, 0.52), ("AA1", 0.8, 1.0), ("S", 1.2, 1.4), ("AX", 1.4, 1.5), ("m", 1.6, 1.7)]
    closed, opened = phone_gaps(curve, phones, 25.0)
    assert closed == [0.01, 0.05] and opened == [0.10]
    assert closure_ratio(closed, opened) == pytest.approx(0.10 / 0.03)


def test_a_closure_counts_one_frame_early_but_not_two():
    phones = [("P", 0.4, 0.48)]
    for frame, found in ((8, 0.05), (9, 0.0), (12, 0.0), (13, 0.05)):
        curve = np.full(30, 0.05)
        curve[frame] = 0.0
        assert phone_gaps(curve, phones, 25.0)[0] == [found]


def test_unjudged_phones_are_left_out():
    curve = np.full(30, np.nan)
    curve[20:] = 0.04
    closed, opened = phone_gaps(curve, [("P", 0.1, 0.2), ("AE", 0.9, 1.0), ("B", 2.0, 2.1)], 25.0)
    assert closed == [] and opened == [0.04]
    assert np.isnan(closure_ratio(closed, opened))
    assert closure_ratio([0.0], [0.1]) == float("inf")
