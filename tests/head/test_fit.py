"""The head fitted to landmarks: known heads are found again, and what cannot be fitted is refused."""

import math

import pytest
import torch

from talkface.errors import TalkfaceError
from talkface.head import ACTIONS, HeadModel
from talkface.head.fit import STEADY, HeadFitter


@pytest.fixture(scope="module")
def head():
    return HeadModel.load()


@pytest.fixture(scope="module")
def fitter(head):
    return HeadFitter(head)


def angle_between(first, second):
    cosine = ((first @ second.transpose(-1, -2)).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return math.degrees(float(cosine.clamp(-1, 1).acos()))


@pytest.mark.parametrize("yaw,pitch,roll", [(0, 0, 0), (25, 0, 0), (-30, 10, 15), (10, -15, -20)])
def test_pose_and_scale_of_a_known_head_are_found(head, fitter, yaw, pitch, roll, actions, posed):
    identity = torch.randn(1, head.num_identity, generator=torch.Generator().manual_seed(3))
    known, points = posed(head, identity, actions(jawOpen=0.3), yaw, pitch, roll)
    found = fitter(points)
    assert float(found.error) < 0.6
    assert angle_between(found.rotation, known.rotation) < 6.0
    assert float(found.scale / known.scale) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", ["jawOpen", "mouthPucker", "mouthSmile", "eyeBlink", "mouthFunnel"])
def test_an_action_is_told_from_rest(head, fitter, name, actions, posed):
    identity = torch.randn(1, head.num_identity, generator=torch.Generator().manual_seed(4))
    _, calm = posed(head, identity, actions(), yaw=8)
    _, moved = posed(head, identity, actions(**{name: 0.7}), yaw=8)
    columns = [n for n, action in enumerate(ACTIONS) if action.startswith(name)]
    change = fitter(moved).actions - fitter(calm).actions
    assert float(change[0, columns].mean()) > 0.2


def test_actions_stay_within_their_bounds(head, fitter, actions, posed):
    noise = torch.randn(16, 68, 2, generator=torch.Generator().manual_seed(1))
    _, points = posed(head, torch.zeros(1, head.num_identity), actions())
    found = fitter(points + 4 * noise)
    assert float(found.actions.min()) >= 0.0 and float(found.actions.max()) <= 1.0


def test_a_batch_is_fitted_like_its_members(head, fitter, actions, posed):
    heads = [
        posed(head, torch.randn(1, head.num_identity), actions(jawOpen=j), yaw=9 * j)[1]
        for j in (0.0, 0.5, 1.0)
    ]
    together, alone = fitter(torch.cat(heads)), fitter(heads[1])
    torch.testing.assert_close(together.actions[1:2], alone.actions, atol=1e-4, rtol=0)
    torch.testing.assert_close(together[1:2].scale, alone.scale, rtol=1e-5, atol=0)


def test_scale_follows_the_picture(head, fitter, actions, posed):
    """A face three times as large is the same person: the prior is counted in sizes of the face."""
    _, points = posed(head, torch.randn(1, head.num_identity), actions(mouthSmile=0.5), yaw=5)
    small, large = fitter(points), fitter(3 * points)
    torch.testing.assert_close(large.actions, small.actions, atol=1e-3, rtol=0)
    assert float(large.scale / small.scale) == pytest.approx(3.0, rel=1e-3)


def test_pose_needs_no_mouth(head, fitter, actions, posed):
    identity = torch.randn(1, head.num_identity, generator=torch.Generator().manual_seed(5))
    first, before = posed(head, identity, actions())
    second, points = posed(head, identity, actions(jawOpen=0.9), yaw=12, roll=6)
    hidden = points.clone()
    hidden[:, [n for n in range(68) if n not in STEADY]] = 500.0
    person = fitter(before)
    found = fitter.pose(hidden, person)
    # what straight ahead is, is a matter of identity: the turn between the two pictures is known
    turned = found.rotation @ person.rotation.transpose(1, 2)
    assert angle_between(turned, second.rotation @ first.rotation.transpose(1, 2)) < 4.0
    torch.testing.assert_close(found.actions, person.actions)


@pytest.mark.parametrize(
    "points", [torch.zeros(2, 68, 2), torch.full((1, 68, 2), float("nan")), torch.rand(1, 5, 2)]
)
def test_what_is_no_face_is_refused(fitter, points):
    with pytest.raises(TalkfaceError, match="landmarks"):
        fitter(points)
