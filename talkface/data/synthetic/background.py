"""Backgrounds of synthetic pictures: gradients, blurred noise, blurred blocks, or the user's own pictures."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from talkface.errors import TalkfaceError

if TYPE_CHECKING:
    from talkface.data.synthetic.scene import Scene

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@lru_cache(maxsize=8)
def list_pictures(folder: Path) -> tuple[Path, ...]:
    """Picture files below a folder, sorted.

    Raises:
        TalkfaceError: there is none.
    """
    found = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES))
    if not found:
        raise TalkfaceError(
            f"background pictures: {folder} holds no {', '.join(_SUFFIXES)} file; give another folder"
        )
    return found


def make_background(scene: Scene, size: int) -> Tensor:
    """(size, size, 3) linear RGB, determined by the scene's seed."""
    generator = torch.Generator().manual_seed(scene.seed * 2 + 9)
    level = float(torch.rand((), generator=generator))
    first, second = torch.rand(2, 3, generator=generator) ** 1.5 * (0.15 + 0.85 * level)
    kind = int(torch.randint(4, (), generator=generator))
    own = scene.background_pictures is not None and float(torch.rand((), generator=generator)) < 0.5
    if own and scene.background_pictures is not None:
        return _picture(list_pictures(scene.background_pictures), size, generator)
    if kind == 0:
        return first.expand(size, size, 3) * 1.0
    if kind == 1:
        across = torch.randn(2, generator=generator)
        place = torch.linspace(-0.5, 0.5, size)
        blend = (0.5 + across[0] * place[:, None] + across[1] * place[None, :]).clamp(0, 1)[..., None]
        return torch.lerp(first.expand(size, size, 3), second.expand(size, size, 3), blend)
    cells = int(torch.randint(3, 24, (), generator=generator))
    coarse = torch.rand(1, 3, cells, cells, generator=generator) ** 2
    if kind == 3:
        blocks = functional.interpolate(coarse, (96, 96), mode="nearest")
        reach = int(torch.randint(0, 8, (), generator=generator))
        coarse = functional.avg_pool2d(blocks, 2 * reach + 1, 1, reach, count_include_pad=False)
    noise = functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
    blend = noise[0].clamp(0, 1).permute(1, 2, 0)
    return torch.lerp(first.expand(size, size, 3), second.expand(size, size, 3), blend) * (0.4 + blend)


def _picture(paths: tuple[Path, ...], size: int, generator: torch.Generator) -> Tensor:
    """A random square of a random picture."""
    from talkface.media import read_image

    image = torch.from_numpy(
        read_image(paths[int(torch.randint(len(paths), (), generator=generator))]).copy()
    )
    side = min(image.shape[:2])
    side = max(1, int(side * (0.5 + 0.5 * float(torch.rand((), generator=generator)))))
    row = int(torch.randint(image.shape[0] - side + 1, (), generator=generator))
    column = int(torch.randint(image.shape[1] - side + 1, (), generator=generator))
    square = image[row : row + side, column : column + side].permute(2, 0, 1)[None].float() / 255
    square = functional.interpolate(
        square, (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return square[0].permute(1, 2, 0) ** 2.2
