"""Noise that speech is heard through."""

import pytest
import torch

from talkface.training import speech_noise
from talkface.training.speech_noise import NOISES, draw_noise


def talkers(count=24, samples=16000):
    """Sounds of nothing but a tone of their own."""
    time = torch.arange(samples) / 16000
    pitch = 400.0 + 100.0 * torch.arange(count)[:, None]
    return 0.1 * torch.sin(2 * torch.pi * pitch * time)


def share(noise, low, high):
    """Share of the power between two frequencies in Hz, (B,)."""
    power = torch.fft.rfft(noise).abs().square()
    frequency = torch.linspace(0, 8000, power.shape[1])
    return power[:, (frequency >= low) & (frequency < high)].sum(1) / power.sum(1)


def test_noise_has_unit_power_and_repeats_with_its_seed():
    noise = draw_noise(talkers(), torch.Generator().manual_seed(0))
    assert noise.shape == (24, 16000)
    assert torch.allclose(noise.square().mean(1), torch.ones(24), atol=0.01)
    assert torch.equal(noise, draw_noise(talkers(), torch.Generator().manual_seed(0)))
    assert not torch.equal(noise, draw_noise(talkers(), torch.Generator().manual_seed(1)))


def test_a_single_sound_and_a_silent_one_get_noise_too():
    for sound in (talkers(1, 4000), torch.zeros(3, 4000)):
        for seed in range(8):
            assert torch.isfinite(draw_noise(sound, torch.Generator().manual_seed(seed))).all()


def test_every_kind_is_drawn(monkeypatch):
    seen = []
    for kind in ("babble", "hum", "music"):
        made = getattr(speech_noise, kind)
        monkeypatch.setattr(speech_noise, kind, lambda *a, k=kind, f=made: (seen.append(k), f(*a))[1])
    for seed in range(4):
        draw_noise(talkers(samples=2000), torch.Generator().manual_seed(seed))
    assert set(seen) == set(NOISES) - {"coloured"}


def test_spectra_lie_between_white_and_brown():
    noise = speech_noise.coloured(64, 16000, torch.Generator().manual_seed(2))
    low = share(noise, 0, 300)
    assert low.min() < 0.15 and low.max() > 0.9  # 0.04 of white noise, nearly all of brown


def test_babble_of_a_row_is_made_of_the_others():
    sound, rows = talkers(4), torch.tensor([0, 2])
    other = speech_noise.babble(sound, rows, torch.Generator().manual_seed(3))
    own = torch.tensor([400.0, 600.0])
    for noise, pitch in zip(other, own, strict=True):
        assert share(noise[None], pitch - 40, pitch + 40) < 0.01
        assert share(noise[None], 360, 740) > 0.95


@pytest.mark.parametrize("kind", ["hum", "music"])
def test_tones_are_steadier_than_noise(kind):
    noise = getattr(speech_noise, kind)(6, 16000, torch.Generator().manual_seed(4))
    spectrum = torch.fft.rfft(noise).abs().square()
    few = spectrum.sort(dim=1, descending=True).values[:, :800].sum(1) / spectrum.sum(1)
    assert (few > 0.9).all()  # a tenth of the frequencies holds nearly all of the power; of noise, a third


def test_gusts_change_the_loudness_of_some():
    gain = speech_noise.gusts(60, 32000, torch.Generator().manual_seed(5))
    steady = (gain.max(1).values - gain.min(1).values) < 1e-3
    assert 25 < steady.sum() < 55
    assert gain.max() <= 10**0.5 + 1e-3 and gain.min() >= 10**-0.5 - 1e-3
