"""Masks, colours, pasting."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from talkface.errors import TalkfaceError
from talkface.portrait import (
    AlignedCrop,
    ColourMatcher,
    blend_mask,
    colour_ring,
    generation_mask,
    match_colour,
    paste,
)
from talkface.portrait.blend import ColourMap, PlaceOfCrop, face_mask, mouth_area

SIZES = [32, 128, 200]


def picture(height: int = 300, width: int = 400, seed: int = 0) -> np.ndarray:
    """Smooth colours, like skin, with some structure."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height // 20, width // 20, 3)).astype(np.float32)
    return np.clip(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def crop_of(image: np.ndarray, scale: float, degrees: float = 12.0, size: int = 128) -> AlignedCrop:
    """A crop from the middle of `image`, `scale` source pixels per crop pixel."""
    height, width = image.shape[:2]
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    shift = np.array([size / 2, size / 2]) - turn @ (width / 2, height / 2)
    return AlignedCrop.from_matrix(image, np.column_stack([turn, shift]), size)


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, ((one.astype(float) - two) ** 2).mean())))


@pytest.mark.parametrize("size", SIZES)
def test_generation_masks(size):
    mask = generation_mask(size)
    assert (mask.shape, mask.dtype) == ((size, size), np.float32)
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert mask.mean() == pytest.approx(0.76 * 0.54, abs=3 / size)
    assert mask[-1, size // 2] == 1
    assert mask[0].max() == mask[:, 0].max() == mask[:, -1].max() == 0
    landmarks = np.full((68, 2), 0.3 * size)
    landmarks[48:68, 1] = np.linspace(0.7, 0.8, 20) * size
    thesis = generation_mask(size, "thesis", landmarks)
    top = int(np.argmax(thesis[:, 0]))
    assert top == pytest.approx((0.7 - 5 / 128) * size, abs=1)
    assert thesis[top:].min() == 1
    assert thesis[:top].max() == 0
    assert int(np.argmax(generation_mask(size, "nose")[:, 0])) == pytest.approx(0.554 * size, abs=1)
    landmarks[31:36, 1] = 0.6 * size
    assert int(np.argmax(generation_mask(size, "nose", landmarks)[:, 0])) == pytest.approx(0.6 * size, abs=1)


def test_bad_masks():
    with pytest.raises(TalkfaceError, match="needs the landmarks"):
        generation_mask(128, "thesis")
    with pytest.raises(TalkfaceError, match=r"mask kind: 'mouth'; allowed are lower_face, thesis, nose"):
        generation_mask(128, "mouth")


@pytest.mark.parametrize("size", SIZES)
def test_blend_mask_is_soft_and_inside(size):
    mask = blend_mask(size)
    assert (mask.shape, mask.dtype) == ((size, size), np.float32)
    assert mask.min() == 0
    assert mask.max() == 1
    assert mask[generation_mask(size) == 0].max() == 0
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) < 0.05
    steps = max(np.abs(np.diff(mask, axis=0)).max(), np.abs(np.diff(mask, axis=1)).max())
    assert steps < 6.5 / size / 0.07 * 0.5
    assert np.allclose(mask, mask[:, ::-1], atol=1e-6)
    mouth, chin = mask[int(0.68 * size), size // 2], mask[int(0.86 * size), size // 2]
    assert (mouth, chin) == (1, 1)


@pytest.mark.parametrize("kind", ["thesis", "nose"])
def test_blend_mask_within_other_masks(kind):
    landmarks = np.full((68, 2), 85.0)
    generation = generation_mask(128, kind, landmarks)
    mask = blend_mask(128, generation)
    assert mask[generation == 0].max() == 0
    assert mask.max() == 1
    assert np.abs(np.diff(mask, axis=0)).max() < 0.5


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7, 4.2])
def test_pasting_the_crop_itself_changes_nothing(scale):
    frame = picture(700, 760)
    crop = crop_of(frame, scale)
    result = paste(frame, crop.image, crop, blend_mask(128))
    assert psnr(result, frame) > 45
    if scale > 1:
        assert np.abs(result.astype(int) - frame).max() <= 1


def test_detail_finer_than_the_crop_survives():
    rng = np.random.default_rng(0)
    frame = np.clip(picture(700, 760) + rng.normal(0, 12, (700, 760, 3)), 0, 255).astype(np.uint8)
    crop = crop_of(frame, 4.0)
    kept = paste(frame, crop.image, crop, blend_mask(128))
    blurred = paste(frame, crop.image, crop, blend_mask(128), keep_detail=False)
    assert np.abs(kept.astype(int) - frame).max() <= 1
    assert np.abs(blurred.astype(int) - frame).max() > 20


def test_old_detail_does_not_shine_through_a_new_mouth():
    """A thin dark line (closed lips) over flat skin is replaced by flat skin."""
    frame = np.full((700, 760, 3), 180, np.uint8)
    frame[418:424] = 40
    crop = crop_of(frame, 4.0, degrees=0.0)
    generated = np.full((128, 128, 3), 180, np.uint8)
    result = paste(frame, generated, crop, blend_mask(128))
    mouth = result[400:450, 340:420].astype(int)
    assert np.abs(mouth - 180).max() <= 12


