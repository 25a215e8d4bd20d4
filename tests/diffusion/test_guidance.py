import pytest
import torch
from torch import nn

from talkface.conditioning.base import Conditioning
from talkface.diffusion.guidance import ClassifierFreeGuidance
from talkface.diffusion.schedule import PREDICTION_TYPES, NoiseSchedule
from talkface.errors import TalkfaceError


class ToyNetwork(nn.Module):
    """A network of the real shape of call; remembers the batch sizes it was called with."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(3 + 4 + 2, 3)
        self.batches = []

    def forward(self, x, timesteps, conditioning):
        self.batches.append(x.shape[0])
        features = torch.cat([x, conditioning.context.mean(dim=1), conditioning.embedding], dim=1)
        return torch.tanh(self.mix(features)) * (1 + timesteps[:, None] / 1000).to(x.dtype)


def inputs(batch=5):
    generator = torch.Generator().manual_seed(0)
    full = Conditioning(
        context=torch.randn(batch, 2, 4, generator=generator),
        embedding=torch.randn(batch, 2, generator=generator),
    )
    nulls = {
        "audio": Conditioning(torch.zeros(batch, 2, 4), embedding=full.embedding),
        "emotion": Conditioning(full.context, embedding=torch.zeros(batch, 2)),
    }
    x = torch.randn(batch, 3, generator=generator)
    return x, torch.full((batch,), 400), full, nulls


def guided(network, scales, prediction_type="epsilon", batch=5):
    x, timesteps, full, nulls = inputs(batch)
    guide = ClassifierFreeGuidance(network, NoiseSchedule(), prediction_type, full, nulls, scales)
    return guide(x, timesteps)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_scale_one_is_the_conditional_exactly_in_one_evaluation(prediction_type):
    network = ToyNetwork()
    x, timesteps, full, _ = inputs()
    made = guided(network, {"audio": 1.0, "emotion": 1.0}, prediction_type)
    assert network.batches == [5]
    expected = NoiseSchedule().to_epsilon(network(x, timesteps, full), x, timesteps, prediction_type)
    assert torch.equal(made, expected)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_one_scale_is_the_usual_formula(prediction_type):
    network, schedule = ToyNetwork(), NoiseSchedule()
    x, timesteps, full, nulls = inputs()

    def noise(conditioning):
        return schedule.to_epsilon(network(x, timesteps, conditioning), x, timesteps, prediction_type)

    expected = noise(nulls["audio"]) + 3.0 * (noise(full) - noise(nulls["audio"]))
    torch.testing.assert_close(guided(network, {"audio": 3.0}, prediction_type), expected)


def test_scale_zero_is_the_null():
    network = ToyNetwork()
    x, timesteps, _, nulls = inputs()
    torch.testing.assert_close(guided(network, {"audio": 0.0}), network(x, timesteps, nulls["audio"]))


def test_linear_in_every_scale():
    network = ToyNetwork()
    base, audio, emotion, both = (
        guided(network, scales)
        for scales in ({}, {"audio": 3.0}, {"emotion": 2.0}, {"audio": 3.0, "emotion": 2.0})
    )
    torch.testing.assert_close(both - base, (audio - base) + (emotion - base))
    torch.testing.assert_close(guided(network, {"audio": 5.0}) - base, 2 * (audio - base))


def test_all_variants_in_one_batch():
    network = ToyNetwork()
    guided(network, {"audio": 2.0, "emotion": 2.0})
    guided(network, {"audio": 2.0, "emotion": 1.0})
    assert network.batches == [15, 10]


def test_samples_do_not_mix():
    network = ToyNetwork()
    x, timesteps, full, nulls = inputs()
    alone = ClassifierFreeGuidance(
        network, NoiseSchedule(), "epsilon", full[2:3], {"audio": nulls["audio"][2:3]}, {"audio": 2.0}
    )
    torch.testing.assert_close(guided(network, {"audio": 2.0})[2:3], alone(x[2:3], timesteps[2:3]))


def test_short_network_keeps_the_precision_of_x():
    exact = guided(ToyNetwork(), {"audio": 2.0})
    made = guided(ToyNetwork().bfloat16(), {"audio": 2.0})
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, exact, rtol=0.1, atol=0.05)


def test_plain_function_and_no_conditioning():
    guide = ClassifierFreeGuidance(lambda x, t, c: 2 * x, NoiseSchedule(), "epsilon", None)
    assert torch.equal(guide(torch.ones(2, 3), torch.zeros(2)), torch.full((2, 3), 2.0))


def test_scale_without_null_is_refused():
    with pytest.raises(TalkfaceError, match=r"\['pose'\]; allowed: \['audio', 'emotion'\]"):
        guided(ToyNetwork(), {"pose": 2.0})


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_bounds_hold_what_guidance_leads_to_and_touch_nothing_else(prediction_type):
    network, schedule = ToyNetwork(), NoiseSchedule()
    x, timesteps, full, nulls = inputs()

    def clean(scales, bounds):
        guide = ClassifierFreeGuidance(network, schedule, prediction_type, full, nulls, scales, bounds)
        return schedule.to_x0(guide(x, timesteps), x, timesteps, "epsilon")

    free, told = clean({"audio": 6.0}, None), clean({}, None)
    low, high = torch.minimum(free, told) + 0.01, torch.maximum(free, told) - 0.01
    wide = (low < high).all(dim=1)
    low[~wide], high[~wide] = -torch.inf, torch.inf
    assert wide.any()
    held = clean({"audio": 6.0}, (low, high))
    torch.testing.assert_close(held, torch.clamp(free, low, high), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(held[wide], free[wide], atol=5e-3)
    assert torch.equal(held[~wide], free[~wide])
    assert torch.equal(clean({}, (low, high)), told)  # what is not guided is not clipped
