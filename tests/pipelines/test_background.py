"""The second thread: order, bounded lead, errors, and an end when the consumer leaves."""

import threading
import time

import pytest

from talkface.pipelines.background import in_background


def sampler_threads():
    return [thread for thread in threading.enumerate() if thread.name == "talkface-sampler"]


def test_items_come_in_order():
    assert list(in_background(lambda keep_going: iter(range(100)))) == list(range(100))
    assert not sampler_threads()


def test_the_producer_is_only_a_few_items_ahead():
    produced = []

    def produce(keep_going):
        for k in range(100):
            produced.append(k)
            yield k

    items = in_background(produce, depth=2)
    next(items)
    time.sleep(0.2)
    assert len(produced) <= 1 + 2 + 1
    items.close()


def test_an_error_arrives_after_the_items_before_it():
    def produce(keep_going):
        yield 1
        raise ValueError("bad frame")

    items = in_background(produce)
    assert next(items) == 1
    with pytest.raises(ValueError, match="bad frame"):
        next(items)
    assert not sampler_threads()


def test_leaving_early_stops_a_producer_that_is_busy():
    def produce(keep_going):
        yield 1
        while True:
            time.sleep(0.001)
            keep_going()

    items = in_background(produce)
    assert next(items) == 1
    started = time.perf_counter()
    items.close()
    assert time.perf_counter() - started < 1
    assert not sampler_threads()
