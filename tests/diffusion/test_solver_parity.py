"""The solvers against those of `diffusers`, at the same noise levels, with a predictor that bends in x and t."""

import pytest
import torch

from talkface.diffusion.dpmpp import DPMSolverPP
from talkface.diffusion.plms import PLMS
from talkface.diffusion.schedule import NoiseSchedule
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import uniform_timesteps

diffusers = pytest.importorskip("diffusers")
SCHEDULE = NoiseSchedule()


def predict_noise(x, timesteps):
    return torch.tanh(1.3 * x + 0.001 * timesteps.view(-1, 1, 1, 1)) + 0.1 * x.flip(3)


def start(dtype=torch.float64):
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)


def peer(kind, **arguments):
    """A scheduler on the thesis's betas; its levels are ours to the last bit, so that only steps are compared."""
    betas = torch.linspace(0.0015**0.5, 0.0205**0.5, 1000, dtype=torch.float64).square().float().numpy()
    scheduler = getattr(diffusers, kind)(trained_betas=betas, **arguments)
    ours = SCHEDULE.alpha_bar(torch.arange(1000))
    torch.testing.assert_close(scheduler.alphas_cumprod, ours, rtol=2e-5, atol=0)
    scheduler.alphas_cumprod = ours.double()
    for name in ("final_alpha_cumprod", "initial_alpha_cumprod"):
        if hasattr(scheduler, name) and not arguments.get("set_alpha_to_one"):
            setattr(scheduler, name, scheduler.alphas_cumprod[0])
    return scheduler


def run(scheduler, x, level_of=lambda t: t, **arguments):
    for t in scheduler.timesteps:
        noise = predict_noise(x, level_of(t).expand(2))
        x = scheduler.step(noise, t, x, **arguments).prev_sample
    return x


def agree(made, expected, dtype=torch.float64):
    assert made.dtype == dtype
    torch.testing.assert_close(made, expected.to(dtype), rtol=1e-5, atol=1e-5)


LEADING = {"set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("final_alpha", ["first", "one"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim(eta, final_alpha, dtype):
    scheduler = peer(
        "DDIMScheduler", **{**LEADING, "set_alpha_to_one": final_alpha == "one"}, clip_sample=False
    )
    scheduler.set_timesteps(25)
    times = uniform_timesteps(25)
    assert scheduler.timesteps.tolist() == times.tolist()
    expected, noises = start(dtype), torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        fresh = torch.randn(2, 3, 4, 4, generator=noises).to(dtype)
        expected = scheduler.step(
            predict_noise(expected, t.expand(2)), t, expected, eta=eta, variance_noise=fresh if eta else None
        ).prev_sample
    made = DDIM(SCHEDULE, eta=eta, final_alpha=final_alpha).sample(
        predict_noise, start(dtype), times, generator=torch.Generator().manual_seed(1)
    )
    agree(made, expected, dtype)


@pytest.mark.parametrize("compat", [None, "thesis"])
def test_inverse_ddim(compat):
    """Its step leads from t - 40 to t; its pipelines ask for the noise at t, the thesis's quirk."""
    scheduler = peer("DDIMInverseScheduler", **LEADING, clip_sample=False)
    scheduler.set_timesteps(25)
    times = uniform_timesteps(25).flip(0)
    assert scheduler.timesteps.tolist() == times.tolist()
    asked_at = (lambda t: t) if compat == "thesis" else (lambda t: (t - 40).clamp(min=0))
    made = DDIM(SCHEDULE, compat=compat).sample(predict_noise, start(), times)
    agree(made, run(scheduler, start(), asked_at))


@pytest.mark.parametrize("steps", [2, 3, 5, 25])
@pytest.mark.parametrize("final_alpha", ["first", "one"])
def test_plms(steps, final_alpha):
    scheduler = peer(
        "PNDMScheduler", **{**LEADING, "set_alpha_to_one": final_alpha == "one"}, skip_prk_steps=True
    )
    scheduler.set_timesteps(steps)
    made = PLMS(SCHEDULE, final_alpha=final_alpha).sample(
        predict_noise, start(), torch.from_numpy(scheduler._timesteps[::-1].copy()).long()
    )
    agree(made, run(scheduler, start()))


@pytest.mark.parametrize("steps", [2, 10, 25])
@pytest.mark.parametrize("lower_order_final", [True, False])
@pytest.mark.parametrize("final_alpha", ["first", "one"])
def test_dpm_solver(final_alpha, lower_order_final, steps):
    scheduler = peer(
        "DPMSolverMultistepScheduler",
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=lower_order_final,
        final_sigmas_type="zero" if final_alpha == "one" else "sigma_min",
    )
    scheduler.set_timesteps(steps)
    solver = DPMSolverPP(SCHEDULE, final_alpha=final_alpha, lower_order_final=lower_order_final)
    agree(solver.sample(predict_noise, start(), scheduler.timesteps), run(scheduler, start()))


def test_inverse_dpm_solver():
    """It starts at the level of time 0, so its last step, to 999, is named apart."""
    scheduler = peer(
        "DPMSolverMultistepInverseScheduler",
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
    )
    scheduler.set_timesteps(25)
    times = torch.cat([scheduler.timesteps, torch.tensor([999])])
    agree(DPMSolverPP(SCHEDULE).sample(predict_noise, start(), times), run(scheduler, start()))
