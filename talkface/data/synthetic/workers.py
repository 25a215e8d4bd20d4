"""Shards written by several processes: the same bytes whatever their number, resumable, one line per shard."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from typing import Any

import cv2
import torch


def write_shards(
    write: Callable[[str, Any], int],
    missing: Mapping[str, Sequence[Any]],
    workers: int = 1,
    report: Callable[[str], None] | None = None,
    what: str = "clips",
) -> None:
    """Call `write(name, plans)` once per shard.

    Args:
        write: writes one shard and returns its number of pictures; importable, since workers are new processes.
        missing: plans by name of the shard.
        workers: processes; 1 writes in this one.
        report: receives one line per finished shard; None prints to stderr.
        what: word for a plan in these lines.
    """
    say = report or partial(print, file=sys.stderr, flush=True)
    total = sum(map(len, missing.values()))
    started, done, pictures = time.monotonic(), 0, 0

    def finished(name: str, count: int) -> None:
        nonlocal done, pictures
        done, pictures = done + len(missing[name]), pictures + count
        passed = time.monotonic() - started
        left = passed / done * (total - done)
        say(
            f"synthetic corpus: {done}/{total} {what}, {pictures / passed:.1f} pictures/s, {left / 60:.1f} min left"
        )

    if workers <= 1 or len(missing) <= 1:
        threads = torch.get_num_threads()
        try:
            for name, plans in missing.items():
                finished(name, _alone(write, name, plans))
        finally:
            torch.set_num_threads(threads)
            cv2.setNumThreads(-1)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = {pool.submit(_alone, write, name, plans): name for name, plans in missing.items()}
        try:
            for job in as_completed(jobs):
                finished(jobs[job], job.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _alone(write: Callable[[str, Any], int], name: str, plans: Any) -> int:
    # one thread: sums are taken in the same order on every machine, and workers share the cores
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    return write(name, plans)
