"""Blocks shared by the networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from talkface.networks.layers import Upsample, group_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "side"), [(128, 20), (96, 8), (24, 40)])
def test_group_norm_is_that_of_torch_in_every_layout(channels, side, dtype):
    torch.manual_seed(0)
    norm = group_norm(channels, 1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (3 * torch.randn(2, channels, side, side) + 1).to(dtype)
    wanted = nn.functional.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for layout in (torch.contiguous_format, torch.channels_last):
        found = norm(x.contiguous(memory_format=layout))
        assert found.is_contiguous(memory_format=layout)
        assert found.dtype == dtype
        assert torch.allclose(found.float(), wanted, atol=tolerance, rtol=0.01)


@pytest.mark.parametrize("shape", [(2, 8, 5, 7), (1, 4, 1, 1)])
def test_doubling_as_one_transposed_convolution_is_repeating_and_convolving(shape):
    layer = Upsample(shape[1])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = layer(x)
    with torch.no_grad():
        assert expected.shape == (*shape[:2], 2 * shape[2], 2 * shape[3])
        torch.testing.assert_close(layer(x), layer.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3)))
        torch.testing.assert_close(layer(x), expected)
