"""The linear probe of sound features: what it finds, and on whom it is tested."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from evaluate_features import at_frames, probe, widened


def films(shared: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features and gaps of four films: the gap follows the first feature, by one rule for all or by each one's own."""
    random = np.random.default_rng(0)
    features = [random.standard_normal((80, 5)) for _ in range(4)]
    signs = (1, 1, 1, 1) if shared else (1, -1, 1, -1)
    gaps = [
        sign * f[:, 0] + 0.1 * random.standard_normal(80) for sign, f in zip(signs, features, strict=True)
    ]
    return features, gaps


def test_a_rule_that_all_people_share_is_found_on_those_never_seen():
    assert min(probe(*films(shared=True), speakers=["a", "b", "c", "d"], reach=0)) > 0.95


def test_a_rule_of_ones_own_does_not_help_on_others():
    assert np.mean(probe(*films(shared=False), speakers=["a", "b", "c", "d"], reach=0)) < 0.5


def test_features_between_two_frames_are_their_mean_and_the_ends_are_held():
    values = torch.tensor([[0.0], [2.0], [4.0]])
    assert at_frames(values, 50.0, np.array([0.0, 0.02, 0.9])).ravel().tolist() == [0.0, 1.0, 4.0]
    assert widened(np.array([[1.0], [2.0], [3.0]]), 1).tolist() == [[1, 1, 2], [1, 2, 3], [2, 3, 3]]
