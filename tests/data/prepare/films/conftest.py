"""Makers of raw films: drawn faces that speak, and what is wrong with some of them."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

from talkface.data import Corpus
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.film_source import FilmSource
from talkface.data.prepare.film_sync import SyncMeasure
from talkface.data.prepare.run import prepare

HEIGHT, WIDTH = 128, 160
FACE = (28, 14, 96)
SHORT = FilmRecipe(size=64, least_seconds=0.2, least_face=32.0, scenes=False)
"""For films of less than a second."""


def speech(
    seconds: float, rate: int = 16000, opening: Sequence[float] | None = None, fps: float = 25
) -> np.ndarray:
    """float32 (n,): a hum, as loud as the mouth is open in each frame (default: opening and closing)."""
    time = np.arange(round(seconds * rate)) / rate
    loud = (
        np.full(len(time), 0.5)
        if opening is None
        else np.interp(time * fps - 0.5, range(len(opening)), opening)
    )
    return (0.6 * loud * np.sin(2 * np.pi * 220 * time)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def encode_sound(container: Any, stream: Any, samples: np.ndarray) -> None:
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = stream.rate, 0, Fraction(1, stream.rate)
    resampler = av.AudioResampler(stream.codec_context.format, "mono", stream.rate)
    fifo, position = av.AudioFifo(), 0
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        piece.pts = None
        fifo.write(piece)
    size = stream.codec_context.frame_size or 1024
    while (piece := fifo.read(size, partial=True)) is not None:
        piece.pts, piece.time_base = position, Fraction(1, stream.rate)
        position += piece.samples
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


CODECS = {
    ".mpg": ("mpeg1video", "mp2"),
    ".flv": ("flv", "aac"),
    ".mp4": ("libx264", "aac"),
    ".m4a": ("", "aac"),
}


def write_film(
    path: Path,
    pictures: Sequence[np.ndarray],
    fps: Fraction | int = 25,
    sound: np.ndarray | None = None,
    rate: int = 44100,
) -> Path:
    """Any of the endings above; `sound` at 44.1 kHz, None for a film without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, sound_codec = CODECS[path.suffix]
    with av.open(str(path), "w") as container:
        stream = audio = None
        if codec:
            stream = container.add_stream(codec, rate=fps)
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=rate, layout="mono")
        for number, picture in enumerate(pictures if stream else ()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, 1 / Fraction(fps)
            container.mux(stream.encode(frame))
        if stream:
            container.mux(stream.encode(None))
        if audio:
            encode_sound(container, audio, sound)
    return path


def with_mouth(picture: np.ndarray, opening: float, face: tuple[int, int, int] = FACE) -> np.ndarray:
    """A mouth opened by so much (0 to 1): a dark ellipse on the lips of the face at (x, y, side)."""
    x, y, side = face
    made = picture.copy()
    centre = (x + side // 2, y + round(0.72 * side))
    cv2.ellipse(made, centre, (side // 14, max(1, round(0.05 * side * opening))), 0, 0, 360, (20, 10, 10), -1)
    return made


class MouthAgainstLoudness:
    """Cross-correlation of how dark the mouth is with how loud the sound is, frame by frame."""

    name = "cross-correlation"
    error = 0.0

    def measure(
        self, pictures: np.ndarray, landmarks: np.ndarray, sound: np.ndarray, fps: float, sample_rate: int
    ) -> SyncMeasure:
        opening = []
        for picture, points in zip(pictures, landmarks, strict=True):
            low, high = points[48:].min(axis=0).astype(int), points[48:].max(axis=0).astype(int)
            mouth = picture[low[1] - 3 : high[1] + 4, low[0] : high[0]].mean(axis=2)
            opening.append(float((mouth < 60).mean()))
        per_frame = np.array_split(sound, len(pictures))
        loud = np.array([np.sqrt((part**2).mean()) for part in per_frame])
        scores = {}
        for late in range(-8, 9):
            a, b = np.array(opening)[max(0, -late) :], loud[max(0, late) :]
            count = min(len(a), len(b))
            scores[late] = float(np.corrcoef(a[:count], b[:count])[0, 1])
        best = max(scores, key=lambda late: scores[late])
        return SyncMeasure(best, scores[best])


@pytest.fixture(scope="session")
def sync_expert() -> MouthAgainstLoudness:
    """An expert for drawn faces."""
    return MouthAgainstLoudness()


@pytest.fixture(scope="session")
def raw_films(draw_faces: Callable[..., np.ndarray]) -> SimpleNamespace:
    """Functions that write films of a drawn face: `talking`, and one for each thing that can be wrong."""
    portrait = draw_faces(HEIGHT, WIDTH, [FACE])
    empty = draw_faces(HEIGHT, WIDTH, [])
    couple = draw_faces(HEIGHT, 2 * WIDTH, [FACE, (WIDTH + 30, 20, 96)])

    def talking(
        path: Path, frames: int = 10, fps: Fraction | int = 25, seed: int = 0, **options: Any
    ) -> Path:
        opening = np.random.default_rng(seed).uniform(0, 1, frames)
        pictures = [with_mouth(portrait, value) for value in opening]
        options.setdefault("sound", speech(frames / float(fps), 44100, opening, float(fps)))
        return write_film(path, pictures, fps, **options)

    def damaged(path: Path) -> Path:
        talking(path, seed=99)
        path.write_bytes(path.read_bytes()[:300][::-1])
        return path

    def late(path: Path, frames: int, sound_file: Path | None = None) -> Path:
        """Forty frames whose sound comes so many frames late; in a file beside it where one is named."""
        opening = np.random.default_rng([7, 10 + frames]).uniform(0, 1, 60)  # no two films are the same
        pictures = [with_mouth(portrait, value) for value in opening[10:50]]
        start = round((10 - frames) / 25 * 44100)
        sound = speech(60 / 25, 44100, opening)[start : start + round(40 / 25 * 44100)]
        if sound_file is None:
            return write_film(path, pictures, sound=sound)
        write_film(sound_file, [], sound=sound)
        return write_film(path, pictures)

    def nothing(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def of(pictures: list[np.ndarray]) -> Callable[[Path], Path]:
        return lambda path: write_film(path, pictures, sound=speech(len(pictures) / 25, 44100))

    return SimpleNamespace(
        talking=talking,
        write=write_film,
        wav=write_wav,
        speech=speech,
        with_mouth=with_mouth,
        portrait=portrait,
        damaged=damaged,
        late=late,
        empty=nothing,
        silent=lambda path: talking(path, seed=98, sound=np.zeros(17640, np.float32)),
        soundless=lambda path: talking(path, seed=97, sound=None),
        long_sound=lambda path: talking(path, seed=96, sound=speech(2.0, 44100)),
        faceless=of([empty] * 10),
        late_face=of([empty] * 8 + [portrait] * 6),
        two_faces=of([couple] * 10),
    )


@pytest.fixture(scope="session")
def prepared(drawn_face_finder: Any) -> Callable[..., SimpleNamespace]:
    """prepared(source, out) -> the corpus, its clips by id, and step and reason of every rejected file."""
    parquet = pytest.importorskip("pyarrow.parquet")

    def run(source: FilmSource, out: Path) -> SimpleNamespace:
        prepare(source, out, finder=drawn_face_finder, report=lambda line: None)
        rows: Iterator[dict[str, Any]] = iter(parquet.read_table(out / "rejected.parquet").to_pylist())
        rejected = {row["file"]: (row["step"], row["reason"]) for row in rows}
        corpus = Corpus(out)
        return SimpleNamespace(corpus=corpus, clips={clip.id: clip for clip in corpus}, rejected=rejected)

    return run


@pytest.fixture(scope="session")
def short_recipe() -> FilmRecipe:
    return SHORT
