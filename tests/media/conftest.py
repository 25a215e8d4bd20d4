"""Makers of small films and sounds with known content."""

from __future__ import annotations

import struct
import wave
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest


def write_sound(
    path: Path, samples: np.ndarray, rate: int, codec: str, layout: str = "mono", **options
) -> Path:
    """float32 (channels, n) -> any container and codec."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, **options)
        resampler = av.AudioResampler(stream.codec_context.format, layout, rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate = rate
        frame.pts = 0
        frame.time_base = Fraction(1, rate)
        size = stream.codec_context.frame_size or 1024
        fifo = av.AudioFifo()
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            fifo.write(piece)
        while (piece := fifo.read(size, partial=True)) is not None:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def write_wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    """float (n,) or (n, channels) in [-1, 1] -> 16-bit PCM, by the standard library."""
    values = np.atleast_2d(samples.T).T
    with wave.open(str(path), "wb") as file:
        file.setnchannels(values.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(np.clip(values, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def write_float_wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    """float32 (n,) -> 32-bit IEEE float PCM, NaN and all."""
    data = samples.astype("<f4").tobytes()
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, rate, rate * 4, 4, 32
    )
    path.write_bytes(head + struct.pack("<4sI", b"data", len(data)) + data)
    return path


def write_film(
    path: Path,
    frames: list[np.ndarray],
    rate: Fraction | int = 25,
    codec: str = "libx264",
    ticks: list[int] | None = None,
    clock: Fraction | None = None,
    sound: tuple[np.ndarray, int] | None = None,
    sound_start: float = 0.0,
    **stream_options,
) -> Path:
    """Frames -> film by PyAV alone. `ticks` of `clock` are presentation times, default one per frame."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, **stream_options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if clock is not None:
            stream.codec_context.time_base = clock
        audio = None
        if sound is not None:
            audio = container.add_stream(
                "aac" if path.suffix != ".mpg" else "mp2", rate=sound[1], layout="mono"
            )
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index if ticks is None else ticks[index]
            frame.time_base = 1 / Fraction(rate) if clock is None else clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None and sound is not None:
            resampler = av.AudioResampler(audio.codec_context.format, "mono", sound[1])
            size = audio.codec_context.frame_size
            position = 0
            whole = av.AudioFrame.from_ndarray(
                sound[0][None].astype(np.float32), format="fltp", layout="mono"
            )
            whole.sample_rate = sound[1]
            fifo = av.AudioFifo()
            for piece in [*resampler.resample(whole), *resampler.resample(None)]:
                piece.pts = None
                fifo.write(piece)
            while (piece := fifo.read(size, partial=True)) is not None:
                piece.pts = position + round(sound_start * sound[1])
                piece.time_base = Fraction(1, sound[1])
                position += piece.samples
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path


def numbered_frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames whose number can be read back by `frame_number`, after any codec."""
    frames = []
    for index in range(count):
        frame = np.full((height, width, 3), 60, np.uint8)
        for bit in range(8):
            if index >> bit & 1:
                frame[: height // 2, bit * width // 8 : (bit + 1) * width // 8] = 200
        frames.append(frame)
    return frames


def frame_number(frame: np.ndarray) -> int:
    """Inverse of `numbered_frames`."""
    height, width = frame.shape[:2]
    cells = frame[: height // 2].mean(axis=(0, 2)).reshape(8, width // 8).mean(axis=1)
    return sum(1 << bit for bit in range(8) if cells[bit] > 130)


def tone(seconds: float, rate: int, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    """float32 (n,) sine."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def click(seconds: float, rate: int, at: float) -> np.ndarray:
    """float32 (n,): silence with 10 ms of noise beginning at second `at`."""
    samples = np.zeros(round(seconds * rate), np.float32)
    start, length = round(at * rate), round(0.01 * rate)
    samples[start : start + length] = np.random.default_rng(0).uniform(-0.9, 0.9, length)
    return samples


def onset(samples: np.ndarray, rate: int) -> float:
    """Second at which the sound first gets loud."""
    return int(np.argmax(np.abs(samples) > 0.25)) / rate


def leftovers(folder: Path, *expected: str) -> list[str]:
    """Names in `folder` that should not be there."""
    return sorted(path.name for path in folder.iterdir() if path.name not in expected)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The functions above."""
    return SimpleNamespace(
        sound=write_sound,
        wav=write_wav,
        float_wav=write_float_wav,
        film=write_film,
        frames=numbered_frames,
        number=frame_number,
        tone=tone,
        click=click,
        onset=onset,
        leftovers=leftovers,
    )


@pytest.fixture(scope="session")
def grid() -> Path:
    """Folder of real MPEG-1 clips, not part of the repository."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "grid"
    if not folder.is_dir():
        pytest.skip("the GRID clips are not here")
    return folder
