"""Training of the articulation encoder: aligned augmentation, a loss that falls, runs that resume."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from talkface.data.synthetic.visemes import MOUTH_ACTIONS
from talkface.errors import TalkfaceError
from talkface.experts.speech import ArticulationEncoder
from talkface.training.speech import (
    ArticulationBatch,
    ArticulationTraining,
    augment_sound,
    consistency,
    stretch,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import train_speech

ACTIONS = ("jawOpen", "mouthPucker")


def tone_bursts(count=6, length=200, seed=0):
    """Sounds that are loud exactly when the first action is 1, and high when the second is."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.rand(count, 2, length // 20, generator=generator).round().repeat_interleave(20, dim=2)
    per_sample = state.repeat_interleave(320, dim=2)
    time = torch.arange(length * 320) / 16000
    pitch = torch.where(per_sample[:, 1] > 0.5, 1500.0, 300.0)
    sound = 0.3 * per_sample[:, 0] * torch.sin(2 * torch.pi * pitch * time)
    return ArticulationBatch(
        sound, state.transpose(1, 2), torch.randn(count, length, 12, generator=generator)
    )


def make_training(seed=0):
    torch.manual_seed(seed)
    encoder = ArticulationEncoder(ACTIONS, channels=24, dilations=(1, 2), bands=20, dropout=0.0)
    return ArticulationTraining(encoder, torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.4]), teacher_dim=12)


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.17])
def test_stretch_keeps_sound_and_actions_together(factor):
    batch = stretch(tone_bursts(length=240), factor, 200)
    assert batch.sound.shape == (6, 64000) and batch.actions.shape == (6, 200, 2)
    assert batch.teacher.shape == (6, 200, 12)
    loud = (batch.sound.unfold(1, 320, 320).square().mean(-1) > 0.01).float()
    assert (loud == batch.actions[..., 0].round()).float().mean() > 0.96


def test_the_original_voice_is_played_as_fast_and_is_what_the_reference_hears():
    batch = tone_bursts(length=240)
    batch.original = 0.5 * batch.sound
    stretched = stretch(batch, 1.1, 200)
    torch.testing.assert_close(stretched.original, 0.5 * stretched.sound)
    training, reference = make_training(), make_training()
    stretched.original = torch.zeros_like(stretched.sound)
    far = training(stretched, torch.Generator().manual_seed(0), reference)["consistency"]
    stretched.original = stretched.sound
    near = training(stretched, torch.Generator().manual_seed(0), reference)["consistency"]
    stretched.original = None
    same = training(stretched, torch.Generator().manual_seed(0), reference)["consistency"]
    assert torch.equal(near, same) and not torch.isclose(far, near, rtol=0.01)


def test_augmentation_does_not_shift_or_break_the_sound():
    sound = 0.1 * torch.randn(32, 16000, generator=torch.Generator().manual_seed(5))
    heard, silent = augment_sound(sound, torch.Generator().manual_seed(0))
    assert heard.shape == sound.shape and torch.isfinite(heard).all()
    assert not torch.allclose(heard[0] / heard[0].std(), sound[0] / sound[0].std(), atol=0.05)
    spectrum = torch.fft.rfft(heard[~silent]) * torch.fft.rfft(sound[~silent]).conj()
    lag = torch.fft.irfft(spectrum).argmax(1)
    assert (lag < 48).float().mean() > 0.9  # within 3 ms of the direct sound


def test_some_sounds_are_replaced_by_noise():
    sound = torch.full((150, 800), 0.5)
    heard, silent = augment_sound(sound, torch.Generator().manual_seed(1))
    assert 2 <= silent.sum() <= 25
    again, _ = augment_sound(sound, torch.Generator().manual_seed(1))
    assert torch.equal(heard, again)
    assert (heard[silent].abs().max(1).values == 0).any() and (heard[silent].abs().max(1).values > 0).any()


def test_hard_noise_drowns_more_of_the_sound():
    sound = 0.1 * torch.randn(200, 3200, generator=torch.Generator().manual_seed(5))
    left = {}
    for hard in (False, True):
        heard, silent = augment_sound(sound, torch.Generator().manual_seed(0), hard_noise=hard)
        assert torch.isfinite(heard).all() and 2 <= silent.sum() <= 30
        assert (heard[silent].abs().max(1).values > 0).any()
        # the correlation of the sound with what is heard, at the best lag
        lagged = torch.fft.irfft(torch.fft.rfft(heard, 8192) * torch.fft.rfft(sound, 8192).conj(), 8192)
        alike = lagged.abs().max(1).values / heard.norm(dim=1).clamp(min=1e-6) / sound.norm(dim=1)
        left[hard] = alike[~silent].mean()
    assert left[True] < left[False] - 0.03


def test_consistency_is_zero_for_the_same_and_pulls_noisy_output_to_the_clean():
    batch, reference = tone_bursts(count=4, length=60), make_training().eval()
    hidden, actions, _ = reference._hear(batch.sound, whole=True)
    assert consistency(hidden, actions, hidden, actions) == 0
    assert consistency(hidden, actions + 0.1, hidden, actions) > 0
    assert consistency(hidden + 0.1, actions, hidden, actions) > 0
    learner = make_training()
    learner.hard_noise = True
    frozen = make_training().eval()
    learner.load_state_dict(frozen.state_dict())
    optimizer, told = torch.optim.Adam(learner.parameters(), 3e-3), []
    for step in range(60):
        parts = learner(batch, torch.Generator().manual_seed(step % 4), frozen)
        optimizer.zero_grad()
        parts["consistency"].backward()
        optimizer.step()
        told.append(parts["consistency"].item())
    # the clean sound's output is a target, not something to be moved
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert np.mean(told[-4:]) < 0.8 * np.mean(told[:4])


