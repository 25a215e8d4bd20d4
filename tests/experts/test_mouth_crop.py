"""Mouth crops: a turned picture goes to the right place, in the right size and grey; gradients; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from talkface.errors import TalkfaceError
from talkface.experts.mouth_crop import GREY, MEAN_FACE, REACH, STABLE, crop_to_frame, mouth_crops, smoothed


def face(scale: float = 1.0, degrees: float = 0.0, at: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    """(68, 2): a face whose stable points are the mean face's, its lips around (130, 157), turned, sized and moved."""
    points = torch.zeros(68, 2, dtype=torch.float64)
    points[:] = torch.tensor([130.0, 110.0])
    angle = torch.arange(20) / 20 * 2 * np.pi
    points[48:68] = torch.tensor([130.0, 157.0]) + 15 * torch.stack([angle.cos(), angle.sin() / 2], 1)
    points[list(STABLE)] = torch.tensor(MEAN_FACE, dtype=torch.float64)
    turn = np.deg2rad(degrees)
    matrix = scale * torch.tensor([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ matrix.T + torch.tensor(at, dtype=torch.float64)


@pytest.mark.parametrize(
    ("scale", "degrees", "at"),
    [(1.0, 0, (0, 0)), (0.5, 0, (40, 9)), (0.6, 25, (90, -10)), (2.4, -40, (-80, 260))],
)
def test_points_go_to_the_same_place_however_the_face_lies(scale, degrees, at):
    plain, moved = face(), face(scale, degrees, at)
    matrix = crop_to_frame(moved[None, None])[0, 0]
    back = (moved - matrix[:, 2]) @ torch.linalg.inv(matrix[:, :2]).T
    lips = plain[48:68].mean(0)
    torch.testing.assert_close(back, plain - lips + 44, atol=1e-8, rtol=0)


def test_a_dot_of_a_turned_picture_is_found_where_it_belongs():
    landmarks = face(0.7, 30, (100, 0))
    frame = torch.full((1, 1, 3, 256, 256), -1.0)
    dot = landmarks[48]  # a corner of the lips
    rows, columns = torch.meshgrid(torch.arange(256) + 0.5, torch.arange(256) + 0.5, indexing="ij")
    near = torch.exp(-((columns - dot[0]) ** 2 + (rows - dot[1]) ** 2) / (2 * 2.0**2)).float()
    frame[0, 0, 0] = near * 2 - 1  # red
    mouth = mouth_crops(frame, landmarks[None, None].float())[0, 0, 0]
    peak = mouth.flatten().argmax()
    expected = torch.tensor(MEAN_FACE[STABLE.index(48)]) - face()[48:68].mean(0).float() + 44
    found = torch.tensor([peak % 88 + 0.5, peak // 88 + 0.5])
    assert (found - expected).abs().max() < 1.0
    assert mouth.max() == pytest.approx(GREY[0], abs=0.02)


def test_grey_levels_and_the_outside():
    landmarks = face(0.4, 0, (0, 0))[None, None].float()
    white = mouth_crops(torch.ones(1, 1, 3, 64, 256), landmarks)[0, 0, 0]
    assert (
        white[:30, 44] == pytest.approx(1.0) and white[-1].abs().max() == 0
    )  # the picture ends below the lips
    grey = mouth_crops(torch.zeros(1, 1, 3, 256, 256), landmarks)
    torch.testing.assert_close(grey, torch.full_like(grey, 0.5))


def test_large_pictures_are_averaged():
    """A chessboard of single pixels becomes an even grey when ten pixels meet in one."""
    board = (torch.arange(2600)[:, None] + torch.arange(2600)) % 2 * 2.0 - 1
    landmarks = face(10.0)[None, None].float()
    mouth = mouth_crops(board.expand(1, 1, 3, -1, -1), landmarks)
    assert (mouth - 0.5).abs().max() < 0.03


def test_landmarks_are_smoothed_around_each_frames_own_centre():
    torch.manual_seed(0)
    still, drift = face().expand(30, -1, -1), torch.linspace(0, 60, 30, dtype=torch.float64)[:, None, None]
    noisy = still + drift + torch.randn(30, 68, 2, dtype=torch.float64)
    smooth = smoothed(noisy[None])[0]
    torch.testing.assert_close(smooth.mean(1), noisy.mean(1))
    shape, rough = smooth - smooth.mean(1, keepdim=True), noisy - noisy.mean(1, keepdim=True)
    true = still - still.mean(1, keepdim=True)
    inner = slice(REACH, -REACH)
    assert (shape - true)[inner].std() < 0.4 * (rough - true)[inner].std()
    torch.testing.assert_close(smooth[0], noisy[0])
    torch.testing.assert_close(smooth[2] - smooth[2].mean(0), rough[0:5].mean(0))


def test_gradient_flows_to_the_frames_around_the_mouth():
    landmarks = face(0.5, 10, (20, 0)).expand(1, 3, -1, -1).float()
    frames = torch.rand(1, 3, 3, 128, 128, requires_grad=True)
    mouth_crops(frames * 0.8, landmarks).square().sum().backward()
    row, column = landmarks[0, 0, 48:68].mean(0).round().long().flip(0).tolist()
    assert (frames.grad[:, :, :, row, column] != 0).all()
    assert (frames.grad[:, :, :, :5] == 0).all()


def test_what_cannot_be_cut_is_named():
    frames, landmarks = torch.zeros(1, 2, 3, 64, 64), face(0.4).expand(1, 2, -1, -1).clone()
    landmarks[0, 1, 50] = float("nan")
    with pytest.raises(TalkfaceError, match="landmarks: none in frame 1 of clip 0"):
        mouth_crops(frames, landmarks)
    with pytest.raises(TalkfaceError, match=r"landmarks: shape \(1, 1, 68, 2\); allowed \(1, 2, 68, 2\)"):
        mouth_crops(frames, landmarks[:, :1])
    with pytest.raises(TalkfaceError, match=r"frames: shape .*allowed \(B, T, 3, H, W\)"):
        mouth_crops(frames[:, :, :1], landmarks)
