"""Pictures that guide the generation, as latents stacked onto the noisy ones.

The thesis stacks the masked target and an identity frame (its code in this order). The same class takes
further ones by name, for example a guide picture or the mask itself. It does not encode: it is given latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.conditioning.base import Conditioner, Conditioning, read
from talkface.errors import TalkfaceError


class FramesConditioner(Conditioner):
    """Stacks latents, in the given order. Its null is zeros.

    Args:
        latent_channels: channels of each picture's latents.
        latent_size: their height and width.
        drop_rate: share of training samples in which all of them are zero.
        order: names; each reads batch["<name>_latents"], except "mask", which reads batch["mask"] (B, 1, H,
            W), 1 = to generate, and adds one channel at the latents' size.
    Raises:
        TalkfaceError: no names, or one twice.
    """

    fills = ("concat",)
    like: Tensor

    def __init__(
        self,
        latent_channels: int = 3,
        latent_size: int = 32,
        drop_rate: float = 0.0,
        order: Sequence[str] = ("masked", "reference"),
    ) -> None:
        super().__init__(drop_rate)
        if len(order) == 0 or len(set(order)) != len(order):
            raise TalkfaceError(f"order: {list(order)}; allowed: one or more different names")
        self.latent_channels, self.latent_size, self.order = latent_channels, latent_size, tuple(order)
        self.concat_channels = sum(1 if name == "mask" else latent_channels for name in order)
        self.register_buffer("like", torch.zeros(0), persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> Conditioning:
        """Read batch["<name>_latents"] (B, latent_channels, latent_size, latent_size) for each name."""
        return Conditioning(concat=torch.cat([self._map(batch, name) for name in self.order], dim=1))

    def _map(self, batch: Mapping[str, Tensor], name: str) -> Tensor:
        size = self.latent_size
        if name == "mask":
            mask = read(batch, "mask", (1, None, None), "FramesConditioner")
            return F.interpolate(mask.to(self.like.dtype), size=(size, size), mode="area")
        return read(batch, f"{name}_latents", (self.latent_channels, size, size), "FramesConditioner")

    def null(self, batch_size: int) -> Conditioning:
        """Zeros."""
        return Conditioning(
            concat=self.like.new_zeros(batch_size, self.concat_channels, self.latent_size, self.latent_size)
        )
