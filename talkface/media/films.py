"""Read films frame by frame: presentation times, exact or variable rate, rotation.

Frames are decoded when they are asked for and never kept. Times are counted from the first picture, the same
origin as `read_audio` uses for the sound track. Not an editor: no seeking, no filters.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from talkface.errors import TalkfaceError
from talkface.media.output import PathLike
from talkface.media.pictures import is_picture
from talkface.media.sound import film_stream, open_media, start_seconds

STANDARD_RATES = tuple(Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120)) + tuple(
    Fraction(n * 1000, 1001) for n in (12, 15, 24, 30, 48, 60, 120)
)


# swscale's default is fast and darkens by more than one level each time. These are its flags SWS_BICUBIC,
# SWS_ACCURATE_RND and SWS_FULL_CHR_H_INT, whose names PyAV 17 lacks.
ACCURATE = 0x4 | 0x40000 | 0x2000
UNSPECIFIED = 2  # colour matrix not stated; high definition then means BT.709


def exact_rate(fps: float | Fraction) -> Fraction:
    """The exact rate that a rounded one means: 23.976 -> 24000/1001, 29.97 -> 30000/1001, 25.0 -> 25.

    Raises:
        TalkfaceError: not in (0, 1000].
    """
    if not 0 < fps <= 1000:
        raise TalkfaceError(f"frame rate: {fps}; allowed are numbers above 0 up to 1000; typical is 25")
    if isinstance(fps, Fraction):
        return fps
    nearest = min(STANDARD_RATES, key=lambda rate: abs(float(rate) - fps))
    if abs(float(nearest) - fps) < 0.005 and float(fps) != round(fps):
        return nearest
    return Fraction(fps).limit_denominator(1001)


def is_video(path: PathLike) -> bool:
    """Whether the file holds moving pictures, going by its content; an animated GIF is a picture.

    Raises:
        TalkfaceError: missing, empty, a folder, or neither a picture nor anything FFmpeg can open.
    """
    if is_picture(path):
        return False
    with open_media(path, "picture or film") as container:
        return film_stream(container) is not None


def open_video(path: PathLike) -> VideoReader:
    """Open a film; see `VideoReader`."""
    return VideoReader(path)


class VideoReader:
    """A film. Iterating yields uint8 (H, W, 3) RGB frames, upright; each iteration starts at the first.

    Every iteration yields exactly `num_frames` frames: one that is damaged is replaced by the one before it,
    so that the others keep their place.

    Attributes:
        rate: frames per second as a Fraction; the average one if `is_variable`.
        size: (height, width) of the upright frames.
        has_audio: whether there is a sound track.
        pixel_aspect: width of a pixel over its height.

    Raises:
        TalkfaceError: missing, not a film, damaged, or without a single frame.
    """

    def __init__(self, path: PathLike):
        self.path = Path(path)
        with open_media(path, "film") as container:
            stream = film_stream(container)
            if stream is None:
                raise TalkfaceError(
                    f"film '{path}' holds no moving pictures; give an mp4, mov, mpg or webm film"
                )
            self.has_audio = len(container.streams.audio) > 0
            # the times in an AVI are those of decoding; they say when, but not which frame
            self._ordered = container.format.name == "avi"
            self._ticks = _packet_ticks(container, stream, "dts" if self._ordered else "pts")
            self._tick = float(stream.time_base or 0)
            self._start = start_seconds(stream)
            rates = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
            aspect = stream.sample_aspect_ratio or Fraction(1)
            self.pixel_aspect = Fraction(aspect) if aspect > 0 else Fraction(1)
        if None in self._ticks:
            # not every packet is a frame, as with the second field of an interlaced one: only decoding tells
            self._ticks = _usable([frame.pts for frame in self._decode()])
        if not self._ticks:
            raise TalkfaceError(f"film '{path}' is damaged: it holds no frames")
        self.rate, self.is_variable = self._find_rate(rates)
        first = next(self._decode(), None)
        if first is None:
            raise TalkfaceError(f"film '{path}' is damaged: no frame of it can be decoded")
        self._turns = round(getattr(first, "rotation", 0) / 90) % 4
        height, width = first.height, first.width
        self.size = (height, width) if self._turns % 2 == 0 else (width, height)
        if self._turns % 2:
            self.pixel_aspect = 1 / self.pixel_aspect

    @property
    def fps(self) -> float:
        """`rate` as a float."""
        return float(self.rate)

    @property
    def num_frames(self) -> int:
        """Frames that an iteration yields."""
        return len(self._ticks)

    @property
    def duration(self) -> float:
        """Seconds from the first picture to the end of the last."""
        return float(self.frame_ends[-1])

    @functools.cached_property
    def frame_times(self) -> np.ndarray:
        """Seconds at which each frame appears, float64 (num_frames,), ascending, usually from 0."""
        if not self.is_variable:
            return np.arange(self.num_frames) / float(self.rate) + self._first_time
        return self._clock_times

    @functools.cached_property
    def frame_ends(self) -> np.ndarray:
        """Seconds at which each frame is replaced by the next, float64 (num_frames,)."""
        times = self.frame_times
        return np.append(times[1:], times[-1] + 1 / float(self.rate))

    @property
    def frame_centres(self) -> np.ndarray:
        """Middle of the time that each frame is shown, (k + 0.5) / fps at a fixed rate."""
        return (self.frame_times + self.frame_ends) / 2

    @functools.cached_property
    def _clock_times(self) -> np.ndarray:
        """Times as the container gives them, on its own, sometimes coarse, clock."""
        if self._ticks[0] is None:
            return np.arange(self.num_frames) / float(self.rate)
        return np.array(self._ticks, dtype=np.float64) * self._tick - self._start

    @property
    def _first_time(self) -> float:
        """Seconds, 0 but for a film whose first pictures were lost."""
        first = float(self._clock_times[0])
        return first if first > 0.5 / float(self.rate) else 0.0

    def _find_rate(self, stated: list[Fraction]) -> tuple[Fraction, bool]:
        """Choose the rate that explains the times of all frames, or the average one and "variable"."""
        if self._ticks[0] is None or self.num_frames < 2:
            return (stated[0] if stated else Fraction(25)), False
        times = np.array(self._ticks, dtype=np.float64) * self._tick
        steps = np.arange(self.num_frames)
        average = Fraction((self.num_frames - 1) / (times[-1] - times[0])).limit_denominator(100_000)

        def deviation(rate: Fraction) -> float:
            """Largest error in frames that counting at `rate` makes anywhere."""
            error = (times - times[0]) - steps / float(rate)
            return float(np.ptp(error)) / 2 * float(rate)

        near = [rate for rate in (*STANDARD_RATES, *stated) if abs(rate / average - 1) < 0.05]
        best = min(near, key=deviation, default=average)
        # a clock of 1 ms rounds each time by half a tick; a tenth of a frame is invisible anyway
        tolerance = max(0.1, self._tick * float(best))
        if deviation(best) <= tolerance:
            return best, False
        return average, deviation(average) > tolerance

    def __iter__(self) -> Iterator[np.ndarray]:
        frames = self._decode()
        current: np.ndarray | None = None
        frame = next(frames, None)
        for tick in self._ticks:
            while frame is not None and self._order(frame, tick) < 0:
                frame = next(frames, None)  # decoded, but not announced by any packet
            if frame is not None and (current is None or self._order(frame, tick) == 0):
                current = self._upright(frame)
                frame = next(frames, None)
            if current is None:
                raise TalkfaceError(f"film '{self.path}' is damaged: no frame of it can be decoded")
            yield current.copy()

    def _order(self, frame: av.VideoFrame, tick: int | None) -> int:
        """-1, 0, 1: the decoded frame belongs before, at, after `tick`; 0 where times say nothing."""
        if self._ordered or tick is None or frame.pts is None or abs(frame.pts - tick) <= self._half_step:
            return 0
        return 1 if frame.pts > tick else -1

    @functools.cached_property
    def _half_step(self) -> float:
        """Half of the shortest time between two frames, in ticks."""
        return 0.5 * float(np.diff(np.array(self._ticks, dtype=np.float64)).min(initial=2.0**31))

    def _upright(self, frame: av.VideoFrame) -> np.ndarray:
        height, width = self.size if self._turns % 2 == 0 else self.size[::-1]
        # a film may change its size on the way; the first frame decides
        matrix = "ITU709" if frame.colorspace == UNSPECIFIED and frame.height >= 720 else None
        pixels = frame.to_ndarray(
            format="rgb24", width=width, height=height, src_colorspace=matrix, interpolation=ACCURATE
        )
        return np.ascontiguousarray(np.rot90(pixels, self._turns))

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield decoded frames in presentation order, skipping what is damaged."""
        with open_media(self.path, "film") as container:
            stream = film_stream(container)
            assert stream is not None  # checked when the reader was made
            stream.thread_type = "AUTO"
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets)
                except (StopIteration, av.FFmpegError, OSError):
                    return
                try:
                    yield from packet.decode()
                except (av.FFmpegError, ValueError):
                    continue


def _packet_ticks(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, clock: str
) -> list[int | None]:
    """Time of every packet in ticks of the stream, ascending; only Nones if any of them has no time.

    Args:
        clock: "pts" or "dts".

    Packets are read but not decoded, which takes milliseconds for a minute of film.
    """
    ticks: list[int | None] = []
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError, OSError):
            return _usable(ticks)
        if packet.size and not packet.is_discard:
            ticks.append(getattr(packet, clock))


def _usable(ticks: list[int | None]) -> list[int | None]:
    """Sorted, if all are there and differ; otherwise as many Nones."""
    known = {tick for tick in ticks if tick is not None}
    return [*sorted(known)] if len(known) == len(ticks) else [None] * len(ticks)
