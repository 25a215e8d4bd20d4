"""How long each stage of a running pipeline is busy, without changing the pipeline."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any


class StageClock:
    """Replaces functions by timed versions of themselves; `undo` puts the originals back.

    Args:
        now: the clock. `time.perf_counter`: time that passes. `time.process_time`: time that the processor
            worked for this process, which other work on the machine hardly changes (with one thread; threads
            that wait for each other count as working).

    Attributes:
        times: stage -> seconds of each call, in order.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.times: dict[str, list[float]] = defaultdict(list)
        self._originals: list[tuple[Any, str, Any, bool]] = []

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Time `owner.name` (a module, class or object) as `stage`."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self.now()
            try:
                return original(*args, **kwargs)
            finally:
                self.times[stage].append(self.now() - start)

        self._originals.append((owner, name, original, name in vars(owner)))
        setattr(owner, name, timed)

    def total(self, stage: str) -> float:
        """Seconds of all calls of a stage."""
        return sum(self.times[stage])

    def undo(self) -> None:
        """Put every original back."""
        for owner, name, original, was_own in reversed(self._originals):
            if was_own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)
        self._originals.clear()
