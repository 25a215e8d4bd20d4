"""A training in several stages: runs those that were asked for, one after the other, and says how long each took."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch

SEED = 23


def run_stages(
    options: argparse.Namespace, stages: Mapping[str, Callable[[argparse.Namespace], Any]]
) -> None:
    """Call `stages[name](options)` for each name in `options.stage`.

    Args:
        options: `stage`; `threads` of the processor, 0: all.
        stages: what may be asked for, by name.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    pl.seed_everything(SEED)
    for name in options.stage:
        started = time.monotonic()
        stages[name](options)
        print(f"{name}: {(time.monotonic() - started) / 60:.1f} min", flush=True)
