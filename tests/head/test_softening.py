"""Softened edges: only edges, as wide as the size asks, and a part of a picture as the whole."""

import pytest
import torch
import torch.nn.functional as F

from talkface.head.softening import REACH_OF_EDGES, soften_edges


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def drawn(side=40):
    """Pictures, inside of a mouth, flow that jumps at row 30."""
    inside, flow = torch.zeros(2, 1, side, side), torch.zeros(2, 2, side, side)
    inside[:, :, 15:20, 12:28] = 1.0
    flow[:, 1, 30:, :] = 9.0
    return noise(2, 3, side, side), inside, flow


@pytest.mark.parametrize(("size", "taps"), [(128, (0.25, 0.5, 0.25)), (256, (0.07, 0.24, 0.38, 0.24, 0.07))])
def test_edges_are_blurred_and_skin_is_not(size, taps):
    pictures, inside, flow = drawn()
    soft = soften_edges(pictures, inside, flow, size)
    kernel = torch.tensor(taps).outer(torch.tensor(taps)).expand(3, 1, -1, -1)
    reach = len(taps) // 2
    blurred = F.conv2d(F.pad(pictures, (reach,) * 4, mode="replicate"), kernel, groups=3)
    lips, chin = (
        ([14, 20], 1.0 if reach == 2 else 2 / 3),
        ([29, 30], 2 / 3),
    )  # rows, and how much of the blur they get
    for rows, share in (lips, chin):
        found, expected = (image[:, :, rows, 15:25] for image in (soft, torch.lerp(pictures, blurred, share)))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(soft[:, :, :8], pictures[:, :, :8])
    assert torch.equal(soft[:, :, 36:], pictures[:, :, 36:])


def test_a_part_is_exactly_that_of_the_whole():
    pictures, inside, flow = drawn()
    whole = soften_edges(pictures, inside, flow, 256)
    rows = slice(15 - REACH_OF_EDGES, None)
    part = soften_edges(pictures[1:, :, rows], inside[1:, :, rows], flow[1:, :, rows], 256)
    assert torch.equal(part[:, :, REACH_OF_EDGES:], whole[1:, :, 15:])
