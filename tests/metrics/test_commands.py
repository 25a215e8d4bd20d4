"""What a commanded face did, on values and drawn faces where the answer is known."""

import cv2
import numpy as np
import pytest

from talkface.metrics.commands import response, sharpness, tooth_share

SKIN, LIPS, TEETH = (205, 150, 125), (170, 80, 80), (225, 220, 212)


def test_response_to_a_ramp():
    commands = np.linspace(0, 1, 9)
    assert response(commands, 0.2 + 0.5 * commands) == (pytest.approx(1), pytest.approx(0.5))
    assert response(commands, 0.3 - 0.1 * commands) == (pytest.approx(-1), pytest.approx(-0.1))
    assert response(commands, np.full(9, 0.4)) == (0, 0)
    late = np.where(commands < 0.6, 0, 1.0)
    assert 0.7 < response(commands, late)[0] < 0.95
    lost = 0.5 * commands
    lost[3] = np.nan
    assert response(commands, lost) == (pytest.approx(1), pytest.approx(0.5))
    assert np.isnan(response(commands, np.full(9, np.nan))[0])


def test_blur_halves_sharpness_and_only_the_box_counts():
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    blurred = cv2.GaussianBlur(picture, (0, 0), 1.0)
    box = (10, 10, 50, 50)
    assert sharpness(blurred, box) < 0.4 * sharpness(picture, box)
    half = picture.copy()
    half[:, 52:] = 0
    assert sharpness(half, box) == sharpness(picture, box)
    assert sharpness(np.full_like(picture, 90), box) == 0


def drawn_mouth(teeth: int, light: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mouth of 80 x 40 pixels with a band of teeth that many pixels high; its outline; places of skin."""
    picture = np.full((160, 160, 3), SKIN, np.uint8)
    cv2.rectangle(picture, (40, 80), (119, 119), LIPS, -1)
    if teeth:
        cv2.rectangle(picture, (40, 90), (119, 90 + teeth - 1), TEETH, -1)
    outline = np.array([(40, 80), (119, 80), (119, 119), (40, 119)], np.float64)
    return (picture * light).astype(np.uint8), outline, np.array([(25.0, 40.0), (135.0, 40.0)])


@pytest.mark.parametrize("light", [1.0, 0.5])
def test_teeth_between_the_lips(light):
    assert tooth_share(*drawn_mouth(0, light)) == 0
    assert tooth_share(*drawn_mouth(10, light)) == pytest.approx(0.25, abs=0.01)


def test_skin_and_dark_gaps_are_no_teeth():
    picture, outline, cheeks = drawn_mouth(0)
    picture[85:100, 40:120] = SKIN
    picture[100:110, 40:120] = 20
    assert tooth_share(picture, outline, cheeks) == 0
