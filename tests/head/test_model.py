"""The shipped head: size, names, linearity, and that actions do what their names say."""

from pathlib import Path

import pytest
import torch

import talkface.head.model
from talkface.errors import TalkfaceError
from talkface.head.model import ACTIONS, PARTS, HeadModel, vertex_normals
from talkface.head.raster import rasterize_fragments

MIRROR_68 = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39,
    38, 37, 36,
    41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip
ASSETS = Path(talkface.head.model.__file__).parent / "assets"


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


def act(**values: float) -> torch.Tensor:
    return torch.tensor([[values.get(name, 0.0) for name in ACTIONS]])


def shape(head: HeadModel, **values: float) -> torch.Tensor:
    return head(torch.zeros(1, head.num_identity), act(**values))[0]


def lip_gap(head: HeadModel, vertices: torch.Tensor) -> float:
    marks = vertices[head.landmarks]
    return float((marks[[61, 62, 63], 1] - marks[[67, 66, 65], 1]).mean())


def test_asset_is_small_and_states_its_licence() -> None:
    assert (ASSETS / "head.safetensors").stat().st_size <= 8 * 2**20
    assert "CC0" in (ASSETS / "NOTICE.txt").read_text()


def test_action_names() -> None:
    assert len(ACTIONS) == 52 and len(set(ACTIONS)) == 52
    assert list(ACTIONS) == sorted(ACTIONS)
    for name in ACTIONS:
        if name.endswith("Left"):
            assert name[: -len("Left")] + "Right" in ACTIONS


def test_neutral_is_the_mean(head: HeadModel) -> None:
    assert torch.equal(shape(head), head.mean)
    assert 80 <= head.num_identity <= 100
    assert head.actions.shape == (52, head.num_vertices, 3)
    assert set(head.parts.tolist()) == set(range(len(PARTS)))


def test_actions_and_identity_add_up(head: HeadModel) -> None:
    generator = torch.Generator().manual_seed(0)
    identity = torch.randn(2, head.num_identity, generator=generator)
    actions = torch.rand(2, 52, generator=generator)
    both = head(identity, actions) - head.mean
    apart = (head(identity, 0 * actions) - head.mean) + (head(0 * identity, actions) - head.mean)
    torch.testing.assert_close(both, apart, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        head(identity[:1], actions)[1], head(identity[:1], actions[1:])[0], atol=1e-6, rtol=0
    )


def test_mean_landmarks_are_symmetric(head: HeadModel) -> None:
    marks = head.mean[head.landmarks]
    flipped = marks[MIRROR_68] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(marks, flipped, atol=5e-4, rtol=0)
    assert len(set(head.landmarks.tolist())) == 68


def test_landmarks_lie_where_ibug_says(head: HeadModel) -> None:
    marks = head.mean[head.landmarks]
    assert (marks[:16, 0].diff() > 0).all() and int(marks[:17, 1].argmin()) == 8
    assert (marks[36:42, 0] < 0).all() and (marks[42:48, 0] > 0).all()
    assert marks[17:27, 1].min() > marks[36:48, 1].max()
    assert (marks[27:31, 1].diff() < 0).all() and (marks[27:31, 2].diff() > 0).all()
    assert marks[31:36, 1].min() > marks[48:68, 1].max()
    assert float((marks[45] - marks[36]).norm()) == pytest.approx(0.088, abs=0.012)


def test_lips_touch_at_rest_and_part_with_the_jaw(head: HeadModel) -> None:
    assert 0 <= lip_gap(head, shape(head)) < 0.002
    gaps = [lip_gap(head, shape(head, jawOpen=value)) for value in (0.25, 0.5, 1.0)]
    assert gaps[0] > 0.004 and gaps[2] > 0.02
    assert gaps == sorted(gaps)


def test_mouth_close_seals_an_open_jaw(head: HeadModel) -> None:
    opened = lip_gap(head, shape(head, jawOpen=0.6))
    sealed = lip_gap(head, shape(head, jawOpen=0.6, mouthClose=0.6))
    assert abs(sealed) < 0.1 * opened


