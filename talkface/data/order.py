"""Data order that depends on seed, epoch and position only: a killed training resumes exactly.

A key is `epoch * len(dataset) + index`; a dataset splits it again (`divmod`) and draws all its randomness
from (seed, epoch, index). No worker holds state: the sample is the same whichever process makes it, and
resuming in the middle of an epoch means starting the same permutation at another position.
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
    ) -> None:
        assert isinstance(dataset, Dataset)
        super().__init__(
            dataset, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed, drop_last=True
        )
        self.num_items = len(dataset)  # type: ignore[arg-type]
        self.start_epoch = start_epoch
        self.start_key = start_batch * batch_size
        self.epoch = start_epoch

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_items)
        mine = order[self.rank :: self.num_replicas][: self.num_samples]
        start = self.start_key if self.epoch == self.start_epoch else 0
        return iter((self.epoch * self.num_items + mine[start:]).tolist())
