"""Who writes the shards: processes of this machine, or a Ray cluster.

An engine calls `job(name, items, tick)` once for every task and returns nothing: what a job makes lies on the disk,
whole or not at all, so that a job that is done twice, or ends with its process, harms nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any

import cv2
import torch

from talkface.data.prepare.source import RawItem
from talkface.errors import TalkfaceError, require

Tick = Callable[[int], None]
"""Called with a number of items that are done."""
Job = Callable[[str, Sequence[RawItem], Tick], None]
Tasks = Mapping[str, Sequence[RawItem]]
ENGINES = ("local", "ray")
POLL = 0.25  # seconds between two looks at how far the workers are


def run_tasks(engine: str, job: Job, tasks: Tasks, workers: int, tick: Tick) -> None:
    """Do `job` for all tasks.

    Args:
        engine: "local" (processes of this machine) or "ray".
        job: picklable; made of importable parts.
        tasks: items by name of the shard.
        workers: processes (local; 1 works in this one), or tasks at a time (ray).
        tick: called in this process.

    Raises:
        TalkfaceError: unknown engine, or a process died. What a job raises is raised here.
    """
    if engine not in ENGINES:
        raise TalkfaceError(f"engine: {engine!r}; allowed {', '.join(ENGINES)}")
    if workers < 1:
        raise TalkfaceError(f"workers: {workers}; allowed is 1 or more")
    if not tasks:
        return
    if engine == "ray":
        _run_ray(job, tasks, workers, tick)
    elif workers == 1 or len(tasks) == 1:
        _run_here(job, tasks, tick)
    else:
        _run_processes(job, tasks, min(workers, len(tasks)), tick)


def _one_thread() -> None:
    # sums are taken in the same order on every machine, and workers share the cores
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _run_here(job: Job, tasks: Tasks, tick: Tick) -> None:
    threads = torch.get_num_threads()
    _one_thread()
    try:
        for name, items in tasks.items():
            job(name, items, tick)
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(-1)


# what a worker process needs for every task, sent once
_worker: dict[str, Any] = {}


def _start_worker(job: Job, counter: Any, alive: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends its workers
    _one_thread()
    _worker.update(job=job, counter=counter)

    def end_with_parent() -> None:
        # the parent holds the other end and never writes: this returns when it closes it, or dies in any way
        multiprocessing.connection.wait([alive])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _work(name: str, items: Sequence[RawItem]) -> None:
    counter = _worker["counter"]

    def tick(count: int) -> None:
        with counter.get_lock():
            counter.value += count

    _worker["job"](name, items, tick)


def _run_processes(job: Job, tasks: Tasks, workers: int, tick: Tick) -> None:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("Q", 0)
    alive, ours = context.Pipe(duplex=False)
    shown = 0

    def show() -> None:
        nonlocal shown
        fresh, shown = counter.value - shown, counter.value
        if fresh:
            tick(fresh)

    pool = ProcessPoolExecutor(workers, context, _start_worker, (job, counter, alive))
    try:
        pending = {pool.submit(_work, name, items) for name, items in tasks.items()}
        while pending:
            done, pending = wait(pending, POLL, FIRST_COMPLETED)
            for task in done:
                task.result()
            show()
    except BrokenProcessPool as error:
        raise TalkfaceError(
            f"one of {workers} worker processes was ended from outside, for example for lack of memory; finished "
            "shards are kept; give the same command again, with fewer --workers"
        ) from error
    finally:
        ours.close()  # ends workers that still work, see `end_with_parent`
        pool.shutdown(wait=True, cancel_futures=True)
        alive.close()


def _run_ray(job: Job, tasks: Tasks, workers: int, tick: Tick) -> None:
    """Every task is one Ray task of one CPU; one whose node or process dies is done again elsewhere."""
    ray = require("ray", extra="ray")
    started = not ray.is_initialized()
    if started:
        _connect(ray)
    try:
        work = ray.remote(num_cpus=1, max_retries=-1)(_work_remotely)
        shared = ray.put(job)
        waiting = list(tasks.items())
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < workers:
                name, items = waiting.pop(0)
                running[work.remote(shared, name, list(items))] = len(items)
            for reference in ray.wait(list(running), num_returns=1)[0]:
                try:
                    ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except ray.exceptions.RayError as error:
                    reason = " ".join(str(error).split())[:200]
                    raise TalkfaceError(
                        f"Ray gave up ({reason}); finished shards are kept; give the same command again"
                    ) from error
                tick(running.pop(reference))
    finally:
        if started:
            ray.shutdown()


def _connect(ray: Any) -> None:
    """Join the cluster of RAY_ADDRESS or of this machine; without one, start Ray on this machine."""
    options = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**options)
            return
        try:
            ray.init(address="auto", **options)
        except ConnectionError:
            ray.init(include_dashboard=False, **options)
    except (ConnectionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TalkfaceError(
            f"engine ray: no connection to {os.environ.get('RAY_ADDRESS', 'a cluster')} ({reason}); start one with "
            "`ray start --head`, set RAY_ADDRESS, or use --engine local"
        ) from error


def _work_remotely(job: Job, name: str, items: Sequence[RawItem]) -> None:
    _one_thread()
    job(name, items, lambda count: None)
