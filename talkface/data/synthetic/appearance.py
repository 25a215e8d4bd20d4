"""Random people: shape, skin, lips, eyes, brows, hair, beard, glasses, teeth, clothes.

`sample_person` draws all numbers that describe a person from one seed; `texture.paint` and `scene.render`
turn them into
pictures. Colours are linear RGB albedos. Nothing is measured from real persons: ranges were chosen to cover
people.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from talkface.head import HeadModel

SKIN_TONES = (
    (246, 222, 208), (238, 202, 178), (230, 184, 152), (214, 160, 124), (190, 132, 96), (156, 102, 70),
    (120, 76, 52), (88, 55, 39), (62, 39, 29),
)  # fmt: skip
"""sRGB, light to dark."""
HAIR_COLOURS = (
    (18, 15, 14), (30, 22, 18), (52, 36, 26), (82, 56, 36), (112, 78, 48), (160, 122, 76), (196, 164, 112),
    (140, 66, 34), (128, 124, 120), (206, 202, 196),
)  # fmt: skip
IRIS_COLOURS = (
    (52, 32, 20),
    (74, 46, 26),
    (104, 72, 40),
    (88, 96, 64),
    (92, 120, 136),
    (110, 140, 160),
    (110, 112, 110),
)
HAIR_STYLES = ("bald", "buzz", "short", "fringe", "long", "long_fringe")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")


def linear(colour: tuple[float, ...] | Tensor) -> Tensor:
    """sRGB 0..255 -> linear 0..1, with the plain 2.2 power that the renderer also ends with."""
    return (torch.as_tensor(colour, dtype=torch.float32) / 255).clamp(0, 1) ** 2.2


@dataclass
class Person:
    """All that stays the same about one synthetic person. Colours: (3,) linear RGB. Lengths: metres."""

    seed: int
    identity: Tensor
    skin: Tensor
    skin_darkness: float
    age: float
    lips: Tensor
    lip_strength: float
    hair_style: str
    hair: Tensor
    brows: Tensor
    beard: str
    glasses: bool
    iris: Tensor
    cloth: Tensor
    teeth: Tensor
    numbers: dict[str, float] = field(default_factory=dict)
    """Further scalars by name: what each means stands where it is drawn, in `sample_person`."""


def sample_person(seed: int, head: HeadModel) -> Person:
    """Draw a person; the same seed and head give the same person on every machine."""
    generator = torch.Generator().manual_seed(int(seed))

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def choice(weights: tuple[float, ...]) -> int:
        return int(torch.multinomial(torch.tensor(weights, dtype=torch.float32), 1, generator=generator))

    def mixed(palette: tuple[tuple[int, ...], ...], place: float) -> Tensor:
        place = min(max(place, 0.0), 1.0) * (len(palette) - 1)
        low = min(int(place), len(palette) - 2)
        return torch.lerp(linear(palette[low]), linear(palette[low + 1]), place - low)

    identity = torch.randn(head.num_identity, generator=generator).clamp_(-2.4, 2.4) * 0.82
    darkness = uniform()
    tint = torch.tensor([uniform(-0.06, 0.06), uniform(-0.03, 0.03), uniform(-0.07, 0.07)])
    skin = mixed(SKIN_TONES, darkness) * (1 + tint)
    age = uniform() ** 1.3

    makeup = uniform() < 0.3
    if makeup:
        lipstick = linear(
            [(150, 20, 36), (190, 60, 80), (120, 24, 60), (200, 92, 84), (96, 20, 28)][choice((1,) * 5)]
        )
        lips, lip_strength = lipstick * uniform(0.7, 1.2), uniform(0.35, 0.95)
    else:
        pink = skin * torch.tensor([1.0, 0.62, 0.62]) * uniform(0.75, 1.1)
        lips, lip_strength = (
            torch.lerp(pink, linear((176, 92, 92)) * uniform(0.6, 1.1), 0.35),
            uniform(0.3, 1.0),
        )

    # Fair hair is rare on dark skin; grey comes with age.
    if uniform() < 0.05 + 0.4 * age**2:
        hair = linear(HAIR_COLOURS[8 + choice((1, 1))]) * uniform(0.5, 1.1)
    elif darkness > 0.45 or uniform() < 0.25:
        hair = mixed(HAIR_COLOURS[:3], uniform()) * uniform(0.6, 1.3)
    else:
        hair = linear(HAIR_COLOURS[choice((1, 1, 2, 2, 2, 2, 1.5, 1))]) * uniform(0.7, 1.3)
    hair_style = HAIR_STYLES[choice((0.10, 0.16, 0.28, 0.16, 0.18, 0.12))]
    beard = BEARDS[0] if makeup else BEARDS[choice((0.48, 0.18, 0.08, 0.08, 0.18))]
    brows = torch.lerp(hair, linear((34, 24, 18)), uniform(0.1, 0.9)) * uniform(0.7, 1.1)
    iris = linear(
        IRIS_COLOURS[choice((3, 3, 2, 0, 0, 0, 0)) if darkness > 0.5 else choice((1,) * 7)]
    ) * uniform(0.7, 1.4)
    cloth = torch.rand(3, generator=generator) ** 2 * uniform(0.1, 1.0)
    yellow = uniform()
    teeth = torch.lerp(linear((238, 234, 226)), linear((206, 190, 158)), yellow)

    numbers = {
        "redness": uniform(0.0, 1.0),  # of cheeks, nose, chin, ears
        "blotches": uniform(0.01, 0.06),  # amplitude of mid-sized tone variation
        "pores": uniform(0.01, 0.06),  # amplitude of fine variation
        "freckles": max(0.0, uniform(-1.5, 1.0)) * (1 - darkness),  # share covered
        "moles": uniform(0.0, 6.0),
        "socket": uniform(0.05, 0.45),  # dark rings around the eyes
        "blush": uniform(0.2, 0.9) if makeup else 0.0,
        "eyeshadow": uniform(0.1, 0.7) if makeup else 0.0,
        "eyeliner": uniform(0.3, 1.0) if makeup else uniform(0.0, 0.35),
        "lip_line": uniform(0.1, 0.6),  # darkening where the lips meet
        "brow_density": uniform(0.35, 1.0),
        "brow_width": uniform(0.0022, 0.0062),
        "brow_rise": uniform(-0.0015, 0.003),  # above the landmarks
        "brow_gap": uniform(-0.004, 0.004),  # towards the nose
        "lash": uniform(0.5, 1.0) if makeup else uniform(0.05, 0.6),
        "hairline": uniform(0.050, 0.080),  # height of the forehead's edge
        "recession": max(0.0, uniform(-0.02, 0.012)),  # further up at the temples
        "peak": uniform(-0.006, 0.006),  # widow's peak
        "sideburn": uniform(0.0, 0.035),
        "hair_volume": uniform(0.004, 0.026),
        "fringe": uniform(0.012, 0.040),  # height of the fringe's lower edge
        "fringe_slope": uniform(-0.25, 0.25),
        "part": uniform(0.85, 1.45),  # angle (radians from the front) where long hair begins
        "hair_length": uniform(0.06, 0.24),
        "curl": max(0.0, uniform(-0.006, 0.008)),  # amplitude of waves in long hair
        "flare": uniform(-0.25, 0.35),  # long hair widens or narrows downwards
        "strands": uniform(0.15, 0.5),
        "beard_density": uniform(0.25, 0.6) if beard == "stubble" else uniform(0.7, 1.0),
        "beard_depth": 0.0 if beard in ("none", "stubble") else uniform(0.001, 0.009),
        "cheek_line": uniform(-0.012, 0.012),
        "shave": uniform(0.0, 0.22) if beard != "none" else max(0.0, uniform(-0.3, 0.15)),
        "frame_width": uniform(0.040, 0.056),
        "frame_height": uniform(0.026, 0.046),
        "frame_square": uniform(2.0, 5.0),  # exponent of the superellipse
        "frame_thickness": uniform(0.0008, 0.0045),
        "frame_red": uniform() ** 2 * 0.5,
        "frame_green": uniform() ** 2 * 0.4,
        "frame_blue": uniform() ** 2 * 0.4,
        "frame_dark": 1.0 if uniform() < 0.6 else 0.0,
        "lens_tint": uniform(0.6, 0.97) if uniform() < 0.12 else uniform(0.0, 0.12),
        "glare": max(0.0, uniform(-0.3, 0.35)),
        "pupil": uniform(0.13, 0.26),  # radians on the eyeball
        "iris_radius": uniform(0.37, 0.43),
        "sclera": uniform(0.62, 0.95),
        "gloss": uniform(0.1, 1.0),
        "teeth_drop": uniform(-0.0015, 0.0025),  # upper teeth lower or higher
        "tooth_width": uniform(0.0068, 0.0088),
        "tooth_gap": uniform(0.05, 0.5),
        "wrinkles": max(0.0, age - 0.3) * uniform(0.3, 1.3),
        "collar": uniform(0.11, 0.20),  # height below the eyes where clothes begin
        "vee": uniform(0.0, 0.9),  # slope of the collar
    }  # fmt: skip
    glasses = uniform() < 0.22
    return Person(
        seed=int(seed), identity=identity, skin=skin, skin_darkness=darkness, age=age, lips=lips,
        lip_strength=lip_strength, hair_style=hair_style, hair=hair, brows=brows, beard=beard,
        glasses=glasses, iris=iris, cloth=cloth, teeth=teeth, numbers=numbers,
    )  # fmt: skip
