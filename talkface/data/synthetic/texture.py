"""Paint the atlas of one person: skin with its variations, lips, brows, beard, lids, wrinkles, and hair
density.

Everything is a function of the atlas coordinates (s, t) in metres, of the 68 landmarks on the atlas and of
periodic noise; no picture of a real person is involved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from talkface.data.synthetic.appearance import Person
from talkface.data.synthetic.atlas import FaceAtlas


@dataclass
class Texture:
    """Maps of one person on the atlas, flat over N = size * size texels."""

    albedo: Tensor
    """(N, 4): linear RGB and gloss (strength of the highlight)."""
    hair: Tensor
    """(N, 4): linear RGB of scalp hair and its opacity."""
    hair_height: Tensor
    """(N,) 0..1: how far hair stands off, 0 at its border."""
    beard_height: Tensor
    """(N,) 0..1."""
    face_region: Tensor
    """(N,) bool: from the hairline to the jaw."""

    def to(self, device: torch.device) -> Texture:
        """The same maps on a device."""
        return Texture(*(getattr(self, name).to(device) for name in Texture.__annotations__))


def step(value: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Smooth step: 0 below `low`, 1 above `high`; falling when high < low."""
    place = ((value - low) / (high - low)).clamp(0, 1)
    return place * place * (3 - 2 * place)


def blob(atlas: FaceAtlas, centre: tuple[float, float], radius: tuple[float, float]) -> Tensor:
    """Gaussian spot, 1 at the centre; cut off before the exponential becomes denormal, which is slow."""
    across = torch.exp(-(((atlas.s - centre[0]) / radius[0]) ** 2).clamp(max=20))
    along = torch.exp(-(((atlas.t - centre[1]) / radius[1]) ** 2).clamp(max=20))
    return across * along


def polyline_distance(atlas: FaceAtlas, points: Tensor, reach: float = 0.013) -> tuple[Tensor, Tensor]:
    """Distance of every texel to a polyline (n, 2), metres, and the place 0..1 along it; infinite beyond
    `reach`."""
    whole, whole_place = torch.full((2, atlas.size, atlas.size), float("inf"))
    corners = torch.stack([points.amin(0) - reach, points.amax(0) + reach])
    first, last = atlas.to_texels(corners).long().clamp(0, atlas.size).tolist()
    columns, rows = slice(first[0], last[0] + 1), slice(last[1], first[1] + 1)
    s, t = atlas.s[:, columns], atlas.t[rows]
    best = torch.full((t.shape[0], s.shape[1]), float("inf"))
    place = torch.zeros_like(best)
    for number in range(len(points) - 1):
        start, along = points[number], points[number + 1] - points[number]
        ds, dt = s - start[0], t - start[1]
        fraction = ((ds * along[0] + dt * along[1]) / (along @ along)).clamp(0, 1)
        distance = (ds - fraction * along[0]) ** 2 + (dt - fraction * along[1]) ** 2
        nearer = distance < best
        best = torch.where(nearer, distance, best)
        place = torch.where(nearer, (number + fraction) / (len(points) - 1), place)
    whole[rows, columns], whole_place[rows, columns] = best.sqrt(), place
    return whole, whole_place


def _brows(atlas: FaceAtlas, person: Person, generator: torch.Generator) -> Tensor:
    numbers, opacity = person.numbers, torch.zeros(atlas.size, atlas.size)
    bristles = atlas.rolled("bristles", generator)
    for rows, side in ((slice(17, 22), -1.0), (slice(22, 27), 1.0)):
        line = atlas.landmarks[rows].clone()
        if side > 0:
            line = line.flip(0)
        line[:, 1] += numbers["brow_rise"] - 0.0015
        line[-1, 0] -= side * numbers["brow_gap"]
        distance, place = polyline_distance(atlas, line)
        width = numbers["brow_width"] * (0.35 + 0.65 * step(place, 0.0, 0.55))
        edge = distance + bristles * 0.0009
        opacity = torch.maximum(
            opacity, step(edge, width * 1.25, width * 0.45) * (0.6 + 0.4 * step(place, 0.0, 0.5))
        )
    return (opacity * (0.85 + 0.25 * bristles) * numbers["brow_density"]).clamp(0, 1)


