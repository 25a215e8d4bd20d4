"""What all solvers share, and DDIM; how exact they are: test_convergence.py, test_solver_parity.py."""

import pytest
import torch

from talkface.diffusion.base import draw_noise
from talkface.diffusion.dpmpp import DPMSolverPP
from talkface.diffusion.plms import PLMS
from talkface.diffusion.schedule import NoiseSchedule
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import editing_timesteps, make_timesteps, uniform_timesteps
from talkface.errors import TalkfaceError

SCHEDULE = NoiseSchedule()
SOLVERS = [DDIM, PLMS, DPMSolverPP]


def remembering(asked):
    def predict(x, timesteps):
        asked.append(timesteps[0].item())
        return torch.tanh(x)

    return predict


def test_samples_have_the_distribution_of_the_data(gaussian_data):
    data = gaussian_data(SCHEDULE)
    generator = torch.Generator().manual_seed(0)
    for eta in (0.0, 1.0):
        x = torch.randn(4000, 1, generator=generator)
        made = DDIM(SCHEDULE, eta=eta, final_alpha="one").sample(
            data, x, uniform_timesteps(500), generator=generator
        )
        assert made.mean().item() == pytest.approx(data.mean, abs=0.03)
        assert made.std().item() == pytest.approx(data.deviation, abs=0.03)


@pytest.mark.parametrize(
    ("solver", "inverting", "denoising"),
    [
        (DDIM(SCHEDULE), [0, 1, 100, 200], [300, 200, 100, 1]),
        (DDIM(SCHEDULE, compat="thesis"), [1, 100, 200, 300], [300, 200, 100, 1]),
        (PLMS(SCHEDULE), [0, 1, 1, 100, 200], [300, 200, 200, 100, 1]),
        (DPMSolverPP(SCHEDULE), [0, 1, 100, 200], [300, 200, 100, 1]),
    ],
)
def test_times_at_which_the_network_is_asked(solver, inverting, denoising):
    for times, expected in (([1, 100, 200, 300], inverting), ([300, 200, 100, 1], denoising)):
        asked = []
        solver.sample(remembering(asked), torch.zeros(1, 1), torch.tensor(times))
        assert asked == expected


@pytest.mark.parametrize("kind", SOLVERS)
def test_the_clean_end_takes_no_step(kind):
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    for times in ([0, 40, 90, 200], [200, 90, 40, 0]):
        asked, without = [], [time for time in times if time]
        made = kind(SCHEDULE).sample(remembering(asked), x, torch.tensor(times))
        assert torch.equal(made, kind(SCHEDULE).sample(remembering([]), x, torch.tensor(without)))
        assert len(asked) == 3 + (kind is PLMS)


@pytest.mark.parametrize("final_alpha", ["first", "one"])
@pytest.mark.parametrize("kind", SOLVERS)
def test_a_single_step_is_one_of_ddim(kind, final_alpha):
    x, times, asked = torch.ones(2, 3, dtype=torch.float64), torch.tensor([300]), []
    made = kind(SCHEDULE, final_alpha=final_alpha).sample(remembering(asked), x, times)
    ddim = DDIM(SCHEDULE, final_alpha=final_alpha).sample(remembering([]), x, times)
    assert asked == [300] and torch.equal(made, ddim)


@pytest.mark.parametrize("kind", SOLVERS)
def test_a_solver_remembers_nothing_between_calls(kind):
    solver, x, times = kind(SCHEDULE), torch.ones(2, 3), uniform_timesteps(9)
    first = solver.sample(remembering([]), x, times)
    solver.sample(lambda x, t: -x, 3 * x, times)
    assert torch.equal(solver.sample(remembering([]), x, times), first)


@pytest.mark.parametrize("kind", SOLVERS)
def test_last_step_without_noise_returns_the_predicted_data(kind):
    x0, noise = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0))
    for times in (torch.tensor([300]), torch.tensor([300, 200, 10])):
        x = SCHEDULE.add_noise(x0[None], noise[None], times[:1])
        made = kind(SCHEDULE, final_alpha="one").sample(lambda x, t: noise[None], x, times)
        torch.testing.assert_close(made, x0[None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("kind", SOLVERS)
def test_differentiable_through_all_steps(kind, ascending):
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[0.3], [-1.2]], dtype=torch.float64)
    times = make_timesteps("leading", 8, SCHEDULE, ascending=ascending)

    def run(value):
        return kind(SCHEDULE).sample(lambda x, t: value * torch.tanh(x), x, times).sum()

    run(weight).backward()
    with torch.no_grad():
        slope = (run(weight + 1e-6) - run(weight - 1e-6)) / 2e-6
    torch.testing.assert_close(weight.grad, slope, rtol=1e-5, atol=0)


def test_one_generator_per_sample_makes_the_batch_size_invisible(gaussian_data):
    predict, times = gaussian_data(SCHEDULE), uniform_timesteps(10)

    def run(seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        x = draw_noise(torch.zeros(len(seeds), 4), generators)
        return DDIM(SCHEDULE, eta=1.0).sample(predict, x, times, generator=generators)

    assert torch.equal(run([1, 2, 3]), torch.cat([run([1]), run([2]), run([3])]))
    assert not torch.equal(run([1]), run([2]))


def test_noise_is_the_same_in_every_precision():
    short = draw_noise(torch.zeros(2, 3, dtype=torch.bfloat16), torch.Generator().manual_seed(5))
    full = draw_noise(torch.zeros(2, 3), torch.Generator().manual_seed(5))
    assert torch.equal(short, full.bfloat16())


@pytest.mark.parametrize("kind", SOLVERS)
def test_callback_sees_every_step(kind):
    seen = []
    made = kind(SCHEDULE).sample(
        lambda x, t: x, torch.ones(1, 1), uniform_timesteps(4), callback=lambda i, x: seen.append((i, x))
    )
    assert [index for index, _ in seen] == [0, 1, 2, 3] and torch.equal(seen[-1][1], made)


@pytest.mark.parametrize("kind", SOLVERS)
def test_times_that_lead_nowhere_are_refused(kind):
    for times, message in (
        ([5, 9, 7], r"timesteps: \[5, 9, 7\]"),
        ([9, 9], r"timesteps: \[9, 9\]"),
        ([], r"timesteps: \[\]"),
        ([1000, 500], "timesteps: 500 to 1000; allowed: 0 to 999"),
        ([-1, 500], "timesteps: -1 to 500; allowed: 0 to 999"),
    ):
        with pytest.raises(TalkfaceError, match=message):
            kind(SCHEDULE).sample(lambda x, t: x, torch.zeros(1, 1), torch.tensor(times))


def test_bad_arguments_are_refused():
    x = torch.zeros(1, 1)
    with pytest.raises(TalkfaceError, match=r"eta: 0.5; allowed: 0 for inversion"):
        DDIM(SCHEDULE, eta=0.5).sample(lambda x, t: x, x, editing_timesteps(2, 9))
    with pytest.raises(TalkfaceError, match=r"eta: -0.5; allowed: 0"):
        DDIM(SCHEDULE, eta=-0.5)
    with pytest.raises(TalkfaceError, match="compat: 'paper'; allowed: None, 'thesis'"):
        DDIM(SCHEDULE, compat="paper")
    for kind in SOLVERS:
        with pytest.raises(TalkfaceError, match="final_alpha: 'zero'"):
            kind(SCHEDULE, final_alpha="zero")
    with pytest.raises(TalkfaceError, match="generators: 2; allowed: 1"):
        draw_noise(x, [torch.Generator(), torch.Generator()])
