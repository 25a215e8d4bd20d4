"""A texture atlas shared by all synthetic people: a cylindrical unwrapping of the mean head, in metres.

A vertex (x, y, z) of the mean head goes to s = 0.1 m * atan2(x, z + 0.075 m) and t = y, so that a point of
the atlas is the same anatomical place on everybody and whatever is painted there (lips, brows, beard)
follows identity and actions. Noise fields that the painters draw from are made once, with a fixed seed.
"""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from talkface.head import HeadModel, rasterize

S_RANGE = (-0.17, 0.17)
_DENSE = 0.12
_BEHIND = 0.25
"""Beyond |s| = 0.12 m (the ears) the atlas is squeezed to a quarter, so that it reaches around the head."""
T_RANGE = (-0.19, 0.14)
_AXIS_DEPTH = 0.075
_RADIUS = 0.1

# name -> standard deviations of the blur in texels of a 512 atlas (across, along t)
_NOISES = {
    "grain": (0.6, 0.6),
    "pores": (1.3, 1.3),
    "blotches": (6.0, 6.0),
    "patches": (26.0, 26.0),
    "clouds": (70.0, 70.0),
    "strands": (0.8, 14.0),
    "locks": (5.0, 40.0),
    "creases": (0.9, 4.0),
    "bristles": (0.8, 3.0),
}


def atlas_coordinates(points: Tensor) -> Tensor:
    """(..., 3) metres on the mean head -> (..., 2) atlas coordinates s, t in metres."""
    angle = torch.atan2(points[..., 0], points[..., 2] + _AXIS_DEPTH)
    return torch.stack([_RADIUS * angle, points[..., 1]], dim=-1)


def squeeze(s: Tensor) -> Tensor:
    """s in metres -> position across the atlas in metres."""
    return s.sign() * torch.where(s.abs() > _DENSE, _DENSE + (s.abs() - _DENSE) * _BEHIND, s.abs())


def unsqueeze(position: Tensor) -> Tensor:
    """Inverse of `squeeze`."""
    size = position.abs()
    return position.sign() * torch.where(size > _DENSE, _DENSE + (size - _DENSE) / _BEHIND, size)


def smooth_noise(size: int, deviations: tuple[float, float], generator: torch.Generator) -> Tensor:
    """(size, size) periodic Gaussian noise, zero mean and unit variance, blurred along columns and rows."""
    frequency = torch.fft.fftfreq(size)
    across = torch.exp(-2 * (math.pi * deviations[0] * frequency) ** 2)
    along = torch.exp(-2 * (math.pi * deviations[1] * frequency) ** 2)
    white = torch.randn(size, size, generator=generator)
    field = torch.fft.ifft2(torch.fft.fft2(white) * along[:, None] * across[None, :]).real
    return (field - field.mean()) / field.std()


class FaceAtlas:
    """Where everything is on the atlas of one `HeadModel`.

    Attributes:
        size: texels per side; row 0 is the top (largest t), column 0 the smallest s.
        s, t: (1, size) and (size, 1) coordinates of the texel centres, metres.
        texel: (V, 2) column and row (float, texels) of each vertex.
        landmarks: (68, 2) s, t of the iBUG points on the mean head.
        lips: (size, size) 0..1, soft lip mask.
        noise: unit-variance periodic noise fields by name.
    """

    def __init__(self, head: HeadModel, size: int = 512) -> None:
        self.size = size
        mean = head.mean.detach().cpu()
        faces = head.faces.cpu()
        steps = (torch.arange(size) + 0.5) / size
        self.s = unsqueeze(S_RANGE[0] + steps * (S_RANGE[1] - S_RANGE[0])).unsqueeze(0)
        self.t = (T_RANGE[1] + steps * (T_RANGE[0] - T_RANGE[1])).unsqueeze(1)
        self.coordinates = atlas_coordinates(mean)
        self.texel = self.to_texels(self.coordinates)
        self.landmarks = self.coordinates[head.landmarks.cpu()]

        # The outermost surface wins where the unwrapping folds (lips, nostrils, lids).
        radius = mean[:, [0, 2]].add(torch.tensor([0.0, _AXIS_DEPTH])).norm(dim=-1)
        flat = torch.cat([self.texel, (1.0 - radius)[:, None]], dim=-1)
        outside = head.part("skin", "lips", "ear", "body").cpu()
        lips = torch.zeros(len(mean)).index_add_(
            0, faces[head.part("lips").cpu()].flatten(), torch.ones(int(head.part("lips").sum()) * 3)
        )
        count = torch.zeros(len(mean)).index_add_(
            0, faces[outside].flatten(), torch.ones(int(outside.sum()) * 3)
        )
        weight = (lips / count.clamp(min=1)).clamp(0, 1)
        face, barycentric, _ = rasterize(flat[None], faces[outside], size, size, cull=False)
        corners = faces[outside][face[0].clamp(min=0)]
        self.lips = (weight[corners] * barycentric[0]).sum(-1) * (face[0] >= 0)
        generator = torch.Generator().manual_seed(20)
        scale = size / 512
        self.noise = {
            name: smooth_noise(size, (across * scale, along * scale), generator)
            for name, (across, along) in _NOISES.items()
        }

    def to_texels(self, coordinates: Tensor) -> Tensor:
        """(..., 2) s, t in metres -> (..., 2) column and row in texels."""
        column = (squeeze(coordinates[..., 0]) - S_RANGE[0]) / (S_RANGE[1] - S_RANGE[0]) * self.size
        row = (coordinates[..., 1] - T_RANGE[1]) / (T_RANGE[0] - T_RANGE[1]) * self.size
        return torch.stack([column, row], dim=-1)

    def index(self, texels: Tensor) -> Tensor:
        """(..., 2) column and row -> (...,) flat texel number, clamped to the border."""
        whole = texels.long().clamp_(0, self.size - 1)
        return whole[..., 1] * self.size + whole[..., 0]

    def rolled(self, name: str, generator: torch.Generator) -> Tensor:
        """A noise field shifted at random, so that nobody shares a pattern."""
        shift = torch.randint(self.size, (2,), generator=generator).tolist()
        return self.noise[name].roll(shift, (0, 1))


_ATLASES: WeakKeyDictionary[HeadModel, dict[int, FaceAtlas]] = WeakKeyDictionary()


def shared_atlas(head: HeadModel, size: int = 512) -> FaceAtlas:
    """The atlas of this head, made once per process."""
    sizes = _ATLASES.setdefault(head, {})
    if size not in sizes:
        sizes[size] = FaceAtlas(head, size)
    return sizes[size]
