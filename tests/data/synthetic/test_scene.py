"""Rendered people: determinism, framing, and truth that agrees with the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from talkface.data.synthetic.appearance import sample_person
from talkface.data.synthetic.background import make_background
from talkface.data.synthetic.pose import rotation_matrices
from talkface.data.synthetic.scene import Scene, render
from talkface.errors import TalkfaceError
from talkface.head import ACTIONS, HeadModel


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


def act(**values: float) -> torch.Tensor:
    return torch.tensor([values.get(name, 0.0) for name in ACTIONS])


def test_same_seed_same_bytes_whatever_the_chunk(head: HeadModel) -> None:
    actions = torch.rand(3, 52, generator=torch.Generator().manual_seed(0)) * 0.3
    first = render(head, sample_person(3, head), actions, None, Scene(3), size=64)
    again = render(head, sample_person(3, head), actions, None, Scene(3), size=64)
    assert torch.equal(first.images, again.images) and torch.equal(first.landmarks, again.landmarks)
    chunked = render(head, sample_person(3, head), actions, None, Scene(3), size=64, chunk=1)
    assert (first.images.int() - chunked.images.int()).abs().max() <= 1


def test_shapes_and_types(head: HeadModel) -> None:
    frames = render(head, sample_person(1, head), torch.zeros(2, 52), torch.zeros(2, 6), size=48)
    assert frames.images.shape == (2, 48, 48, 3) and frames.images.dtype == torch.uint8
    assert frames.landmarks.shape == (2, 68, 2) and frames.landmarks.dtype == torch.float32
    assert frames.visible.shape == (2, 68) and frames.visible.dtype == torch.bool
    assert frames.face_mask.shape == frames.mouth_mask.shape == (2, 48, 48)


def test_other_people_and_scenes_look_different(head: HeadModel) -> None:
    pictures = [
        render(
            head, sample_person(person, head), torch.zeros(1, 52), None, Scene(scene), size=48
        ).images.float()
        for person, scene in ((5, 5), (6, 5), (5, 6))
    ]
    assert (pictures[0] - pictures[1]).abs().mean() > 3
    assert (pictures[0] - pictures[2]).abs().mean() > 3


def test_landmarks_lie_on_the_face(head: HeadModel) -> None:
    for seed in (2, 11, 14):
        frames = render(head, sample_person(seed, head), torch.zeros(1, 52), None, Scene(seed), size=128)
        place = frames.landmarks[0].round().long().clamp(0, 127)
        inner = [*range(27, 68)]
        mask = frames.face_mask[0]
        assert mask[place[inner, 1], place[inner, 0]].float().mean() > 0.9
        assert frames.visible[0, 48:68].float().mean() > 0.9
        mouth = frames.mouth_mask[0]
        ys, xs = mouth.nonzero().unbind(1)
        low, high = frames.landmarks[0, 48:68].amin(0), frames.landmarks[0, 48:68].amax(0)
        assert (
            xs.min() > low[0] - 6
            and xs.max() < high[0] + 6
            and ys.min() > low[1] - 6
            and ys.max() < high[1] + 6
        )


def test_mouth_mask_and_lip_gap_grow_with_the_jaw(head: HeadModel) -> None:
    actions = torch.stack([act(jawOpen=value) for value in (0.0, 0.3, 0.6, 0.9)])
    frames = render(head, sample_person(4, head), actions, None, Scene(4), size=96)
    area = frames.mouth_mask.flatten(1).sum(1)
    gap = frames.landmarks[:, 66, 1] - frames.landmarks[:, 62, 1]
    assert (area.diff() > 0).all() and (gap.diff() > 1).all()
    assert gap[0] < 1.5


def test_the_inside_of_an_open_mouth_is_not_lip_coloured(head: HeadModel) -> None:
    frames = render(head, sample_person(9, head), act(jawOpen=0.8)[None], None, Scene(9), size=128)
    marks = frames.landmarks[0]
    x, top, bottom = int(marks[62, 0]), float(marks[62, 1]), float(marks[66, 1])
    inside = (
        frames.images[0, round(top + 0.25 * (bottom - top)) : round(top + 0.6 * (bottom - top)), x]
        .float()
        .mean()
    )
    lip = frames.images[0, int((marks[57, 1] + bottom) / 2), x].float().mean()
    assert inside < 0.8 * lip


def test_framing_is_the_canonical_crop(head: HeadModel) -> None:
    """Without jitter and at scale 1, the three anchors fall on their places in the crop as well as a
    similarity can."""
    person = sample_person(12, head)
    for scale in (1.0, 0.5):
        scene = Scene(12, face_scale=scale, jitter=0.0)
        marks = render(head, person, torch.zeros(1, 52), None, scene, size=128).landmarks[0] / 128
        anchors = torch.stack([marks[36:42].mean(0), marks[42:48].mean(0), marks[31:36].mean(0)])
        target = torch.tensor([[0.365, 0.36], [0.635, 0.36], [0.5, 0.554]])
        target = 0.5 + (target - 0.5) * scale
        torch.testing.assert_close(anchors.mean(0), target.mean(0), atol=2e-3, rtol=0)
        assert (anchors - target).abs().max() < 0.05 * scale


def test_pose_moves_the_head_as_said(head: HeadModel) -> None:
    pose = torch.zeros(4, 6)
    pose[1, 0], pose[2, 1], pose[3, 3] = 0.3, 0.4, 0.02
    marks = render(
        head, sample_person(1, head), torch.zeros(4, 52), pose, Scene(1, jitter=0.0), size=96
    ).landmarks
    nose = marks[:, 30]
    assert nose[1, 1] > nose[0, 1] + 2  # nods down
    assert nose[2, 0] > nose[0, 0] + 2  # turns to the picture's right
    assert nose[3, 0] > nose[0, 0] + 2  # shifts to the right


def test_a_turned_head_hides_its_far_side(head: HeadModel) -> None:
    pose = torch.tensor([[0.0, 0.9, 0, 0, 0, 0]])
    visible = render(head, sample_person(0, head), torch.zeros(1, 52), pose, Scene(0), size=96).visible[0]
    # turned to the picture's right, the picture-left side of the face shows
    assert visible[[3, 4, 5]].all() and not visible[[13, 14, 15]].any()


def test_rotation_matrices_are_rotations() -> None:
    matrices = rotation_matrices(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(
        matrices @ matrices.transpose(1, 2), torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(5))


def test_blink_hides_the_eyes(head: HeadModel) -> None:
    """With the lids shut, the darkest and brightest points of the eye region (pupil, white) are gone."""
    person = sample_person(21, head)
    person.glasses = False
    person.hair_style = "short"
    frames = render(
        head,
        person,
        torch.stack([act(), act(eyeBlinkLeft=1.0, eyeBlinkRight=1.0)]),
        None,
        Scene(21),
        size=128,
    )
    x0, y0 = frames.landmarks[0, 36:42].amin(0).long().tolist()
    x1, y1 = frames.landmarks[0, 36:42].amax(0).long().tolist()
    eye = frames.images[:, y0 : y1 + 1, x0 : x1 + 1].float().mean(-1).flatten(1)
    assert eye[1].std() < 0.7 * eye[0].std()


def test_own_pictures_become_backgrounds(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60, 3), (255, 0, 0), np.uint8)).save(tmp_path / "red.png")
    found = [make_background(Scene(seed, background_pictures=tmp_path), 16) for seed in range(20)]
    red = [bool(torch.allclose(picture, torch.tensor([1.0, 0.0, 0.0]))) for picture in found]
    assert 4 <= sum(red) <= 16
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(TalkfaceError, match="empty"):
        for seed in range(20):
            make_background(Scene(seed, background_pictures=empty), 16)
