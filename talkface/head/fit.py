"""Fit the parametric head to the 68 landmarks of faces: pose, identity, facial actions.

A scaled orthographic camera looks at the head. Rounds of two linear problems (the scheme of Huber et al. 2016, "A
multiresolution 3D morphable face model and fitting framework", section 3.1, with actions as its blendshapes):

1. the shape is known: the affine camera by weighted least squares, brought to the nearest rotation and scale;
2. the camera is known: identity and actions by ridge regression; actions that leave [0, 1] are held at the bound.

It sees landmarks only, no pixels, and knows nothing of time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from talkface.errors import TalkfaceError
from talkface.head.model import ACTIONS, HeadModel

FITTED_ACTIONS: tuple[str, ...] = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "eyeBlinkLeft", "eyeBlinkRight", "eyeWideLeft", "eyeWideRight", "jawLeft", "jawOpen", "jawRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRollLower", "mouthRollUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""The actions that 68 points can tell apart; the others stay 0. Not mouthClose: with jawOpen it undoes itself."""

STEADY = tuple(range(27, 48))
"""Landmarks that neither speech nor the brows move: nose and eyes. They alone give the pose of a face whose mouth is
not to be looked at."""


def landmark_weights() -> Tensor:
    """(68,) how much each landmark counts: an outline in a picture is not one place on the skin; lips matter most."""
    weights = torch.ones(68)
    weights[:17] = 0.25
    weights[17:27] = 0.6
    weights[48:] = 1.5
    return weights


@dataclass(frozen=True)
class FittedHead:
    """B heads as they stand in their pictures.

    Attributes:
        identity: (B, K) coefficients. actions: (B, 52) in [0, 1].
        rotation: (B, 3, 3), head -> camera axes (x right, y up, z to the camera).
        scale: (B,) pixels per metre. translation: (B, 2) pixels, where the head's origin is seen.
        error: (B,) root of the mean weighted squared distance of the landmarks, pixels.
    """

    identity: Tensor
    actions: Tensor
    rotation: Tensor
    scale: Tensor
    translation: Tensor
    error: Tensor

    def __len__(self) -> int:
        return len(self.identity)

    def __getitem__(self, rows: slice | Tensor) -> FittedHead:
        return FittedHead(*(getattr(self, name)[rows] for name in FittedHead.__annotations__))

    def to(self, device: torch.device) -> FittedHead:
        """The same heads on another device."""
        return FittedHead(*(getattr(self, name).to(device) for name in FittedHead.__annotations__))

    def with_pose(self, other: FittedHead) -> FittedHead:
        """This person, seen as `other` is."""
        return replace(self, rotation=other.rotation, scale=other.scale, translation=other.translation)

    def project(self, vertices: Tensor) -> Tensor:
        """Head axes (B, V, 3) metres -> (B, V, 3): column, row in pixels, depth (pixels, larger = farther, > 0)."""
        turned = vertices @ (self.rotation * self.scale[:, None, None]).transpose(1, 2)
        x = turned[..., 0] + self.translation[:, None, 0]
        y = self.translation[:, None, 1] - turned[..., 1]
        # a head is 0.3 m deep: 1 m of distance keeps every depth positive
        return torch.stack([x, y, self.scale[:, None] - turned[..., 2]], dim=-1)


