"""Finetuning with a lip reader: where the solver starts, what the reader sees, what is learned, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from talkface.conditioning.audio import AudioConditioner
from talkface.conditioning.base import ConditionerSet
from talkface.conditioning.frames import FramesConditioner
from talkface.diffusion.schedule import NoiseSchedule
from talkface.errors import TalkfaceError
from talkface.experts.lipreading import LipReader
from talkface.experts.registry import fingerprint
from talkface.experts.sync import SyncNetwork
from talkface.networks.unet import UNet
from talkface.networks.vqgan import IdentityFirstStage
from talkface.training.lip_finetune import LipFinetuneModule
from talkface.training.lip_objective import LipObjective
from talkface.training.sequences import in_range, per_frame
from talkface.training.start import step_generator

SIZE, FRAMES = 32, 6


def reader(**options: Any) -> LipReader:
    """The public readers' parts, a hundredth of their width."""
    made = LipReader(
        ["<blank>", "a", "b", "<eos>"], channels=4, blocks=(1, 1, 1, 1), dim=16, heads=2, hidden=16, layers=1,
        kernel=3, reduce=4, **options,
    )  # fmt: skip
    return made.eval()


def module(objective: LipObjective | None = None, **options: Any) -> LipFinetuneModule:
    conditioner = ConditionerSet(
        {
            "audio": AudioConditioner(
                feature_dim=6, window=2, mode="tokens", dim=8, embedding_dim=8, drop_rate=0.5
            ),
            "frames": FramesConditioner(latent_size=SIZE),
            "guide": FramesConditioner(latent_size=SIZE, order=["guide"], drop_rate=0.5),
        }
    )
    network = UNet(
        in_channels=12, out_channels=3, model_channels=16, channel_mult=(1, 1), num_res_blocks=1,
        attention_downsamples=(2,), num_head_channels=8, context_dim=8, embedding_dim=8, image_size=SIZE,
    )  # fmt: skip
    with (
        torch.no_grad()
    ):  # an untrained network answers 0, and then nothing before its last layer has a gradient
        network.out[-1].weight.normal_(std=0.05)
    settings: dict[str, Any] = {"tune_steps": 3, "prediction_type": "velocity"}
    return LipFinetuneModule(
        objective=objective or LipObjective(reader()),
        network=network,
        first_stage=IdentityFirstStage(),
        schedule=NoiseSchedule(),
        conditioner=conditioner,
        **{**settings, **options},
    )


def face_points() -> Tensor:
    """(68, 2): a face as wide as the picture; only the proportions of eyes, nose and mouth matter."""
    points = np.zeros((68, 2), np.float32)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    points[0:17] = np.stack([np.linspace(3, 29, 17), 16 + 13 * np.sin(np.linspace(0, np.pi, 17))], 1)
    points[17:27] = np.stack([np.linspace(7, 25, 10), np.full(10, 8.0)], 1)
    points[27:36] = [
        [16, 11], [16, 13], [16, 15], [16, 17], [13.5, 18], [15, 18.5], [16, 19], [17, 18.5], [18.5, 18],
    ]  # fmt: skip
    for first, centre in ((36, 11.0), (42, 21.0)):
        points[first : first + 6] = np.stack(
            [centre - 2.2 * np.cos(angles[::2]), 12 - 1.2 * np.sin(angles[::2])], 1
        )
    points[48:60] = np.stack([16 - 5 * np.cos(angles), 23.5 - 2.5 * np.sin(angles)], 1)
    points[60:68] = np.stack([16 - 3.5 * np.cos(angles[:8] * 1.5), 23.5 - np.sin(angles[:8] * 1.5)], 1)
    return torch.from_numpy(points)


