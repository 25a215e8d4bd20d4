"""Heads whose truth is known."""

import math

import pytest
import torch

from talkface.head import ACTIONS
from talkface.head.fit import FittedHead


def _actions(**values):
    """(1, 52): a name without a side moves both."""
    sides = (name.removesuffix("Left").removesuffix("Right") for name in ACTIONS)
    return torch.tensor(
        [[values.get(name, values.get(side, 0.0)) for name, side in zip(ACTIONS, sides, strict=True)]]
    )


def _posed(head, identity, wanted, yaw=0.0, pitch=0.0, roll=0.0, scale=580.0):
    """A known head, and its landmarks (1, 68, 2) in a picture of 128 pixels."""
    y, p, r = (torch.tensor(math.radians(angle)) for angle in (yaw, pitch, roll))
    about_y = torch.tensor([[y.cos(), 0, y.sin()], [0, 1, 0], [-y.sin(), 0, y.cos()]])
    about_x = torch.tensor([[1, 0, 0], [0, p.cos(), -p.sin()], [0, p.sin(), p.cos()]])
    about_z = torch.tensor([[r.cos(), -r.sin(), 0], [r.sin(), r.cos(), 0], [0, 0, 1]])
    known = FittedHead(
        identity, wanted, (about_z @ about_y @ about_x)[None], torch.tensor([scale]), torch.tensor([[64.0, 47.0]]),
        torch.zeros(1),
    )  # fmt: skip
    return known, known.project(head(identity, wanted))[:, head.landmarks, :2]


@pytest.fixture(scope="session")
def actions():
    """A function: names and values -> (1, 52)."""
    return _actions


@pytest.fixture(scope="session")
def posed():
    """A function: head, identity, actions, angles -> the known head, its landmarks."""
    return _posed
