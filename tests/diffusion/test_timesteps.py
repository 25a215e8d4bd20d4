import pytest
import torch

from talkface.diffusion.dpmpp import DPMSolverPP
from talkface.diffusion.schedule import SCHEDULE_KINDS, NoiseSchedule
from talkface.diffusion.timesteps import GRIDS, editing_timesteps, make_timesteps, uniform_timesteps
from talkface.errors import TalkfaceError
from talkface.networks.unet import UNet

SCHEDULE = NoiseSchedule()


def test_thesis_grids():
    assert uniform_timesteps(200).tolist() == [t + 1 for t in range(0, 1000, 5)][::-1]
    assert uniform_timesteps(8).tolist() == [876, 751, 626, 501, 376, 251, 126, 1]
    assert uniform_timesteps(500).tolist()[-3:] == [5, 3, 1]
    assert editing_timesteps(40, 500).tolist()[:4] == [1, 12, 25, 38]
    assert editing_timesteps(40, 500).tolist()[-2:] == [487, 500]
    assert editing_timesteps(6, 500).tolist() == [1, 100, 200, 300, 400, 500]
    assert make_timesteps("paper", 40, SCHEDULE, 500).tolist() == editing_timesteps(40, 500).tolist()[::-1]


@pytest.mark.parametrize("steps", [20, 40, 80])
@pytest.mark.parametrize("strength", [400, 500, 600])
def test_paper_grid_is_the_formula_of_the_thesis(steps, strength):
    formula = [int(share * strength + 1e-6) for share in torch.linspace(0, 1, steps, dtype=torch.float64)]
    assert editing_timesteps(steps, strength).tolist() == [1, *formula[1:]]


@pytest.mark.parametrize("steps", [1, 3, 7, 20, 999, 1000])
def test_uniform_grids_have_the_steps_asked_for(steps):
    for grid in (uniform_timesteps(steps), uniform_timesteps(steps, spacing="trailing")):
        assert len(grid) == steps and grid.min() >= 0 and grid.max() <= 999
        assert (grid.diff() < 0).all()
    assert uniform_timesteps(steps, spacing="trailing")[0] == 999


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("strength", "steps"), [(1, 1), (2, 2), (7, 5), (500, 40), (500, 500), (1000, 999)])
def test_every_grid_ascends_within_its_strength(grid, kind, strength, steps):
    schedule = NoiseSchedule(kind)
    times = make_timesteps(grid, steps, schedule, strength, ascending=True)
    wanted = torch.cat([times.new_zeros(1), times[-1:]]) if steps == 1 else times
    assert torch.equal(times, wanted)
    times = times[-steps:]
    assert len(times) == steps and (times.diff() > 0).all() and times[0] >= 0
    assert times[-1] <= min(strength, schedule.max_timestep)
    assert torch.equal(make_timesteps(grid, steps, schedule, strength), times.flip(0))
    if grid != "leading":
        assert times[-1] == (
            min(strength, 999) if grid != "log_snr" else min(strength, schedule.max_timestep)
        )


def test_the_whole_range_is_the_default():
    for grid in ("leading", "trailing"):
        assert torch.equal(make_timesteps(grid, 30, SCHEDULE), uniform_timesteps(30, spacing=grid))
    for strength in (1000, None):
        assert make_timesteps("paper", 10, SCHEDULE, strength)[0] == 999
        assert make_timesteps("log_snr", 10, SCHEDULE, strength)[0] == 999


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_log_snr_grid_is_even_with_the_clean_end(kind):
    schedule = NoiseSchedule(kind)
    times = make_timesteps("log_snr", 25, schedule, 600, ascending=True)
    steps = schedule.snr(torch.cat([torch.zeros(1), times])).double().log().diff()
    torch.testing.assert_close(steps, steps.mean().expand(25), rtol=2e-3, atol=0)


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_times_of_levels_are_the_inverse_of_levels_of_times(kind):
    schedule = NoiseSchedule(kind)
    times = torch.tensor([[0.0, 0.4, 17.25], [431.9, 900.0, schedule.max_timestep]])
    found = schedule.timesteps_at(schedule.snr(times).double().log())
    torch.testing.assert_close(found, times, rtol=1e-4, atol=0.02)
    assert schedule.timesteps_at(torch.tensor([99.0, -99.0])).tolist() == [0.0, schedule.max_timestep]


def test_networks_take_fractional_times():
    torch.manual_seed(0)
    network = UNet(
        in_channels=3,
        out_channels=3,
        model_channels=32,
        channel_mult=(1,),
        num_res_blocks=1,
        attention_downsamples=(),
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 3, 8, 8)
    times = make_timesteps("log_snr", 4, SCHEDULE, 500, ascending=True)
    assert (times != times.round()).sum() == 3
    with torch.no_grad():
        low, between, high = (network(x, torch.tensor([t]), None) for t in (100.0, 100.5, 101.0))
        made = DPMSolverPP(SCHEDULE).sample(lambda x, t: network(x, t, None), x, times)
    for whole in (low, high):
        assert (between - whole).abs().max() > 1e-3
    assert made.shape == x.shape and made.isfinite().all()


def test_bad_arguments_are_refused():
    for strength in (0, 1001, 0.5, -3, 500.5, float("nan")):
        with pytest.raises(
            TalkfaceError, match=rf"strength: {strength}; allowed: whole timesteps, 1 to 1000"
        ):
            make_timesteps("paper", 1, SCHEDULE, strength)
        with pytest.raises(TalkfaceError, match="strength"):
            editing_timesteps(1, strength)
    for grid in GRIDS:
        for steps in (0, 31):
            with pytest.raises(TalkfaceError, match=f"num_inference_steps: {steps} .*allowed: 1 to 30"):
                make_timesteps(grid, steps, SCHEDULE, 30)
    with pytest.raises(TalkfaceError, match="1000 with strength 1000; allowed: 1 to 999"):
        make_timesteps("paper", 1000, SCHEDULE)
    with pytest.raises(TalkfaceError, match="grid: 'even'; allowed: leading, trailing, paper, log_snr"):
        make_timesteps("even", 5, SCHEDULE)
    with pytest.raises(TalkfaceError, match="num_inference_steps: 1001; allowed: 1 to 1000"):
        uniform_timesteps(1001)
    with pytest.raises(TalkfaceError, match="timestep spacing: 'even'"):
        uniform_timesteps(10, spacing="even")
