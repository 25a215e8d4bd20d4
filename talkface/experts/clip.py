"""CLIP: do a picture and a sentence mean the same? The reference, and a small network of our own with the same role.

Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021. Both give vectors
of unit length for pictures and sentences; their scalar product says how well they fit. Gradients reach the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class ImageTextEncoder(nn.Module):
    """The role; `CLIPExpert` and `FaceCLIP` fill it.

    Attributes:
        image_size: side in pixels of what it looks at; other sizes are resized to it.
        dim: length of its vectors.
    """

    image_size: int
    dim: int

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) RGB in [-1, 1], any S -> (B, dim) of unit length, float32, differentiable."""
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> (N, dim) of unit length, float32."""
        raise NotImplementedError
