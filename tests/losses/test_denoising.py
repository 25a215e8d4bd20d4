import pytest
import torch

from talkface.diffusion.schedule import PREDICTION_TYPES, NoiseSchedule
from talkface.errors import TalkfaceError
from talkface.losses.denoising import denoising_loss, error_per_sample, min_snr_weights

SCHEDULE = NoiseSchedule()
TIMES = torch.tensor([10, 200, 500, 900])


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 3, 4, 4, generator=generator)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_perfect_output_costs_nothing_and_an_offset_its_square(prediction_type):
    x0, noise = data()
    target = SCHEDULE.target(x0, noise, TIMES, prediction_type)
    assert denoising_loss(target, x0, noise, TIMES, SCHEDULE, prediction_type) == 0
    loss = denoising_loss(target + 0.5, x0, noise, TIMES, SCHEDULE, prediction_type)
    assert loss.item() == pytest.approx(0.25, rel=1e-5)
    loss = denoising_loss(target + 0.5, x0, noise, TIMES, SCHEDULE, prediction_type, norm="l1")
    assert loss.item() == pytest.approx(0.5, rel=1e-5)


def test_min_snr_weighs_the_same_error_alike_in_every_parametrisation():
    # One and the same wrong guess of the clean data, stated in three ways, must cost the same.
    x0, noise = data()
    x = SCHEDULE.add_noise(x0, noise, TIMES)
    signal, sigma = SCHEDULE.signal_and_noise(TIMES, x0)
    guess = x0 + 0.3
    outputs = {
        "x0": guess,
        "epsilon": (x - signal * guess) / sigma,
        "velocity": (signal * x - guess) / sigma,
    }
    losses = [
        denoising_loss(output, x0, noise, TIMES, SCHEDULE, name, min_snr_gamma=5.0, reduce=False)
        for name, output in outputs.items()
    ]
    torch.testing.assert_close(losses[0], SCHEDULE.snr(TIMES).clamp(max=5.0) * 0.09, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(losses[2], losses[0], rtol=1e-3, atol=1e-6)


def test_min_snr_leaves_noisy_times_alone():
    weights = min_snr_weights(SCHEDULE, TIMES, "epsilon", 5.0)
    snr = SCHEDULE.snr(TIMES)
    torch.testing.assert_close(weights, torch.where(snr > 5.0, 5.0 / snr, torch.ones(4)))
    assert weights[0] < 0.1 and weights[-1] == 1.0


def test_sample_weights():
    x0, noise = data()
    losses = denoising_loss(x0, x0, noise, TIMES, SCHEDULE, reduce=False)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.0])
    total = denoising_loss(x0, x0, noise, TIMES, SCHEDULE, sample_weights=weights)
    torch.testing.assert_close(total, (losses[0] + 2 * losses[2]) / 4)


def test_region_weights_count_by_their_ratios():
    output, target = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    output[:, :, :2] = 1.0
    weights = torch.ones(2, 1, 4, 4)
    weights[0, :, :2] = 3.0
    torch.testing.assert_close(error_per_sample(output, target), torch.tensor([0.5, 0.5]))
    expected = torch.tensor([0.75, 0.5])
    torch.testing.assert_close(error_per_sample(output, target, region_weights=weights), expected)
    torch.testing.assert_close(error_per_sample(output, target, region_weights=7 * weights), expected)


def test_bfloat16_output_is_compared_in_float32():
    x0, noise = data()
    loss = denoising_loss(noise.bfloat16() + 1, x0, noise, TIMES, SCHEDULE)
    assert loss.dtype == torch.float32


def test_wrong_arguments_are_refused():
    x0, noise = data()
    with pytest.raises(TalkfaceError, match="'huber'; allowed: 'l2', 'l1'"):
        denoising_loss(x0, x0, noise, TIMES, SCHEDULE, norm="huber")
    with pytest.raises(TalkfaceError, match="min_snr_gamma: 0"):
        denoising_loss(x0, x0, noise, TIMES, SCHEDULE, min_snr_gamma=0.0)
    with pytest.raises(TalkfaceError, match="prediction_type: 'noise'"):
        denoising_loss(x0, x0, noise, TIMES, SCHEDULE, "noise")
