"""Windows against torch's own pooling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from talkface.head.windows import window_max, window_mean


@pytest.mark.parametrize("reach", [1, 2, 3, 5, 8])
def test_as_pooling_does(reach):
    images = torch.randn(2, 3, 20, 33, generator=torch.Generator().manual_seed(reach))
    side = 2 * reach + 1
    assert torch.equal(window_max(images, reach), F.max_pool2d(images, side, 1, reach))
    mean = F.avg_pool2d(images, side, 1, reach, count_include_pad=False)
    assert torch.allclose(window_mean(images, reach), mean, atol=1e-5)