def _beard(atlas: FaceAtlas, person: Person, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Region where hair can grow below the nose (whole, 0..1) and the part of it that this person wears."""
    s, t = atlas.s.abs(), atlas.t
    wobble = atlas.rolled("blotches", generator) * 0.002
    corner, lip_top, lip_bottom = atlas.landmarks[54], atlas.landmarks[51, 1], atlas.landmarks[57, 1]
    nose = atlas.landmarks[33, 1]
    moustache = step(t, nose + 0.003, nose - 0.003) * step(t, lip_bottom - 0.002, lip_bottom + 0.002)
    moustache = moustache * step(s + wobble + (nose - t) * 0.25, 0.040, 0.030)
    cheek = -0.030 + person.numbers["cheek_line"] - (0.11 - s) * 0.50
    sides = step(t + wobble, cheek + 0.004, cheek - 0.006) * step(s, 0.026, 0.036) * step(s, 0.125, 0.115)
    chin = step(t + wobble, lip_bottom + 0.001, lip_bottom - 0.005) * (
        1 - 0.6 * blob(atlas, (0.018, -0.087), (0.008, 0.006))
    )
    chin = chin * (1 - 0.6 * blob(atlas, (-0.018, -0.087), (0.008, 0.006)))
    throat = step(t + wobble, -0.150, -0.120)
    whole = torch.maximum(torch.maximum(moustache, sides), chin) * throat * (1 - step(atlas.lips, 0.2, 0.7))
    goatee = torch.maximum(moustache, chin * step(s + wobble, 0.042, 0.034)) * step(
        s + wobble, corner[0] + 0.012, corner[0] + 0.005
    )
    worn = {
        "none": 0 * whole,
        "stubble": whole,
        "moustache": moustache * step(t, lip_top - 0.012, lip_top - 0.004),
        "goatee": goatee,
        "full": whole,
    }
    return whole, worn[person.beard] * throat * (1 - step(atlas.lips, 0.2, 0.7))


def _scalp(atlas: FaceAtlas, person: Person, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Opacity of scalp hair and its height above the skin, 0..1."""
    numbers, s, t = person.numbers, atlas.s.abs(), atlas.t
    locks = atlas.rolled("locks", generator)
    strands = atlas.rolled("strands", generator)
    front = (
        numbers["hairline"]
        + numbers["recession"] * torch.exp(-(((s - 0.045) / 0.018) ** 2))
        - numbers["peak"] * torch.exp(-((s / 0.015) ** 2))
    )
    edge = front - (front - 0.028) * step(s, 0.062, 0.088)
    edge = edge - (0.028 + 0.010 + numbers["sideburn"]) * step(s, 0.088, 0.106)
    edge = edge - 0.075 * step(s, 0.135, 0.160)
    if person.hair_style in ("fringe", "long_fringe"):
        lower = numbers["fringe"] + numbers["fringe_slope"] * atlas.s + locks * 0.004
        edge = torch.where(s < 0.088, torch.minimum(edge, lower), edge)
    above = t - edge + locks * 0.0018 + strands * 0.0022
    opacity = step(above, -0.003, 0.005)
    if person.hair_style == "bald":
        ring = step(t, 0.075, 0.035) * step(s, 0.085, 0.11)
        opacity = opacity * ring * (0.7 if numbers["hairline"] > 0.065 else 0.0)
    if person.hair_style == "buzz":
        opacity = opacity * 0.75
    # flat on the neck and in front of the ears, full on the crown
    crown = step(t, -0.03, 0.06) * (1 - 0.6 * step(s, 0.075, 0.10) * step(t, 0.06, 0.02))
    # no volume where hair is sparse, or lifted edges would show the background under them
    around = functional.avg_pool2d(opacity[None, None], 8)
    around = functional.avg_pool2d(around, 5, 1, 2, count_include_pad=False)
    around = functional.interpolate(around, opacity.shape, mode="bilinear", align_corners=False)[0, 0]
    crown = crown * step(around, 0.55, 0.98)
    return opacity, step(above, -0.002, 0.030) * (0.15 + 0.85 * crown) * (
        1 + 0.15 * atlas.noise["patches"]
    ).clamp(0.3, 1.6)


def _face_region(atlas: FaceAtlas) -> Tensor:
    """(size, size) bool: above the jaw line of the landmarks (with 4 mm to spare), below the highest
    hairline."""
    jaw = atlas.landmarks[:17]
    right = torch.searchsorted(jaw[:, 0].contiguous(), atlas.s[0].contiguous()).clamp(1, 16)[None]
    fraction = ((atlas.s - jaw[right - 1, 0]) / (jaw[right, 0] - jaw[right - 1, 0])).clamp(0, 1)
    edge = torch.lerp(jaw[right - 1, 1], jaw[right, 1], fraction)
    reach = jaw[16, 0] + 0.004
    return (
        (atlas.s.abs() < reach)
        & (atlas.t > edge - 0.004)
        & (atlas.t < 0.075)
        & (atlas.s.abs() < 0.135 - 0.9 * atlas.t.clamp(min=0))
    )


def paint(atlas: FaceAtlas, person: Person) -> Texture:
    """Draw the maps of a person (about 15 ms at 512 texels on one core)."""
    generator = torch.Generator().manual_seed(person.seed * 2 + 1)
    numbers, s, t, marks = person.numbers, atlas.s, atlas.t, atlas.landmarks
    grain, pores = atlas.rolled("grain", generator), atlas.rolled("pores", generator)
    blotches, patches = atlas.rolled("blotches", generator), atlas.rolled("patches", generator)

    # 1. Brightness and redness of bare skin.
    tone = (
        1 + numbers["blotches"] * (0.6 * blotches + patches) + numbers["pores"] * (0.7 * pores + 0.5 * grain)
    )
    red = 0.5 * blob(atlas, (0.055, -0.035), (0.025, 0.02)) + 0.5 * blob(
        atlas, (-0.055, -0.035), (0.025, 0.02)
    )
    red = red + 0.6 * blob(atlas, (0, -0.038), (0.016, 0.012)) + 0.3 * blob(atlas, (0, -0.1), (0.02, 0.012))
    red = red + 0.8 * step(s.abs(), 0.118, 0.130) * step(t, -0.07, -0.05) * step(s.abs(), 0.2, 0.18)
    red = numbers["redness"] * red * (1 + 0.4 * blotches) + numbers["blush"] * 1.2 * (
        blob(atlas, (0.068, -0.032), (0.02, 0.014)) + blob(atlas, (-0.068, -0.032), (0.02, 0.014))
    )
    sockets = blob(atlas, (0.029, -0.004), (0.019, 0.012)) + blob(atlas, (-0.029, -0.004), (0.019, 0.012))
    tone = tone * (1 - 0.4 * numbers["socket"] * sockets)

    # 2. Wrinkles: thin dark lines, more with age.
    if numbers["wrinkles"] > 0:
        wave = torch.sin((t + 0.002 * patches + 0.0015 * torch.sin(s * 60)) / 0.0016 * 0.9)
        forehead = (
            step(wave, 0.55, 1.0) * step(t, 0.022, 0.03) * step(t, 0.07, 0.055) * step(s.abs(), 0.06, 0.04)
        )
        folds = torch.zeros(atlas.size, atlas.size)
        for side in (-1.0, 1.0):
            line = torch.tensor([[0.021 * side, -0.040], [0.031 * side, -0.055], [0.037 * side, -0.072]])
            distance, place = polyline_distance(atlas, line)
            folds = folds + step(distance + 0.0005 * pores, 0.0035, 0.0004) * step(place, 1.0, 0.5)
            corner = marks[45] if side > 0 else marks[36]
            fan = torch.atan2(t - corner[1], (s - corner[0]) * side)
            reach = ((s - corner[0]) * side).clamp(min=0)
            folds = folds + 0.6 * step(torch.cos(fan * 13), 0.6, 1.0) * step(reach, 0.003, 0.008) * step(
                reach, 0.02, 0.012
            ) * step(fan.abs(), 0.9, 0.6)
        tone = tone * (1 - 0.28 * numbers["wrinkles"] * (0.7 * forehead + folds).clamp(0, 1.2))

    skin = person.skin * tone.clamp(0.3, 1.6)[..., None]
    skin = skin * (1 + red[..., None] * torch.tensor([0.10, -0.16, -0.12]))
    gloss = 0.55 + 0.45 * (blob(atlas, (0, 0.045), (0.04, 0.02)) + blob(atlas, (0, -0.03), (0.012, 0.02)))

    def cover(colour: Tensor, opacity: Tensor) -> None:
        skin.lerp_(colour.expand_as(skin), opacity.clamp(0, 1)[..., None])

    # 3. Freckles and moles.
    if numbers["freckles"] > 0:
        place = blob(atlas, (0, -0.025), (0.07, 0.03))
        cover(
            person.skin * torch.tensor([0.55, 0.42, 0.35]),
            0.7 * step(pores, 1.6, 2.3) * place * numbers["freckles"] * 1.5,
        )
    for _ in range(int(numbers["moles"])):
        centre = torch.rand(2, generator=generator)
        radius = 0.0006 + 0.0012 * float(torch.rand((), generator=generator))
        spot = blob(atlas, (float(centre[0]) * 0.18 - 0.09, float(centre[1]) * 0.15 - 0.1), (radius, radius))
        cover(person.skin * 0.25, 0.8 * spot)

    # 4. Lips with creases; the seam is darker.
    creases = atlas.rolled("creases", generator)
    border = step(atlas.lips + 0.06 * blotches, 0.25, 0.8) * person.lip_strength
    cover(person.lips * (1 + 0.10 * creases + 0.05 * blotches)[..., None], border)
    seam, _ = polyline_distance(atlas, torch.stack([marks[60], marks[61], marks[62], marks[63], marks[64]]))
    skin.mul_(
        1 - numbers["lip_line"] * step(seam, 0.0022, 0.0006)[..., None] * torch.tensor([0.55, 0.8, 0.8])
    )
    gloss = gloss + 1.2 * border

    # 5. Eye make-up, lid margins, brows.
    for rows in ([36, 37, 38, 39], [42, 43, 44, 45]):
        distance, _ = polyline_distance(atlas, marks[rows])
        inside = t - marks[rows][:, 1].mean()
        shadow = step(distance, 0.011, 0.002) * step(inside, -0.002, 0.003)
        cover(person.lips * torch.tensor([0.4, 0.45, 0.7]), 0.6 * numbers["eyeshadow"] * shadow)
        cover(torch.tensor([0.012, 0.010, 0.010]), numbers["eyeliner"] * step(distance, 0.0022, 0.0010))
    for rows in ([36, 41, 40, 39], [42, 47, 46, 45]):
        distance, _ = polyline_distance(atlas, marks[rows])
        cover(person.skin * torch.tensor([0.55, 0.35, 0.33]), 0.5 * step(distance, 0.0018, 0.0008))
    cover(person.brows, _brows(atlas, person, generator))

    # 6. Beard: shaved shadow, then hairs.
    bristles = atlas.rolled("bristles", generator)
    whole, worn = _beard(atlas, person, generator)
    cover(
        person.hair * 0.6 + 0.3 * person.skin * torch.tensor([0.6, 0.7, 0.8]),
        numbers["shave"] * whole * (1 + 0.3 * grain),
    )
    density = worn * numbers["beard_density"]
    if person.beard == "stubble":
        density = density * step(grain + 0.5 * pores, 0.2, 1.4)
    cover(
        person.hair * (0.85 + 0.5 * bristles.clamp(-1, 1.5))[..., None].clamp(min=0.2),
        density * (0.9 + 0.2 * bristles),
    )
    gloss = gloss * (1 - 0.8 * worn)

    # 7. Scalp hair, and the scalp under it.
    opacity, height = _scalp(atlas, person, generator)
    strands, locks = atlas.rolled("strands", generator), atlas.rolled("locks", generator)
    shade = (1 + numbers["strands"] * (0.7 * strands + 0.5 * locks)).clamp(0.25, 2.2)
    if person.hair_style in ("buzz", "bald"):
        opacity = opacity * step(grain + 0.6 * pores, -1.6, 0.6)
    cover(person.hair * 0.8, opacity * 0.9)
    hair = torch.cat([person.hair * shade[..., None], opacity[..., None]], dim=-1)
    albedo = torch.cat(
        [skin.clamp(0.002, 0.95), (gloss * numbers["gloss"] * (1 - 0.7 * opacity))[..., None]], dim=-1
    )
    bare = _face_region(atlas) & (opacity < 0.5)
    return Texture(
        albedo=albedo.reshape(-1, 4),
        hair=hair.reshape(-1, 4),
        hair_height=height.reshape(-1).clamp(0, 1.5),
        beard_height=(worn * (1 + 0.3 * blotches)).reshape(-1).clamp(0, 1.3),
        face_region=bare.reshape(-1),
    )
