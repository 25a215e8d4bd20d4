"""Lip-sync errors of films, from what a sync expert says of each: LSE-D, LSE-C and the offset.

LSE-D is the smallest mean distance of lips and sound over all offsets, LSE-C how far it lies under the median (Prajwal
et al., "A lip sync expert is all you need", ACM MM 2020, section 4.3). The numbers of different experts cannot be
compared with each other, and the expert that a model was trained with must not judge it. They stay high on some films
that look bad: read them beside `articulation`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from talkface.metrics.interval import bootstrap_interval


class Reading(Protocol):
    """What an expert says of one film; `talkface.experts.sync_offset.SyncReading`."""

    @property
    def offset(self) -> float:
        """Frames by which the sound comes later than the lips."""
        ...

    @property
    def confidence(self) -> float: ...

    @property
    def distance(self) -> float: ...


@dataclass(frozen=True)
class SyncErrors:
    """Over films.

    Attributes:
        lse_d, lse_c: means; lower and higher is better.
        lse_d_interval, lse_c_interval: 95 % bootstrap intervals of the means.
        in_step: share of the films whose offset is at most one frame.
        offset: mean offset in frames; median_offset: the median.
        films: how many counted. Films without a reading (nan) are left out.
    """

    lse_d: float
    lse_c: float
    lse_d_interval: tuple[float, float]
    lse_c_interval: tuple[float, float]
    in_step: float
    offset: float
    median_offset: float
    films: int


def sync_errors(readings: Iterable[Reading]) -> SyncErrors:
    """Mean errors of several films; all nan where none was read."""
    known = [one for one in readings if not np.isnan(one.distance)]
    if not known:
        nothing = float("nan")
        return SyncErrors(nothing, nothing, (nothing,) * 2, (nothing,) * 2, nothing, nothing, nothing, 0)
    distances, confidences = [one.distance for one in known], [one.confidence for one in known]
    offsets = np.array([one.offset for one in known], np.float64)
    return SyncErrors(
        lse_d=float(np.mean(distances)),
        lse_c=float(np.mean(confidences)),
        lse_d_interval=bootstrap_interval(distances),
        lse_c_interval=bootstrap_interval(confidences),
        in_step=float((np.abs(offsets) <= 1).mean()),
        offset=float(offsets.mean()),
        median_offset=float(np.median(offsets)),
        films=len(known),
    )
