"""Windows of the speech encoder's training in other voices: drawn with their originals, made by a vocoder."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from speech_windows import FRAMES, RATE, WINDOW, Windows, other_voice

from talkface.data.synthetic.visemes import MOUTH_ACTIONS


def test_half_of_the_crops_are_said_by_another_voice(tmp_path):
    random = np.random.default_rng(0)
    for number in (1, 2):
        np.savez(
            tmp_path / f"synthetic-00{number}.npz",
            sound=np.full(RATE * WINDOW, 1000 * number, np.int16),
            features=random.normal(size=(FRAMES, 384)).astype(np.float16),
            actions=random.uniform(size=(FRAMES, len(MOUTH_ACTIONS))).astype(np.float16),
        )
    assert Windows(tmp_path, ("synthetic",)).draw(np.array([0]), 50, random).original is None
    np.save(tmp_path / "voice-synthetic-002.npy", np.full(RATE * WINDOW, 7000, np.int16))
    rows = np.array([0, 1] * 50)
    batch = Windows(tmp_path, ("synthetic",)).draw(rows, 50, random)
    heard = (batch.sound[:, 0] * 32767).round()
    assert batch.original is not None and batch.original.shape == batch.sound.shape
    torch.testing.assert_close((batch.original[:, 0] * 32767).round(), torch.tensor([1000.0, 2000.0] * 50))
    assert (heard[0::2] == 1000).all()
    assert set(heard[1::2].tolist()) == {2000.0, 7000.0}
    assert 10 < (heard[1::2] == 7000).sum() < 40


def test_another_voice_keeps_the_time_and_moves_the_pitch():
    pytest.importorskip("pyworld")
    time = np.arange(2 * RATE) / RATE
    pulses = sum(np.sin(2 * np.pi * 220 * k * time) / k for k in range(1, 15))
    voiced = (time > 0.5) & (time < 1.5)
    sound = (pulses * voiced * 6000).astype(np.int16)
    pitches = []
    for seed in range(4):
        made = other_voice(sound, np.random.default_rng(seed))
        assert made.dtype == np.int16 and made.shape == sound.shape
        loud = np.square(made.astype(float)).reshape(-1, 320).mean(1)
        assert np.corrcoef(loud > 0.05 * loud.max(), voiced.reshape(-1, 320).mean(1) > 0.5)[0, 1] > 0.95
        middle = made[int(0.8 * RATE) : int(1.2 * RATE)].astype(float)
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 4 * RATE)) ** 2
        echo = np.fft.irfft(spectrum)[RATE // 300 : RATE // 75]
        pitches.append(RATE / (RATE // 300 + echo.argmax()))
    assert np.ptp(pitches) > 30 and min(pitches) > 75 and max(pitches) < 300
