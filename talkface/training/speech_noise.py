"""Noise that speech is heard through: steady, humming, gusty, other people's talk, music.

One kind is drawn for each sound of a batch, so that none of them can be told by what all noise has in common.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["NOISES", "coloured", "draw_noise"]

NOISES = {"coloured": 0.45, "babble": 0.3, "hum": 0.1, "music": 0.15}  # how often each is drawn
_RATE = 16000


def draw_noise(sound: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of unit power for each sound of a batch.

    Args:
        sound: (B, samples) speech at 16 kHz; the others of the batch are the talkers of the babble.

    Returns:
        (B, samples).
    """
    count, samples = sound.shape
    noise = coloured(count, samples, generator)
    shares = torch.tensor(list(NOISES.values()))
    kinds = torch.multinomial(shares, count, replacement=True, generator=generator)
    for number, kind in enumerate(NOISES):
        rows = (kinds == number).nonzero()[:, 0]
        if kind == "coloured" or not len(rows):
            continue
        if kind == "babble":
            other = babble(sound, rows, generator)
        elif kind == "hum":
            other = hum(len(rows), samples, generator)
        else:
            other = music(len(rows), samples, generator)
        # none of them is heard alone: a room and a microphone have noise of their own
        noise[rows] = _unit(other) + 0.15 * noise[rows]
    return _unit(noise * gusts(count, samples, generator))


def coloured(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """(count, samples) of unit power, spectrum between white and brown, pink in the middle."""
    size = 2 ** math.ceil(math.log2(samples))
    frequency = torch.linspace(0.0, _RATE / 2, size // 2 + 1)
    exponent = torch.rand(count, 1, generator=generator)
    spectrum = torch.fft.rfft(torch.randn(count, size, generator=generator))
    return _unit(torch.fft.irfft(spectrum * (frequency + 30.0) ** -exponent, size)[:, :samples])


def gusts(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """(count, samples) gains that come and go within about half a second, by up to 10 dB, for one sound in three."""
    knots = torch.randn(count, 1, max(2, samples // 6000), generator=generator) * 5.0
    curve = torch.nn.functional.interpolate(knots, size=samples, mode="linear", align_corners=True)[:, 0]
    chosen = torch.rand(count, 1, generator=generator) < 1 / 3
    return 10.0 ** (torch.where(chosen, curve.clamp(-10.0, 10.0), torch.zeros(())) / 20.0)


def babble(sound: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """(len(rows), samples): for each row one to six of the others, from a random place on, not equally loud."""
    count, samples = sound.shape
    voices = _unit(sound)
    total = torch.zeros(len(rows), samples)
    for k, row in enumerate(rows.tolist()):
        for _ in range(int(torch.randint(1, 7, (), generator=generator))):
            other = (row + int(torch.randint(1, max(2, count), (), generator=generator))) % count
            start = int(torch.randint(0, samples, (), generator=generator))
            loud = 0.4 + 0.6 * float(torch.rand((), generator=generator))
            total[k] += loud * voices[other].roll(start)
    return total


def hum(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """(count, samples): twelve harmonics of 50 or 60 Hz, or of a motor between 30 and 200 Hz."""
    time = torch.arange(samples) / _RATE
    mains = torch.tensor([50.0, 60.0])[torch.randint(0, 2, (count,), generator=generator)]
    motor = 30.0 + 170.0 * torch.rand(count, generator=generator)
    pitch = torch.where(torch.rand(count, generator=generator) < 0.5, mains, motor)
    loud = torch.rand(count, 12, generator=generator) / torch.arange(1, 13)
    phase = 2 * torch.pi * torch.rand(count, 12, generator=generator)
    total = torch.zeros(count, samples)
    for number in range(12):
        angle = 2 * torch.pi * (number + 1) * pitch[:, None] * time + phase[:, number, None]
        total += loud[:, number, None] * torch.sin(angle)
    return total


def music(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """(count, samples): three parts of plucked or held notes of an equally tempered scale, with harmonics."""
    total = torch.zeros(count, samples)
    for _ in range(3):
        length = int(_RATE * (0.15 + 0.45 * float(torch.rand((), generator=generator))))
        notes = math.ceil(samples / length)
        steps = torch.randint(-24, 25, (count, notes), generator=generator)
        pitch = (261.6 * 2.0 ** (steps / 12.0)).repeat_interleave(length, dim=1)[:, :samples]
        fade = torch.exp(
            -(torch.arange(samples) % length) / _RATE * 8.0 * torch.rand(count, 1, generator=generator)
        )
        angle = 2 * torch.pi * torch.cumsum(pitch / _RATE, dim=1)
        bright = 0.3 + 0.6 * torch.rand(count, 1, generator=generator)
        for harmonic in range(1, 6):
            total += fade * bright**harmonic * torch.sin(harmonic * angle)
    return total


def _unit(sound: Tensor) -> Tensor:
    """Each sound (B, samples) at a mean power of 1; silence stays nearly silent."""
    return sound / sound.square().mean(1, keepdim=True).clamp(min=1e-6).sqrt()
