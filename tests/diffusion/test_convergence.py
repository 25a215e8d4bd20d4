"""How fast errors fall with the step, on data with a known answer, in both directions."""

import itertools

import pytest

from talkface.diffusion.dpmpp import DPMSolverPP
from talkface.diffusion.plms import PLMS
from talkface.diffusion.schedule import NoiseSchedule
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import make_timesteps

SMOOTH = NoiseSchedule("continuous_cosine")
SOLVERS = {
    "ddim": (DDIM, {}, 1.8, 2.2),
    "ddim_thesis": (DDIM, {"compat": "thesis"}, 1.8, 2.3),
    "plms": (PLMS, {}, 3.5, 5.0),
    "dpmpp": (DPMSolverPP, {}, 3.5, 4.5),
}


def rms(error):
    return error.square().mean().sqrt().item()


@pytest.mark.parametrize("ascending", [False, True], ids=["denoise", "invert"])
@pytest.mark.parametrize("name", SOLVERS)
def test_halving_the_step_divides_the_error_by_two_to_the_order(gaussian_data, name, ascending):
    kind, arguments, least, most = SOLVERS[name]
    data, solver, errors = gaussian_data(SMOOTH), kind(SMOOTH, **arguments), []
    clean = data.draw()
    noisy = data.flow(clean, 0.0, 1000.0)
    start, exact = (clean, noisy) if ascending else (noisy, clean)
    for steps in (40, 80, 160):
        times = make_timesteps("log_snr", steps, SMOOTH, ascending=ascending)
        errors.append(rms(solver.sample(data, start, times) - exact))
    assert errors[0] < 0.1
    for coarse, fine in itertools.pairwise(errors):
        assert least < coarse / fine < most, errors


@pytest.mark.parametrize("kind", [DDIM, PLMS, DPMSolverPP])
def test_every_solver_reaches_data_without_any_noise(gaussian_data, kind):
    schedule = NoiseSchedule()
    data = gaussian_data(schedule)
    times = make_timesteps("log_snr", 60, schedule, 500)
    made = kind(schedule, final_alpha="one").sample(data, data.flow(data.draw(), None, 500), times)
    assert rms(made - data.draw()) < 0.02
    back = kind(schedule, final_alpha="one").sample(data, data.draw(), times.flip(0))
    assert rms(back - data.flow(data.draw(), None, 500)) < 0.03


@pytest.mark.parametrize("modes", [False, True], ids=["gaussian", "two_modes"])
def test_cycle_error_falls_with_the_order(gaussian_data, two_modes, modes):
    schedule = NoiseSchedule()
    data = (two_modes if modes else gaussian_data)(schedule)
    clean = data.draw()
    times = make_timesteps("log_snr", 40, schedule, 500, ascending=True)
    errors = {}
    for kind in (DDIM, DPMSolverPP, PLMS):
        solver = kind(schedule)
        errors[kind] = rms(solver.sample(data, solver.sample(data, clean, times), times.flip(0)) - clean)
    assert errors[DPMSolverPP] < 0.01 * errors[DDIM] and errors[PLMS] < 0.01 * errors[DDIM]


def test_ten_steps_of_second_order_cycle_better_than_forty_of_first(two_modes):
    schedule = NoiseSchedule()
    data = two_modes(schedule)
    clean, errors = data.draw(), []
    for solver, grid, steps in (
        (DDIM(schedule, compat="thesis"), "paper", 40),
        (DPMSolverPP(schedule), "log_snr", 10),
    ):
        times = make_timesteps(grid, steps, schedule, 500, ascending=True)
        errors.append(rms(solver.sample(data, solver.sample(data, clean, times), times.flip(0)) - clean))
    assert errors[1] < errors[0]


def test_rule_of_inversion_that_suits_the_grid(gaussian_data):
    """Table in the docstring of DDIM: "thesis" on the paper's grid, None on the even one."""
    schedule = NoiseSchedule()
    data = gaussian_data(schedule)
    clean, errors = data.draw(), {}
    for rule in (None, "thesis"):
        for grid in ("paper", "log_snr"):
            solver = DDIM(schedule, compat=rule)
            times = make_timesteps(grid, 40, schedule, 500, ascending=True)
            latents = solver.sample(data, clean, times)
            errors[rule, grid, "latents"] = rms(latents - data.flow(clean, 0, 500))
            errors[rule, grid, "cycle"] = rms(solver.sample(data, latents, times.flip(0)) - clean)
    for what in ("latents", "cycle"):
        assert errors["thesis", "paper", what] < 0.7 * errors[None, "paper", what]
        assert errors[None, "log_snr", what] < 0.8 * errors["thesis", "log_snr", what]
