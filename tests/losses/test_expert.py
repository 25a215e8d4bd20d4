"""Losses that ask an expert: known answers, and gradients that lead where they should."""

import math

import pytest
import torch
import torch.nn.functional as F

from talkface.errors import TalkfaceError
from talkface.losses.expert import (
    directional_loss,
    identity_loss,
    lip_reading_loss,
    pixel_loss,
    sync_loss,
    temporal_loss,
)


def test_directional_loss_has_the_thesiss_values():
    source = torch.tensor([[1.0, 0.0]]).expand(4, -1)
    along = torch.tensor([0.0, 2.0])
    # a change along, at 60 degrees to, across, and against the direction: L_dir 0, 1/2, 1, 2
    changes = torch.tensor([[0.0, 0.5], [math.sqrt(3) / 2, 0.5], [0.3, 0.0], [0.0, -0.1]])
    found = directional_loss(source + changes, source, along)
    torch.testing.assert_close(
        found[:3], torch.tensor([0.0, -math.log(0.75), math.log(2.0)]), atol=1e-5, rtol=0
    )
    assert 15 < float(found[3]) < 17


def test_directional_loss_of_an_unchanged_picture_is_finite_and_has_a_gradient():
    source = F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    edited = source.clone().requires_grad_()
    loss = directional_loss(edited, source, torch.ones(8)).sum()
    loss.backward()
    assert loss.isfinite() and edited.grad.isfinite().all()


def test_following_the_gradient_turns_the_change_into_the_direction():
    generator = torch.Generator().manual_seed(1)
    source = F.normalize(torch.randn(4, 16, generator=generator), dim=1)
    directions = F.normalize(torch.randn(4, 16, generator=generator), dim=1)
    change = (0.3 * torch.randn(4, 16, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([change], lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        directional_loss(source + change, source, directions).mean().backward()
        optimizer.step()
    assert (F.cosine_similarity(change, directions) > 0.98).all()


def test_directional_loss_refuses_texts_of_another_clip():
    with pytest.raises(TalkfaceError, match="direction of 5 numbers for pictures of 4"):
        directional_loss(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(5))


def test_identity_and_pixels():
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    other = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    torch.testing.assert_close(identity_loss(one, other), torch.tensor([0.0, 1.0, 2.0]))
    pictures = torch.zeros(2, 3, 4, 4)
    moved = pictures.clone()
    moved[0] += 0.5
    moved[1, 0] -= 2.0
    torch.testing.assert_close(pixel_loss(moved, pictures), torch.tensor([0.25, 4.0 / 3]))
    torch.testing.assert_close(pixel_loss(moved, pictures, 1), torch.tensor([0.5, 2.0 / 3]))
    with pytest.raises(TalkfaceError, match="power: 3"):
        pixel_loss(moved, pictures, 3)


def test_lip_reading_counts_only_the_frames_of_the_sequence():
    true = torch.eye(4)[None].repeat(2, 1, 1)
    made = true.clone()
    made[:, 2] = -made[:, 2]  # distance 2 in the third frame
    torch.testing.assert_close(lip_reading_loss(made, true), torch.tensor([0.5, 0.5]))
    found = lip_reading_loss(made, true, torch.tensor([2, 3]))
    torch.testing.assert_close(found, torch.tensor([0.0, 2.0 / 3]))


def test_sync_pulls_opposed_vectors_too():
    similarity = torch.tensor([1.0, 0.0, -0.9], requires_grad=True)
    loss = sync_loss(similarity)
    torch.testing.assert_close(loss.detach(), torch.tensor([0.0, math.log(2), math.log(20)]))
    loss.sum().backward()
    assert similarity.grad[2] < similarity.grad[1] < similarity.grad[0] < 0


def test_consistency_in_time_asks_for_no_flicker_not_for_the_same_picture():
    true = torch.linspace(0, 1, 5).view(1, 5, 1, 1).expand(3, 5, 2, 2)
    made = true.clone()
    made[1] += 0.7  # brighter throughout
    made[2, 1::2] += 0.1  # flickering
    torch.testing.assert_close(temporal_loss(made, true), torch.tensor([0.0, 0.0, 0.1]), atol=1e-6, rtol=0)
    with pytest.raises(TalkfaceError, match="frames: 1"):
        temporal_loss(made[:, :1], true[:, :1])
