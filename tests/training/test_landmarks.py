"""The landmark network learns: cartoon faces with known points, no renderer needed."""

import cv2
import numpy as np
import pytest
import torch

from talkface.experts.face_landmarks import apply_similarity, fit_similarity
from talkface.experts.faces import NetworkFaceFinder
from talkface.experts.landmark_network import FaceProposals, LandmarkNetwork, LandmarkPrediction, soft_argmax
from talkface.training.landmark_crops import MIRROR, CropBatch, CropSampler, SceneBatch, average_shape
from talkface.training.landmarks import landmark_loss, map_loss, proposal_loss, train_landmarks
from talkface.training.picture_noise import cover_face, dead_leaves, degrade


def cartoon(rng: np.random.Generator, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A drawn face: picture (size, size, 3) and its 68 points."""
    shape = LandmarkNetwork(channels=(4, 4, 4, 4)).mean_shape.numpy().astype(np.float64)
    shape = (shape - 0.5) * [rng.uniform(0.9, 1.1), 1.0] + 0.5
    zoom = size * rng.uniform(0.8, 1.0)
    points = (shape - 0.5) * zoom + size / 2 + rng.uniform(-3, 3, 2)
    picture = np.full((size, size, 3), rng.integers(0, 120, 3), np.uint8)

    def fill(part: np.ndarray, colour: tuple[int, int, int]) -> None:
        cv2.fillPoly(picture, [np.round(part).astype(np.int32)], colour, cv2.LINE_AA)

    top = points[[16, 0]] - [0, 0.2 * zoom]
    fill(np.concatenate([points[:17], top]), (230, 180, 150))
    fill(points[36:42], (20, 20, 60))
    fill(points[42:48], (20, 20, 60))
    fill(points[48:60], (170, 30, 40))
    for brow in (points[17:22], points[22:27]):
        cv2.polylines(picture, [np.round(brow).astype(np.int32)], False, (60, 40, 20), 2, cv2.LINE_AA)
    fill(points[31:36], (150, 90, 80))
    return picture, points


@pytest.fixture(scope="module")
def faces() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    pictures, points = zip(*(cartoon(rng) for _ in range(24)), strict=True)
    return np.stack(pictures), np.stack(points).astype(np.float32)


def make_sampler(faces: tuple[np.ndarray, np.ndarray], seed: int = 0, size: int = 64) -> CropSampler:
    return CropSampler(*faces, [], average_shape(faces[1]), size=size, seed=seed)


def test_mirror_is_an_involution_and_mirrors_the_average_face(faces):
    order = np.array(MIRROR)
    assert (order[order] == np.arange(68)).all()
    shape = average_shape(faces[1])
    assert np.allclose(shape[order] * [-1, 1] + [1, 0], shape, atol=1e-5)
    assert np.ptp(shape[:, 1]) == pytest.approx(0.62, abs=1e-5)


def test_average_shape_ignores_roll_zoom_and_place(faces):
    angle = 0.5
    turn = 1.7 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.allclose(average_shape(faces[1] @ turn.T + 12), average_shape(faces[1]), atol=1e-3)


def test_sampler_is_deterministic_and_its_points_lie_on_the_features(faces):
    first, second = (make_sampler(faces, seed=4).crops(12) for _ in range(2))
    assert np.array_equal(first.images, second.images) and np.array_equal(first.points, second.points)
    assert set(np.unique(first.label)) <= {-1.0, 0.0, 1.0}
    assert (first.has_points[first.label == 1] == 1).all() and (first.has_points[first.label == 0] == 0).all()
    # Without covering and relighting, the mouth of every close crop must be red where the points say.
    sampler = make_sampler(faces, seed=1)
    reds = []
    for _ in range(20):
        picture, points, label = sampler._face("close")
        assert label == 1
        x, y = points[48:60].mean(0).astype(int)
        reds.append(int(picture[y, x, 0]) - int(picture[y, x, 1]))
    assert np.median(reds) > 80


def test_mistakes_come_back_as_negatives(faces):
    sampler = make_sampler(faces, seed=3)
    green = np.zeros((64, 64, 3), np.uint8)
    green[..., 1] = 255
    for _ in range(600):
        sampler.remember(green, sampler.mean_shape)
    assert len(sampler.mistaken) == 512
    batch = sampler.crops(200)
    again = [image for image, faceless in zip(batch.images, batch.faceless, strict=True) if faceless]
    flat_green = [np.ptp(image.mean((0, 1))) > 30 and image[..., 1].std() < 40 for image in again]
    assert 0.15 < np.mean(flat_green) < 0.85
    assert (batch.label[batch.faceless == 1] == 0).all() and (
        batch.has_points[batch.faceless == 1] == 0
    ).all()


def test_scene_centre_and_size_are_those_of_the_pasted_face(faces):
    sampler = make_sampler(faces, seed=2, size=128)
    batch = sampler.scenes(16)
    assert (batch.sizes > 0).any() and (batch.sizes == 0).any()
    assert (batch.centres[batch.sizes > 0] >= 0).all() and (batch.centres <= 128).all()


def face_batch(points: np.ndarray) -> CropBatch:
    one = np.ones(1, np.float32)
    return CropBatch(np.zeros((1, 4, 4, 3), np.uint8), points.astype(np.float32), one, one, 0 * one)


def test_likelihood_is_lowest_where_the_scale_equals_the_mean_error():
    batch = face_batch(np.zeros((1, 68, 2)))
    points = torch.full((1, 68, 2), 0.05)  # |dx| + |dy| = 0.1 = 2 b at the optimum

    def likelihood(scale: float) -> float:
        prediction = LandmarkPrediction(
            points, torch.full((1, 68), float(np.log(scale))), torch.zeros(1), torch.zeros(1, 68, 8, 8)
        )
        return float(landmark_loss(prediction, batch)["likelihood"])

    assert likelihood(0.05) < min(likelihood(0.025), likelihood(0.1))
    assert likelihood(0.05) == pytest.approx(2 + 2 * np.log(0.05), rel=1e-4)


def test_map_loss_is_minimal_where_the_soft_argmax_is_the_point():
    points = torch.rand(1, 68, 2, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    maps = torch.zeros(1, 68, 8, 8, requires_grad=True)
    assert torch.allclose(map_loss(maps, points), torch.full((1, 68), float(np.log(64))))
    optimizer = torch.optim.Adam([maps], lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        map_loss(maps, points).sum().backward()
        optimizer.step()
    assert (soft_argmax(maps) - points).abs().max() < 0.01
    outside = torch.full((1, 68, 2), 1.2)
    assert (map_loss(maps, outside) == 0).all()


def test_proposal_loss_prefers_the_right_cell_and_size():
    size = FaceProposals.face_size
    batch = SceneBatch(np.zeros((1, 64, 64, 3), np.uint8), np.array([[28.0, 36.0]], np.float32),
                       np.array([size], np.float32))  # fmt: skip
    right = torch.zeros(1, 4, 8, 8)
    right[:, 0] = -8
    xs = (torch.arange(8) + 0.5) * 8
    right[0, 1] = ((28 - xs) / size)[None, :].expand(8, 8)
    right[0, 2] = ((36 - xs) / size)[:, None].expand(8, 8)
    right[0, 0, 4, 3] = 8
    wrong = right.clone()
    wrong[0, 0, 4, 3], wrong[0, 0, 1, 6] = -8, 8
    bigger = right.clone()
    bigger[:, 3] = 1.0
    assert proposal_loss(right, batch) < 0.05
    assert proposal_loss(wrong, batch) > 5
    assert proposal_loss(bigger, batch) > proposal_loss(right, batch) + 1


def test_training_needs_a_limit(faces):
    with pytest.raises(ValueError, match="seconds and steps"):
        train_landmarks(LandmarkNetwork(channels=(4, 4, 4, 4), image_size=64), make_sampler(faces))


def test_pictures_keep_shape_and_type_and_are_changed():
    rng = np.random.default_rng(0)
    picture = dead_leaves(rng, 64)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8 and picture.std() > 5
    points = cartoon(rng, 64)[1]
    for _ in range(20):
        noisy = degrade(rng, cover_face(rng, picture, points, dead_leaves(rng, 64, count=10)))
        assert noisy.shape == picture.shape and noisy.dtype == np.uint8


@pytest.fixture(scope="module")
def trained(faces) -> LandmarkNetwork:
    torch.manual_seed(0)
    network = LandmarkNetwork(
        channels=(8, 12, 16, 24), blocks=(0, 0, 1, 1), image_size=64, proposal_channels=(6, 8, 12)
    )
    return train_landmarks(
        network, make_sampler(faces), steps=300, batch_size=12, scene_batch_size=6, learning_rate=4e-3,
        average_decay=0.95,
    )  # fmt: skip


def test_a_tiny_network_learns_to_place_the_points(faces, trained):
    finder = NetworkFaceFinder(trained)
    assert not trained.training
    errors, scores = [], []
    for picture, points in zip(*faces, strict=True):
        matrix = fit_similarity(points, trained.mean_shape.numpy() * 64)
        found = finder._look(picture, [matrix])[0]
        errors.append(np.linalg.norm(found.points - points, axis=1).mean() / np.ptp(points[:, 1]))
        scores.append(found.score)
    assert np.mean(errors) < 0.08
    assert np.median(scores) > 0.5


def test_predicted_scale_is_larger_for_noise_than_for_faces(faces, trained):
    finder = NetworkFaceFinder(trained)
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    square = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    face = finder._look(faces[0][0], [fit_similarity(faces[1][0], trained.mean_shape.numpy() * 64)])[0]
    assert finder._look(noise, [square])[0].score < face.score


def test_training_resumes_where_it_was_stopped(faces, tmp_path):
    path = tmp_path / "state.pt"

    def run(steps: int) -> LandmarkNetwork:
        network = LandmarkNetwork(
            channels=(4, 4, 8, 8), blocks=(0, 0, 0, 0), image_size=64, proposal_channels=(4, 4, 4)
        )
        return train_landmarks(
            network, make_sampler(faces), steps=steps, batch_size=4, scene_batch_size=2, checkpoint=path,
        )  # fmt: skip

    run(19)
    before = torch.load(path, weights_only=True)
    run(20)
    after = torch.load(path, weights_only=True)
    assert (before["step"], after["step"]) == (19, 20)
    change = after["network"]["maps.weight"] - before["network"]["maps.weight"]
    assert 0 < change.abs().max() < 0.01
    same = run(20)  # nothing left to do: the averaged weights come back
    assert torch.equal(same.maps.weight, after["average"]["maps.weight"])


def test_apply_similarity_agrees_with_warped_picture(faces):
    """A white dot in the picture appears in the crop where the matrix says (continuous coordinates)."""
    from talkface.experts.faces import warp_crops

    picture = np.zeros((80, 100, 3), np.uint8)
    picture[30:33, 60:63] = 255  # centre at (61.5, 31.5)
    matrix = fit_similarity(np.array([[50.0, 20], [80, 60]]), np.array([[10.0, 5], [60, 40]]))
    crop = warp_crops(picture, [matrix], 64)[0].astype(np.float64).sum(2)
    ys, xs = np.mgrid[:64, :64] + 0.5
    centre = np.array([(crop * xs).sum(), (crop * ys).sum()]) / crop.sum()
    assert np.allclose(centre, apply_similarity(matrix, np.array([61.5, 31.5])), atol=0.15)