def batch(count: int = 2) -> dict[str, Tensor]:
    """Smooth moving pictures; the guide is another one."""
    draw = torch.Generator().manual_seed(1)
    rough = torch.rand(count * FRAMES, 3, 4, 4, generator=draw) * 2 - 1
    target = nn.functional.interpolate(rough, size=SIZE, mode="bicubic").clamp(-1, 1)
    target = target.unflatten(0, (count, FRAMES))
    mask = torch.zeros(count, FRAMES, 1, SIZE, SIZE)
    mask[..., SIZE // 2 :, :] = 1
    return {
        "target": target,
        "mask": mask,
        "masked": target * (1 - mask) - mask,
        "guide": torch.where(mask > 0.5, target.roll(1, 0), target),
        "reference": target[:, 0].flip(1),
        "audio": torch.randn(count, FRAMES, 5, 6, generator=draw),
        "points": face_points().expand(count, FRAMES, -1, -1).clone(),
        "clip": torch.arange(count),
        "sound": torch.randn(count, 16000 * FRAMES // 25 + 16000, generator=draw) * 0.1,
    }


def test_the_solver_starts_at_the_time_of_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that knows the noise gets the latents back from any t; one that starts elsewhere cannot."""
    tuned = module(prediction_type="epsilon")
    data = batch()
    asked: list[list[float]] = []
    noised: list[Tensor] = []
    add = tuned.schedule.add_noise

    def add_noise(x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        noised.append(noise)
        asked.append([])
        asked[-1].append(float(timesteps[0]))
        return add(x0, noise, timesteps)

    def knows(x: Tensor, timesteps: Tensor, conditioning: Any) -> Tensor:
        asked[-1].append(float(timesteps[0]))
        return noised[-1]

    monkeypatch.setattr(tuned.schedule, "add_noise", add_noise)
    monkeypatch.setattr(tuned.network, "forward", knows)
    clean, inputs, _ = tuned.tune(data, step_generator(0, 0), drop=False)
    assert torch.allclose(clean, inputs["target_latents"], atol=2e-3)
    assert len(asked) == 2 and asked[0][0] != asked[1][0]  # each sequence has its own time
    for noised_to, *visited in asked:
        assert visited[0] == noised_to and len(visited) == 3 and visited == sorted(visited, reverse=True)
        stride = (noised_to + 1) / 3
        assert visited == pytest.approx([noised_to, noised_to - stride, noised_to - 2 * stride], abs=1)


def test_one_step_is_the_clean_prediction() -> None:
    tuned = module(tune_steps=1, timesteps=[999], checkpointing=False)
    data = batch(1)
    clean, inputs, _ = tuned.tune(data, step_generator(0, 0), drop=False)
    generator = step_generator(0, 0)
    torch.randint(1, (1,), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    times = torch.full((FRAMES,), 999)
    noisy = tuned.schedule.add_noise(inputs["target_latents"], noise, times)
    output = tuned.network(noisy, times, tuned.conditioner(inputs))
    assert torch.allclose(clean, tuned.schedule.to_x0(output, noisy, times, "velocity"), atol=1e-4)


@pytest.mark.parametrize("steps", [1, 4])
def test_gradients_reach_the_network_and_not_the_reader(steps: int) -> None:
    expert = reader()
    before = fingerprint(expert)
    tuned = module(
        LipObjective(expert, features="sequence", reading=1.0), tune_steps=steps, latent_weight=0.0
    )
    tuned.train()
    assert not expert.training  # the statistics of its batch normalisation stay
    tuned.loss(batch(1), step_generator(0, 0), drop=True).backward()
    moved = [p for p in tuned.network.parameters() if p.grad is not None and float(p.grad.abs().max()) > 0]
    assert len(moved) > 10
    assert all(parameter.grad is None for parameter in expert.parameters())
    assert fingerprint(expert) == before
    kept = {name.partition(".")[0] for name in tuned.state_dict()}
    assert kept == {"network", "conditioner"}, "experts are not saved with the model"


def test_recomputed_steps_have_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (True, False):
        torch.manual_seed(0)
        tuned = module(checkpointing=checkpointing)
        tuned.loss(batch(1), step_generator(3), drop=True).backward()
        gradients.append([p.grad for p in tuned.network.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_a_true_film_costs_nothing_and_a_still_one_does() -> None:
    objective = LipObjective(
        reader(), perceptual=Squares(), reading=1.0, pixel=1.0, perceptual_weight=1.0, temporal=1.0
    )
    data = batch()
    film = data["target"]
    same = objective.terms(film, film, film, data)
    assert set(same) == {"reading", "pixel", "perceptual", "temporal"}
    assert all(float(value) == pytest.approx(0.0, abs=1e-5) for value in same.values())
    still = film[:, :1].expand_as(film)
    other = objective.terms(still, still, film, data)
    assert all(float(value) > 1e-3 for value in other.values())


class Squares(nn.Module):
    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return (images - others).square().mean(dim=(1, 2, 3))


def test_sound_of_the_middle_of_the_sequence_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = SyncNetwork(5, actions=["jawOpen"], speech_channels=8, dilations=(1,), dim=8, width=8)
    asked: list[float] = []
    windows = SyncNetwork.sound_windows

    def sound_windows(self, samples: Tensor, rate: int, times: Tensor) -> Tensor:
        asked.extend(times.tolist())
        return windows(self, samples, rate, times)

    monkeypatch.setattr(SyncNetwork, "sound_windows", sound_windows)
    objective = LipObjective(None, sync, sync_weight=1.0)
    assert objective.guided_by == [fingerprint(sync)]
    objective.check_rate(30.0)  # it is the reader that asks for a rate
    data = batch(1)
    film = data["target"].clone().requires_grad_(True)
    terms = objective.terms(film, film, film, data)
    assert set(terms) == {"sync"} and float(terms["sync"]) > 0
    terms["sync"].backward()
    assert float(film.grad[:, :5].abs().max()) > 0 and float(film.grad[:, 5:].abs().max()) == 0
    # frames 0 .. 4 of 6: their middle is half a frame before the middle of the sound
    assert asked == [pytest.approx(data["sound"].shape[1] / 2 / 16000 - 0.5 / 25)]
    with pytest.raises(TalkfaceError, match="sequence_length: 6; allowed: 16 or more"):
        long = SyncNetwork(16, actions=["jawOpen"], speech_channels=8, dilations=(1,), dim=8, width=8)
        LipObjective(reader(), long, reading=0.0).terms(film, film, film, data)


def test_what_is_shown_lies_over_the_guide() -> None:
    tuned = module(over_guide=True, window=(4, 16, 28, 32))
    data = batch()
    inputs = tuned.encode(per_frame(data))[1]
    shown = tuned.shown(inputs["guide_latents"], inputs, {})
    assert torch.allclose(shown, data["guide"].flatten(0, 1)[:, :, 16:32, 4:28], atol=1e-6)
    lost = torch.zeros(len(shown), dtype=torch.bool)
    lost[0] = True
    painted = inputs["guide_latents"] * 0.5
    inputs["guide"] = inputs["guide"] * 0.8
    shown = tuned.shown(painted, inputs, {"guide": lost})
    assert torch.allclose(shown[0], painted[0, :, 16:32, 4:28], atol=1e-6)
    assert not torch.allclose(shown[1], painted[1, :, 16:32, 4:28], atol=1e-2)
    film = tuned.window.paste(shown, inputs["target"])
    assert torch.equal(film[:, :, :16], inputs["target"][:, :, :16])
    assert torch.equal(film[:, :, 16:, 4:28], shown)


def test_a_pixel_out_of_range_keeps_its_gradient() -> None:
    picture = torch.tensor([-3.0, 0.5, 2.0], requires_grad=True)
    clamped = in_range(picture)
    assert clamped.tolist() == [-1.0, 0.5, 1.0]
    clamped.sum().backward()
    assert picture.grad.tolist() == [1.0, 1.0, 1.0]


def test_frames_of_a_sequence_lose_conditions_together() -> None:
    tuned = module()
    _, _, drops = tuned.tune(batch(2), step_generator(5), drop=True)
    for lost in drops.values():
        assert lost.shape == (2 * FRAMES,)
        assert all(len(set(part.tolist())) == 1 for part in lost.split(FRAMES))


def test_guidance_changes_what_is_made() -> None:
    data = batch(1)
    plain, guided = (
        module(scales=scales).tune(data, step_generator(1), False)[0] for scales in ({}, {"audio": 3.0})
    )
    torch.manual_seed(0)
    assert plain.shape == guided.shape and not torch.equal(plain, guided)


def test_an_overfitted_batch_is_read_better() -> None:
    torch.manual_seed(0)
    tuned = module(
        LipObjective(reader(), features="sequence"), tune_steps=2, timesteps=[600], learning_rate=1e-2,
        weight_decay=0.0, latent_weight=0.1,
    )  # fmt: skip
    data = batch(1)
    optimizer = tuned.configure_optimizers()
    losses = []
    for _ in range(12):
        loss = tuned.loss(data, step_generator(0, 0), drop=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"tune_steps": 8, "timesteps": [5, 900]},
            "tune_steps: 8 for latents noised to t = 5; allowed: 1 to 5",
        ),
        ({"tune_steps": 0}, "tune_steps: 0"),
        ({"tune_steps": 1000}, "tune_steps: 1000 for latents noised to t = 999"),
        ({"window": (8, 0, 4, 4)}, "left < right"),
        ({"eta": -1.0}, "eta: -1.0"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TalkfaceError, match=message):
        module(**options)


def test_a_reader_must_have_its_own_statistics_and_rate() -> None:
    with pytest.raises(TalkfaceError, match="mean 0 and deviation 1; allowed: those of grey pictures"):
        LipObjective(reader(mean=0.0, std=1.0))
    with pytest.raises(TalkfaceError, match="features: 'all'; allowed: frames, sequence"):
        LipObjective(reader(), features="all")
    LipObjective(reader()).check_rate(24.9)
    with pytest.raises(TalkfaceError, match="fps of the data: 30; allowed: 25"):
        LipObjective(reader()).check_rate(30.0)


def test_single_frames_are_refused() -> None:
    data = batch(1)
    data["target"] = data["target"][0]
    with pytest.raises(TalkfaceError, match=r"allowed: \(B, T, 3, S, S\).*set sequence_length"):
        module().loss(data, step_generator(0), drop=False)


def test_a_checkpoint_names_who_guided(tmp_path: Any) -> None:
    objective = LipObjective(reader())
    checkpoint: dict[str, Any] = {}
    module(objective).on_save_checkpoint(checkpoint)
    assert checkpoint["guided_by"] == [fingerprint(objective.experts["reader"])]
    assert LipObjective(reader(), reading=0.0, pixel=1.0).guided_by == [], "nobody listened to it"
