"""Light inside a mouth, and the pattern of teeth."""

import torch

from talkface.head.inside import light_inside, tooth_pattern


def light(name: str, behind: torch.Tensor, opening: float) -> torch.Tensor:
    return light_inside(name, behind, torch.full_like(behind, opening))


def test_light_falls_with_depth_and_rises_with_the_opening():
    behind = torch.tensor([0.0, 0.005, 0.010, 0.030])
    narrow, wide = (light("mouth", behind, opening) for opening in (0.001, 0.015))
    assert narrow.shape == (4, 3)
    assert (narrow.diff(dim=0) < 0).all() and (wide.diff(dim=0) < 0).all()
    assert (wide > narrow).all() and float(wide.max()) <= 1.0
    assert (light("upper_teeth", behind, 0.001) > narrow).all()


def test_a_wide_mouth_shows_its_teeth_and_not_its_throat():
    far = torch.tensor([0.035])
    assert torch.equal(light("tongue", far, 0.030), light("tongue", far, 0.012))
    assert (light("lower_teeth", far, 0.030) > 1.2 * light("lower_teeth", far, 0.012)).all()


def test_light_on_teeth_is_white_in_front_and_red_far_in():
    front, back = light("lower_teeth", torch.tensor([0.003, 0.045]), 0.012)
    assert torch.allclose(front[1:] / front[0], torch.ones(2))
    assert (back[1:] / back[0] < 0.5).all()


def test_teeth_are_alike_left_and_right_with_dark_gaps_and_gums_at_their_roots():
    x = torch.linspace(-0.012, 0.012, 201)
    place = torch.stack([x, torch.full_like(x, -0.068), torch.full_like(x, 0.030)], dim=1)
    bright, gum = tooth_pattern(place, True, 0.008, 0.5)
    assert torch.allclose(bright, bright.flip(0), atol=1e-4)
    assert float(bright.max()) > 0.95 and float(bright.min()) < 0.55
    assert float(gum.max()) == 0.0
    place[:, 1] = -0.055
    assert float(tooth_pattern(place, True, 0.008, 0.5)[1].min()) == 1.0
