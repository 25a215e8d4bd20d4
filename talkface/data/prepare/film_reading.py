"""Films at exact times: which of its frames is shown at each frame of a clip, and the sound that belongs to it.

Frame k of a corpus at rate r is what the film shows at (k + 0.5) / r seconds after its first picture, and sample n of
the sound is at n / 16000 seconds after it, whatever the film's own rates are; nothing is counted, so nothing drifts. No
film is written on the way: cuts need no keyframe, and a picture is compressed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.source import Rejected
from talkface.errors import TalkfaceError
from talkface.media import Audio, VideoReader, exact_rate, read_audio

LFS_POINTER = b"version https://git-lfs"
TOUCH = 1e-6
"""Seconds: where a moment falls on the border of two frames, rounding must not choose between them."""


@dataclass(frozen=True, eq=False)
class TimedFilm:
    """A film and the frames of it that a corpus takes.

    Attributes:
        reader: the film.
        fps: exact rate of the clips.
        shown: (N,) int64, frame of the film for each frame at `fps`, never descending.
        sound: of the whole film at the corpus' rate; None when it has none and needs none.
    """

    reader: VideoReader
    fps: Fraction
    shown: np.ndarray
    sound: Audio | None

    @property
    def num_frames(self) -> int:
        return len(self.shown)

    @property
    def aspect(self) -> float:
        """Width of a pixel over its height."""
        return float(self.reader.pixel_aspect)

    def pictures(self, first: int = 0, last: int | None = None) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3) for each frame of [first, last) at `fps`; one that is shown twice is the same object."""
        wanted = self.shown[first:last]
        place = 0
        for number, picture in enumerate(self.reader):
            while place < len(wanted) and wanted[place] == number:
                yield picture
                place += 1
            if place == len(wanted):
                return

    def cut_sound(self, first: int, last: int, late: float = 0.0) -> np.ndarray | None:
        """The sound of frames [first, last), float32, exactly as long as they are; silence where there is none.

        Args:
            late: frames by which the sound comes after its picture, to be undone.
        """
        if self.sound is None:
            return None
        rate = self.sound.sample_rate
        start, end = (round(Fraction(frame) / self.fps * rate) for frame in (first, last))
        shift = round(late / float(self.fps) * rate)
        piece = np.zeros(end - start, np.float32)
        low = max(0, start + shift)
        high = min(len(self.sound.samples), end + shift)
        if high > low:
            piece[low - start - shift : high - start - shift] = self.sound.samples[low:high]
        return piece


def shown_frames(reader: VideoReader, fps: float | None) -> tuple[Fraction, np.ndarray]:
    """The exact rate, and the frame of `reader` that is shown in the middle of each frame at that rate, int64 (N,)."""
    rate = exact_rate(fps) if fps is not None else reader.rate
    count = int(Fraction(reader.duration).limit_denominator(1_000_000) * rate + Fraction(1, 2))
    centres = (np.arange(count) + 0.5) * float(1 / rate)
    shown = np.searchsorted(reader.frame_ends - TOUCH, centres, side="right")
    return rate, np.minimum(shown, reader.num_frames - 1)


def open_film(path: Path, sound: Path | None, recipe: FilmRecipe, sample_rate: int) -> TimedFilm:
    """Open a film and read its sound.

    Args:
        path: the film.
        sound: file that holds its sound; None = its own track.

    Raises:
        Rejected: at `read` (missing, empty, damaged, no film), `length`, or `sound` (none, silent, of another length).
    """
    reader = _open(path)
    if not recipe.least_seconds <= reader.duration <= recipe.longest_film:
        allowed = f"{recipe.least_seconds:g} to {recipe.longest_film:g} s are allowed"
        raise Rejected("length", f"the film lasts {reader.duration:.2f} s; {allowed}", reader.duration)
    fps, shown = shown_frames(reader, recipe.fps)
    if sound is None and not reader.has_audio:
        if recipe.need_sound:
            raise Rejected("sound", "the film has no sound track")
        return TimedFilm(reader, fps, shown, None)
    try:
        audio = read_audio(sound or path, sample_rate, max_seconds=2 * recipe.longest_film)
    except TalkfaceError as error:
        raise Rejected("sound", plain(error, sound or path)) from error
    if recipe.need_sound and audio.is_silent:
        raise Rejected("sound", "the sound is silent")
    longer = audio.duration - reader.duration
    if recipe.most_difference is not None and abs(longer) > recipe.most_difference:
        lengths = f"the sound lasts {audio.duration:.2f} s, the pictures {reader.duration:.2f} s"
        raise Rejected("sound", f"{lengths}; they may differ by {recipe.most_difference:g} s", longer)
    return TimedFilm(reader, fps, shown, audio)


def _open(path: Path) -> VideoReader:
    if not path.is_file():
        raise Rejected("read", "the file is missing")
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if not start:
        raise Rejected("read", "the file is empty")
    if start == LFS_POINTER:
        raise Rejected("read", "a placeholder of Git LFS, not the film; fetch it with 'git lfs pull'")
    try:
        return VideoReader(path)
    except TalkfaceError as error:
        raise Rejected("read", plain(error, path)) from error


def plain(error: TalkfaceError, path: Path) -> str:
    """The message without the folder, so that a corpus does not depend on where the raw files lie."""
    return str(error).replace(str(path), path.name)