@pytest.mark.parametrize("scale", [0.4, 1.0, 4.2])
def test_nothing_outside_the_mask_is_touched(scale):
    frame = picture(700, 760)
    original = frame.copy()
    crop = crop_of(frame, scale)
    mask = blend_mask(128)
    result = paste(frame, 255 - crop.image, crop, mask)
    assert np.array_equal(frame, original), "the input is not changed"
    places = np.stack(np.meshgrid(np.arange(760) + 0.5, np.arange(700) + 0.5), axis=-1)
    x, y = np.moveaxis(crop.to_crop(places), -1, 0)
    radius = max(2.5, 2.5 / scale)
    reach = cv2.dilate(mask, np.ones((2 * int(radius) + 1,) * 2, np.uint8))
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    inside = (column >= 0) & (column < 128) & (row >= 0) & (row < 128)
    reached = np.zeros(inside.shape, bool)
    reached[inside] = reach[row[inside], column[inside]] > 0
    changed = (result != original).any(axis=2)
    assert changed.any()
    assert not changed[~reached].any()
    solid = np.zeros(inside.shape, bool)
    solid[inside] = cv2.erode(mask, np.ones((3, 3)))[row[inside], column[inside]] == 1
    assert (np.abs(result.astype(int) - original)[solid].max(axis=1) > 0).mean() > 0.9


@pytest.mark.parametrize("scale", [0.5, 2.5])
def test_pasted_pixels_land_where_they_belong(scale):
    """A spot at a known place of the crop appears at the mapped place of the frame."""
    frame = np.zeros((600, 640, 3), np.uint8)
    crop = crop_of(frame, scale, degrees=33.0)
    place = np.array([71.0, 88.0])
    y, x = np.mgrid[0:128, 0:128] + 0.5
    spot = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 4.0**2))
    generated = np.repeat(spot[:, :, None], 3, axis=2).astype(np.uint8)
    result = paste(frame, generated, crop, blend_mask(128))[:, :, 0].astype(float)
    rows, columns = np.mgrid[0:600, 0:640] + 0.5
    found = np.array([(columns * result).sum(), (rows * result).sum()]) / result.sum()
    assert np.abs(found - crop.to_source(place)).max() < 0.25


def test_a_larger_generated_crop_lands_on_the_same_place():
    frame = picture(600, 640)
    crop = crop_of(frame, 2.0)
    double = AlignedCrop.from_matrix(frame, crop.matrix * 2, 256)
    mask = blend_mask(128)
    result = paste(frame, double.image, crop, mask, keep_detail=False)
    assert psnr(result, frame) > 45


def test_a_crop_over_the_border_and_one_outside():
    frame = picture(200, 200)
    half = AlignedCrop.from_matrix(frame, np.array([[1.0, 0, 64], [0, 1.0, 0]]), 128)
    result = paste(frame, 255 - half.image, half, blend_mask(128))
    assert result.shape == frame.shape
    assert (result[:, :30] != frame[:, :30]).any()
    assert np.array_equal(result[:, 70:], frame[:, 70:])
    outside = AlignedCrop.from_matrix(frame, np.array([[1.0, 0, 900], [0, 1.0, 0]]), 128)
    assert np.array_equal(paste(frame, outside.image, outside, blend_mask(128)), frame)
    assert np.array_equal(paste(frame, half.image, half, np.zeros((128, 128), np.float32)), frame)


def test_a_planted_colour_shift_is_removed():
    original = crop_of(picture(seed=3), 1.5).image
    shifted = np.clip(original * np.array([0.92, 1.0, 1.06]) + (6, -5, 4), 0, 255).astype(np.uint8)
    before = np.abs(shifted.astype(float) - original).mean()
    after = np.abs(match_colour(shifted, original).astype(float) - original).mean()
    assert before > 6
    assert after < 0.3 * before


def test_equal_colours_stay_equal():
    original = crop_of(picture(seed=4), 1.5).image
    assert np.abs(match_colour(original, original).astype(int) - original).max() <= 1


def test_an_occlusion_in_the_ring_does_not_decide_the_colour():
    original = np.full((128, 128, 3), (190, 150, 130), np.uint8)
    original = (original + np.random.default_rng(0).normal(0, 3, original.shape)).astype(np.uint8)
    generated = original.copy()
    generated[40:70, 55:70] = (20, 160, 20)
    found = match_colour(generated, original)
    assert np.abs(found[80:].astype(float) - original[80:]).mean() < 1.0


def test_a_moved_mouth_does_not_change_the_colour():
    original = crop_of(picture(seed=5), 1.5).image
    generated = original.copy()
    generated[76:] = 255 - generated[76:]
    found = match_colour(generated, original)
    assert np.abs(found[:70].astype(int) - original[:70]).max() <= 1


