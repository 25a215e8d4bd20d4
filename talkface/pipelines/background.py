"""Work in other threads: an iterator computed ahead of its consumer; tasks side by side, their results in order.

Torch, OpenCV and the film codecs release Python's lock, so sampling the next frames overlaps with pasting and
encoding the last ones. The queue is short: memory does not grow when the consumer is the slower one.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


class Cancelled(Exception):
    """Raised inside the producer when nobody wants its items any more."""


def in_background(produce: Callable[[Callable[[], None]], Iterator[Item]], depth: int = 2) -> Iterator[Item]:
    """Yield the items of `produce(keep_going)`, which runs in its own thread at most `depth` items ahead.

    `keep_going()` returns while the consumer is there and raises `Cancelled` after it left; the producer
    calls it wherever it can stop at once. Exceptions of the producer are raised here, after the items before
    them. Closing the iterator stops the producer and waits for it.
    """
    # (kind, what): ("item", Item), ("error", BaseException) or ("end", None)
    items: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def keep_going() -> None:
        if stopped.is_set():
            raise Cancelled

    def put(kind: str, value: object) -> None:
        while True:
            keep_going()
            try:
                return items.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in produce(keep_going):
                put("item", item)
            put("end", None)
        except Cancelled:
            return
        except BaseException as error:
            try:
                put("error", error)
            except Cancelled:
                return

    thread = threading.Thread(target=work, name="talkface-sampler", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = items.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stopped.set()
        thread.join()


def in_order(tasks: Iterable[Callable[[], Item]], workers: int) -> Iterator[Item]:
    """Call the tasks, `workers` of them at a time, and yield their results in order; 1: here, one after the other.

    Small networks gain more from threads with a task each than from threads that share every layer. So the threads
    that torch may use are divided among the workers; the thread that iterates over `tasks` keeps one. At most
    `workers` + 1 tasks are under way. Closing the iterator waits for those that have begun.
    """
    if workers == 1:
        for task in tasks:
            yield task()
        return
    total = torch.get_num_threads()
    begun = threading.Barrier(workers + 1)

    def begin() -> None:
        torch.set_num_threads(max(1, total // workers))
        begun.wait()

    with ThreadPoolExecutor(workers, "talkface-painter") as pool:
        for _ in range(workers):
            pool.submit(begin)
        begun.wait()
        torch.set_num_threads(1)
        # the number is one of the calling thread, but the last one set is also what new threads begin with
        restorer = threading.Thread(target=torch.set_num_threads, args=(total,))
        restorer.start()
        restorer.join()
        waiting: deque[Future[Item]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(total)
