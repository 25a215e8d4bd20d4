"""How the synthetic head turns on its neck: rigid above, still at the shoulders, blended between."""

from __future__ import annotations

import torch
from torch import Tensor

PIVOT = (0.0, -0.085, -0.075)
"""Where the head turns on the neck (the atlas joint), metres in head coordinates."""


def rotation_matrices(angles: Tensor) -> Tensor:
    """(T, 3) x (nod, positive = down), y (turn, positive = to the picture's right), z (tilt) -> (T, 3, 3) =
    Ry Rx Rz."""
    cos, sin = angles.cos().unbind(-1), angles.sin().unbind(-1)
    one, zero = torch.ones_like(cos[0]), torch.zeros_like(cos[0])
    about_x = torch.stack([one, zero, zero, zero, cos[0], -sin[0], zero, sin[0], cos[0]], -1).view(-1, 3, 3)
    about_y = torch.stack([cos[1], zero, sin[1], zero, one, zero, -sin[1], zero, cos[1]], -1).view(-1, 3, 3)
    about_z = torch.stack([cos[2], -sin[2], zero, sin[2], cos[2], zero, zero, zero, one], -1).view(-1, 3, 3)
    return about_y @ about_x @ about_z


def turn(directions: Tensor, pose: Tensor, stiffness: Tensor) -> Tensor:
    """Turn directions (T, V, 3) as `move` turns points."""
    return torch.lerp(
        directions, directions @ rotation_matrices(pose[:, :3]).transpose(1, 2), stiffness[:, None]
    )


def move(vertices: Tensor, pose: Tensor, stiffness: Tensor) -> Tensor:
    """Turn and shift the head (T, V, 3); `stiffness` (V,) is 1 on the head and falls to 0 on the
    shoulders."""
    pivot = torch.tensor(PIVOT, device=vertices.device)
    turned = (vertices - pivot) @ rotation_matrices(pose[:, :3]).transpose(1, 2) + pivot
    return torch.lerp(vertices, turned, stiffness[:, None]) + pose[:, None, 3:]
