"""Smoothing of alignments: trembling goes, motion stays, clips do not know of each other."""

from __future__ import annotations

import numpy as np
import pytest

from talkface.portrait import AlignmentSmoother, alignment_matrix
from talkface.portrait.crop import ANCHORS, invert

SIZE = 128


def face_at(x: float, y: float, scale: float = 200.0, degrees: float = 0.0) -> np.ndarray:
    """Canonical landmarks turned, scaled, and with the middle of their crop at (x, y)."""
    points = np.full((68, 2), 0.6)
    for anchor, members in zip(ANCHORS, (slice(36, 42), slice(42, 48), slice(31, 36)), strict=True):
        points[members] = anchor
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - 0.5) @ turn.T + (x, y)


def middles(matrices: list[np.ndarray]) -> np.ndarray:
    return np.stack([invert(matrix) @ (SIZE / 2, SIZE / 2, 1) for matrix in matrices])


def smooth(points: list[np.ndarray | None], **options) -> list[np.ndarray]:
    return list(AlignmentSmoother(SIZE, **options)(points))


def test_a_still_face_stops_trembling():
    rng = np.random.default_rng(0)
    shaken = [face_at(300 + dx, 200 + dy) for dx, dy in rng.normal(0, 1.0, (200, 2))]
    raw = middles([alignment_matrix(points, SIZE) for points in shaken])
    calm = middles(smooth(shaken))
    assert np.diff(calm, axis=0).std() < 0.3 * np.diff(raw, axis=0).std()
    assert np.abs(calm.mean(axis=0) - (300, 200)).max() < 0.3


def test_steady_motion_has_no_lag():
    path = [face_at(100 + 4 * k, 200 - 2 * k, 200 + k, 0.5 * k) for k in range(60)]
    for matrix, points in zip(smooth(path), path, strict=True):
        anchors = matrix[:, :2] @ points[36] + matrix[:, 2]
        assert np.allclose(anchors, np.array(ANCHORS[0]) * SIZE, atol=0.15)


def test_quick_motion_is_followed():
    """Nodding at 3 Hz by a tenth of the face, sampled at 25 frames a second."""
    y = 200 + 20 * np.sin(2 * np.pi * 3 * np.arange(100) / 25)
    found = middles(smooth([face_at(300, value) for value in y]))[:, 1]
    assert np.abs(found - y).max() < 2.0


def test_a_full_turn_is_no_jump_of_the_angle():
    path = [face_at(300, 200, degrees=9.0 * k) for k in range(60)]
    for matrix, points in zip(smooth(path), path, strict=True):
        anchor = matrix[:, :2] @ points[36] + matrix[:, 2]
        assert np.abs(anchor - np.array(ANCHORS[0]) * SIZE).max() < 1.0
        assert np.sqrt(np.linalg.det(matrix[:, :2])) == pytest.approx(SIZE / 200, rel=0.02)


def test_missing_faces_stay_missing_and_separate():
    before = [face_at(100, 100)] * 10
    after = [face_at(500, 300)] * 10
    found = smooth([*before, None, None, *after])
    assert [matrix is None for matrix in found] == [False] * 10 + [True] * 2 + [False] * 10
    assert np.allclose(middles(found[:10]), (100, 100))
    assert np.allclose(middles(found[12:]), (500, 300))


def test_a_cut_is_not_smoothed_over():
    found = middles(smooth([face_at(100, 100)] * 10 + [face_at(400, 100)] * 10))
    assert np.allclose(found[:10], (100, 100))
    assert np.allclose(found[10:], (400, 100))


def test_each_call_forgets_the_last_clip():
    smoother = AlignmentSmoother(SIZE)
    clip = [face_at(100 + k, 100) for k in range(12)]
    first = list(smoother(clip))
    list(smoother([face_at(900, 900)] * 12))
    for one, two in zip(first, smoother(clip), strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 30])
@pytest.mark.parametrize("lookahead", [0, 1, 4])
def test_as_many_out_as_in(count, lookahead):
    clip = [face_at(100 + k, 100) for k in range(count)]
    found = smooth(clip, lookahead=lookahead)
    assert len(found) == count
    if count:
        assert np.abs(middles(found)[:, 0] - (100 + np.arange(count))).max() < 0.1


def test_it_streams():
    """The first answer comes after `lookahead` more frames, not at the end."""
    taken = []

    def stream():
        for k in range(1000):
            taken.append(k)
            yield face_at(100 + k, 100)

    answers = AlignmentSmoother(SIZE, lookahead=3)(stream())
    next(answers)
    assert len(taken) == 4
    for _ in range(10):
        next(answers)
    assert len(taken) == 14


def test_the_answer_does_not_depend_on_the_place_in_the_clip():
    """The window slides: a frame deep in a long clip is treated like one in a short clip."""
    rng = np.random.default_rng(0)
    clip = [face_at(300 + dx, 200 + dy) for dx, dy in rng.normal(0, 1.0, (60, 2))]
    whole = smooth(clip)
    part = smooth(clip[30:])
    for one, two in zip(whole[34:], part[4:], strict=True):
        assert np.allclose(one, two)
