"""How sure a mean is: percentile bootstrap over clips (Efron 1979). Frames of one clip are not independent,
so the clip is the unit that is drawn again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Bounds of the mean of `values` (one per clip; nan is left out).

    Returns:
        (low, high); (nan, nan) without values, the value twice with one.
    """
    kept = np.asarray([value for value in values if not np.isnan(value)], dtype=np.float64)
    if len(kept) == 0:
        return float("nan"), float("nan")
    if not np.isfinite(kept).all():
        return float(kept.min()), float(kept.max())
    generator = np.random.default_rng(seed)
    means = kept[generator.integers(len(kept), size=(draws, len(kept)))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
