"""Guides for training: what the animated photograph will look like in use, with the mistakes it will have.

In use the head is fitted to landmarks that a network found, the actions come from sound, and the pose from nose and
eyes. So in training the head is fitted to exact landmarks with noise on them, the exact actions are changed a little,
and the same code draws the guide (`talkface.head.guide`). A refiner trained on perfect guides would learn to copy them.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from talkface.head.fit import FittedHead, HeadFitter
from talkface.head.guide import Guide
from talkface.head.model import ACTIONS, HeadModel

_GROUPS = (slice(0, 17), slice(17, 27), slice(27, 36), slice(36, 48), slice(48, 68))
_GROUP_SHIFTS = (0.010, 0.006, 0.003, 0.003, 0.004)  # standard deviations, in sides of the crop
_OCCASIONAL = 0.3  # of these shifts comes on top in some pictures and not in others
_POINT_NOISE = 0.004
_MOUTH = [n for n, name in enumerate(ACTIONS) if name.startswith(("jaw", "mouth"))]


class GuideMaker:
    """Draws guides; the head model is loaded at the first call, in each worker process anew.

    Args:
        error: strength of the deliberate mistakes; 0: none, 1: about those of the bundled landmarks and sound.
    """

    def __init__(self, error: float) -> None:
        self.error = error

    @cached_property
    def _head(self) -> HeadModel:
        return HeadModel.load()

    @cached_property
    def _fitter(self) -> HeadFitter:
        return HeadFitter(self._head)

    @cached_property
    def _guide(self) -> Guide:
        return Guide(self._head)

    def __getstate__(self) -> dict[str, float]:
        return {"error": self.error}

    def __call__(
        self,
        reference: Tensor,
        reference_points: np.ndarray,
        targets: Tensor,
        target_points: np.ndarray,
        mask: Tensor,
        actions: np.ndarray | None,
        rng: np.random.Generator,
    ) -> Tensor:
        """The reference, animated into the masked part of each target.

        Args:
            reference: (3, S, S) in [-1, 1]; reference_points: (68, 2) pixels.
            targets: (T, 3, S, S); target_points: (T, 68, 2) pixels; mask: (T, 1, S, S), 1 = to generate.
            actions: (T, 52) exact actions of the targets, used half of the time; None or else: those of heads fitted to
                their landmarks.

        Returns:
            (T, 3, S, S): the target where it is seen, the animated reference where it is masked.
        """
        size = reference.shape[-1]
        habit = self.habit(size, rng)
        found = self.disturbed(reference_points[None], size, habit, rng)
        fitted = self._fitter(found)
        person = fitted.with_pose(self._fitter.pose(found, fitted))
        pose = self._fitter.pose(self.disturbed(target_points, size, habit, rng), person)
        wanted = self._misheard(self._wanted(person, found, target_points, actions, rng), rng)
        source = self._guide.source(reference[None], person, found)
        canvas = torch.where(mask > 0.5, reference[None], targets)
        drawn = self._guide(source, wanted, pose, canvas).pictures
        return torch.where(mask > 0.5, drawn, targets)

    def _wanted(
        self,
        person: FittedHead,
        found: Tensor,
        target_points: np.ndarray,
        actions: np.ndarray | None,
        rng: np.random.Generator,
    ) -> Tensor:
        """The actions (T, 52) to draw, for a `person` fitted to the landmarks `found` (1, 68, 2) of the reference."""
        # In use the actions are partly fitted (the resting face) and partly exact in kind (speech): train on both
        if actions is None or rng.random() < 0.5:
            return self._fitter(torch.from_numpy(np.asarray(target_points, np.float64))).actions
        return torch.from_numpy(np.asarray(actions, np.float32))

    @staticmethod
    def habit(size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """How far, (2,) pixels for each part, a finder misses it in every picture of a person."""
        return [size * shift * rng.standard_normal(2) for shift in _GROUP_SHIFTS]

    def disturbed(
        self, points: np.ndarray, size: int, habit: list[np.ndarray], rng: np.random.Generator
    ) -> Tensor:
        """Landmarks (T, 68, 2) as a network finds them: whole parts are off and points tremble.

        Args:
            habit: see `habit`.
        """
        moved = np.array(points, np.float64)
        for group, shift, always in zip(_GROUPS, _GROUP_SHIFTS, habit, strict=True):
            now = _OCCASIONAL * size * shift * rng.standard_normal(2)
            moved[:, group] += self.error * (always + now)
        moved += self.error * size * _POINT_NOISE * rng.standard_normal((1, 68, 2))
        moved += 0.3 * self.error * size * _POINT_NOISE * rng.standard_normal(moved.shape)
        return torch.from_numpy(moved)

    def _misheard(self, actions: Tensor, rng: np.random.Generator) -> Tensor:
        """Mouth actions with a wrong gain, all together and each, and a little of what is not there."""
        gains = np.exp(self.error * (0.12 * rng.standard_normal() + 0.10 * rng.standard_normal(len(_MOUTH))))
        extra = self.error * 0.03 * rng.standard_normal(len(_MOUTH))
        result = actions.clone()
        mouth = actions[:, _MOUTH]
        result[:, _MOUTH] = mouth * torch.from_numpy(gains).to(mouth) + torch.from_numpy(extra).to(mouth)
        return result.clamp(0.0, 1.0)
