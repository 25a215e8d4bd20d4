"""The second thread: order, bounded lead, errors, and an end when the consumer leaves."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from talkface.pipelines.background import in_background, in_order


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


def test_tasks_side_by_side_give_their_results_in_order():
    threads = torch.get_num_threads()
    meet = threading.Barrier(2)

    def task(number: int) -> int:
        meet.wait(timeout=10)  # passes only where two run at a time
        time.sleep(0.01 * (number % 2))
        return number

    assert list(in_order((lambda k=k: task(k) for k in range(10)), workers=2)) == list(range(10))
    assert torch.get_num_threads() == threads
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == threads, "new threads begin as before"


def test_one_worker_is_the_caller_and_begins_no_task_ahead():
    begun = []
    results = in_order(
        (lambda k=k: (begun.append(k), threading.current_thread())[1] for k in range(3)), workers=1
    )
    assert next(results) is threading.current_thread()
    assert begun == [0]


def test_few_tasks_are_under_way_and_an_error_of_one_ends_it():
    taken = []

    def tasks():
        for k in range(100):
            taken.append(k)
            yield lambda k=k: 1 // (k - 4)

    results = in_order(tasks(), workers=2)
    assert [next(results), next(results)] == [-1, -1]
    assert len(taken) <= 4
    with pytest.raises(ZeroDivisionError):
        list(results)
    assert len(taken) <= 7
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("talkface-painter")]
