"""Sound over a pipe: raw or wav, in any pieces, of known or unknown length, growing."""

from __future__ import annotations

import io
import os
import threading
import time
import wave

import numpy as np
import pytest

from talkface.errors import TalkfaceError
from talkface.media.pcm import BLOCK, read_pcm

SAMPLES = np.random.default_rng(0).integers(-32768, 32767, 10000).astype("<i2")


class Trickle(io.BytesIO):
    """Gives a few bytes a read, as a pipe may."""

    # BytesIO also takes None; the reader always asks for a number
    def read(self, count: int = -1) -> bytes:  # type: ignore[override]
        return super().read(min(count, 7))


def wav(rate: int = 16000, channels: int = 1, width: int = 2, length: int | None = None) -> bytes:
    """A wav file with a chunk after the sound; `length`: what its header says instead of the truth."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(SAMPLES.tobytes())
    data = made.getvalue()
    if length is not None:
        data = data[:40] + length.to_bytes(4, "little") + data[44:]
    return data


def read(data: bytes, source: type[io.BytesIO] = io.BytesIO) -> np.ndarray:
    pieces = list(read_pcm(source(data)))
    assert all(piece.dtype == np.int16 and len(piece) for piece in pieces)
    return np.concatenate(pieces)


@pytest.mark.parametrize("source", [io.BytesIO, Trickle])
def test_raw_samples_in_any_pieces(source):
    assert np.array_equal(read(SAMPLES.tobytes(), source), SAMPLES)
    assert np.array_equal(read(SAMPLES.tobytes() + b"x", source), SAMPLES)
    assert np.array_equal(read(SAMPLES[:3].tobytes(), source), SAMPLES[:3])
    assert list(read_pcm(source(b""))) == []


@pytest.mark.parametrize("source", [io.BytesIO, Trickle])
@pytest.mark.parametrize("length", [None, 0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_wav_also_when_its_header_does_not_know_the_length(source, length):
    assert np.array_equal(read(wav(length=length), source), SAMPLES)


def test_what_comes_after_the_sound_of_a_wav_file_is_not_heard():
    assert np.array_equal(read(wav() + b"LIST\x04\x00\x00\x00abcd"), SAMPLES)


def test_a_file_that_grows_is_followed(tmp_path):
    path = tmp_path / "a.pcm"
    path.write_bytes(b"")

    def grow() -> None:
        for part in np.array_split(SAMPLES, 5):
            time.sleep(0.05)
            with open(path, "ab") as file:
                file.write(part.tobytes())

    writer = threading.Thread(target=grow)
    writer.start()
    with open(path, "rb", buffering=0) as source:
        assert np.array_equal(np.concatenate(list(read_pcm(source, follow=0.6))), SAMPLES)
    writer.join()


def test_a_pipe_gives_what_is_there_at_once():
    out, into = os.pipe()
    with open(out, "rb", buffering=0) as source, open(into, "wb", buffering=0) as sink:
        sink.write(SAMPLES[: BLOCK // 4].tobytes())
        pieces = read_pcm(source)
        first = np.concatenate([next(pieces), next(pieces)])  # what tells the kind of file comes first
        assert np.array_equal(first, SAMPLES[: BLOCK // 4])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (wav(rate=22050), "16 bits, 22050 Hz, 1 channels; allowed are 16 bits, 16000 Hz, 1 channel; convert"),
        (wav(channels=2), "2 channels; allowed"),
        (wav(width=1), "a wav file of 8 bits"),
        (wav()[:20], "ends within its header"),
        (b"fLaC" + bytes(100), "this is flac; allowed are raw 16-bit samples and wav; convert it"),
        (b"\0\0\0\x20ftypisom" + bytes(100), "this is mp4"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "this is png"),
    ],
)
def test_other_sounds_are_refused(data, message):
    with pytest.raises(TalkfaceError, match=message):
        list(read_pcm(io.BytesIO(data)))
