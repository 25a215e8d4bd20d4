"""Which frame of a clip shows the person: one in the same pose, whose mouth does something else.

A reference with the target's own mouth teaches a network to copy it; one in another pose is of less use to it.
So do Zhang et al. ("MuseTalk", 2024, arXiv 2410.10122): among the half of the frames that are nearest in pose, the half
that differ most in the mouth. Here the pose is what nose and corners of the eyes show of it.
"""

from __future__ import annotations

import numpy as np

# nose and corners of the eyes: neither speech nor a blink moves them
_RIGID = [*range(27, 36), 36, 39, 42, 45]
_MOUTH = range(48, 68)


def same_pose_other_mouth(landmarks: np.ndarray, frame: int, allowed: np.ndarray) -> np.ndarray:
    """Of the frames `allowed`, those nearest to `frame` in pose (half), and of these the farthest in mouth (half).

    Args:
        landmarks: (T, 68, 2) in pixels.
        allowed: (n,) numbers of frames, n > 0.

    Returns:
        (ceil(ceil(n / 2) / 2),) numbers of frames, in the order of `allowed`.
    """
    points = np.asarray(landmarks, np.float64)
    rigid = points[:, _RIGID]
    size = np.linalg.norm(rigid - rigid.mean(1, keepdims=True), axis=-1).mean(1)[:, None, None]
    shapes = [part - part.mean(1, keepdims=True) for part in (rigid, points[:, _MOUTH])]
    pose, mouth = (np.square(x / size - (x / size)[frame]).sum((1, 2)) for x in shapes)
    near = _half(allowed, pose[allowed])
    return _half(near, -mouth[near])


def _half(numbers: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The cheaper half, rounded up."""
    chosen = np.argsort(costs, kind="stable")[: (len(numbers) + 1) // 2]
    return numbers[np.sort(chosen)]
