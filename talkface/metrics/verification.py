"""Verification: are two pictures of one person? Error rates over all pairs of a set.

The equal error rate is the share of errors at the threshold where as many strangers are taken for the same person as
pictures of one person are taken for strangers; 0.5 is chance. The area under the ROC curve is the chance that a pair of
one person is more alike than a pair of strangers; 0.5 is chance.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Verification(NamedTuple):
    """Of one set of pairs: equal error rate and area under the ROC curve, both 0 to 1; how many pairs of each kind."""

    equal_error_rate: float
    area: float
    same_pairs: int
    other_pairs: int


def verify(likeness: Tensor, person: Tensor) -> Verification:
    """All pairs of a set.

    Args:
        likeness: (N, N), larger for pictures that are more alike; symmetric, the diagonal is not looked at.
        person: (N,) numbers.

    Raises:
        ValueError: there is no pair of one person, or none of two.
    """
    upper = torch.ones_like(likeness, dtype=torch.bool).triu(1)
    same = (person[:, None] == person[None]) & upper
    inside, outside = likeness[same].double(), likeness[upper & ~same].double()
    if not len(inside) or not len(outside):
        raise ValueError(f"verification needs pairs of both kinds; got {len(inside)} and {len(outside)}")
    return Verification(
        equal_error_rate(inside, outside), roc_area(inside, outside), len(inside), len(outside)
    )


def equal_error_rate(inside: Tensor, outside: Tensor) -> float:
    """Likeness of pairs of one person (A,) and of strangers (B,) -> the error rate where both kinds of error meet."""
    thresholds = torch.cat([inside, outside]).unique()
    missed = torch.searchsorted(inside.sort().values, thresholds) / len(inside)
    accepted = 1 - torch.searchsorted(outside.sort().values, thresholds) / len(outside)
    best = (missed - accepted).abs().argmin()
    return float((missed[best] + accepted[best]) / 2)


def roc_area(inside: Tensor, outside: Tensor) -> float:
    """The share of (pair of one person, pair of strangers) in which the first is more alike; a tie counts half."""
    ordered = outside.sort().values
    below = torch.searchsorted(ordered, inside)
    up_to = torch.searchsorted(ordered, inside, right=True)
    return float((below + up_to).double().mean() / (2 * len(outside)))
