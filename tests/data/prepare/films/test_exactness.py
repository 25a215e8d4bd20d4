"""A flash and a click at the same moment stay together, at any rate, after a second and after ten minutes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from talkface.data.base import Clip
from talkface.data.prepare.film_clips import FilmMaker, decode
from talkface.data.prepare.film_reading import open_film, shown_frames
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.source import RawItem, Rejected
from talkface.experts.face_landmarks import FaceLandmarks, KnownLandmarks

MOMENTS = (1.0, 600.0)
SECONDS = 602
SIDE = 64
FLASH = 0.1  # seconds
RATES = {"23.976": Fraction(24000, 1001), "25": Fraction(25), "29.97": Fraction(30000, 1001)}
CLOCK = Fraction(1, 90_000)


def flashes(times: np.ndarray) -> np.ndarray:
    """Whether the frames that appear at these seconds are white."""
    return np.any([(times >= moment - 1e-6) & (times < moment + FLASH - 1e-6) for moment in MOMENTS], axis=0)


def variable_times() -> np.ndarray:
    """Sparse frames at odd times, dense ones around the flashes, each of which begins with a frame."""
    rng = np.random.default_rng(3)
    sparse = np.cumsum(rng.uniform(0.5, 1.5, 700))
    sparse = sparse[(sparse < SECONDS) & (np.abs(sparse[:, None] - MOMENTS).min(axis=1) > 0.6)]
    dense = [moment + np.concatenate([[0], np.cumsum(rng.uniform(0.02, 0.05, 12))]) for moment in MOMENTS]
    before = [moment - np.cumsum(rng.uniform(0.02, 0.05, 12)) for moment in MOMENTS]
    return np.unique(np.concatenate([[0.0], sparse, *dense, *before]))


def clicks(rate: int) -> np.ndarray:
    """int16 (n,): silence with a click of 5 ms at each moment."""
    samples = np.zeros(SECONDS * rate, np.int16)
    for moment in MOMENTS:
        start = round(moment * rate)
        samples[start : start + rate // 200] = 20000
    return samples


def write_flash_film(path: Path, times: np.ndarray, rate: Fraction, sound_rate: int) -> Path:
    """Ten minutes of grey and white pictures: two JPEGs, written again and again, so that it costs nothing."""
    pictures = {}
    for white in (False, True):
        picture = np.full((SIDE, SIDE, 3), 230 if white else 60, np.uint8)
        picture[20:24, 20:44] = 120
        pictures[white] = cv2.imencode(".jpg", picture)[1].tobytes()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=rate)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuvj420p"
        stream.time_base = CLOCK
        audio = container.add_stream("pcm_s16le", rate=sound_rate, layout="mono")
        container.start_encoding()
        samples, second = clicks(sound_rate), 0
        for time, white in zip(times, flashes(times), strict=True):
            while second <= time and second < SECONDS:
                piece = av.Packet(samples[second * sound_rate : (second + 1) * sound_rate].tobytes())
                piece.stream, piece.time_base = audio, Fraction(1, sound_rate)
                piece.pts = piece.dts = second * sound_rate
                container.mux(piece)
                second += 1
            packet = av.Packet(pictures[bool(white)])
            packet.stream, packet.time_base = stream, CLOCK
            packet.pts = packet.dts = round(time / CLOCK)
            packet.is_keyframe = True
            container.mux(packet)
    return path


def onsets(sound: np.ndarray) -> np.ndarray:
    """Seconds at which it gets loud."""
    loud = np.abs(sound) > 0.2
    starts = np.flatnonzero(loud & ~np.concatenate([[False], loud[:-1]]))
    return starts[np.concatenate([[True], np.diff(starts) > 1600])] / 16000


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("sound_rate", [44100, 48000])
def test_flash_and_click_meet(name: str, sound_rate: int, tmp_path: Path) -> None:
    rate = RATES[name]
    times = np.arange(int(SECONDS * rate)) / float(rate)
    film = write_flash_film(tmp_path / "film.mkv", times, rate, sound_rate)
    white = flashes(times)
    opened = open_film(film, None, FilmRecipe(fps=25.0), 16000)
    sound = opened.cut_sound(0, opened.num_frames)
    assert sound is not None and len(sound) == round(opened.num_frames / 25 * 16000)
    assert onsets(sound) == pytest.approx(MOMENTS, abs=0.001)
    for fps in (25.0, None):
        exact, shown = shown_frames(opened.reader, fps)
        assert exact == (rate if fps is None else 25)
        seen = np.flatnonzero(white[shown])
        firsts = seen[np.concatenate([[True], np.diff(seen) > 1])] / float(exact)
        assert firsts == pytest.approx(MOMENTS, abs=float(1 / exact))
    # the numbers above are those of the pictures; ten minutes of pictures are read below, where they are fewer
    start = 22
    brightness = [picture.mean() for picture in opened.pictures(start, start + 8)]
    assert (np.array(brightness) > 150).tolist() == white[opened.shown[start : start + 8]].tolist()


class LitFaces(KnownLandmarks):
    """A face wherever the picture is light enough: at the flashes and just around them."""

    def find(self, image: np.ndarray) -> list[FaceLandmarks]:
        return super().find(image) if image[0, 0, 0] > 100 else []


@pytest.mark.parametrize("sound_rate", [44100, 48000])
def test_at_a_variable_rate_from_film_to_clips(sound_rate: int, draw_face_points, tmp_path: Path) -> None:
    film = write_flash_film(tmp_path / "film.mov", variable_times(), Fraction(25), sound_rate)
    recipe = FilmRecipe(
        size=48, least_seconds=0.04, most_seconds=5.0, least_face=16, most_missing=0, most_difference=2
    )
    maker = FilmMaker(recipe, LitFaces(draw_face_points(SIDE)))
    made = maker.make(RawItem("film", "train", "nobody", "film.mov"), film)
    clips = [part for part in made if isinstance(part, Clip)]
    assert len(clips) == 2 and all(part.step == "landmarks" for part in made if isinstance(part, Rejected))
    for clip, moment in zip(clips, MOMENTS, strict=True):
        assert clip.meta["variable_rate"] and clip.audio is not None
        assert all(decode(frame).mean() > 150 for frame in clip.frames)
        assert clip.meta["start"] == pytest.approx(moment, abs=0.04)
        assert len(clip.frames) == pytest.approx(FLASH * 25, abs=1.1)
        click = clip.meta["start"] + onsets(clip.audio)
        # the click may begin just before the first frame that shows the flash
        assert click == pytest.approx([moment], abs=0.04) if len(click) else moment < clip.meta["start"]
