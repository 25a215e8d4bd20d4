"""Readers of actions, and the encoder's last blocks that they teach."""

from __future__ import annotations

import pytest
import torch

from talkface.errors import TalkfaceError
from talkface.experts.action_reader import ActionReader
from talkface.experts.speech import ArticulationEncoder
from talkface.training.articulation_reading import (
    LastBlocks,
    ReadBatch,
    heard_below,
    reading_distance,
    reading_losses,
)

ACTIONS = ("jawOpen", "mouthPucker", "mouthPress")
SAID = ("", "a", "o", "m")


def make_reader(seed: int = 0) -> ActionReader:
    torch.manual_seed(seed)
    return ActionReader(ACTIONS, SAID, SAID, channels=16, dilations=(1, 2), kernel=3, dropout=0.0)


def words(count: int, seed: int) -> ReadBatch:
    """Sequences of three sounds of 0.24 s each; every sound is one action."""
    generator = torch.Generator().manual_seed(seed)
    units = torch.stack([torch.randperm(3, generator=generator) for _ in range(count)])
    actions = torch.eye(3)[units.repeat_interleave(12, dim=1)]
    targets = (units + 1).flatten()
    counts = torch.full((count,), 3)
    frames = (units + 1).repeat_interleave(6, dim=1)
    return ReadBatch(actions, torch.full((count,), 18), targets, counts, targets, counts, frames)


def make_encoder() -> ArticulationEncoder:
    torch.manual_seed(1)
    encoder = ArticulationEncoder(ACTIONS, channels=16, dilations=(1, 2, 1, 2), bands=20, dropout=0.0)
    return encoder.eval().requires_grad_(False)


def sounds(count: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(count, 320 * 40, generator=torch.Generator().manual_seed(2))


def test_a_reader_learns_to_read():
    reader = make_reader()
    optimizer = torch.optim.Adam(reader.parameters(), 1e-2)
    for step in range(120):
        loss = sum(reading_losses(reader, words(8, step)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    reader.eval()
    test = words(4, 999)
    wanted = [" ".join(SAID[unit] for unit in row) for row in test.visemes.view(4, 3).tolist()]
    found = [reader.read(one) for one in test.actions]
    assert [visemes for _, visemes in found] == wanted
    assert [text for text, _ in found] == [one.replace(" ", "") for one in wanted]


@torch.no_grad()
def test_what_is_told_alike_is_read_alike():
    reader, exact = make_reader().eval(), words(2, 0).actions
    assert float(reading_distance(reader, exact, exact)) == pytest.approx(0.0, abs=1e-6)
    blurred = 0.5 * exact + 0.5 * exact.mean(1, keepdim=True)
    other = exact.flip(1)
    assert 0 < float(reading_distance(reader, blurred, exact)) < float(reading_distance(reader, other, exact))


def test_other_shapes_are_refused():
    for shape in ((1, 10, 2), (10, 3), (1, 1, 3)):
        with pytest.raises(TalkfaceError, match=r"allowed \(B, T, 3\)"):
            make_reader().features(torch.zeros(shape))


def test_units_of_the_actions_do_not_matter_where_the_buffers_know_them():
    plain, scaled = make_reader().eval(), make_reader().eval()
    scaled.mean.fill_(0.2)
    scaled.scale.fill_(0.1)
    actions = torch.rand(1, 20, 3)
    torch.testing.assert_close(
        scaled.features(0.2 + 0.1 * actions), plain.features(actions), atol=1e-4, rtol=0
    )


def test_last_blocks_tell_what_the_whole_encoder_tells():
    encoder, sound = make_encoder(), sounds()
    top = LastBlocks(encoder, 2, torch.zeros(3), torch.ones(3))
    below = heard_below(encoder, sound, 2)
    spare = encoder.reach - top.reach
    told = top(below[:, spare : below.shape[1] - spare])
    torch.testing.assert_close(told, encoder(sound), atol=1e-5, rtol=0)
    with pytest.raises(TalkfaceError, match="cut: 4; allowed 0 to 3"):
        LastBlocks(encoder, 4, torch.zeros(3), torch.ones(3))


def test_a_reader_pulls_what_is_told_to_what_is_read_and_stays_as_it_is():
    encoder, reader = make_encoder(), make_reader().eval().requires_grad_(False)
    before = LastBlocks(encoder, 2, torch.zeros(3), torch.ones(3)).eval().requires_grad_(False)
    top = LastBlocks(encoder, 2, torch.zeros(3), torch.ones(3))
    below = heard_below(encoder, sounds(), 2)
    actions = torch.rand(2, below.shape[1] - 2 * top.reach, 3, generator=torch.Generator().manual_seed(0))
    assert set(top.losses(below, actions, before, None)) == {"motion", "keep"}
    first = top.losses(below, actions, before, reader)
    first = {name: term.item() for name, term in first.items()}
    assert first["keep"] == pytest.approx(0.0, abs=1e-6) and first["reading"] > 0
    optimizer = torch.optim.Adam(top.parameters(), 3e-3)
    for _ in range(30):
        terms = top.losses(below, actions, before, reader)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    assert terms["reading"].item() < 0.8 * first["reading"] and terms["keep"].item() > 0
    assert all(parameter.grad is None for parameter in [*reader.parameters(), *before.parameters()])


def test_taught_blocks_take_their_place_in_the_encoder():
    encoder, sound = make_encoder(), sounds()
    kept = encoder(sound)
    top = LastBlocks(encoder, 2, torch.zeros(3), torch.ones(3))
    with torch.no_grad():
        top.mouth.bias.add_(1.0)
    assert torch.equal(encoder(sound), kept), "the encoder itself is not touched before"
    top.put_into(encoder)
    torch.testing.assert_close(encoder(sound), kept + 1.0, atol=1e-5, rtol=0)
