"""Patch discriminator: one real-or-made score per patch of a picture.

Isola et al. 2017 (arXiv 1611.07004) as VQGAN uses it: with 3 layers each score sees 70 x 70 pixels. The loss
(hinge) is in `talkface.losses.first_stage`.
"""

from __future__ import annotations

from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.networks.layers import group_norm


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class PatchDiscriminator(nn.Module):
    """Strided 4x4 convolutions with LeakyReLU 0.2.

    Args:
        in_channels: of the pictures.
        channels: width of the first layer; doubles per layer up to eight times.
        num_layers: number of stride-2 layers.
        norm: "batch" (as published) or "group" (does not mix pictures of a batch: better for small batches).
    Raises:
        TalkfaceError: unknown `norm`.
    """

    def __init__(
        self, in_channels: int = 3, channels: int = 64, num_layers: int = 3, norm: str = "batch"
    ) -> None:
        super().__init__()
        if norm not in ("batch", "group"):
            raise TalkfaceError(f"norm: '{norm}'; allowed: 'batch', 'group'")
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        width = channels
        for index in range(1, num_layers + 1):
            wider = channels * min(2**index, 8)
            stride = 2 if index < num_layers else 1
            layers += [
                nn.Conv2d(width, wider, 4, stride, 1, bias=False),
                nn.BatchNorm2d(wider) if norm == "batch" else group_norm(wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        layers.append(nn.Conv2d(width, 1, 4, 1, 1))
        self.main = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, in_channels, H, W) -> scores (B, 1, h, w); positive = real."""
        return self.main(images)
