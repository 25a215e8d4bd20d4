"""Nearest neighbours of a few vectors among very many, which come in batches: has a model learnt pictures by heart?"""

from __future__ import annotations

import torch
from torch import Tensor


class NearestNeighbours:
    """The nearest of all vectors seen so far, by Euclidean distance, for each of some queries.

    Args:
        queries: (Q, D).
        count: how many are kept for each.

    Attributes:
        distances: (Q, K) ascending, K = the smaller of `count` and the number of vectors seen.
        indices: (Q, K) int64, in the order in which vectors were added.
    """

    def __init__(self, queries: Tensor, count: int) -> None:
        self.queries, self.count = queries.float(), count
        self.distances = queries.new_zeros(len(queries), 0, dtype=torch.float32)
        self.indices = torch.zeros(len(queries), 0, dtype=torch.int64, device=queries.device)
        self._seen = 0

    def add(self, vectors: Tensor) -> None:
        """Compare with (N, D) more vectors; equal distances keep the earlier one."""
        # the exact difference: |a|^2 + |b|^2 - 2ab would round small distances of long vectors to noise
        found = torch.cdist(self.queries, vectors.float(), compute_mode="donot_use_mm_for_euclid_dist")
        numbers = torch.arange(self._seen, self._seen + len(vectors), device=found.device)
        distances = torch.cat([self.distances, found], dim=1)
        indices = torch.cat([self.indices, numbers.expand(len(self.queries), -1)], dim=1)
        order = distances.argsort(dim=1, stable=True)[:, : self.count]
        self.distances, self.indices = distances.gather(1, order), indices.gather(1, order)
        self._seen += len(vectors)