def test_the_ring_stays_clear_of_the_mouth():
    ring = colour_ring(128)
    assert ring.any()
    assert not ring[int(0.56 * 128) :].any()
    mask = generation_mask(128) > 0
    assert (ring & mask).any()
    assert (ring & ~mask).any()


def test_the_correction_changes_slowly():
    original = np.full((64, 64, 3), 120, np.uint8)
    matcher = ColourMatcher(inertia=0.9)
    steps = [matcher(np.full((64, 64, 3), shade, np.uint8), original)[0, 0, 0] for shade in (120, 120, 140)]
    assert steps[:2] == [120, 120]
    assert 134 <= steps[2] <= 140, "one odd frame moves the correction by a tenth only"
    for _ in range(60):
        last = matcher(np.full((64, 64, 3), 140, np.uint8), original)[0, 0, 0]
    assert last == pytest.approx(120, abs=1)


@pytest.mark.parametrize("scale", [0.7, 2.5])
def test_pasting_again_and_again_in_one_place_is_pasting(scale):
    frame = picture()
    before = frame.copy()
    crop, mask = crop_of(frame, scale), blend_mask(128)
    place = PlaceOfCrop(frame, crop, mask)
    flow = np.full((128, 128, 3), 0.5, np.float32)
    for seed, given in ((1, None), (2, flow), (1, None)):
        generated = picture(140, 140, seed)[:128, :128]
        assert np.array_equal(place(generated, flow=given), paste(frame, generated, crop, mask, flow=given))
    assert np.array_equal(frame, before)


def test_recoloured_levels_are_rounded_and_clipped():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    gain, offset = np.array([1.2, 0.9, 1.0]), np.array([-30.0, 12.43, 0.0])
    expected = np.clip(np.rint(image * gain + offset), 0, 255)
    assert np.abs(ColourMap(gain, offset).apply(image) - expected).max() == 0


def test_pasting_is_fast_enough_for_films():
    frame = picture(1080, 1920)
    crop = crop_of(frame, 4.4)
    mask = blend_mask(128)
    taken = []
    for _ in range(7):
        start = time.process_time()
        paste(frame, crop.image, crop, mask)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.06  # 10 ms on a free core; the limit allows for a loaded one


def test_skin_that_moved_takes_its_grain_along():
    """A photograph of grain finer than the crop, whose skin slides by some pixels of the crop: with the flow the
    result is the photograph moved, grain and all; without it the grain is lost."""
    shift, scale, size = 6, 3.0, 128
    grain = np.random.default_rng(1).normal(0, 30, (420, 420, 1))
    photograph = np.clip(picture(420, 420, seed=2) * 0.3 + 90 + grain, 0, 255).astype(np.uint8)
    crop = crop_of(photograph, scale, degrees=0.0, size=size)
    moved = np.roll(photograph, int(shift * scale), axis=0)
    generated = AlignedCrop.from_matrix(moved, crop.matrix, size).image
    flow = np.zeros((size, size, 3), np.float32)
    flow[:, :, 1], flow[:, :, 2] = -shift, 1.0
    mask = blend_mask(size)
    results = {
        name: paste(photograph, generated, crop, mask, flow=given)
        for name, given in (("with", flow), ("without", None))
    }
    full = np.nonzero(mask > 0.999)
    middle = (
        slice(int(full[0].min()), int(full[0].max())),
        slice(int(full[1].min()) + 8, int(full[1].max()) - 8),
    )
    back = np.linalg.inv(np.vstack([crop.matrix, [0, 0, 1]]))
    low = (back @ [middle[1].start + 12, middle[0].start + 12, 1])[:2].astype(int)
    high = (back @ [middle[1].stop - 12, middle[0].stop - 12, 1])[:2].astype(int)
    box = slice(low[1], high[1]), slice(low[0], high[0])
    assert psnr(results["with"][box], moved[box]) > psnr(results["without"][box], moved[box]) + 6
    assert np.array_equal(results["with"][:40], photograph[:40])


@pytest.mark.parametrize("size", [32, 128, 300])
def test_areas_of_an_edited_face(size: int) -> None:
    """The face is shown in full from brows to chin and fades out at the border; the mouth lies within it."""
    face, mouth = face_mask(size), mouth_area(size)
    assert face.shape == mouth.shape == (size, size) and face.dtype == mouth.dtype == np.float32
    assert min(face.min(), mouth.min()) >= 0 and max(face.max(), mouth.max()) <= 1
    for x, y in ((0.5, 0.5), (0.3, 0.28), (0.7, 0.28), (0.5, 0.8)):
        assert face[int(y * size), int(x * size)] > 0.95
    assert face[0].max() < 0.05 and face[-1].max() < 0.05 and face[:, 0].max() < 0.05
    assert mouth[int(0.71 * size), size // 2] > 0.95
    for x, y in ((0.365, 0.36), (0.635, 0.36), (0.5, 0.5), (0.2, 0.6)):
        assert mouth[int(y * size), int(x * size)] == 0
