"""Whose face is it? Recognisers whose vectors are close for pictures of one person.

All take this house's canonical crops (`talkface.portrait.AlignedCrop`): (B, 3, S, S) RGB in [-1, 1], any S, and warp
them to the five-point template of ArcFace themselves (Deng et al., "ArcFace: Additive angular margin loss for deep face
recognition", CVPR 2019).
"""

from __future__ import annotations

from torch import Tensor, nn


class FaceRecogniser(nn.Module):
    """The role.

    Attributes:
        differentiable: whether gradients reach the pictures.
        dim: length of its vectors.
    """

    differentiable: bool = True
    dim: int

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) canonical crops, RGB in [-1, 1] -> (B, dim) of unit length, float32."""
        raise NotImplementedError
