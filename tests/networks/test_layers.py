"""Blocks shared by the networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from talkface.networks.layers import group_norm


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
