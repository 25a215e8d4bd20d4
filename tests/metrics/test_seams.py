"""Borders, surroundings and stillness, on pictures where the answer is known."""

import numpy as np
import pytest

from talkface.metrics.seams import border_step, frame_change, outside_difference

SIZE = 96


def disc_mask(radius: float = 28, feather: float = 8) -> np.ndarray:
    """A feathered disc in the middle, (SIZE, SIZE) in [0, 1]."""
    y, x = np.indices((SIZE, SIZE)) - SIZE / 2 + 0.5
    return np.clip((radius - np.hypot(x, y)) / feather, 0, 1)


def noise_picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (SIZE, SIZE, 3)).astype(np.uint8)


def test_no_border_where_nothing_was_painted():
    real = noise_picture(0)
    assert border_step(real, real, disc_mask()) == 0
    assert outside_difference(real, real, disc_mask()) == 0


def test_a_shade_over_the_mask_is_its_step():
    real, mask = noise_picture(0), disc_mask()
    made = np.rint(real + 6.0 * mask[:, :, None]).astype(np.uint8)
    assert border_step(made, real, mask) == pytest.approx(6, abs=0.2)
    shaded = made.copy()
    shaded[..., 1:] = real[..., 1:]
    assert border_step(shaded, real, mask) == pytest.approx(2, abs=0.1)  # one channel of three


def test_a_shade_of_the_whole_picture_and_a_change_far_inside_are_no_border():
    real, mask = noise_picture(0), disc_mask()
    assert border_step(real + 9, real, mask) == 0
    made = real.copy()
    made[44:52, 44:52] = 255
    assert border_step(made, real, mask) == 0


def test_noise_is_hardly_a_border():
    real, mask = np.full((SIZE, SIZE, 3), 120, np.uint8), disc_mask()
    noise = np.random.default_rng(1).normal(0, 6, real.shape) * mask[:, :, None]
    made = np.rint(real + noise).astype(np.uint8)
    assert np.abs(made.astype(int) - real)[mask >= 0.9].mean() > 4
    assert border_step(made, real, mask) < 2.5


def test_a_shade_on_one_side_counts_by_its_share():
    real, mask = noise_picture(0), disc_mask()
    half = mask * (np.arange(SIZE) < SIZE // 2)[None, :]
    made = np.rint(real + 8.0 * half[:, :, None]).astype(np.uint8)
    assert border_step(made, real, mask) == pytest.approx(4, abs=0.3)


def test_without_a_mask_nothing_can_be_said():
    real = noise_picture(0)
    assert np.isnan(border_step(real, real, np.zeros((SIZE, SIZE))))
    assert np.isnan(border_step(real, real, np.ones((SIZE, SIZE))))
    assert outside_difference(real, real + 1, np.ones((SIZE, SIZE))) == 0


def test_one_changed_pixel_outside_is_found():
    real, mask = noise_picture(0), disc_mask()
    made = real.copy()
    made[2, 3, 1] += 17
    assert outside_difference(made, real, mask) == 17
    made = real.copy()
    made[48, 48] = 0  # painted
    assert outside_difference(made, real, mask) == 0


def test_change_from_frame_to_frame():
    still = np.repeat(noise_picture(0)[None], 4, axis=0)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10:20, 10:20] = True
    assert frame_change(still, mask) == 0
    moving = still.copy()
    moving[1::2, :30] += 3
    assert frame_change(moving, mask) == 3
    moving[:, 40:] = np.random.default_rng(0).integers(0, 255, moving[:, 40:].shape)
    assert frame_change(moving, mask) == 3