def test_lips_of_random_people_stay_closed(head: HeadModel) -> None:
    identity = torch.randn(64, head.num_identity, generator=torch.Generator().manual_seed(1))
    vertices = head(identity, torch.zeros(1, 52))
    gaps = vertices[:, head.landmarks[62], 1] - vertices[:, head.landmarks[66], 1]
    assert float(gaps.abs().max()) < 0.0035


@pytest.mark.parametrize(
    "values",
    [{"jawOpen": 0.15}, {"jawOpen": 0.5}, {"jawOpen": 0.3, "mouthFunnel": 0.4},
     {"mouthLowerDownLeft": 0.8, "mouthLowerDownRight": 0.8, "mouthUpperUpLeft": 0.8, "mouthUpperUpRight": 0.8}],
)  # fmt: skip
def test_inner_lip_landmarks_stay_on_the_edges_that_are_seen(
    head: HeadModel, values: dict[str, float]
) -> None:
    """Seen from the front, what lies between the lips begins at 61-63 and ends at 65-67, within a millimetre or so."""
    vertices, size = shape(head, **values), 480
    scale, x, y = size / 0.08, size / 2, size * -0.55
    screen = torch.stack([vertices[:, 0] * scale + x, y - vertices[:, 1] * scale, 1 - vertices[:, 2]], dim=1)
    seen = rasterize_fragments(screen[None], head.faces, size, size)
    inside = torch.zeros(size * size, dtype=torch.bool)
    inside[seen.pixel] = head.part("mouth", "upper_teeth", "lower_teeth", "tongue")[seen.face]
    rows = inside.view(size, size)
    marks = screen[head.landmarks, :2]
    for upper, lower in ((61, 67), (62, 66), (63, 65)):
        column = int(marks[[upper, lower], 0].mean())
        shown = rows[:, column].nonzero()
        assert abs(float(shown.min() - marks[upper, 1])) / scale < 0.0008
        assert abs(float(shown.max() + 1 - marks[lower, 1])) / scale < 0.0010


def test_actions_move_the_right_landmarks_the_right_way(head: HeadModel) -> None:
    rest = head.mean[head.landmarks]

    def moved(**values: float) -> torch.Tensor:
        return shape(head, **values)[head.landmarks] - rest

    assert moved(jawOpen=1.0)[8, 1] < -0.015
    smile = moved(mouthSmileLeft=1.0, mouthSmileRight=1.0)
    assert smile[48, 0] < -0.003 and smile[54, 0] > 0.003 and smile[48, 1] > 0.002
    pucker = moved(mouthPucker=1.0)
    assert pucker[48, 0] > 0.003 and pucker[54, 0] < -0.003
    blink = moved(eyeBlinkLeft=1.0)
    assert blink[[43, 44], 1].max() < -0.004 and blink[[37, 38], 1].abs().max() < 1e-3
    assert moved(browInnerUp=1.0)[[21, 22], 1].min() > 0.002
    assert moved(mouthFrownLeft=1.0)[54, 1] < -0.001


def test_teeth_follow_skull_and_jaw(head: HeadModel) -> None:
    jaw = head.actions[ACTIONS.index("jawOpen")]
    upper = jaw[head.faces[head.part("upper_teeth")].unique()]
    lower = jaw[head.faces[head.part("lower_teeth")].unique()]
    front = head.faces[head.part("lower_teeth")].unique()
    front = front[head.mean[front, 2] > 0.01]
    assert upper.norm(dim=-1).max() < 0.002
    assert lower[:, 1].mean() < -0.005 and jaw[front, 1].max() < -0.01


def test_normals_point_outwards(head: HeadModel) -> None:
    normals = vertex_normals(head.mean[None], head.faces)[0]
    marks = head.landmarks[[8, 30, 51, 20, 23]]
    assert (normals[marks, 2] > 0).all()
    assert normals[head.landmarks[2], 0] < 0 < normals[head.landmarks[14], 0]


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TalkfaceError, match="nowhere"):
        HeadModel.load(tmp_path / "nowhere.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((ASSETS / "head.safetensors").read_bytes()[:1000])
    with pytest.raises(TalkfaceError, match="damaged"):
        HeadModel.load(damaged)
