"""The mouth stage learns: drawn mouths with known points; the renders of its script; lips in a face finder."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talkface.experts.face_landmarks import apply_similarity
from talkface.experts.faces import NetworkFaceFinder, _Candidate
from talkface.experts.landmark_network import LandmarkNetwork
from talkface.experts.mouth_network import LIPS, MouthNetwork, MouthPrediction, mouth_matrix
from talkface.head.model import ACTIONS, HeadModel
from talkface.training.mouth import mouth_loss, train_mouth
from talkface.training.mouth_crops import (
    MEETING,
    MIRROR_LIPS,
    MouthBatch,
    MouthSampler,
    crease_corners,
    meet_at_the_seam,
    relight,
    relight_inside,
)

SCRIPTS = Path(__file__).parents[2] / "scripts"


def drawn_mouth(rng: np.random.Generator, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Red lips on skin, open by a random amount: picture (size, size, 3) and its 68 points."""
    points = LandmarkNetwork(channels=(4, 4, 4, 4)).mean_shape.numpy().astype(np.float64) * 1.8 * size
    points += size / 2 - points[LIPS].mean(0) + rng.uniform(-2, 2, 2)
    opening = rng.uniform(0, 0.12) * size
    points[[55, 56, 57, 58, 59, 65, 66, 67], 1] += opening
    picture = np.full((size, size, 3), rng.integers(150, 230, 3), np.uint8)
    for part, colour in ((points[48:60], (170, 30, 40)), (points[60:68], (20, 5, 5))):
        cv2.fillPoly(picture, [np.round(part * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)
    return picture, points.astype(np.float32)


@pytest.fixture(scope="module")
def mouths() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    pictures, points = zip(*(drawn_mouth(rng) for _ in range(32)), strict=True)
    return np.stack(pictures), np.stack(points)


def tiny_mouth() -> MouthNetwork:
    return MouthNetwork(channels=(8, 12, 16, 24), blocks=(0, 1, 0, 0), image_size=48)


@pytest.fixture(scope="module")
def trained(mouths) -> MouthNetwork:
    torch.manual_seed(0)
    sampler = MouthSampler(*mouths, size=48)
    return train_mouth(
        tiny_mouth(), sampler, steps=250, batch_size=12, learning_rate=4e-3, average_decay=0.95
    )


def test_the_crop_is_upright_centred_on_the_lips_and_as_wide_as_the_eyes_say(mouths):
    points = mouths[1][0].astype(np.float64)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    rolled = points @ turn.T * 3 + 7
    matrix = mouth_matrix(rolled, 64)
    inside = apply_similarity(matrix, rolled)
    assert np.allclose(inside[LIPS].mean(0), 32)
    assert np.allclose(inside, apply_similarity(mouth_matrix(points, 64), points))
    eyes = inside[42:48].mean(0) - inside[36:42].mean(0)
    assert eyes[0] > 0 and abs(eyes[1]) < 1e-9
    narrow = points.copy()
    narrow[36:48, 0] = narrow[36:48, 0].mean()  # in profile the eyes say nothing
    assert (
        0.3
        < np.linalg.det(mouth_matrix(narrow, 64)[:, :2]) / np.linalg.det(mouth_matrix(points, 64)[:, :2])
        < 3
    )


def test_network_answers_in_crop_units():
    output = tiny_mouth().eval()(torch.zeros(2, 3, 48, 48))
    assert output.points.shape == (2, 20, 2) and output.log_scale.shape == (2, 20)
    assert output.maps.shape == (2, 20, 12, 12)
    assert 0.3 < float(output.points.detach().mean()) < 0.7
    assert sum(parameter.numel() for parameter in MouthNetwork().parameters()) < 1_000_000


def test_mirror_is_an_involution_and_keeps_upper_and_lower_lip():
    order = np.array(MIRROR_LIPS)
    assert (order[order] == np.arange(20)).all()
    assert {tuple(order[list(pair)]) for pair in MEETING} == set(MEETING)


def test_lips_in_each_other_meet_at_the_seam_and_open_ones_stay(mouths):
    points = mouths[1][:2].copy()
    points[0, 66, 1] = points[0, 62, 1] - 4
    points[1, 66, 1] = points[1, 62, 1] + 4
    met = meet_at_the_seam(points)
    down = points[0, LIPS].mean(0) - points[0, 36:48].mean(0)
    down /= np.linalg.norm(down)
    assert abs((met[0, 66] - met[0, 62]) @ down) < 1e-4
    assert np.allclose(met[0, 66] + met[0, 62], points[0, 66] + points[0, 62], atol=1e-4)
    assert np.allclose(met[1], points[1])


def test_crops_carry_their_points(mouths):
    """Where the inside of a drawn mouth is open, the crop is dark between the points of its inner lips."""
    sampler = MouthSampler(*mouths, size=64, seed=3)
    wide = int(np.argmax(mouths[1][:, 66, 1] - mouths[1][:, 62, 1]))
    for _ in range(8):
        picture, points = sampler._mouth(wide)
        middle = np.floor(points[12:].mean(0)).astype(int)
        assert picture[middle[1], middle[0]].max() < 90
        assert points[0, 0] < points[6, 0] and points[14, 1] < points[18, 1]
    batch = sampler.crops(3)
    assert batch.images.shape == (3, 64, 64, 3) and batch.images.dtype == np.uint8
    assert batch.points.shape == (3, 20, 2)


def test_same_seed_same_batches(mouths):
    first, second = (MouthSampler(*mouths, size=48, seed=5).crops(4) for _ in range(2))
    assert (first.images == second.images).all() and (first.points == second.points).all()


def test_loss_is_least_for_the_truth_and_counts_the_opening():
    points = np.random.default_rng(0).uniform(0.3, 0.7, (2, 20, 2)).astype(np.float32)
    batch = MouthBatch(np.zeros((2, 8, 8, 3), np.uint8), points)

    def loss(offset: np.ndarray) -> dict[str, float]:
        moved = torch.from_numpy(points + offset.astype(np.float32))
        prediction = MouthPrediction(moved, torch.full((2, 20), -3.0), torch.zeros(2, 20, 4, 4))
        return {name: float(term) for name, term in mouth_loss(prediction, batch).items()}

    shifted, opened = np.full((20, 2), 0.02), np.zeros((20, 2))
    opened[[lower for _, lower in MEETING], 1] = 0.02
    truth = loss(np.zeros((20, 2)))
    assert truth["opening"] == truth["distance"] == 0
    assert loss(shifted)["opening"] == pytest.approx(0, abs=1e-5) and loss(shifted)["distance"] > 0
    assert loss(opened)["opening"] == pytest.approx(0.4, rel=1e-3)
    assert loss(shifted)["likelihood"] > truth["likelihood"]


def test_a_tiny_network_learns_the_lips(mouths, trained):
    finder = NetworkFaceFinder(LandmarkNetwork(channels=(4, 4, 4, 4)), mouth=trained)
    errors = []
    for picture, points in zip(*mouths, strict=True):
        wrong = points.copy()
        wrong[LIPS] = points[LIPS].mean(0)
        start = _Candidate(wrong, np.full(68, 50.0, np.float32), 1.0)
        found = finder._finished(picture, start)
        assert (found.points[:48] == points[:48]).all() and (found.scale[:48] == 50).all()
        assert (found.scale[LIPS] < 50).all()
        errors.append(np.abs(found.points[LIPS] - points[LIPS]).mean())
    assert np.mean(errors) < 2.0


def test_lips_that_the_first_network_is_surer_of_stay(mouths, trained):
    finder = NetworkFaceFinder(LandmarkNetwork(channels=(4, 4, 4, 4)), mouth=trained)
    sure = _Candidate(mouths[1][0], np.full(68, 1e-4, np.float32), 1.0)
    found = finder._finished(mouths[0][0], sure)
    assert np.allclose(found.points, sure.points, atol=1e-3)


def test_training_resumes(mouths, tmp_path):
    path = tmp_path / "state.pt"
    sampler = MouthSampler(*mouths, size=48)
    for steps in (3, 4):
        network = train_mouth(tiny_mouth(), sampler, steps=steps, batch_size=2, checkpoint=path)
    state = torch.load(path, weights_only=True)
    assert state["step"] == 4
    assert torch.equal(network.maps.weight, state["average"]["maps.weight"])


def test_the_script_renders_mouths_in_the_middle(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    script = pytest.importorskip("train_mouth")
    actions = script.random_mouths(np.random.default_rng(0), 300)
    assert actions.shape == (300, len(ACTIONS)) and (actions >= 0).all() and actions.max() > 1
    jaw = actions[:, ACTIONS.index("jawOpen")]
    raised = actions[:, ACTIONS.index("mouthUpperUpLeft")]
    assert ((jaw < 0.05) & (raised > 0.4)).sum() > 10  # teeth with the jaw closed
    head = HeadModel.load()
    images, landmarks = script.render_person(head, np.random.default_rng(1), 3, 48, "cpu")
    assert images.shape == (script.FRAMES_PER_PERSON, 48, 48, 3) and images.std() > 5
    middle = landmarks[:, LIPS].mean(1)
    assert np.abs(middle - 24).max() < 10
    sys.modules.pop("train_mouth", None)


def flat_mouth(mouths) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An even picture, the lips of the widest drawn mouth, and its inside as a mask."""
    wide = int(np.argmax(mouths[1][:, 66, 1] - mouths[1][:, 62, 1]))
    lips, inside = mouths[1][wide, LIPS], np.zeros((96, 96), np.uint8)
    cv2.fillPoly(inside, [np.round(lips[12:]).astype(np.int32)], 1)
    return np.full((96, 96, 3), 200, np.float32), lips, inside


def test_only_the_inside_is_lit_anew_and_darkest_under_the_upper_lip(mouths):
    picture, lips, inside = flat_mouth(mouths)
    near = cv2.dilate(inside, np.ones((13, 13), np.uint8))
    middle = round(float(lips[14, 0]))
    top, bottom = (round(float(lips[k, 1])) for k in (14, 18))
    shaded = []
    for seed in range(12):
        result = relight_inside(np.random.default_rng(seed), picture, lips, 1.0)
        assert np.abs(result - 200)[near == 0].max() < 1e-3
        shaded.append(result[bottom - 2, middle].mean() - result[top + 2, middle].mean())
    assert min(shaded) > -1 and max(shaded) > 20


def test_creases_darken_the_skin_beyond_the_corners_only(mouths):
    picture, lips, _ = flat_mouth(mouths)
    result = crease_corners(np.random.default_rng(0), picture, lips, 1.0)
    change = (picture - result).max(-1)
    rows, columns = np.nonzero(change > 2)
    assert change.min() > -1e-3 and len(rows)
    left, right = lips[0, 0], lips[6, 0]
    assert (columns < left).any() and (columns > right).any()
    assert not ((columns > left + 5) & (columns < right - 5)).any()


def test_relit_mouths_stay_pictures_and_differ(mouths):
    picture, lips, _ = flat_mouth(mouths)
    rng = np.random.default_rng(1)
    results = [relight(rng, picture.astype(np.uint8), lips) for _ in range(8)]
    assert all(x.dtype == np.uint8 and x.shape == picture.shape for x in results)
    assert len({x.tobytes() for x in results}) >= 6