def test_the_weight_of_consistency_counts():
    batch, frozen = tone_bursts(count=4, length=60), make_training(1).eval()
    learner = make_training().eval()
    without = learner(batch, torch.Generator().manual_seed(0))
    given = learner(batch, torch.Generator().manual_seed(0), frozen)
    assert "consistency" not in without and given["consistency"] > 0
    assert given["loss"].item() == pytest.approx(
        without["loss"].item() + given["consistency"].item(), rel=1e-5
    )


def test_import_undoes_export():
    learner, other = make_training(0), make_training(1)
    encoder = ArticulationEncoder(ACTIONS, channels=24, dilations=(1, 2), bands=20)
    learner.export_to(encoder)
    other.import_from(encoder)
    sound = tone_bursts(count=2, length=40).sound
    before, after = learner.eval()._hear(sound, True), other.eval()._hear(sound, True)
    assert torch.allclose(before[1], after[1], atol=1e-4)


def test_the_loss_falls_and_the_exported_encoder_speaks_in_actions():
    training, batch = make_training(), tone_bursts(count=4, length=60)
    optimizer = torch.optim.Adam(training.parameters(), 5e-3)
    losses = []
    for step in range(80):
        loss = training(batch, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss["loss"].backward()
        optimizer.step()
        losses.append(loss["motion"].item())
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    encoder = ArticulationEncoder(ACTIONS, channels=24, dilations=(1, 2), bands=20).eval()
    training.export_to(encoder)
    with torch.no_grad():
        opened = encoder.to_actions(encoder(batch.sound), ["jawOpen"])[..., 0]
    assert opened[batch.actions[..., 0] > 0.5].mean() > opened[batch.actions[..., 0] < 0.5].mean() + 0.3


def write_windows(folder):
    """Prepared windows in `folder` for the training script."""

    random = np.random.default_rng(0)
    for name, columns in (("synthetic", len(MOUTH_ACTIONS)), ("real", 0)):
        np.savez(
            folder / f"{name}-001.npz",
            sound=(random.normal(size=480000) * 3000).astype(np.int16),
            features=random.normal(size=(1500, 384)).astype(np.float16),
            actions=random.random((1500 if columns else 0, columns)).astype(np.float16),
        )


def test_a_stopped_run_resumes(tmp_path):
    write_windows(tmp_path)
    out = tmp_path / "speech.safetensors"
    train_speech.train(tmp_path, out, 1.5, seed=0, head_steps=2, batch_size=2)
    first = torch.load(tmp_path / "state.pt", weights_only=True)
    train_speech.train(tmp_path, out, first["spent"] + 1.5, seed=0, head_steps=2, batch_size=2)
    second = torch.load(tmp_path / "state.pt", weights_only=True)
    assert second["step"] > first["step"] >= 1 and second["spent"] > first["spent"]
    encoder = ArticulationEncoder(**json.loads(out.with_suffix(".json").read_text())["init_args"])
    encoder.load_state_dict(load_file(out))
    assert torch.isfinite(encoder(torch.randn(1, 16000))).all()


def test_training_goes_on_from_weights_and_keeps_the_scale_of_the_features(tmp_path):
    write_windows(tmp_path)
    first, out = tmp_path / "speech.safetensors", tmp_path / "robust.safetensors"
    train_speech.train(tmp_path, first, 1.0, seed=0, head_steps=2, batch_size=2)
    weights = load_file(first) | {"mean": torch.full((16,), 0.25), "std": torch.full((16,), 0.125)}
    save_file(weights, first)
    arguments = dict(seed=1, batch_size=2, start=first, peak_rate=1e-4, hard_noise=True, consistency=1.0)
    train_speech.train(tmp_path, out, 1.0, **arguments)
    made = load_file(out)
    assert torch.equal(made["mean"], weights["mean"]) and torch.equal(made["std"], weights["std"])
    assert torch.allclose(made["stem.weight"].float(), weights["stem.weight"].float(), atol=0.02)
    assert not torch.equal(made["stem.weight"], weights["stem.weight"])
    step = torch.load(tmp_path / "continued.pt", weights_only=True)["step"]
    train_speech.train(tmp_path, out, 1.0, **arguments)  # the budget is used up: nothing is trained
    assert torch.load(tmp_path / "continued.pt", weights_only=True)["step"] == step >= 1
    train_speech.train(tmp_path, out, 1.0, **arguments, share=0.5)  # written anew, half way
    half = (weights["stem.weight"].float() + made["stem.weight"].float()) / 2
    torch.testing.assert_close(load_file(out)["stem.weight"].float(), half, atol=1e-3, rtol=1e-3)
    with pytest.raises(TalkfaceError, match="--start"):
        train_speech.start_from(tmp_path / "none.safetensors", None, None)
