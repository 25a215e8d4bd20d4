"""A photograph that moves with its head: to where geometry says, as one piece, and not at its border."""

import cv2
import numpy as np
import pytest
import torch

from talkface.head import ACTIONS, HeadModel
from talkface.head.living import PIVOT, LivingPhotograph, painted_share

STILL = np.zeros(len(ACTIONS))
ORIGIN = np.zeros(2)


@pytest.fixture(scope="module")
def head():
    return HeadModel.load()


@pytest.fixture(scope="module")
def known(head, actions, posed):
    return posed(head, torch.zeros(1, head.num_identity), actions(), yaw=12.0, scale=450.0)


@pytest.fixture(scope="module")
def living(head, known):
    return LivingPhotograph(head, known[0], 160, 128)


def texture(height=160, width=128):
    noise = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def where(living, field, places):
    """Field (rows, columns, 2) at places (N, 2) in pixels of the picture."""
    at = ((places - (living.left, living.top)) / living._step - 0.5).astype(np.float32)
    return cv2.remap(field, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR)[0]


@pytest.mark.parametrize("turn", [(4.0, 0.0, 0.0), (0.0, 4.0, 0.0), (0.0, 0.0, 4.0), (2.0, -3.0, 1.0)])
def test_places_on_the_face_go_where_the_turned_head_has_them(head, known, living, turn):
    fitted, points = known
    radians = torch.tensor(np.radians(turn), dtype=torch.float32)
    cross = torch.zeros(3, 3)
    cross[0, 1], cross[0, 2], cross[1, 2] = -radians[2], radians[1], -radians[0]
    matrix = torch.linalg.matrix_exp(cross - cross.T)
    pivot = torch.tensor(PIVOT)
    vertices = head(fitted.identity, fitted.actions)
    turned = fitted.project((vertices - pivot) @ matrix.T + pivot)[:, head.landmarks, :2]
    middle = list(range(27, 68))  # outlines lie on a fold of the depth
    wanted = (turned - points)[0, middle].numpy()
    found = where(living, living.displacement(np.array(turn), ORIGIN, STILL), points[0, middle].numpy())
    assert np.abs(wanted).max() > 1.0
    assert np.abs(found - wanted).max() < 0.7


def test_the_picture_is_looked_up_where_the_field_says(known, living):
    picture = np.full((160, 128, 3), 40, np.uint8)
    place = known[1][0, 30].numpy()  # tip of the nose
    cv2.circle(picture, tuple(int(v) for v in place), 3, (255, 255, 255), -1)
    rows, columns = np.nonzero(picture[..., 0] > 150)
    before = np.array([columns.mean(), rows.mean()]) + 0.5
    turn = np.array([3.0, 5.0, 0.0])
    rows, columns = np.nonzero(living(picture, turn, ORIGIN, STILL)[..., 0] > 150)
    after = np.array([columns.mean(), rows.mean()]) + 0.5
    step = where(living, living.displacement(turn, ORIGIN, STILL), before[None])[0]
    assert np.linalg.norm(step) > 3
    assert np.abs(after - before - step).max() < 0.8


def test_the_border_stays_and_nothing_folds(living):
    picture = texture()
    turn, shift = np.array([6.0, -6.0, 6.0]), np.array([0.01, -0.01])
    result = living(picture, turn, shift, STILL)
    assert np.abs(result.astype(int) - picture).max() > 50
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert np.abs(result[edge].astype(int) - picture[edge]).max() <= 6
    field = living.displacement(turn, shift, STILL) / living._step
    stretch = [1 + np.gradient(field[..., axis], axis=1 - axis) for axis in (0, 1)]
    assert min(part.min() for part in stretch) > 0.2, "places must not pass each other"


def test_a_still_head_is_the_picture_itself(living):
    picture = texture()
    assert living(picture, np.zeros(3), ORIGIN, STILL) is picture


def test_raised_brows_rise_and_leave_the_mouth(known, living, actions):
    field = living.displacement(np.zeros(3), ORIGIN, actions(browInnerUp=1.0, browOuterUp=1.0)[0].numpy())
    points = known[1][0].numpy()
    assert where(living, field, points[17:27])[:, 1].mean() < -1.5
    assert np.abs(where(living, field, points[48:68])).max() < 0.2


def test_lids_are_left_to_the_lids(living, actions):
    assert not living.displacement(np.zeros(3), ORIGIN, actions(eyeBlink=1.0, eyeWide=1.0)[0].numpy()).any()


def test_what_is_painted_does_not_smile_twice(head, known, actions):
    fitted, points = known
    smile = actions(mouthSmile=1.0)[0].numpy()
    corner = points[0, [48, 54]].numpy()
    mask = np.zeros((128, 128), np.float32)
    mask[60:] = 1.0
    free, painted = (
        LivingPhotograph(head, fitted, 160, 128, share) for share in (None, painted_share(mask, np.eye(2, 3)))
    )
    moved = [where(one, one.displacement(np.zeros(3), ORIGIN, smile), corner) for one in (free, painted)]
    assert np.abs(moved[0]).max() > 2
    assert np.abs(moved[1]).max() < 0.05 * np.abs(moved[0]).max()
