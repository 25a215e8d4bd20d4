"""What is painted into photographs without colours has none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from talkface.portrait.toning import toning_of

PHOTOGRAPH = np.ascontiguousarray(astronaut()[:256, 100:356])
GREY = np.repeat(np.rint(PHOTOGRAPH.mean(2, keepdims=True)).astype(np.uint8), 3, axis=2)
CURVES = {"black and white": (1.0, 1.0, 1.0), "sepia": (0.8, 1.0, 1.4), "blueprint": (1.3, 1.1, 0.8)}


def toned(picture: np.ndarray, name: str) -> np.ndarray:
    """A grey picture printed in one hue."""
    return np.rint(255 * (picture / 255.0) ** np.array(CURVES[name])).astype(np.uint8)


def with_red_square(picture: np.ndarray) -> np.ndarray:
    result = picture.copy()
    result[100:140, 100:140] = (150, 40, 40)
    return result


@pytest.mark.parametrize("name", CURVES)
def test_red_paint_takes_the_tone_of_its_lightness(name):
    photograph = toned(GREY, name)
    toning = toning_of(photograph)
    assert toning is not None
    assert toning.share == 1.0
    painted = toning(with_red_square(photograph))
    # what a grey of the same luma looks like in this print
    lumas = photograph @ np.array([0.299, 0.587, 0.114])
    luma = np.array([150, 40, 40]) @ np.array([0.299, 0.587, 0.114])
    expected = photograph[np.abs(lumas - luma) < 1.0].mean(0)
    assert np.abs(painted[120, 120] - expected).max() < 4
    unpainted = np.abs(painted[:90].astype(int) - photograph[:90])
    assert unpainted.mean() < 1.0
    assert unpainted.max() <= 6


def test_grey_stays_exactly_grey():
    toning = toning_of(GREY)
    assert toning is not None
    assert np.array_equal(toning(GREY), GREY)


def test_a_photograph_with_colours_is_left_alone():
    assert toning_of(PHOTOGRAPH) is None


def test_the_noise_of_jpeg_is_no_colour():
    _, data = cv2.imencode(".jpg", toned(GREY, "sepia")[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    toning = toning_of(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    assert toning is not None
    assert toning.share > 0.3


def test_a_picture_of_one_colour_has_a_tone():
    flat = np.full((64, 64, 3), (90, 80, 70), np.uint8)
    toning = toning_of(flat)
    assert toning is not None
    assert np.abs(toning(flat).astype(int) - flat).max() <= 1
