import pytest
import torch

from talkface.diffusion.schedule import NoiseSchedule
from talkface.diffusion.solvers import DDIM, draw_noise, editing_timesteps, uniform_timesteps
from talkface.errors import TalkfaceError

MEAN, DEVIATION = 0.7, 0.4


def gaussian_noise_predictor(schedule):
    """The best possible predictor for data ~ N(MEAN, DEVIATION^2): E[eps | x_t] in closed form."""

    def predict(x, timesteps):
        signal, sigma = schedule.signal_and_noise(timesteps, x)
        return sigma * (x - signal * MEAN) / (signal**2 * DEVIATION**2 + sigma**2)

    return predict


def flow(schedule, x, start, end):
    """Exact solution of the probability-flow ODE for those data, from time `start` to time `end`."""

    def moments(t):
        level = schedule.alpha_bar(torch.tensor([t])).double().item()
        return level**0.5 * MEAN, (level * DEVIATION**2 + 1 - level) ** 0.5

    (mean_a, deviation_a), (mean_b, deviation_b) = moments(start), moments(end)
    return mean_b + deviation_b * (x - mean_a) / deviation_a


def log_snr_uniform_times(schedule, steps):
    """Times 1000 .. (0 excluded) of the continuous cosine schedule, evenly spaced in log SNR."""
    ends = schedule.snr(torch.tensor([1000.0, 0.0])).double().log()
    level = torch.linspace(ends[0], ends[1], steps + 1, dtype=torch.float64).sigmoid()
    first, last = torch.tensor([0.95, 0.02], dtype=torch.float64).acos()
    return ((level.sqrt().acos() - first) / (last - first) * 1000)[:-1]


