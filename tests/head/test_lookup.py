"""Colours at places, against torch's own sampling."""

import pytest
import torch
import torch.nn.functional as F

from talkface.head.lookup import colours_at
from talkface.head.raster import Fragments


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("count", [0, 5, 3000])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("pictures", [1, 2])
def test_as_grid_sample_also_beyond_the_border(pictures, mode, count):
    images, places = noise(pictures, 3, 24, 24), 1.1 * noise(count, 2)
    batch = (torch.arange(count) * pictures).div(max(count, 1), rounding_mode="floor")
    seen = Fragments(torch.arange(count), torch.zeros_like(batch), batch, noise(count, 3), noise(count))
    found = colours_at(images, seen, places, mode)
    expected = torch.zeros(count, 3)
    for number in range(pictures):
        rows = batch == number if pictures > 1 else torch.ones(count, dtype=torch.bool)
        grid = places[rows][None, :, None]
        taken = F.grid_sample(
            images[number, None], grid, mode=mode, padding_mode="border", align_corners=False
        )
        expected[rows] = taken[0, :, :, 0].T
    assert found.shape == (count, 3)
    # older releases of OpenCV round places to 1/32 pixel
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)
    if count:
        assert float((found - expected).abs().mean()) < 0.01


def test_a_place_has_its_colour_in_any_company():
    image, places = noise(1, 3, 24, 24), noise(700, 2)
    zeros = torch.zeros(700, dtype=torch.long)
    seen = Fragments(zeros, zeros, zeros, noise(700, 3), noise(700))
    whole = colours_at(image, seen, places, "bicubic")
    assert torch.equal(colours_at(image, seen, places[13:600], "bicubic"), whole[13:600])
