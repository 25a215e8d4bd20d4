"""Light inside a mouth, and the pattern of teeth."""

import torch

from talkface.head.inside import light_inside, tooth_pattern


def test_light_falls_with_depth_and_rises_with_the_opening():
    behind = torch.tensor([0.0, 0.005, 0.010, 0.030])
    narrow, wide = (light_inside("mouth", behind, torch.full((4,), opening)) for opening in (0.001, 0.015))
    assert (narrow.diff() < 0).all() and (wide.diff() < 0).all()
    assert (wide > narrow).all() and float(wide.max()) <= 1.0
    assert (light_inside("upper_teeth", behind, torch.full((4,), 0.001)) > narrow).all()


def test_teeth_are_alike_left_and_right_with_dark_gaps_and_gums_at_their_roots():
    x = torch.linspace(-0.012, 0.012, 201)
    place = torch.stack([x, torch.full_like(x, -0.068), torch.full_like(x, 0.030)], dim=1)
    bright, gum = tooth_pattern(place, True, 0.008, 0.5)
    assert torch.allclose(bright, bright.flip(0), atol=1e-4)
    assert float(bright.max()) > 0.95 and float(bright.min()) < 0.55
    assert float(gum.max()) == 0.0
    place[:, 1] = -0.055
    assert float(tooth_pattern(place, True, 0.008, 0.5)[1].min()) == 1.0
