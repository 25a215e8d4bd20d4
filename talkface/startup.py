"""Starting and leaving the program without waiting for the garbage collector.

torch makes about a million objects when it is imported, which live until the end. The collector goes through them
again and again while they are made, and once more at the end, which takes about a second. Only the command line does
this: what its process holds when networks are loaded stays anyway. A program that imports talkface keeps its
collector as it is.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_process = {"own": False}


@contextmanager
def program() -> Iterator[None]:
    """Around all that a process does which runs talkface and nothing else."""
    _process["own"] = True
    try:
        yield
    finally:
        gc.freeze()  # the system takes the memory back faster than a last collection does


@contextmanager
def loading() -> Iterator[None]:
    """Around imports and loading of networks: nothing is collected, and what is loaded is never looked at again."""
    if not _process["own"]:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
