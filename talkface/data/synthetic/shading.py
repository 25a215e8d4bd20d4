"""Colour of every visible point of a synthetic person: skin, eyes, teeth, tongue, cloth; hair, lashes,
glasses.

Diffuse light wraps around the terminator, most in red, which stands for subsurface scattering in skin; the
inside of the mouth darkens with the distance behind the lips, less the wider the mouth is open. All colours
are linear RGB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from talkface.data.synthetic.appearance import Person
from talkface.data.synthetic.atlas import FaceAtlas
from talkface.data.synthetic.texture import Texture, step
from talkface.data.synthetic.wear import KINDS
from talkface.head import PARTS
from talkface.head.inside import COLOURS, GUM, light_inside, tooth_pattern

_WRAP = torch.tensor([0.30, 0.16, 0.12], device="cpu")
_EYE_CENTRE = (0.0298, 0.0, 0.0)


@dataclass
class Light:
    """Linear RGB intensities; directions are unit vectors in camera axes (x right, y up, z to the camera)."""

    key_direction: Tensor
    key_colour: Tensor
    ambient: Tensor
    """(4, 3): constant and x, y, z coefficients of the ambient light."""


@dataclass
class Surface:
    """P visible points, and more about those Q of them that are not plain skin or lips."""

    part: Tensor
    """(P,) index into PARTS."""
    texel: Tensor
    """(P,) atlas texel number."""
    normal: Tensor
    """(P, 3) unit vectors."""
    occlusion: Tensor
    """(P,) share of the sky that is seen, 0..1."""
    special: Tensor
    """(Q,) which of the P points."""
    behind: Tensor
    """(Q,) metres behind the lips."""
    place: Tensor
    """(Q, 3) metres on the mean head."""
    opening: Tensor
    """(Q,) distance of the lips in metres."""

    def of_part(self, number: int) -> tuple[Tensor, Surface]:
        """The points of one special part: which of the P, and their values."""
        rows = (self.part[self.special] == number).nonzero().squeeze(1)
        points = self.special[rows]
        return points, Surface(
            self.part[points], self.texel[points], self.normal[points], self.occlusion[points], points,
            self.behind[rows], self.place[rows], self.opening[rows],
        )  # fmt: skip


def illuminate(normal: Tensor, light: Light, wrap: Tensor, occlusion: Tensor | None = None) -> Tensor:
    """Light (P, 3) that a matt surface receives."""
    device = normal.device
    cosine = normal @ light.key_direction.to(device)
    wrap = wrap.to(device)
    diffuse = ((cosine[:, None] + wrap) / (1 + wrap)).clamp_(min=0) * light.key_colour.to(device)
    basis = light.ambient.to(device)
    ambient = torch.addmm(basis[0], normal, basis[1:]).clamp_(min=0.03)
    if occlusion is not None:
        open_sky = occlusion[:, None]
        # multiple bounces make occluded skin reddish rather than black
        ambient = ambient * torch.cat([open_sky**0.8, open_sky, open_sky], dim=1)
        diffuse = diffuse * (0.35 + 0.65 * open_sky.sqrt())
    return diffuse.add_(ambient)


def highlight(normal: Tensor, light: Light, exponent: float) -> Tensor:
    """Blinn-Phong factor (P,) for a camera straight ahead."""
    half = functional.normalize(light.key_direction + torch.tensor([0.0, 0.0, 1.0]), dim=0).to(normal.device)
    return (normal @ half).clamp(min=0) ** exponent


def shade_surface(
    surface: Surface, person: Person, texture: Texture, light: Light, atlas: FaceAtlas
) -> Tensor:
    """Linear RGB (P, 3) of the first layer."""
    base = texture.albedo.index_select(0, surface.texel)
    colour = base[:, :3] * illuminate(surface.normal, light, _WRAP, surface.occlusion)
    shine = 0.10 * highlight(surface.normal, light, 14.0) + 0.10 * highlight(surface.normal, light, 50.0)
    colour = colour + (shine * base[:, 3] * surface.occlusion)[:, None] * light.key_colour.to(colour.device)

    for name, shader in _SHADERS.items():
        points, chosen = surface.of_part(PARTS.index(name))
        if len(points):
            colour[points] = shader(chosen, colour[points], person, light, atlas)
    return colour


def _shade_eye(surface: Surface, colour: Tensor, person: Person, light: Light, atlas: FaceAtlas) -> Tensor:
    numbers, device = person.numbers, colour.device
    side = surface.place[:, 0:1].sign()
    centre = torch.tensor([_EYE_CENTRE], device=device) * torch.cat([side, side, side], dim=1)
    direction = functional.normalize(surface.place - centre, dim=-1)
    angle = torch.acos(direction[:, 2].clamp(-1, 1))
    around = torch.atan2(direction[:, 1], direction[:, 0])
    radius = numbers["iris_radius"]
    white = torch.tensor([1.0, 0.93, 0.90], device=device) * numbers["sclera"]
    pink = torch.tensor([0.72, 0.36, 0.32], device=device)
    white = torch.lerp(
        white.expand(len(angle), 3), pink.expand(len(angle), 3), (0.75 * step(angle, 0.5, 1.15))[:, None]
    )
    fibres = 1 + 0.22 * torch.sin(around * 23 + 3 * torch.sin(around * 7)) + 0.15 * torch.sin(around * 61)
    ring = step(angle / radius, 0.55, 0.30) * 0.5
    iris = (
        person.iris.to(device)
        * (fibres * (0.75 + ring) * (1 - 0.6 * step(angle / radius, 0.80, 1.0)))[:, None]
    )
    albedo = torch.lerp(white, iris, step(angle, radius + 0.03, radius - 0.03)[:, None])
    albedo = albedo * (1 - 0.97 * step(angle, numbers["pupil"] + 0.025, numbers["pupil"] - 0.025))[:, None]
    # the upper lid and its lashes shade the ball from above
    lid = 0.45 + 0.55 * step(direction[:, 1], 0.40, 0.05)
    lit = (
        illuminate(surface.normal, light, torch.full((3,), 0.4), surface.occlusion.clamp(min=0.35))
        * lid[:, None]
    )
    glint = 0.9 * highlight(direction, light, 260.0) + 0.04 * highlight(direction, light, 20.0)
    return albedo * lit * 0.9 + glint[:, None] * light.key_colour.to(device)


def _depth_light(surface: Surface, light: Light, name: str) -> Tensor:
    """Light inside the mouth (P, 3)."""
    fall = light_inside(name, surface.behind, surface.opening)
    flat = torch.lerp(
        surface.normal, torch.tensor([0.0, 0.3, 1.0], device=fall.device).expand_as(surface.normal), 0.4
    )
    return illuminate(functional.normalize(flat, dim=-1), light, torch.full((3,), 0.4)) * fall


def _shade_lining(surface: Surface, colour: Tensor, person: Person, light: Light, atlas: FaceAtlas) -> Tensor:
    return torch.tensor(COLOURS["mouth"], device=colour.device) * _depth_light(surface, light, "mouth")


def _shade_tongue(surface: Surface, colour: Tensor, person: Person, light: Light, atlas: FaceAtlas) -> Tensor:
    red = torch.tensor(COLOURS["tongue"], device=colour.device)
    grain = _pattern(atlas, "pores", surface.place[:, [0, 2]])
    wet = 0.25 * highlight(surface.normal, light, 40.0)
    return (red * (1 + 0.10 * grain)[:, None] + wet[:, None] * 0.4) * _depth_light(surface, light, "tongue")


def _shade_teeth(
    name: str, surface: Surface, colour: Tensor, person: Person, light: Light, atlas: FaceAtlas
) -> Tensor:
    numbers, device = person.numbers, colour.device
    bright, gum = tooth_pattern(
        surface.place, name == "upper_teeth", numbers["tooth_width"], numbers["tooth_gap"]
    )
    shade = COLOURS[name][1] / COLOURS["upper_teeth"][1]  # the lower row stands in the lip's shadow
    white = person.teeth.to(device) * (shade * bright)[:, None]
    albedo = torch.lerp(white, torch.tensor(GUM, device=device).expand_as(white), gum[:, None])
    wet = 0.12 * highlight(surface.normal, light, 60.0)
    return (albedo * 0.95 + wet[:, None]) * _depth_light(surface, light, name)


def _pattern(atlas: FaceAtlas, name: str, place: Tensor) -> Tensor:
    """A periodic noise field looked up at places (P, 2) in metres, 6 texels a millimetre."""
    column, row = (place * 6000).long().remainder(atlas.size).unbind(-1)
    return atlas.noise[name].to(place.device)[row, column]


def _shade_ear(surface: Surface, colour: Tensor, person: Person, light: Light, atlas: FaceAtlas) -> Tensor:
    # hair grows beside and behind the ear at the same place of the atlas, not on it
    red = 0.5 * person.numbers["redness"]
    albedo = person.skin.to(colour.device) * torch.tensor(
        [1 + 0.08 * red, 1 - 0.16 * red, 1 - 0.14 * red]
    ).to(colour.device)
    grain = 1 + 0.04 * _pattern(atlas, "blotches", surface.place[:, 1:])
    return albedo * grain[:, None] * illuminate(surface.normal, light, _WRAP, surface.occlusion)


def _shade_body(surface: Surface, colour: Tensor, person: Person, light: Light, atlas: FaceAtlas) -> Tensor:
    numbers = person.numbers
    collar = -numbers["collar"] - numbers["vee"] * (0.05 - surface.place[:, 0].abs()).clamp(min=0)
    weave = _pattern(atlas, "strands", surface.place[:, :2])
    cloth = person.cloth.to(colour.device) * (1 + 0.10 * weave)[:, None]
    lit = cloth * illuminate(surface.normal, light, torch.zeros(3), surface.occlusion)
    return torch.lerp(colour, lit, step(surface.place[:, 1], collar + 0.001, collar - 0.001)[:, None])


_SHADERS: dict[str, Callable[..., Tensor]] = {
    "eye": _shade_eye, "mouth": _shade_lining, "tongue": _shade_tongue, "ear": _shade_ear, "body": _shade_body,
    "upper_teeth": partial(_shade_teeth, "upper_teeth"), "lower_teeth": partial(_shade_teeth, "lower_teeth"),
}  # fmt: skip


def shade_layer(
    kind: Tensor, texel: Tensor, normal: Tensor, place: Tensor, person: Person, texture: Texture,
    light: Light, atlas: FaceAtlas,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Linear RGB (P, 3) and opacity (P,) of hair, lashes and glasses."""
    numbers, device = person.numbers, normal.device
    hair = texture.hair.index_select(0, texel)
    lit = illuminate(normal, light, torch.full((3,), 0.35))
    shine = 0.10 * highlight(normal, light, 12.0)
    colour = hair[:, :3] * lit + (shine[:, None] * (person.hair.sqrt() * light.key_colour).to(device))
    opacity = hair[:, 3].clone()

    shell = kind == KINDS.index("shell")
    if shell.any():
        rows, spot = shell.nonzero().squeeze(1), place[shell]
        strands = atlas.noise["strands"].reshape(-1).to(device)[texel[rows]]
        end = 0.010 * strands - numbers["hair_length"] + 0.012
        aside = torch.atan2(spot[:, 0], spot[:, 2] + 0.075).abs()
        opacity[rows] = step(spot[:, 1], end - 0.003, end + 0.003) * step(
            aside + 0.05 * strands, numbers["part"] - 0.25, numbers["part"] - 0.05
        )
    lashes = kind == KINDS.index("lashes")
    if lashes.any():
        rows, spot = lashes.nonzero().squeeze(1), place[lashes]
        centre = torch.tensor([_EYE_CENTRE], device=device) * spot[:, 0:1].sign()
        length = (spot - centre).norm(dim=-1) - 0.0155
        stripes = 0.6 + 0.4 * torch.sin(spot[:, 0] * 6500)
        reach = 0.0018 + 0.0035 * numbers["lash"]
        opacity[rows] = (numbers["lash"] * step(length, reach, 0.0) * stripes).clamp(0, 1)
        colour[rows] = person.brows.to(device) * 0.35
    frame = (kind == KINDS.index("frame")).nonzero().squeeze(1)
    if len(frame):
        tint = torch.tensor(
            [numbers["frame_red"], numbers["frame_green"], numbers["frame_blue"]], device=device
        )
        tint = tint * (0.06 if numbers["frame_dark"] else 1.0) + 0.008
        metal = 0.5 * highlight(normal[frame], light, 30.0)
        colour[frame] = tint * lit[frame] + metal[:, None] * light.key_colour.to(device) * 0.5
        opacity[frame] = 1.0
    lens = (kind == KINDS.index("lens")).nonzero().squeeze(1)
    if len(lens):
        spot = place[lens]
        sheen = step(
            (spot[:, 0] * 0.6 + spot[:, 1] + 0.01 * numbers["part"]).sin().abs() * 100 % 2.5, 1.7, 2.2
        )
        glare = 0.6 * numbers["glare"] * sheen
        colour[lens] = (
            glare[:, None]
            * torch.tensor([0.75, 0.82, 0.9], device=device)
            / (glare + numbers["lens_tint"] + 1e-3)[:, None]
        )
        opacity[lens] = (numbers["lens_tint"] + glare).clamp(0, 0.97)
    return colour, opacity.clamp(0, 1)
