"""Nearest neighbours: the same as by brute force, whatever the batches; LPIPS as a Euclidean distance."""

from __future__ import annotations

import pytest
import torch

from talkface.metrics.neighbours import NearestNeighbours


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_streaming_finds_what_brute_force_finds(batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, vectors = torch.randn(5, 12, generator=generator), torch.randn(40, 12, generator=generator)
    vectors[17] = queries[2]
    found = NearestNeighbours(queries, 3)
    for part in vectors.split(batch):
        found.add(part)
    distances, indices = (queries[:, None] - vectors[None]).norm(dim=2).topk(3, largest=False)
    torch.testing.assert_close(found.distances, distances)
    assert torch.equal(found.indices, indices)
    assert found.indices[2, 0] == 17 and found.distances[2, 0] == 0


def test_fewer_vectors_than_wanted() -> None:
    found = NearestNeighbours(torch.zeros(2, 3), 5)
    assert found.indices.shape == (2, 0)
    found.add(torch.ones(2, 3))
    assert found.indices.tolist() == [[0, 1], [0, 1]]
