import math

import pytest
import torch

from talkface.diffusion.schedule import PREDICTION_TYPES, SCHEDULE_KINDS, NoiseSchedule
from talkface.errors import TalkfaceError


def test_thesis_schedule():
    levels = NoiseSchedule().alpha_bar(torch.tensor([0, 400, 500, 600, 999]))
    torch.testing.assert_close(
        levels, torch.tensor([0.9985, 0.2258, 0.1077, 0.0424, 0.0001]), rtol=0, atol=6e-5
    )


def test_linear_schedule_is_the_product_of_its_betas():
    schedule = NoiseSchedule("linear", 10, 0.1, 0.5)
    betas = torch.linspace(0.1, 0.5, 10)
    torch.testing.assert_close(schedule.alpha_bar(torch.arange(10)), (1 - betas).cumprod(0))


def test_cosine_schedule_follows_its_equation():
    schedule = NoiseSchedule("cosine")
    t = torch.tensor([0, 250, 700])

    def f(u):
        return math.cos((u / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = torch.tensor([f(i + 1) / f(0) for i in t.tolist()])
    torch.testing.assert_close(schedule.alpha_bar(t), expected)


def test_continuous_cosine_oracle():
    t = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]) * 1000
    level = NoiseSchedule("continuous_cosine").alpha_bar(t)
    signal = [0.0200, 0.1428, 0.2635, 0.3802, 0.4911, 0.5945, 0.6889, 0.7728, 0.8450, 0.9044, 0.9500]
    noise = [0.9998, 0.9897, 0.9647, 0.9249, 0.8711, 0.8041, 0.7249, 0.6346, 0.5347, 0.4267, 0.3122]
    torch.testing.assert_close(level.sqrt(), torch.tensor(signal), rtol=0, atol=6e-5)
    torch.testing.assert_close((1 - level).sqrt(), torch.tensor(noise), rtol=0, atol=6e-5)


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_signal_only_fades(kind):
    schedule = NoiseSchedule(kind)
    levels = schedule.alpha_bar(torch.linspace(0, schedule.max_timestep, 3001))
    assert (levels.diff() <= 0).all() and levels[-1] < 0.01 < 0.9 < levels[0] < 1


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_fractional_times_agree_with_whole_ones_and_lie_between(kind):
    schedule = NoiseSchedule(kind)
    whole = torch.tensor([0, 10, 500, 998])
    torch.testing.assert_close(schedule.alpha_bar(whole.float()), schedule.alpha_bar(whole))
    between = schedule.alpha_bar(whole + 0.5)
    assert (between < schedule.alpha_bar(whole)).all() and (between > schedule.alpha_bar(whole + 1)).all()


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_conversions_are_inverse(kind, prediction_type):
    schedule = NoiseSchedule(kind)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 3, 5, 5, generator=generator, dtype=torch.float64)
    t = torch.tensor([20, 300, 500, 800])
    x = schedule.add_noise(x0, noise, t)
    output = schedule.target(x0, noise, t, prediction_type)
    torch.testing.assert_close(
        schedule.to_epsilon(output, x, t, prediction_type), noise, rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(schedule.to_x0(output, x, t, prediction_type), x0, rtol=1e-5, atol=1e-5)


def test_noised_unit_data_keep_unit_variance():
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 50, 4000, generator=generator)
    x = NoiseSchedule().add_noise(x0, noise, torch.linspace(0, 999, 50).long())
    torch.testing.assert_close(x.var(dim=1), torch.ones(50), rtol=0.1, atol=0)


def test_velocity_and_snr_known_answers():
    schedule = NoiseSchedule("continuous_cosine")
    t = torch.tensor([300.0])
    signal, noise = schedule.signal_and_noise(t, torch.zeros(1, 1))
    velocity = schedule.velocity(torch.full((1, 1), 2.0), torch.full((1, 1), 3.0), t)
    torch.testing.assert_close(velocity, 3 * signal - 2 * noise)
    torch.testing.assert_close(schedule.snr(t), ((signal / noise) ** 2)[0])


def test_bfloat16_data_meet_float32_levels():
    schedule = NoiseSchedule()
    assert schedule.alpha_bar(torch.tensor([5])).dtype == torch.float32
    x = torch.ones(1, 3, dtype=torch.bfloat16)
    assert schedule.add_noise(x, x, torch.tensor([5])).dtype == torch.bfloat16


def test_wrong_names_are_refused():
    with pytest.raises(TalkfaceError, match="'quadratic'; allowed: sqrt_linear, linear"):
        NoiseSchedule("quadratic")
    with pytest.raises(TalkfaceError, match="'v'; allowed: epsilon, velocity, x0"):
        NoiseSchedule().target(torch.zeros(1), torch.zeros(1), torch.tensor([0]), "v")
    with pytest.raises(TalkfaceError, match="num_train_timesteps: 0"):
        NoiseSchedule(num_train_timesteps=0)