class HeadFitter:
    """Fits `head` to landmarks.

    Args:
        identity_weight, action_weight: of the penalties on squared coefficients, in square pixels of a face of 128
            pixels: how far a landmark may be off before the prior gives in.
        rounds: of camera and shape.
    """

    def __init__(
        self, head: HeadModel, identity_weight: float = 0.6, action_weight: float = 2.0, rounds: int = 8
    ) -> None:
        self.rounds, self.identity_weight, self.action_weight = rounds, identity_weight, action_weight
        marks = head.landmarks
        self.fitted = torch.tensor([ACTIONS.index(name) for name in FITTED_ACTIONS], device=marks.device)
        self.mean = head.mean[marks].double()
        self.identity = head.identity[:, marks].double()
        self.actions = head.actions[:, marks].double()
        self.basis = torch.cat([self.identity, self.actions[self.fitted]])
        self.weights = landmark_weights().double().to(marks.device)

    def shape(self, identity: Tensor, actions: Tensor) -> Tensor:
        """Landmarks (B, 68, 3) in head axes."""
        moved = torch.einsum("bk,knd->bnd", identity, self.identity)
        return self.mean + moved + torch.einsum("ba,and->bnd", actions, self.actions)

    def __call__(self, points: Tensor) -> FittedHead:
        """points (B, 68, 2) in pixels -> everything.

        Raises:
            TalkfaceError: another shape, or landmarks that are not finite or lie on one spot.
        """
        points = self._checked(points)
        count, people = len(points), len(self.identity)
        coefficients = points.new_zeros(count, len(self.basis))
        for _ in range(self.rounds):
            shape = self.mean + torch.einsum("bk,knd->bnd", coefficients, self.basis)
            camera = self._camera(shape, points, self.weights)
            coefficients = self._coefficients(points, *camera, coefficients)
        actions = points.new_zeros(count, len(ACTIONS))
        actions[:, self.fitted] = coefficients[:, people:]
        return self._finish(points, coefficients[:, :people], actions, self.weights)

    def pose(self, points: Tensor, person: FittedHead, which: tuple[int, ...] = STEADY) -> FittedHead:
        """The known `person` (B or 1 heads) as seen in `points` (B, 68, 2), judged by the landmarks `which` only.

        Identity and actions are those of `person`.
        """
        points = self._checked(points)
        weights = torch.zeros_like(self.weights)
        weights[list(which)] = 1.0
        identity = person.identity.double().expand(len(points), -1)
        return self._finish(points, identity, person.actions.double().expand(len(points), -1), weights)

    def _checked(self, points: Tensor) -> Tensor:
        if points.dim() != 3 or points.shape[1:] != (68, 2):
            raise TalkfaceError(f"landmarks to fit: {tuple(points.shape)}; allowed: (B, 68, 2)")
        spread = (points - points.mean(1, keepdim=True)).abs().amax(dim=(1, 2))
        if not bool(torch.isfinite(points).all()) or not bool((spread > 1e-3).all()):
            raise TalkfaceError(
                "the landmarks of the face are not finite or lie on one spot; use another picture"
            )
        return points.to(self.mean.device, torch.float64)

    @staticmethod
    def _camera(shape: Tensor, points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotation, scale, translation that bring shape (B, 68, 3) to points (B, 68, 2), y downwards."""
        share = (weights / weights.sum())[None, :, None]
        upward = points * points.new_tensor([1.0, -1.0])
        centre, middle = (share * shape).sum(1), (share * upward).sum(1)
        body, seen = shape - centre[:, None], upward - middle[:, None]
        gram = body.transpose(1, 2) @ (share * body)
        # nose and eyes lie almost in a plane: a little of a round head keeps the depth in bounds
        gram = gram + 1e-3 * gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] * torch.eye(3).to(gram)
        affine = torch.linalg.solve(gram, body.transpose(1, 2) @ (share * seen)).transpose(1, 2)
        left, values, right = torch.linalg.svd(affine, full_matrices=False)
        scale = values.mean(1)
        rows = left @ right
        rotation = torch.cat([rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]], dim=1)
        moved = middle - scale[:, None] * (rotation[:, :2] @ centre[:, :, None]).squeeze(2)
        return rotation, scale, moved * moved.new_tensor([1.0, -1.0])

    def _coefficients(
        self, points: Tensor, rotation: Tensor, scale: Tensor, translation: Tensor, before: Tensor
    ) -> Tensor:
        """Identity and fitted actions (B, K + A), given the camera; bounded actions found in the round before."""
        rows = rotation[:, :2] * scale[:, None, None] * rotation.new_tensor([1.0, -1.0])[None, :, None]
        seen = torch.einsum("bij,knj->bkni", rows, self.basis).flatten(2)
        expected = torch.einsum("bij,nj->bni", rows, self.mean) + translation[:, None]
        rest = (points - expected).flatten(1)
        weights = self.weights.repeat_interleave(2)
        people, size = len(self.identity), len(self.basis)
        # a face of 128 pixels is about 580 pixels per metre
        unit = (scale / 580.0) ** 2
        penalty = points.new_full((size,), self.identity_weight)
        penalty[people:] = self.action_weight
        normal = torch.einsum("bkn,n,bln->bkl", seen, weights, seen)
        normal = normal + torch.diag_embed(unit[:, None] * penalty)
        right = torch.einsum("bkn,n,bn->bk", seen, weights, rest)
        solution = torch.linalg.solve(normal, right)
        for _ in range(3):
            # what would leave its bounds is held there, and the rest solved again
            held = solution.clone()
            held[:, people:] = solution[:, people:].clamp(0.0, 1.0)
            fixed = (held != solution).double()
            stiff = normal + torch.diag_embed(1e6 * unit[:, None] * fixed)
            solution = torch.linalg.solve(stiff, right + 1e6 * unit[:, None] * fixed * held)
        solution[:, people:] = solution[:, people:].clamp(0.0, 1.0)
        return solution

    def _finish(self, points: Tensor, identity: Tensor, actions: Tensor, weights: Tensor) -> FittedHead:
        shape = self.shape(identity, actions)
        rotation, scale, translation = self._camera(shape, points, weights)
        rows = rotation[:, :2] * scale[:, None, None] * rotation.new_tensor([1.0, -1.0])[None, :, None]
        seen = torch.einsum("bij,bnj->bni", rows, shape) + translation[:, None]
        squares = ((seen - points) ** 2).sum(2)
        error = ((weights * squares).sum(1) / weights.sum()).sqrt()
        parts = (identity, actions, rotation, scale, translation, error)
        return FittedHead(*(part.float() for part in parts))
