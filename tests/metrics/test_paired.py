"""PSNR, SSIM, region and flicker: known answers and parity with piq."""

import math

import pytest
import torch

from talkface.metrics.paired import box_mask, flicker, psnr, region_lpips, ssim


def pictures(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr_known_answers():
    target = torch.zeros(2, 3, 8, 8)
    image = target.clone()
    image[0] += 0.2  # error 0.2 of a range of 2: 20 log10(10) = 20 dB
    result = psnr(image, target)
    assert result[0] == pytest.approx(20.0, abs=1e-5)
    assert math.isinf(result[1])
    assert psnr(target + 5, target)[0] == pytest.approx(20 * math.log10(2), abs=1e-5)  # clipped to 1


def test_psnr_counts_only_the_region():
    target = torch.zeros(1, 3, 10, 10)
    image = target.clone()
    mask = box_mask((2, 4, 6, 9), 10, 10)
    assert mask.sum() == 4 * 5 and mask[0, 0, 4, 2] == 1 and mask[0, 0, 9, 2] == 0
    image[..., 4:9, 2:6] = 0.02
    image[..., 0, 0] = 1.0
    assert psnr(image, target, mask)[0] == pytest.approx(40.0, abs=1e-4)
    assert psnr(image, target)[0] < 30
    assert torch.isnan(psnr(image, target, torch.zeros(1, 1, 10, 10)))[0]


def test_psnr_and_ssim_equal_piq():
    piq = pytest.importorskip("piq")
    a = pictures(0, 3, 3, 40, 56)
    b = (a + 0.3 * pictures(1, 3, 3, 40, 56)).clamp(-1, 1)
    unit_a, unit_b = (a + 1) / 2, (b + 1) / 2
    torch.testing.assert_close(
        psnr(a, b).float(), piq.psnr(unit_a, unit_b, reduction="none"), rtol=1e-4, atol=0
    )
    expected = piq.ssim(unit_a, unit_b, data_range=1.0, reduction="none", downsample=False)
    torch.testing.assert_close(ssim(a, b).float(), expected, rtol=1e-4, atol=1e-5)


def test_ssim_properties():
    a = pictures(0, 2, 3, 32, 32)
    assert ssim(a, a).tolist() == pytest.approx([1.0, 1.0])
    assert (ssim(a, pictures(1, 2, 3, 32, 32)) < 0.2).all()
    # A full mask changes nothing; a region far from the damage does not see it.
    b = a.clone()
    b[..., :16] = 0
    full = torch.ones(1, 1, 32, 32)
    torch.testing.assert_close(ssim(a, b, full), ssim(a, b))
    assert ssim(a, b, box_mask((26, 0, 32, 32), 32, 32)).tolist() == pytest.approx([1.0, 1.0])
    assert (ssim(a, b, box_mask((0, 0, 16, 32), 32, 32)) < 0.5).all()


def test_flicker_is_the_deviation_of_noise_and_ignores_steady_change():
    base = pictures(0, 1, 3, 24, 24) * 0.5
    steps = torch.arange(40.0).view(-1, 1, 1, 1)
    assert flicker(base.expand(40, -1, -1, -1)) == 0
    assert flicker(base + steps * 0.005) == pytest.approx(0, abs=1e-4)
    noise = torch.randn(40, 3, 24, 24, generator=torch.Generator().manual_seed(1)) * (2 / 127.5)
    assert flicker(base + noise) == pytest.approx(2.0, rel=0.02)
    half = torch.zeros(1, 1, 24, 24)
    half[..., :12] = 1
    assert flicker(base + noise * (1 - half), half) == 0
    assert flicker(base + noise * (1 - half), half.expand(40, -1, -1, -1)) == 0


def test_region_lpips_hands_the_box_to_the_expert():
    seen = []

    def distance(a, b):
        seen.append(tuple(a.shape))
        return (a - b).abs().mean(dim=(1, 2, 3))

    a, b = torch.zeros(2, 3, 128, 128), torch.zeros(2, 3, 128, 128)
    b[..., 30:50, 10:50] = 0.5
    assert region_lpips(distance, a, b, (10, 30, 50, 50)).tolist() == pytest.approx([0.5, 0.5])
    assert region_lpips(distance, a, b, (60, 30, 128, 128)).abs().max() == 0
    assert seen == [(2, 3, 64, 128), (2, 3, 98, 68)]
