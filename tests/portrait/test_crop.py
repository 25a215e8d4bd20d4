"""The aligned crop: known transforms are recovered, there and back is the identity, nothing aliases."""

from __future__ import annotations

import numpy as np
import pytest

from talkface.errors import TalkfaceError
from talkface.portrait import AlignedCrop, alignment_matrix, random_jitter
from talkface.portrait.crop import ANCHORS, anchor_points


@pytest.fixture
def face() -> np.ndarray:
    """68 points whose anchors lie exactly at the canonical places of the unit square."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0.2, 0.9, (68, 2))
    for anchor, members in zip(ANCHORS, (slice(36, 42), slice(42, 48), slice(31, 36)), strict=True):
        points[members] += anchor - points[members].mean(axis=0)
    return points


def similarity(points: np.ndarray, scale: float, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T + shift


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    channels = [128 + 100 * np.sin(x / 29 + k) * np.cos(y / 37 - k) for k in range(3)]
    return np.rint(np.stack(channels, axis=2)).astype(np.uint8)


def test_anchors_are_the_eye_centres_and_the_nose_base(face):
    assert np.allclose(anchor_points(face), ANCHORS)
    with pytest.raises(ValueError, match=r"\(68, 2\)"):
        anchor_points(face[:67])


@pytest.mark.parametrize("degrees", [0, 17, -90, 180])
@pytest.mark.parametrize("scale", [3.0, 128.0, 2500.0])
def test_known_scale_rotation_and_shift_are_recovered(face, scale, degrees):
    seen = similarity(face, scale, degrees, (31.5, -12.25))
    matrix = alignment_matrix(seen, 128)
    assert np.allclose(seen @ matrix[:, :2].T + matrix[:, 2], face * 128, atol=1e-8)
    assert 1 / np.sqrt(np.linalg.det(matrix[:, :2])) == pytest.approx(scale / 128)


def test_least_squares_when_the_face_is_not_canonical(face):
    """No similarity near the found one fits the three anchors better."""
    rng = np.random.default_rng(1)
    seen = similarity(face, 200, 5, (10, 20)) + rng.normal(0, 6, (68, 2))
    matrix = alignment_matrix(seen, 128)

    def error(matrix: np.ndarray) -> float:
        return float(((anchor_points(seen) @ matrix[:, :2].T + matrix[:, 2] - ANCHORS * 128) ** 2).sum())

    best = error(matrix)
    assert best > 1
    for _ in range(200):
        a, b, x, y = rng.normal(0, [1e-3, 1e-3, 0.1, 0.1])
        assert error(matrix + np.array([[a, -b, x], [b, a, y]])) >= best


def test_a_mirrored_face_is_not_mirrored_back(face):
    seen = face * (-100, 100) + (200, 0)
    assert np.linalg.det(alignment_matrix(seen, 128)[:, :2]) > 0


def test_no_face_in_the_landmarks():
    with pytest.raises(TalkfaceError, match="one spot"):
        alignment_matrix(np.ones((68, 2)), 128)
    with pytest.raises(TalkfaceError, match="not finite"):
        alignment_matrix(np.full((68, 2), np.nan), 128)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_to_crop_and_to_source_are_inverse(face, size):
    seen = similarity(face, 311, 23, (100, 57))
    crop = AlignedCrop.from_landmarks(np.zeros((300, 400, 3), np.uint8), seen, size)
    assert crop.image.shape == (size, size, 3)
    assert crop.source_size == (300, 400)
    assert np.abs(crop.to_source(crop.to_crop(seen)) - seen).max() < 1e-6
    assert np.abs(crop.to_crop(crop.to_source(face * size)) - face * size).max() < 1e-6


def test_unit_transform_copies_the_pixels(face):
    """Scale 1, shift by whole pixels: centre (0.5, 0.5) must land on centre (0.5, 0.5)."""
    picture = np.random.default_rng(0).integers(0, 256, (200, 220, 3)).astype(np.uint8)
    crop = AlignedCrop.from_landmarks(picture, face * 128 + (40, 30))
    assert np.array_equal(crop.image, picture[30:158, 40:168])


@pytest.mark.parametrize(("scale", "degrees"), [(0.5, 0), (1.0, 30), (2.0, -45), (2.5, 100), (7.3, 11)])
def test_pixels_show_the_place_that_to_source_names(face, scale, degrees):
    """A smooth picture, sampled at the places that the pixel centres map to."""
    seen = similarity(face - 0.5, 128 * scale, degrees, (700, 690))
    picture = smooth_picture(1400, 1400)
    crop = AlignedCrop.from_landmarks(picture, seen)
    assert crop.coverage == pytest.approx(1, abs=1e-5)
    centres = np.stack(np.meshgrid(np.arange(8, 120) + 0.5, np.arange(8, 120) + 0.5), axis=-1)
    places = crop.to_source(centres) - 0.5
    wanted = 128 + 100 * np.sin(places[..., 0] / 29) * np.cos(places[..., 1] / 37)
    found = crop.image[8:120, 8:120, 0].astype(float)
    assert np.abs(found - wanted).mean() < 1.0
    assert np.abs(found - wanted).max() < (3.0 if scale < 3 else 6.0)


def test_a_large_face_is_averaged_not_sampled(face):
    """Fine stripes under a strong reduction must become grey."""
    picture = np.zeros((1300, 1300, 3), np.uint8)
    picture[:, ::2] = 255
    crop = AlignedCrop.from_landmarks(picture, similarity(face, 1100, 0, (100, 100)))
    assert np.abs(crop.image.astype(float) - 127.5).max() < 16


def test_beyond_the_border_the_picture_is_mirrored(face):
    picture = smooth_picture(200, 200)
    crop = AlignedCrop.from_landmarks(picture, face * 128 + (-20, 0))
    assert np.array_equal(crop.image[:, :20], crop.image[:, 20:40][:, ::-1])


@pytest.mark.parametrize(
    ("shift", "share"),
    [((10, 10), 1.0), ((-64, 10), 0.5), ((-64, -64), 0.25), ((500, 0), 0.0), ((-32, 0), 0.75)],
)
def test_coverage_is_the_share_inside_the_picture(face, shift, share):
    crop = AlignedCrop.from_landmarks(np.zeros((300, 300, 3), np.uint8), face * 128 + shift)
    assert crop.coverage == pytest.approx(share, abs=1e-5)


def test_jitter_is_small_repeatable_and_invertible(face):
    seen = face * 128 + (60, 60)
    picture = smooth_picture(300, 300)
    plain = AlignedCrop.from_landmarks(picture, seen)
    same = AlignedCrop.from_landmarks(picture, seen, jitter=np.array([[1.0, 0, 0], [0, 1, 0]]))
    assert np.array_equal(plain.image, same.image)
    first, again, other = (
        AlignedCrop.from_landmarks(picture, seen, jitter=random_jitter(k)) for k in (3, 3, 4)
    )
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
    moved = np.linalg.norm(first.to_crop(seen) - plain.to_crop(seen), axis=1)
    assert 0.1 < moved.max() < 30
    assert np.abs(first.to_source(first.to_crop(seen)) - seen).max() < 1e-6


def test_jitter_has_the_stated_spread():
    rng = np.random.default_rng(0)
    draws = np.stack([random_jitter(rng, shift=0.05, scale=0.1, degrees=10) for _ in range(2000)])
    middles = draws @ (0.5, 0.5, 1.0) - 0.5
    angles = np.rad2deg(np.arctan2(draws[:, 1, 0], draws[:, 0, 0]))
    sizes = np.log(np.linalg.det(draws[:, :, :2])) / 2
    # clipping a normal at two deviations leaves 0.96 of its spread
    assert middles.std() == pytest.approx(0.048, rel=0.05)
    assert angles.std() == pytest.approx(9.6, rel=0.05)
    assert sizes.std() == pytest.approx(0.096, rel=0.05)
    assert np.abs(angles).max() <= 20 + 1e-9
