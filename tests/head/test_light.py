"""What skin tells of the light on it."""

from __future__ import annotations

import pytest
import torch

from talkface.head.light import light_on, luminance

AVERAGE = (
    torch.tensor([[1.45, 1.0, 0.75]])
    * 0.28
    / (torch.tensor([[1.45, 1.0, 0.75]]) @ torch.tensor([0.2126, 0.7152, 0.0722]))
)


def test_average_skin_is_lit_by_white_of_strength_one():
    torch.testing.assert_close(light_on(AVERAGE), torch.ones(1, 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("lamp", [(2.0, 1.0, 0.4), (0.5, 0.8, 1.6)])
def test_a_coloured_lamp_is_told_from_the_skin(lamp):
    """Most of its hue: some of an unusual skin is the skin's own."""
    lamp = torch.tensor([lamp])
    white = light_on(AVERAGE * lamp)
    told, true = (x[:, [0, 2]] / x[:, 1:2] for x in (white, lamp))
    torch.testing.assert_close(told.log(), 0.8 * true.log(), atol=0.01, rtol=0)


def test_dark_skin_is_not_all_shadow():
    dark, bright = light_on(0.2 * AVERAGE), light_on(AVERAGE)
    assert 0.2 < float(luminance(dark)[0] / luminance(bright)[0]) < 0.5
    assert torch.isfinite(light_on(torch.zeros(1, 3))).all()
