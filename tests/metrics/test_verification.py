"""Error rates of verification, with known answers."""

from __future__ import annotations

import math

import pytest
import torch

from talkface.metrics.verification import equal_error_rate, roc_area, verify


def test_apart_alike_and_backwards():
    high, low = torch.linspace(0.6, 0.9, 50), torch.linspace(-0.2, 0.5, 400)
    assert equal_error_rate(high, low) == 0 and roc_area(high, low) == 1
    assert equal_error_rate(low, high) > 0.99 and roc_area(low, high) == 0
    same = torch.linspace(0, 1, 1001)
    assert equal_error_rate(same, same) == pytest.approx(0.5, abs=0.002)
    assert roc_area(same, same) == pytest.approx(0.5)


def test_two_gaussians_have_a_closed_form():
    torch.manual_seed(0)
    apart = 1.7
    inside, outside = torch.randn(20000).double() + apart, torch.randn(30000).double()
    error = 0.5 * math.erfc(apart / 2 / math.sqrt(2))
    area = 1 - 0.5 * math.erfc(apart / 2)
    assert equal_error_rate(inside, outside) == pytest.approx(error, abs=0.005)
    assert roc_area(inside, outside) == pytest.approx(area, abs=0.005)


def test_all_pairs_of_a_set():
    person = torch.tensor([0, 0, 1, 1, 1])
    vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.0, 0.8]])
    found = verify(-torch.cdist(vectors, vectors), person)
    assert found == (0.0, 1.0, 4, 6)
    with pytest.raises(ValueError, match="pairs of both kinds; got 10 and 0"):
        verify(torch.zeros(5, 5), torch.zeros(5))
