"""Training of the small recogniser: the margin by hand, batches, a few steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from talkface.experts.recognition import FaceEmbedder
from talkface.training.identity import SCALE, PeopleSampler, PeoplesFaces, margin_loss, train_identity


def test_the_margin_by_hand():
    angle = 1.2
    vectors = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.double)
    people = torch.tensor([[3.0, 0.0], [0.0, 2.0]], dtype=torch.double)  # their length does not matter
    got = margin_loss(vectors, people, torch.tensor([0]), margin=0.3)
    own, other = SCALE * math.cos(angle + 0.3), SCALE * math.sin(angle)
    assert float(got) == pytest.approx(math.log(1 + math.exp(other - own)))
    plain = margin_loss(vectors, people, torch.tensor([0]), margin=0.0)
    assert float(plain) < float(got)


def test_the_margin_never_rewards_the_far_side():
    """Beyond pi - margin the angle would come around; the loss must go on rising."""
    angles = torch.linspace(0.1, math.pi - 0.01, 60, dtype=torch.double)
    vectors = torch.stack([angles.cos(), angles.sin(), 0 * angles], dim=1)
    people = torch.tensor(
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.double
    )  # the other is always at 90 degrees
    losses = torch.stack([margin_loss(v[None], people, torch.tensor([0])) for v in vectors])
    assert (losses.diff() > 0).all()


def test_a_few_steps_tell_people_apart(draw_face_points):
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (4, 3))
    images = [
        np.clip(colours[k % 4] + rng.integers(-20, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
        for k in range(16)
    ]
    points = np.stack([draw_face_points(64)] * 16).astype(np.float32)
    sampler = PeopleSampler(PeoplesFaces(images, points, np.arange(16) % 4), size=64, seed=0)
    pictures, person = sampler.batch(6)
    assert pictures.shape == (6, 64, 64, 3) and pictures.dtype == np.uint8 and set(person) <= {0, 1, 2, 3}
    again, _ = PeopleSampler(sampler.faces, size=64, seed=0).batch(6)
    assert (again == pictures).all()
    torch.manual_seed(0)
    network = FaceEmbedder(channels=(8, 8, 8, 8), blocks=(0, 0, 0, 0), dim=8)
    train_identity(network, sampler, steps=25, batch_size=8, learning_rate=1e-2, average_decay=0.9)
    assert not network.training
    flat = torch.from_numpy(colours).float()[:, :, None, None].expand(4, 3, 64, 64) / 127.5 - 1
    with torch.no_grad():
        likeness = network(flat) @ network(flat + 0.03).t()
    assert (likeness.argmax(1) == torch.arange(4)).all()
