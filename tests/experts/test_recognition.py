"""Face recognisers: alignment to ArcFace's template, the layout of IR-SE50's file, ONNX files, the small network."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from talkface.errors import TalkfaceError
from talkface.experts.ir_se import IRSE50
from talkface.experts.recognition import (
    CANONICAL,
    TEMPLATE,
    ArcFaceRecogniser,
    FaceEmbedder,
    ONNXRecogniser,
    five_points,
    read_ir_se,
    to_template,
)
from talkface.experts.registry import fingerprint
from talkface.portrait.crop import ANCHORS, AlignedCrop


def dots(points: np.ndarray, side: int, radius: float) -> torch.Tensor:
    """(1, 3, side, side) in [-1, 1]: a soft bright dot at every point, pixels from the corner."""
    centres = np.arange(side) + 0.5
    picture = np.zeros((side, side))
    for x, y in points:
        picture += np.exp(-((centres[None] - x) ** 2 + (centres[:, None] - y) ** 2) / (2 * radius**2))
    return torch.from_numpy(picture).float().expand(1, 3, side, side) * 2 - 1


def brightest(picture: torch.Tensor, near: tuple[float, float], reach: int = 8) -> tuple[float, float]:
    """The middle of what shines around a place, pixels from a pixel's centre, as the template is given."""
    x, y = (round(value) for value in near)
    window = (picture[0, 0, y - reach : y + reach + 1, x - reach : x + reach + 1] + 1).clamp_min(0.02) - 0.02
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    total = window.sum()
    return x + float((window.sum(0) * steps).sum() / total), y + float((window.sum(1) * steps).sum() / total)


@pytest.mark.parametrize("side", [96, 128, 256, 500])
def test_the_mean_face_comes_to_the_template(side):
    picture = dots(np.array(CANONICAL) * side, side, side / 60)
    aligned = to_template(picture)
    assert aligned.shape == (1, 3, 112, 112)
    for goal in TEMPLATE:
        found = brightest(aligned, goal)
        # the mean face is not quite that of the template
        assert np.hypot(found[0] - goal[0], found[1] - goal[1]) < 3.5
    for eye in TEMPLATE[:2]:
        assert np.hypot(*(np.array(brightest(aligned, eye)) - eye)) < 1.6


def test_landmarks_align_every_face_by_its_own_points():
    rng = np.random.default_rng(0)
    landmarks = torch.zeros(1, 68, 2)
    turn = np.deg2rad(14)
    matrix = 1.3 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (np.array(TEMPLATE) + 0.5 - 56) @ matrix.T + 90 + rng.uniform(-3, 3)
    landmarks[0, 36:42] = torch.tensor(points[0])
    landmarks[0, 42:48] = torch.tensor(points[1])
    for place, point in ((30, 2), (48, 3), (54, 4)):
        landmarks[0, place] = torch.tensor(points[point])
    torch.testing.assert_close(five_points(landmarks)[0], torch.tensor(points).float())
    aligned = to_template(dots(points, 180, 2.5), landmarks)
    for goal in TEMPLATE:
        assert np.hypot(*(np.array(brightest(aligned, goal)) - goal)) < 0.3


def test_canonical_points_agree_with_the_crop():
    assert np.abs(np.array(CANONICAL)[:2] - ANCHORS[:2]).max() < 0.01
    crop = AlignedCrop.from_matrix(np.zeros((64, 64, 3), np.uint8), np.eye(2, 3), 64)
    assert crop.image.shape == (64, 64, 3)


def test_alignment_hands_on_gradients():
    images = torch.zeros(2, 3, 128, 128, requires_grad=True)
    to_template(images).sum().backward()
    assert float(images.grad[:, :, 40:90, 40:90].min()) > 0


def test_ir_se_has_the_layout_of_the_public_file():
    with torch.device("meta"):
        network = IRSE50()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["input_layer.0.weight"] == (64, 3, 3, 3) and shapes["input_layer.2.weight"] == (64,)
    units = {int(re.match(r"body\.(\d+)\.", name)[1]) for name in shapes if name.startswith("body.")}
    assert units == set(range(24))
    widths = [shapes[f"body.{k}.res_layer.1.weight"][0] for k in range(24)]
    assert widths == [64] * 3 + [128] * 4 + [256] * 14 + [512] * 3
    # a shortcut has weights only where the number of channels changes
    assert [k for k in range(24) if f"body.{k}.shortcut_layer.0.weight" in shapes] == [3, 7, 21]
    assert shapes["body.7.shortcut_layer.0.weight"] == (256, 128, 1, 1)
    assert shapes["body.7.shortcut_layer.1.running_var"] == (256,)
    assert shapes["body.7.res_layer.0.weight"] == (128,) and shapes["body.7.res_layer.2.weight"] == (256,)
    assert shapes["body.7.res_layer.3.weight"] == (256, 256, 3, 3)
    assert shapes["body.7.res_layer.5.fc1.weight"] == (16, 256, 1, 1)
    assert shapes["body.7.res_layer.5.fc2.weight"] == (256, 16, 1, 1)
    assert shapes["output_layer.0.weight"] == (512,) and shapes["output_layer.3.weight"] == (512, 25088)
    assert shapes["output_layer.4.running_mean"] == (512,)
    assert sum(p.numel() for p in network.parameters()) == 43_797_696


