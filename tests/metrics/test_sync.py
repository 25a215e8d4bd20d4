"""Lip-sync errors of several films: means, the share in step, films without a reading."""

from dataclasses import dataclass

import numpy as np
import pytest

from talkface.metrics.sync import sync_errors


@dataclass
class Told:
    offset: float
    confidence: float
    distance: float


def test_means_and_the_share_in_step():
    told = [Told(0, 2.0, 6.0), Told(-1, 4.0, 7.0), Told(5, 0.0, 11.0), Told(0, 9.0, float("nan"))]
    errors = sync_errors(told)
    assert (errors.lse_d, errors.lse_c, errors.films) == (8.0, 2.0, 3)
    assert errors.in_step == pytest.approx(2 / 3)
    assert errors.offset == pytest.approx(4 / 3) and errors.median_offset == 0
    low, high = errors.lse_d_interval
    assert 6.0 <= low < 8.0 < high <= 11.0


def test_nothing_read_is_nan():
    errors = sync_errors([Told(0, 1.0, float("nan"))])
    assert errors.films == 0 and np.isnan([errors.lse_d, errors.lse_c, errors.in_step]).all()
