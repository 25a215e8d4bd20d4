"""Things that a synthetic person wears on top of the head mesh: the hair cap, long hair, lashes, glasses.

They form a second layer that is rasterised apart and blended over the first, so that they can be translucent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from talkface.data.synthetic.appearance import Person
from talkface.data.synthetic.atlas import FaceAtlas
from talkface.head import PARTS, HeadModel

KINDS = ("cap", "shell", "lashes", "frame", "lens")
_SEGMENTS = 40


@dataclass
class Rigid:
    """Mesh that moves with the skull, in head coordinates (metres): vertices (G, 3), faces (F, 3), kinds
    (F,) index into
    KINDS."""

    vertices: Tensor
    faces: Tensor
    kinds: Tensor

    def joined(self, other: Rigid) -> Rigid:
        """Both meshes as one."""
        return Rigid(
            torch.cat([self.vertices, other.vertices]),
            torch.cat([self.faces, other.faces + len(self.vertices)]),
            torch.cat([self.kinds, other.kinds]),
        )


def both_sides(faces: Tensor) -> Tensor:
    """Faces followed by the same faces seen from behind."""
    return torch.cat([faces, faces[:, [0, 2, 1]]])


def ribbon(first: Tensor, second: Tensor, closed: bool) -> Tensor:
    """Triangles between two rows of vertex numbers of equal length."""
    if closed:
        first, second = torch.cat([first, first[:1]]), torch.cat([second, second[:1]])
    a, b, c, d = first[:-1], first[1:], second[:-1], second[1:]
    return torch.cat([torch.stack([a, b, c], 1), torch.stack([b, d, c], 1)])


def build_glasses(head: HeadModel, person: Person, neutral: Tensor) -> Rigid:
    """Two superellipse rims, a bridge and temples, fitted to the neutral face `neutral` (V, 3)."""
    numbers = person.numbers
    marks = neutral[head.landmarks]
    eyes = torch.stack([marks[36:42].mean(0), marks[42:48].mean(0)])
    scale = float((eyes[1, 0] - eyes[0, 0]) / 0.060)
    half_width, half_height = numbers["frame_width"] * scale / 2, numbers["frame_height"] * scale / 2
    half_width = min(half_width, float(eyes[1, 0] - eyes[0, 0]) / 2 - 0.004)
    front = float(torch.maximum(marks[27, 2] + 0.004, marks[[19, 24], 2].max() - 0.002))
    angle = torch.arange(_SEGMENTS) / _SEGMENTS * 2 * math.pi
    power = 2.0 / numbers["frame_square"]
    outline = torch.stack(
        [angle.cos().sign() * angle.cos().abs() ** power, angle.sin().sign() * angle.sin().abs() ** power],
        dim=-1,
    )

    def curved(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([x, y, front - 2.2 * x.abs() ** 2 - 0.15 * (y - eyes[0, 1]).abs()], dim=-1)

    vertices: list[Tensor] = []
    faces: list[Tensor] = []
    kinds: list[Tensor] = []

    def add(points: Tensor) -> Tensor:
        start = sum(len(part) for part in vertices)
        vertices.append(points)
        return torch.arange(start, start + len(points))

    def face(rows: Tensor, kind: str) -> None:
        rows = both_sides(rows)
        faces.append(rows)
        kinds.append(torch.full((len(rows),), KINDS.index(kind)))

    thickness = numbers["frame_thickness"]
    for number, side in ((0, -1.0), (1, 1.0)):
        centre_x, centre_y = eyes[number, 0] + side * 0.001, eyes[number, 1] - 0.003
        rim = []
        for grow in (0.0, thickness):
            x = centre_x + outline[:, 0] * (half_width + grow)
            y = centre_y + outline[:, 1] * (half_height + grow)
            rim.append(add(curved(x, y)))
        depth = add(vertices[-1] - torch.tensor([0.0, 0.0, 0.003]))
        face(ribbon(rim[0], rim[1], closed=True), "frame")
        face(ribbon(rim[1], depth, closed=True), "frame")
        middle = add(curved(centre_x[None], centre_y[None]))
        fan = torch.stack([middle.expand(_SEGMENTS), rim[0], rim[0].roll(-1)], dim=1)
        face(fan, "lens")
        # temple: from the outer edge of the rim back to the ear
        outer = vertices[1 + number * 4][0 if side > 0 else _SEGMENTS // 2]
        ear = torch.stack(
            [marks[16 if side > 0 else 0, 0] * 1.10, marks[16, 1] + 0.004, marks[16, 2] - 0.055]
        )
        height = torch.tensor([0.0, max(0.0016, thickness * 0.7), 0.0])
        upper = add(torch.stack([outer + height, ear + height]))
        lower = add(torch.stack([outer - height, ear - height]))
        face(ribbon(upper, lower, closed=False), "frame")
    left = float(eyes[0, 0] - 0.001 + half_width)
    right = float(eyes[1, 0] + 0.001 - half_width)
    x = torch.linspace(left, right, 9)
    arch = float(eyes[0, 1]) + 0.002 + 0.003 * (1 - ((x / max(right, 1e-4)) ** 2))
    upper, lower = (
        add(curved(x, arch + max(0.0010, thickness * 0.5))),
        add(curved(x, arch - max(0.0010, thickness * 0.5))),
    )
    face(ribbon(upper, lower, closed=False), "frame")
    return Rigid(torch.cat(vertices), torch.cat(faces), torch.cat(kinds))


def build_long_hair(head: HeadModel, person: Person, neutral: Tensor) -> Rigid:
    """A curtain from temple to temple around the back, from the crown down to `hair_length` below the
    eyes."""
    numbers = person.numbers
    marks = neutral[head.landmarks]
    width = float(marks[16, 0] - marks[0, 0]) / 2
    volume = numbers["hair_volume"] * 0.8
    turns = torch.linspace(numbers["part"], 2 * math.pi - numbers["part"], 48)
    rows = torch.linspace(0.070, -numbers["hair_length"], 18)
    angle, height = torch.meshgrid(turns, rows, indexing="xy")
    # lies on the cap above the ears, hangs below them
    crown = 1 - 0.32 * ((height - 0.01).clamp(min=0) / 0.06) ** 2
    fall = (-height - 0.02).clamp(min=0) / 0.2
    wave = numbers["curl"] * torch.sin(height * 110 + 5 * torch.sin(angle * 3)) * (0.2 + fall).clamp(max=1)
    # the front edges swing towards the shoulders
    across = (width + 0.026 + volume) * crown * (1 + numbers["flare"] * fall) + wave
    deep = (0.108 + volume) * crown * (1 + 0.3 * numbers["flare"] * fall) + wave
    behind = float(marks[16, 2]) - 0.060
    points = torch.stack([across * angle.sin(), height.expand_as(angle), behind + deep * angle.cos()], dim=-1)
    grid = torch.arange(points.shape[0] * points.shape[1]).view(points.shape[0], points.shape[1])
    strips = torch.cat([ribbon(grid[row], grid[row + 1], closed=False) for row in range(len(grid) - 1)])
    faces = both_sides(strips)
    return Rigid(points.reshape(-1, 3), faces, torch.full((len(faces),), KINDS.index("shell")))


def layer_faces(head: HeadModel, atlas: FaceAtlas, person: Person) -> tuple[Tensor, Tensor]:
    """Faces of the second layer that reuse head vertices, and their kinds.

    The vertices of cap faces are numbered V..2V-1: a copy of the head that the renderer lifts off the skin.
    """
    faces, kinds = [], []
    if person.hair_style not in ("bald", "buzz"):
        skin = head.faces[head.part("skin")]
        place = atlas.coordinates.to(skin.device)[skin]
        lowest = torch.where(place[..., 0].abs().amax(1) > 0.084, -0.13, 0.008)
        cap = skin[place[..., 1].amax(1) > lowest]
        faces.append(cap + head.num_vertices)
        kinds.append(torch.full((len(cap),), KINDS.index("cap")))
    lashes = both_sides(head.faces[head.parts == PARTS.index("lashes")])
    faces.append(lashes)
    kinds.append(torch.full((len(lashes),), KINDS.index("lashes")))
    return torch.cat(faces), torch.cat([kind.to(head.faces.device) for kind in kinds])