def test_the_file_of_ir_se_is_read(tmp_path):
    with torch.device("meta"):
        made = IRSE50()
    state = {
        name: torch.linspace(-0.02, 0.02 + 1e-5 * k, value.numel()).view(value.shape)
        + name.endswith("running_var")
        for k, (name, value) in enumerate(made.state_dict().items())
        if "num_batches" not in name  # as old versions of torch wrote it
    }
    path = tmp_path / "model_ir_se50.pth"
    torch.save(state, path)
    expert = ArcFaceRecogniser(path)
    found = expert.network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    images = (torch.rand(1, 3, 128, 128) * 2 - 1).requires_grad_(True)
    vectors = expert.train()(images)
    assert vectors.shape == (1, 512) and expert.differentiable
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(1))
    vectors[0, 0].backward()
    assert images.grad is not None and not any(p.requires_grad for p in expert.parameters())


def test_other_files_than_that_of_ir_se_are_named(tmp_path):
    with pytest.raises(TalkfaceError, match=r"none\.pth does not exist; .*TreB1eN/InsightFace_Pytorch"):
        ArcFaceRecogniser(tmp_path / "none.pth")
    path, expected = tmp_path / "a.pth", {"fc1.weight": torch.zeros(4, 64, 1, 1), "bias": torch.zeros(4)}
    torch.save(expected | {"head.weight": torch.zeros(3)}, path)
    with pytest.raises(TalkfaceError, match=r"head\.weight and 0 other tensors have no place"):
        read_ir_se(path, expected)
    torch.save({"bias": torch.zeros(4)}, path)
    with pytest.raises(TalkfaceError, match=r"fc1\.weight should be \(4, 64, 1, 1\), found nothing"):
        read_ir_se(path, expected)
    torch.save(expected | {"bias": torch.zeros(5)}, path)
    with pytest.raises(TalkfaceError, match=r"bias should be \(4,\), found \(5,\)"):
        read_ir_se(path, expected)
    path.write_bytes(b"nothing")
    with pytest.raises(TalkfaceError, match="cannot be read as a dictionary of tensors"):
        read_ir_se(path, expected)


def test_onnx_recognisers(channel_model, tmp_path):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    weight = torch.randn(3, 512)
    expert = ONNXRecogniser(channel_model(tmp_path / "w600k_r50.onnx", weight, size=112))
    assert (expert.dim, expert.differentiable) == (512, False)
    colours = torch.tensor([[0.5, -0.25, 0.1], [-0.6, 0.3, 0.3]])
    images = colours[:, :, None, None].expand(2, 3, 90, 90)
    expected = torch.nn.functional.normalize(colours @ weight, dim=1)
    torch.testing.assert_close(expert(images), expected, atol=1e-4, rtol=1e-4)
    assert len(fingerprint(expert)) == 16
    with pytest.raises(TalkfaceError, match=r"none\.onnx does not exist; .*w600k_r50\.onnx"):
        ONNXRecogniser(tmp_path / "none.onnx")
    with pytest.raises(TalkfaceError, match=r"allowed is a network from \(N, 3, 112, 112\)"):
        ONNXRecogniser(channel_model(tmp_path / "large.onnx", weight, size=160))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(TalkfaceError, match="cannot be read as ONNX"):
        ONNXRecogniser(tmp_path / "broken.onnx")


def test_the_small_one_fills_the_role():
    torch.manual_seed(0)
    network = FaceEmbedder(channels=(8, 8, 8, 8), blocks=(0, 0, 0, 0), dim=16).eval()
    images = (torch.rand(2, 3, 150, 150) * 2 - 1).requires_grad_(True)
    vectors = network(images)
    assert vectors.shape == (2, 16)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    vectors[:, 0].sum().backward()
    assert float(images.grad.abs().sum()) > 0


def test_faces_are_aligned_where_half_precision_is_the_default():
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = to_template(images)
    torch.set_default_dtype(torch.bfloat16)  # as a trainer of precision bf16-true does
    try:
        result = to_template(images)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(result, expected)
