"""Lids that close over the eye with the skin around it."""

import itertools

import cv2
import numpy as np
import pytest

from talkface.head import ACTIONS
from talkface.head.eyelids import Eyelids

SKIN = (210, 160, 130)


@pytest.fixture(scope="module")
def face(draw_face_points):
    """A face of 320 pixels with almond eyes, and its landmarks."""
    points = draw_face_points(320.0)
    picture = np.full((320, 320, 3), SKIN, np.uint8)
    for first in (36, 42):
        eye = points[first : first + 6]
        span, middle = np.linalg.norm(eye[3] - eye[0]), (eye[0] + eye[3]) / 2
        u = np.linspace(-0.5, 0.5, 40)
        bow = (1 - (2 * u) ** 2) ** 0.75 * 0.2 * span
        upper = np.stack([middle[0] + u * span, middle[1] - bow], 1)
        lower = np.stack([middle[0] + u * span, middle[1] + bow], 1)
        cv2.fillPoly(
            picture, [np.concatenate([upper, lower[::-1]]).round().astype(np.int32)], (250, 250, 250)
        )
        cv2.circle(picture, tuple(int(v) for v in middle), int(0.14 * span), (30, 60, 40), -1)
        cv2.polylines(picture, [upper.round().astype(np.int32)], False, (50, 30, 20), 2)
        for number, line, share in ((1, upper, 0.3), (2, upper, 0.7), (4, lower, 0.7), (5, lower, 0.3)):
            points[first + number] = line[round(share * 39)]
    return picture, points


def acted(name, value):
    out = np.zeros(len(ACTIONS))
    out[[ACTIONS.index(name + side) for side in ("Left", "Right")]] = value
    return out


def white(picture):
    return int((picture.min(2) > 225).sum())


def test_open_lids_are_the_picture_itself(face):
    picture, points = face
    assert Eyelids(picture, points)(picture, np.zeros(len(ACTIONS))) is picture


def test_lids_close_steadily_and_hide_the_eye(face):
    picture, points = face
    lids = Eyelids(picture, points)
    seen = [white(lids(picture, acted("eyeBlink", value))) for value in (0, 0.25, 0.5, 0.75, 1)]
    assert all(later < earlier for earlier, later in itertools.pairwise(seen))
    assert seen[-1] < 0.06 * seen[0]
    closed = lids(picture, acted("eyeBlink", 1.0))
    for first in (36, 42):
        x, y = points[first : first + 6].mean(0).astype(int)
        lid = closed[y - 4 : y, x - 4 : x + 4].reshape(-1, 3).mean(0)
        assert np.abs(lid - SKIN).max() < 25, "a closed lid is skin"


def test_wide_and_narrow_eyes_show_more_and_less_white(face):
    picture, points = face
    lids = Eyelids(picture, points)
    assert white(lids(picture, acted("eyeWide", 1.0))) > 1.1 * white(picture)
    assert white(lids(picture, acted("eyeSquint", 1.0))) < 0.85 * white(picture)


def test_only_the_eyes_change(face):
    picture, points = face
    changed = (Eyelids(picture, points)(picture, acted("eyeBlink", 1.0)) != picture).any(2)
    rows = np.nonzero(changed.any(1))[0]
    assert rows.min() > points[17:27, 1].min() - 10
    assert rows.max() < points[30, 1]


def test_one_eye_can_wink(face):
    picture, points = face
    wink = np.zeros(len(ACTIONS))
    wink[ACTIONS.index("eyeBlinkRight")] = 1.0
    changed = (Eyelids(picture, points)(picture, wink) != picture).any(2)
    assert changed[:, :160].any(), "the person's right is at the left of the picture"
    assert not changed[:, 160:].any()


def test_closed_and_tiny_eyes_are_left_alone(face):
    picture, points = face
    flat = points.copy()
    for first in (36, 42):
        flat[first : first + 6, 1] = flat[first, 1]
    assert Eyelids(picture, flat).eyes == []
    assert Eyelids(picture, points * 0.02).eyes == []
