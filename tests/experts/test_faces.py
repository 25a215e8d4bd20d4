"""Face finders: geometry with known answers, errors, and the bundled weights on a real photograph."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import talkface
from talkface.errors import TalkfaceError
from talkface.experts.face_backends import MEDIAPIPE_TO_68
from talkface.experts.face_landmarks import (
    apply_similarity,
    fit_similarity,
    invert_similarity,
    overlap,
    suppress_overlaps,
)
from talkface.experts.faces import (
    FaceAlignmentFinder,
    FaceLandmarks,
    KnownLandmarks,
    LandmarkNetwork,
    MediaPipeFaceFinder,
    MouthNetwork,
    NetworkFaceFinder,
    face_score,
    warp_crops,
)
from talkface.experts.landmark_network import FaceProposals, LandmarkPrediction, soft_argmax
from talkface.experts.mouth_network import LIPS

WEIGHTS = Path(talkface.__file__).parent / "weights" / "default"
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ASTRONAUT_BOX = np.array([180, 86, 270, 180])  # brows to chin, by eye
GREY = np.full((60, 60, 3), 128, np.uint8)


def tiny_network() -> LandmarkNetwork:
    torch.manual_seed(0)
    return LandmarkNetwork(
        channels=(4, 4, 8, 8), blocks=(0, 0, 0, 0), image_size=64, proposal_channels=(4, 4, 4)
    )


def test_soft_argmax_of_a_peak_is_its_cell_centre_and_of_two_their_middle():
    logits = torch.full((1, 2, 4, 8), -50.0)
    logits[0, 0, 2, 5] = 50.0
    logits[0, 1, 0, 1] = logits[0, 1, 3, 6] = 50.0
    expected = torch.tensor([[[5.5 / 8, 2.5 / 4], [4 / 8, 2 / 4]]])
    assert torch.allclose(soft_argmax(logits), expected, atol=1e-5)
    assert torch.allclose(soft_argmax(torch.zeros(1, 1, 16, 16)), torch.tensor([[[0.5, 0.5]]]), atol=1e-6)


def test_network_shapes_and_size():
    network = LandmarkNetwork()
    assert 1.2e6 < sum(p.numel() for p in network.parameters()) < 1.8e6
    with torch.no_grad():
        output = network.eval()(torch.zeros(2, 3, 128, 128))
        assert network.proposals(torch.zeros(1, 3, 64, 96)).shape == (1, 4, 8, 12)
    assert output.points.shape == (2, 68, 2)
    assert output.log_scale.shape == (2, 68) and output.logit.shape == (2,)


def test_score_falls_with_the_predicted_scale_and_rises_with_the_confidence():
    def score(scale: float, logit: float) -> float:
        log_scale = torch.full((1, 68), float(np.log(scale)))
        prediction = LandmarkPrediction(
            torch.zeros(1, 68, 2), log_scale, torch.tensor([logit]), torch.zeros(1, 68, 8, 8)
        )
        return float(face_score(prediction))

    assert score(0.02, 3.2) == pytest.approx(0.5, abs=1e-5)
    assert score(0.01, 3.2) > 0.7 and score(0.05, 3.2) < 0.05 and score(0.02, 0.0) < 0.05


def test_similarity_recovers_a_known_transform_and_round_trips():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(68, 2)) * 30
    angle, zoom = 0.7, 2.3
    matrix = np.array(
        [
            [zoom * np.cos(angle), -zoom * np.sin(angle), 5.0],
            [zoom * np.sin(angle), zoom * np.cos(angle), -3.0],
        ]
    )
    moved = apply_similarity(matrix, points)
    assert np.allclose(fit_similarity(points, moved), matrix)
    assert np.allclose(apply_similarity(invert_similarity(matrix), moved), points)
    with pytest.raises(TalkfaceError, match="at one place"):
        fit_similarity(np.ones((3, 2)), points[:3])


def test_similarity_never_mirrors():
    points = np.array([[0.0, 0], [1, 0], [0, 1], [2, 3]])
    matrix = fit_similarity(points, points * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) >= 0


def test_overlap_and_suppression():
    a, b, c = np.array([0.0, 0, 10, 10]), np.array([5.0, 0, 15, 10]), np.array([100.0, 0, 110, 10])
    assert overlap(a, a) == 1 and overlap(a, c) == 0
    assert overlap(a, b) == pytest.approx(1 / 3)
    near = a + 1.0
    inner = np.array([2.0, 2, 5, 5])
    assert suppress_overlaps([a, near, c, inner], [0.7, 0.9, 0.8, 0.95]) == [3, 2]
    assert suppress_overlaps([a, near, c, inner], [0.7, 0.9, 0.8, 0.1]) == [1, 2]
    assert suppress_overlaps([a, near, c, inner], [0.7, 0.9, 0.8, 0.1], contained=1.1) == [1, 2, 3]
    assert suppress_overlaps([], []) == []


def test_crop_outside_the_picture_repeats_the_border_and_large_crops_average():
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, :20] = 200
    shifted = warp_crops(picture, [np.array([[1.0, 0, 30], [0, 1.0, 0]])], 40)[0]
    assert (shifted[:, :30] == 200).all()
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    small = warp_crops(stripes, [np.array([[0.125, 0, 0], [0, 0.125, 0]])], 64)[0]
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_known_landmarks_are_returned_largest_first_and_tracked():
    small, large = np.random.default_rng(0).uniform(0, 1, (2, 68, 2)) * np.array([10, 30])[:, None, None]
    finder = KnownLandmarks(np.stack([small, large + 40]))
    faces = finder.find(GREY)
    assert [round(face.area) for face in faces] == sorted((round(face.area) for face in faces), reverse=True)
    assert np.allclose(faces[0].points, large + 40, atol=1e-5)
    assert faces[0].score == 1 and (faces[0].scale == 0).all()
    tracked = finder.track(GREY, faces[1])
    assert tracked is faces[1]
    assert finder.track(GREY, FaceLandmarks.from_points(small + 500)) is None


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((68, 2), np.nan)])
def test_bad_landmarks_are_refused(points):
    with pytest.raises(TalkfaceError, match=r"allowed \(68, 2\)"):
        KnownLandmarks(points)


@pytest.mark.parametrize(
    "image", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)]
)
def test_bad_pictures_are_refused(image):
    with pytest.raises(TalkfaceError, match="picture for the face finder"):
        NetworkFaceFinder(tiny_network()).find(image)


def test_untrained_network_searches_any_size_without_failing():
    network = tiny_network()
    torch.nn.init.constant_(network.confidence.bias, 40.0)
    finder = NetworkFaceFinder(network, max_candidates=4)
    for height, width in ((1, 1), (7, 300), (64, 48), (210, 170)):
        faces = finder.find(np.full((height, width, 3), 99, np.uint8))
        assert [face.area for face in faces] == sorted((face.area for face in faces), reverse=True)


def test_proposals_map_back_to_the_picture():
    """A proposal network that fires at one pixel colour points at the place of that colour, at every
    level."""
    network = tiny_network()
    finder = NetworkFaceFinder(network)
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[90:130, 200:240] = 255

    class Brightness(torch.nn.Module):
        def forward(self, images):
            bright = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 8)
            return torch.cat([bright, torch.zeros_like(bright).repeat(1, 3, 1, 1)], dim=1)

    network.proposals = Brightness()
    for zoom in (0.4, 1.0, 1.3):
        _, centre, side = finder._propose_at(picture, zoom)[0]
        assert 195 < centre[0] < 245 and 85 < centre[1] < 135
        assert side == pytest.approx(FaceProposals.face_size / zoom)


def test_track_loses_an_unlikely_face():
    network = tiny_network()
    previous = FaceLandmarks.from_points(network.mean_shape.numpy() * 50)
    torch.nn.init.constant_(network.confidence.bias, 40.0)
    followed = NetworkFaceFinder(network).track(GREY, previous)
    assert followed is not None and followed.score > 0.9 and followed.points.shape == (68, 2)
    torch.nn.init.constant_(network.confidence.bias, -40.0)
    assert NetworkFaceFinder(network).track(GREY, previous) is None


def test_mediapipe_map_has_68_distinct_mesh_vertices():
    assert len(MEDIAPIPE_TO_68) == len(set(MEDIAPIPE_TO_68)) == 68
    assert min(MEDIAPIPE_TO_68) >= 0 and max(MEDIAPIPE_TO_68) < 468


def test_backends_name_the_missing_file(tmp_path):
    with pytest.raises(TalkfaceError, match=r"face_landmarker\.task"):
        MediaPipeFaceFinder(tmp_path / "none.task")
    with pytest.raises(TalkfaceError, match="2DFAN4"):
        FaceAlignmentFinder(weights_folder=tmp_path)


@pytest.fixture(scope="module")
def bundled_finder() -> NetworkFaceFinder:
    weights = WEIGHTS / "landmarks.safetensors"
    network = LandmarkNetwork()
    network.load_state_dict(load_file(weights))
    return NetworkFaceFinder(network.float())


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data", reason="scikit-image is not installed").astronaut()


def test_bundled_weights_find_the_one_face_of_a_photograph(bundled_finder, astronaut):
    (face,) = bundled_finder.find(astronaut)
    assert overlap(face.box, ASTRONAUT_BOX) > 0.7
    eyes = face.points[36:42].mean(0), face.points[42:48].mean(0)
    assert np.linalg.norm(eyes[0] - [204, 101]) < 5 and np.linalg.norm(eyes[1] - [246, 103]) < 5
    followed = bundled_finder.track(astronaut, face)
    assert followed is not None
    assert np.linalg.norm(followed.points - face.points, axis=1).mean() < 2
    assert bundled_finder.track(np.full_like(astronaut, 128), face) is None


def test_bundled_mouth_network_sees_the_lower_lip_below_the_teeth(bundled_finder, astronaut):
    """A toothy smile: the lips are 0.10 to 0.13 outer-eye distances apart, the first network says 0.03."""
    path = WEIGHTS / "mouth.safetensors"
    mouth = MouthNetwork()
    mouth.load_state_dict(load_file(path))
    (first,) = bundled_finder.find(astronaut)
    (face,) = NetworkFaceFinder(bundled_finder.network, mouth=mouth.float()).find(astronaut)
    assert np.array_equal(face.points[:48], first.points[:48])
    width = np.linalg.norm(face.points[45] - face.points[36])
    gap = np.linalg.norm(face.points[66] - face.points[62]) / width
    assert 0.07 < gap < 0.15
    assert face.scale[LIPS].mean() < first.scale[LIPS].mean()


@pytest.mark.parametrize("side", [128, 1400])
def test_bundled_weights_find_small_and_large_faces(bundled_finder, astronaut, side):
    picture = cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_AREA)
    faces = bundled_finder.find(picture)
    assert len(faces) == 1 and overlap(faces[0].box * 512 / side, ASTRONAUT_BOX) > 0.6


@pytest.mark.parametrize("angle", [25, -40])
def test_bundled_weights_find_rolled_faces(bundled_finder, astronaut, angle):
    turn = cv2.getRotationMatrix2D((224, 128), angle, 1.0)
    (face,) = bundled_finder.find(
        cv2.warpAffine(astronaut, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    )
    right, left = face.points[36:42].mean(0), face.points[42:48].mean(0)
    roll = np.rad2deg(np.arctan2(*(left - right)[::-1]))
    assert abs(roll - (3 - angle)) < 8


def test_bundled_weights_find_nothing_where_nothing_is(bundled_finder):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, 260, 3), dtype=np.uint8)
    smooth = cv2.resize(
        rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), (260, 200), interpolation=cv2.INTER_CUBIC
    )
    for picture in (GREY, noise, smooth):
        assert bundled_finder.find(picture) == []


def test_mediapipe_finds_the_astronaut():
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    task = SHARED / "weights" / "face_landmarker.task"
    if not task.exists():
        pytest.skip("no face_landmarker.task at hand")
    try:
        finder = MediaPipeFaceFinder(task)
    except TalkfaceError as error:
        pytest.skip(str(error))
    picture = data.astronaut()
    (face,) = finder.find(picture)
    assert overlap(face.box, ASTRONAUT_BOX) > 0.7
    assert finder.find(np.zeros_like(picture)) == []


def test_face_alignment_finds_the_astronaut():
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    if importlib.util.find_spec("face_alignment") is None:
        pytest.skip("face-alignment is not installed")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not all((folder / name).exists() for name in FaceAlignmentFinder.files):
        pytest.skip("the weights of face-alignment are not in torch's cache")
    (face,) = FaceAlignmentFinder().find(data.astronaut())
    assert overlap(face.box, ASTRONAUT_BOX) > 0.7
