"""Data order that depends on seed, epoch and position only: a killed training resumes exactly.

A key is `epoch * len(dataset) + index`; a dataset splits it again (`divmod`) and draws all its randomness
from (seed, epoch, index). No worker holds state: the sample is the same whichever process makes it, and
resuming in the middle of an epoch means starting the same permutation at another position.

Processes share one permutation: of `n` processes, number `r` takes its places r, r + n, ... Loader workers of a process
share what it takes. So nothing comes twice, however many there are of either; what does not fill a place in
every process (fewer than n items) waits for another epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
from torch.utils.data import Dataset, DistributedSampler


class EpochSampler(DistributedSampler[int]):
    """Yields keys of one shuffled epoch, split between `num_replicas` processes.

    It is a `DistributedSampler` so that Lightning keeps it as it is and calls `set_epoch`.

    Args:
        dataset: anything with a length.
        seed: of the permutation.
        start_epoch, start_batch: where a resumed training continues.
        batch_size: of one process; a started epoch skips `start_batch * batch_size` keys.
        groups: (N,) the shard of every item; None = any item after any other. With it an epoch goes through the shards
            in random order and mixes the items of `groups_together` of them: all processes of a machine need few
            shards at a time, and start before all have come over the line.
        groups_together: see there.
    """

    def __init__(
        self,
        dataset: Sized,
        *,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        batch_size: int = 1,
        start_epoch: int = 0,
        start_batch: int = 0,
        groups: np.ndarray | None = None,
        groups_together: int = 16,
    ) -> None:
        assert isinstance(dataset, Dataset)
        super().__init__(
            dataset, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed, drop_last=True
        )
        self.num_items = len(dataset)
        self.start_epoch = start_epoch
        self.start_key = start_batch * batch_size
        self.epoch = start_epoch
        self.groups, self.groups_together = groups, groups_together

    def order(self) -> np.ndarray:
        """(N,) all items in the order of this epoch, the same in every process."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.num_items)
        if self.groups is None:
            return order
        # a stable sort by the turn of the item's shards keeps the random order of the items within a turn
        _, numbers = np.unique(self.groups, return_inverse=True)
        turns = rng.permutation(int(numbers.max()) + 1) // self.groups_together
        return order[np.argsort(turns[numbers[order]], kind="stable")]

    def __iter__(self) -> Iterator[int]:
        order = self.order()
        mine = order[self.rank :: self.num_replicas][: self.num_samples]
        start = self.start_key if self.epoch == self.start_epoch else 0
        return iter((self.epoch * self.num_items + mine[start:]).tolist())
