"""A decoder of changes learns what its first stage shows: better than saying that nothing was changed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.networks.change_decoder import ChangeDecoder
from talkface.training.averaged import train_averaged
from talkface.training.change_decoder import change_losses, taught_change
from talkface.training.window import Window

SIDE = 32


def blobs(count: int, seed: int) -> Tensor:
    """Smooth pictures (N, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 0.5 * torch.randn(count, 3, 6, 6, generator=generator)
    return F.interpolate(coarse, SIDE, mode="bicubic").clamp(-1, 1)


class Projection(nn.Module):
    """A first stage that is easily learned: squares of 4 pixels a side, projected on 12 of 48 directions."""

    downsample_factor, latent_channels = 4, 12

    def __init__(self) -> None:
        super().__init__()
        self.directions = torch.linalg.qr(F.interpolate(torch.randn(36, 1, 2, 2), 4).reshape(12, 48).T)[0].T

    def encode(self, images: Tensor) -> Tensor:
        return torch.einsum("ck,bkhw->bchw", self.directions, F.pixel_unshuffle(images, 4))

    def decode(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(torch.einsum("ck,bchw->bkhw", self.directions, latents), 4)


def test_it_learns_what_changes() -> None:
    torch.manual_seed(0)
    stage = Projection()
    window = Window(stage, (8, 12, 24, 28))
    decoder = ChangeDecoder(12, channels=24, fine_channels=12)

    def batch(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        guides, other = blobs(count, seed), blobs(count, seed + 10**6)
        before, made = stage.encode(guides), stage.encode(0.5 * guides + 0.5 * other)
        return made, before, taught_change(stage, window, made, before)

    steps = iter(range(10**4))
    train_averaged(
        decoder, lambda: change_losses(decoder, window, *batch(16, next(steps))), steps=150, learning_rate=3e-3,
        average_decay=0.98,
    )  # fmt: skip
    made, before, change = batch(32, 5 * 10**6)
    with torch.no_grad():
        left = float(change_losses(decoder, window, made, before, change)["change"])
    assert left < 0.5 * float(change.abs().mean())
    assert taught_change(stage, window, before, before).abs().max() == 0
