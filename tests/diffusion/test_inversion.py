import pytest
import torch

from talkface.conditioning.base import Conditioning
from talkface.diffusion.dpmpp import DPMSolverPP
from talkface.diffusion.guidance import ClassifierFreeGuidance
from talkface.diffusion.inversion import invert_and_denoise
from talkface.diffusion.plms import PLMS
from talkface.diffusion.schedule import NoiseSchedule
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import make_timesteps
from talkface.errors import TalkfaceError

SCHEDULE = NoiseSchedule()
DEVIATION = 0.4
SAD, HAPPY, NULL = -1.0, 1.0, 0.0


def network(x, timesteps, conditioning):
    """Best predictor for classes N(mean, 0.4^2), the mean being the conditioning; its null is N(0, 1.2^2)."""
    mean = conditioning.embedding.to(x)
    deviation = torch.where(mean == NULL, 3 * DEVIATION, DEVIATION)
    signal, sigma = SCHEDULE.signal_and_noise(timesteps, x)
    return sigma * (x - signal * mean) / (signal**2 * deviation**2 + sigma**2)


def predictor(mean, scale, batch=8):
    full = Conditioning(embedding=torch.full((batch, 1), mean))
    null = Conditioning(embedding=torch.full((batch, 1), NULL))
    return ClassifierFreeGuidance(network, SCHEDULE, "epsilon", full, {"emotion": null}, {"emotion": scale})


def pictures():
    return SAD + DEVIATION * torch.randn(
        8, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


TIMES = make_timesteps("log_snr", 40, SCHEDULE, 500, ascending=True)


@pytest.mark.parametrize("solver", [DPMSolverPP(SCHEDULE), PLMS(SCHEDULE)])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_cycle_returns_the_picture(solver, scale):
    same = predictor(SAD, scale)
    latents, result = invert_and_denoise(solver, pictures(), TIMES, same, same)
    torch.testing.assert_close(result, pictures(), rtol=0, atol=2e-3)
    assert (latents - pictures()).abs().max() > 0.1


def test_another_target_moves_each_picture_to_its_place_in_the_other_class():
    """From t_0 = 999 nothing of the mean is left, so a picture keeps its distance from the class's mean."""
    times = make_timesteps("log_snr", 60, SCHEDULE, ascending=True)
    made = invert_and_denoise(
        DPMSolverPP(SCHEDULE), pictures(), times, predictor(SAD, 1), predictor(HAPPY, 1)
    )
    torch.testing.assert_close(made.result, pictures() - SAD + HAPPY, rtol=0, atol=0.03)


def test_more_strength_and_more_guidance_move_further():
    solver = DPMSolverPP(SCHEDULE)

    def mean(strength, source_scale, target_scale):
        times = make_timesteps("log_snr", 30, SCHEDULE, strength, ascending=True)
        source, target = predictor(SAD, source_scale), predictor(HAPPY, target_scale)
        return invert_and_denoise(solver, pictures(), times, source, target).result.mean().item()

    assert SAD < mean(200, 1, 1) < mean(400, 1, 1) < mean(600, 1, 1)
    assert mean(400, 1, 1) < mean(400, 1, 2) < mean(400, 1, 3)
    # guiding the inversion as well takes the latents further to the source's side
    assert mean(400, 3, 1) != pytest.approx(mean(400, 1, 1), abs=0.05)


def test_each_way_uses_its_own_predictor_and_the_same_times():
    asked = []

    def remember(name):
        def predict(x, timesteps):
            asked.append((name, timesteps[0].item()))
            return torch.zeros_like(x)

        return predict

    seen = []
    times = torch.tensor([1, 100, 200])
    invert_and_denoise(
        DDIM(SCHEDULE, compat="thesis"),
        torch.zeros(2, 1),
        times,
        remember("source"),
        remember("target"),
        callback=lambda index, x: seen.append(index),
    )
    assert asked == [("source", t) for t in (1, 100, 200)] + [("target", t) for t in (200, 100, 1)]
    assert seen == list(range(6))


def test_one_step_inverts():
    times = make_timesteps("paper", 1, SCHEDULE, 500, ascending=True)
    latents, result = invert_and_denoise(
        DDIM(SCHEDULE), pictures(), times, predictor(SAD, 1), predictor(SAD, 1)
    )
    assert (latents - pictures()).abs().max() > 0.1
    assert (result - pictures()).abs().max() < (latents - pictures()).abs().max()


def test_noise_on_the_way_back_comes_from_the_generator():
    def run(seed):
        return invert_and_denoise(
            DDIM(SCHEDULE),
            pictures(),
            TIMES,
            predictor(SAD, 1),
            predictor(HAPPY, 1),
            denoiser=DDIM(SCHEDULE, eta=1.0),
            generator=torch.Generator().manual_seed(seed),
        )

    assert torch.equal(run(0).result, run(0).result) and torch.equal(run(0).latents, run(1).latents)
    assert not torch.equal(run(0).result, run(1).result)


def test_gradients_reach_both_predictors():
    source, target = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, 0.6))
    times = make_timesteps("log_snr", 5, SCHEDULE, 300, ascending=True)
    made = invert_and_denoise(
        DPMSolverPP(SCHEDULE),
        pictures(),
        times,
        lambda x, t: source * torch.tanh(x),
        lambda x, t: target * torch.tanh(x),
    )
    made.result.sum().backward()
    assert source.grad.abs() > 1e-3 and target.grad.abs() > 1e-3


def test_descending_times_are_refused():
    with pytest.raises(TalkfaceError, match="strictly ascending"):
        invert_and_denoise(
            DDIM(SCHEDULE), pictures(), torch.tensor([9, 1]), predictor(SAD, 1), predictor(SAD, 1)
        )
