"""Noise, windows and guidance of many frames, against what can be derived."""

import numpy as np
import pytest
import torch
from torch import nn

from talkface.conditioning.base import Conditioner, ConditionerSet, Conditioning
from talkface.diffusion.schedule import NoiseSchedule
from talkface.pipelines.sampling import LatentSampler, frame_generator, frame_noise, window_weights

SHAPE = (3, 16, 16)


def test_the_noise_of_a_frame_depends_on_seed_and_frame_only():
    together = frame_noise(SHAPE, 3, range(6), 0.5)
    alone = torch.cat([frame_noise(SHAPE, 3, [k], 0.5) for k in range(6)])
    assert torch.equal(together, alone)
    assert not torch.equal(frame_noise(SHAPE, 4, [0], 0.5), together[:1])
    first, second = (torch.randn(4, generator=frame_generator(0, k)) for k in (0, 1))
    steps = torch.randn(4, generator=frame_generator(0, 0, "steps"))
    assert not torch.equal(first, second)
    assert not torch.equal(first, steps)


@pytest.mark.parametrize("independent", [0.0, 0.3, 1.0])
def test_noise_is_standard_normal_and_shared_as_asked(independent):
    noise = frame_noise((3, 64, 64), 0, range(8), independent)
    assert noise.mean().abs() < 0.05
    assert noise.flatten(1).std(dim=1) == pytest.approx(torch.ones(8), abs=0.03)
    correlation = np.corrcoef(noise.flatten(1).numpy())
    others = correlation[~np.eye(8, dtype=bool)]
    assert others == pytest.approx(np.full(56, 1 - independent**2), abs=0.05)


@pytest.mark.parametrize(("window", "overlap"), [(1, 0), (4, 0), (4, 2), (10, 3), (50, 10)])
def test_windows_cover_every_frame_with_weights_that_sum_to_one(window, overlap):
    members: dict[int, list[int]] = {}
    for index in range(200):
        parts = window_weights(index, window, overlap)
        assert sum(weight for _, weight in parts) == pytest.approx(1)
        assert all(0 < weight <= 1 for _, weight in parts)
        for number, _ in parts:
            members.setdefault(number, []).append(index)
    for number, frames in list(members.items())[:-2]:
        start = number * (window - overlap)
        assert frames == list(range(start, start + window))


def test_weights_fade_linearly_across_the_overlap():
    later = [dict(window_weights(7 + k, 10, 3)).get(1, 0.0) for k in range(-1, 4)]
    assert later == pytest.approx([0, 0.25, 0.5, 0.75, 1])


class Level(Conditioner):
    """Tells the network a number, as a map filled with it; its null is 0."""

    fills = ("concat",)
    concat_channels = 1

    def forward(self, batch):
        return Conditioning(concat=batch["level"].view(-1, 1, 1, 1).expand(-1, 1, *SHAPE[1:]))

    def null(self, batch_size):
        return Conditioning(concat=torch.zeros(batch_size, 1, *SHAPE[1:]))


class AsTold(nn.Module):
    """Predicts clean data that equal the number it was told; counts its calls and rows."""

    calls = rows = 0

    def forward(self, x, timesteps, conditioning):
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        return conditioning.concat.expand_as(x)


def sampler(scale=1.0, steps=5):
    return LatentSampler(
        network=AsTold(),
        conditioner=ConditionerSet({"level": Level()}),
        schedule=NoiseSchedule(),
        prediction_type="x0",
        num_inference_steps=steps,
        scales={"level": scale},
        final_alpha="one",
    )


def test_sampling_ends_at_the_predicted_clean_data():
    draw = sampler()
    level = torch.tensor([-1.0, 0.0, 2.0])
    result = draw(torch.randn(3, *SHAPE), {"level": level})
    torch.testing.assert_close(result, level.view(-1, 1, 1, 1).expand_as(result), atol=1e-3, rtol=0)
    assert draw.network.calls == 5
    assert draw.network.rows == 15, "guidance scale 1 must cost nothing"


def test_guidance_extrapolates_from_the_null_in_one_call_per_step():
    draw = sampler(scale=3.0)
    result = draw(torch.randn(1, *SHAPE), {"level": torch.tensor([0.5])})
    torch.testing.assert_close(result, torch.full_like(result, 1.5), atol=1e-3, rtol=0)
    assert (draw.network.calls, draw.network.rows) == (5, 10)


def test_rows_of_one_frame_are_averaged_with_their_weights_at_every_step():
    draw = sampler()
    result = draw(
        torch.randn(2, *SHAPE),
        {"level": torch.tensor([1.0, -1.0, 2.0])},
        owners=torch.tensor([0, 1, 1]),
        weights=torch.tensor([1.0, 0.25, 0.75]),
    )
    expected = torch.tensor([1.0, 1.25]).view(-1, 1, 1, 1).expand_as(result)
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)


def test_two_rows_that_say_the_same_change_nothing():
    noise, level = torch.randn(1, *SHAPE), torch.tensor([0.7])
    single = sampler()(noise, {"level": level})
    double = sampler()(
        noise, {"level": level.repeat(2)}, owners=torch.tensor([0, 0]), weights=torch.tensor([0.4, 0.6])
    )
    torch.testing.assert_close(double, single)
