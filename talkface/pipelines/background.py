"""One iterator computed in a second thread while its consumer works on earlier items.

Torch, OpenCV and the film codecs release Python's lock, so sampling the next frames overlaps with pasting and
encoding the last ones. The queue is short: memory does not grow when the consumer is the slower one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Cancelled(Exception):
    """Raised inside the producer when nobody wants its items any more."""


def in_background(produce: Callable[[Callable[[], None]], Iterator[Item]], depth: int = 2) -> Iterator[Item]:
    """Yield the items of `produce(keep_going)`, which runs in its own thread at most `depth` items ahead.

    `keep_going()` returns while the consumer is there and raises `Cancelled` after it left; the producer
    calls it wherever it can stop at once. Exceptions of the producer are raised here, after the items before
    them. Closing the iterator stops the producer and waits for it.
    """
    items: queue.Queue[tuple[str, object]] = queue.Queue(maxsize=depth)
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
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