def start_noise():
    return torch.randn(64, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_thesis_grids():
    assert uniform_timesteps(200).tolist() == [t + 1 for t in range(0, 1000, 5)][::-1]
    assert uniform_timesteps(8).tolist() == [876, 751, 626, 501, 376, 251, 126, 1]
    assert uniform_timesteps(500).tolist()[-3:] == [5, 3, 1]
    assert editing_timesteps(40, 0.5).tolist()[:4] == [1, 12, 25, 38]
    assert editing_timesteps(40, 0.5).tolist()[-2:] == [487, 500]
    assert editing_timesteps(6, 0.5).tolist() == [1, 100, 200, 300, 400, 500]


@pytest.mark.parametrize("steps", [1, 3, 7, 20, 999, 1000])
def test_grids_have_the_steps_asked_for(steps):
    for grid in (uniform_timesteps(steps), uniform_timesteps(steps, spacing="trailing")):
        assert len(grid) == steps and grid.min() >= 0 and grid.max() <= 999
    assert uniform_timesteps(steps, spacing="trailing")[0] == 999


def test_strength_one_ends_at_the_last_time():
    assert editing_timesteps(10, 1.0)[-1] == 999


def test_ddim_error_halves_with_the_step():
    schedule = NoiseSchedule("continuous_cosine")
    x, errors = start_noise(), []
    exact = flow(schedule, x, 1000.0, 0.0)
    for steps in (40, 80, 160):
        made = DDIM(schedule).sample(
            gaussian_noise_predictor(schedule), x, log_snr_uniform_times(schedule, steps)
        )
        errors.append((made - exact).abs().max().item())
    assert errors[0] < 0.1
    assert 1.8 < errors[0] / errors[1] < 2.2 and 1.8 < errors[1] / errors[2] < 2.2


def test_samples_have_the_distribution_of_the_data():
    schedule = NoiseSchedule()
    generator = torch.Generator().manual_seed(0)
    for eta in (0.0, 1.0):
        x = torch.randn(4000, 1, generator=generator)
        made = DDIM(schedule, eta=eta, final_alpha="one").sample(
            gaussian_noise_predictor(schedule), x, uniform_timesteps(500), generator=generator
        )
        assert made.mean().item() == pytest.approx(MEAN, abs=0.03)
        assert made.std().item() == pytest.approx(DEVIATION, abs=0.03)


def test_inversion_follows_the_flow_and_denoising_leads_back():
    schedule = NoiseSchedule()
    clean = MEAN + DEVIATION * start_noise()
    predict, errors = gaussian_noise_predictor(schedule), []
    for steps in (50, 100, 200):
        times = editing_timesteps(steps, 0.5)
        noisy = DDIM(schedule).sample(predict, clean, times)
        back = DDIM(schedule).sample(predict, noisy, times.flip(0))
        errors.append((back - clean).abs().max().item())
    torch.testing.assert_close(noisy, flow(schedule, clean, 0, 500), rtol=0, atol=0.02)
    assert errors[-1] < 0.02 and errors[1] < 0.7 * errors[0] and errors[2] < 0.7 * errors[1]


def test_inversion_calls_the_network_at_the_time_it_goes_to():
    asked = []

    def predict(x, timesteps):
        asked.append(timesteps[0].item())
        return torch.zeros_like(x)

    times = editing_timesteps(5, 0.5)
    DDIM(NoiseSchedule()).sample(predict, torch.zeros(1, 1), times)
    assert asked == times.tolist()


def nonlinear_noise_predictor(x, timesteps):
    return torch.tanh(1.3 * x + 0.001 * timesteps.view(-1, 1, 1, 1)) + 0.1 * x.flip(3)


def peer_arguments():
    diffusers = pytest.importorskip("diffusers")
    betas = torch.linspace(0.0015**0.5, 0.0205**0.5, 1000, dtype=torch.float64).square().float().numpy()
    return diffusers, {
        "trained_betas": betas,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    }


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_agrees_with_diffusers_ddim(eta):
    diffusers, arguments = peer_arguments()
    peer = diffusers.DDIMScheduler(**arguments)
    peer.set_timesteps(25)
    times = uniform_timesteps(25)
    assert peer.timesteps.tolist() == times.tolist()
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected, generator = x, torch.Generator().manual_seed(1)
    for t in peer.timesteps:
        noise = nonlinear_noise_predictor(expected, t.expand(2))
        expected = peer.step(noise, t, expected, eta=eta, generator=generator).prev_sample
    made = DDIM(NoiseSchedule(), eta=eta).sample(
        nonlinear_noise_predictor, x, times, generator=torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_agrees_with_diffusers_inverse_ddim():
    diffusers, arguments = peer_arguments()
    peer = diffusers.DDIMInverseScheduler(**arguments)
    peer.set_timesteps(25)
    times = uniform_timesteps(25).flip(0)
    assert peer.timesteps.tolist() == times.tolist()
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = x
    for t in peer.timesteps:
        expected = peer.step(nonlinear_noise_predictor(expected, t.expand(2)), t, expected).prev_sample
    made = DDIM(NoiseSchedule()).sample(nonlinear_noise_predictor, x, times)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_last_step_without_noise_returns_the_predicted_data():
    schedule = NoiseSchedule()
    x0, noise = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([300])
    x = schedule.add_noise(x0[None], noise[None], times)
    made = DDIM(schedule, final_alpha="one").sample(lambda x, t: noise[None], x, times)
    torch.testing.assert_close(made, x0[None], rtol=1e-4, atol=1e-5)


def test_differentiable_through_all_steps():
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x = start_noise()[:2]

    def run(value):
        return DDIM(NoiseSchedule()).sample(lambda x, t: value * torch.tanh(x), x, uniform_timesteps(8)).sum()

    run(weight).backward()
    with torch.no_grad():
        slope = (run(weight + 1e-5) - run(weight - 1e-5)) / 2e-5
    torch.testing.assert_close(weight.grad, slope, rtol=1e-5, atol=0)


def test_one_generator_per_sample_makes_the_batch_size_invisible():
    schedule = NoiseSchedule()
    predict, times = gaussian_noise_predictor(schedule), uniform_timesteps(10)

    def run(seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        x = draw_noise(torch.zeros(len(seeds), 4), generators)
        return DDIM(schedule, eta=1.0).sample(predict, x, times, generator=generators)

    assert torch.equal(run([1, 2, 3]), torch.cat([run([1]), run([2]), run([3])]))
    assert not torch.equal(run([1]), run([2]))


def test_noise_is_the_same_in_every_precision():
    short = draw_noise(torch.zeros(2, 3, dtype=torch.bfloat16), torch.Generator().manual_seed(5))
    full = draw_noise(torch.zeros(2, 3), torch.Generator().manual_seed(5))
    assert torch.equal(short, full.bfloat16())


def test_callback_sees_every_step():
    seen = []
    made = DDIM(NoiseSchedule()).sample(
        lambda x, t: x, torch.ones(1, 1), uniform_timesteps(4), callback=lambda i, x: seen.append((i, x))
    )
    assert [index for index, _ in seen] == [0, 1, 2, 3] and torch.equal(seen[-1][1], made)


def test_bad_arguments_are_refused():
    schedule, x = NoiseSchedule(), torch.zeros(1, 1)
    with pytest.raises(TalkfaceError, match=r"timesteps: \[5, 9, 7\]"):
        DDIM(schedule).sample(lambda x, t: x, x, torch.tensor([5, 9, 7]))
    with pytest.raises(TalkfaceError, match=r"eta: 0.5; allowed: 0 for inversion"):
        DDIM(schedule, eta=0.5).sample(lambda x, t: x, x, torch.tensor([1, 9]))
    with pytest.raises(TalkfaceError, match="final_alpha: 'zero'"):
        DDIM(schedule, final_alpha="zero")
    with pytest.raises(TalkfaceError, match="num_inference_steps: 1001; allowed: 1 to 1000"):
        uniform_timesteps(1001)
    with pytest.raises(TalkfaceError, match=r"strength 1\.5"):
        editing_timesteps(10, 1.5)
    with pytest.raises(TalkfaceError, match="generators: 2; allowed: 1"):
        draw_noise(x, [torch.Generator(), torch.Generator()])
