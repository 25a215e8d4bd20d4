"""The inside of a mouth: the shape of teeth and how far light reaches in, for renders and for guides alike."""

from __future__ import annotations

import torch
from torch import Tensor

# linear RGB under white light of strength 1
COLOURS = {
    "mouth": (0.30, 0.065, 0.055),
    "upper_teeth": (0.80, 0.74, 0.66),
    "lower_teeth": (0.62, 0.56, 0.48),
    "tongue": (0.50, 0.15, 0.13),
}
GUM = (0.52, 0.19, 0.18)
REACH = {"mouth": 0.0094, "upper_teeth": 0.019, "lower_teeth": 0.013, "tongue": 0.0108}  # metres
# metres more per metre between the lips: through a wide mouth light falls on the teeth, the throat stays dark
_GROWTH = {"upper_teeth": 0.35, "lower_teeth": 0.35}
_ROOT = {True: (-0.0625, -0.0605), False: (-0.0785, -0.0805)}  # height where upper and lower gums begin
# a part stands behind the lips, which shade all but the teeth when they hardly part
_LEAST = {"mouth": 0.35, "upper_teeth": 0.75, "lower_teeth": 0.45, "tongue": 0.35}
_WAS_APART, _IS_CLOSED = (0.0014, 0.0029), (0.0014, 0.0)  # metres between lips: no to yes
_LINE_WIDTH, _LINE_DARKNESS = 0.0010, 0.42
_WIDE = 0.010  # metres between the lips that let all light in
_WHITE = 0.4  # share of the light from which on it is white


def step(value: Tensor, start: float, end: float) -> Tensor:
    """0 at `start`, 1 at `end`, smooth between."""
    t = ((value - start) / (end - start)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def light_inside(name: str, behind: Tensor, opening: Tensor) -> Tensor:
    """(P, 3) share of the light that reaches points of part `name`, linear RGB.

    Args:
        behind: (P,) metres behind the lips. opening: (P,) metres between the lips.
    """
    fall = torch.exp(-behind.clamp(min=0) / (REACH[name] + _GROWTH.get(name, 0.0) * opening))
    least = _LEAST[name]
    share = (fall * (least + (1.0 - least) * step(opening, 0.0, _WIDE)))[:, None]
    if name not in _GROWTH:
        return share.expand(-1, 3)
    # what comes far in has met red tissue before; tongue and lining have that in their colours
    red = share.new_tensor(GUM) / max(GUM)
    return share * torch.lerp(red, torch.ones_like(red), step(share, 0.0, _WHITE))


def lip_line(from_line: Tensor, before: Tensor, now: Tensor) -> Tensor:
    """How dark lips are where they meet, (P,) in [0, 1].

    No light falls between closed lips, and a mouth without that line looks open. A photograph of closed lips shows it;
    one of parted lips does not.

    Args:
        from_line: (P,) metres from where the lips meet.
        before, now: (P,) metres between the lips, in the photograph and as they are drawn.
    """
    closed = step(before, *_WAS_APART) * step(now, *_IS_CLOSED)
    return _LINE_DARKNESS * closed * torch.exp(-((from_line / _LINE_WIDTH) ** 2))


def tooth_pattern(place: Tensor, upper: bool, width: float, gap: float) -> tuple[Tensor, Tensor]:
    """How bright teeth are at points, and the share of gum there, each (P,) in [0, 1].

    Args:
        place: (P, 3) metres on the mean head.
        width: metres, of a front tooth in the middle of the upper row. gap: 0 to 1, how dark it is between teeth.
    """
    # arc length along the dental arch, about 24 mm wide and 38 mm deep
    arc = 0.022 * torch.atan2(place[:, 0], (place[:, 2] + 0.004).clamp(min=1e-4))
    phase = arc / (width if upper else 0.72 * width)
    between = step((phase - phase.round()).abs(), 0.09, 0.0) * gap
    bulge = 1.0 - 1.2 * (phase - phase.floor() - 0.5) ** 2
    # back teeth stand in the shadow of the cheeks, lower ones in that of the tongue as well
    start, end = (0.016, 0.026) if upper else (0.012, 0.024)
    cheek = 1.0 - 0.75 * step(arc.abs(), start, end)
    return bulge * (1.0 - between) * cheek, step(place[:, 1], *_ROOT[upper])
