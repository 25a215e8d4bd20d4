"""Read sound: any container and codec that FFmpeg knows, any rate and channel count -> 16 kHz mono.

Samples are placed at their presentation time: encoder delay is removed by the decoder, holes in the stream
are filled with silence, and the sound track of a film is measured from the first picture, so that sample n
belongs to time n / sample_rate of the film. Decoding streams; only the result is held in memory.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from talkface.errors import TalkfaceError
from talkface.media.output import PathLike
from talkface.media.pictures import check_input

MIN_SECONDS = 0.1
SILENCE_PEAK = 1e-3
# A stream may say that its next samples start a little earlier or later than the previous ones ended, because
# its clock is coarse (1 ms in Matroska, 26 ms frames in MPEG); only larger steps are holes or overlaps.
STEP_SECONDS = 0.03
# A clock that jumps back further than this was restarted (joined recordings); it does not mean an overlap.
RESTART_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Audio:
    """Mono sound: float32 samples in [-1, 1] at `sample_rate`."""

    samples: np.ndarray
    sample_rate: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.sample_rate

    @property
    def is_silent(self) -> bool:
        """Whether no sample is louder than -60 dB."""
        return bool(np.abs(self.samples).max(initial=0.0) < SILENCE_PEAK)


def open_media(path: PathLike, what: str) -> av.container.InputContainer:
    """Open `path` with FFmpeg; `what` is the word for it in errors.

    Raises:
        TalkfaceError: missing, empty, or not a format that FFmpeg recognises.
    """
    source = check_input(path, what)
    try:
        return av.open(str(source), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TalkfaceError(f"{what} '{source}' is damaged or of an unknown type ({reason})") from error


def film_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream | None:
    """The first moving-picture stream; the cover picture of a song is not one."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic and not _is_still(container, stream):
            return stream
    return None


def _is_still(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> bool:
    return container.format.name.endswith("_pipe") or container.format.name in ("image2", "gif", "apng")


def start_seconds(stream: av.stream.Stream) -> float:
    """Presentation time of the first sample or picture of `stream` on the clock of its container."""
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)


def read_audio(path: PathLike, sample_rate: int = 16000, max_seconds: float = 3600.0) -> Audio:
    """Read a sound file, or the sound track of a film, as mono float32 at `sample_rate`.

    Channels are averaged, low-frequency effects left out. Time 0 is the first sample of a sound file, the
    first picture of a film: what sounds earlier is cut, what starts later begins with silence.

    Args:
        max_seconds: the longest sound that is accepted.

    Raises:
        TalkfaceError: missing, not a sound, no sound track, damaged, shorter than `MIN_SECONDS` or longer
            than `max_seconds`.
    """
    with SoundSource(path, "sound") as source:
        _check_length(source.path, source.expected_seconds, max_seconds)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate)
        pieces: list[np.ndarray] = []
        count = 0
        for block in source.blocks():
            mono = np.ascontiguousarray(block[source.speech_channels].mean(axis=0, dtype=np.float32)[None])
            for piece in _resample(resampler, mono, source.sample_rate):
                pieces.append(piece)
                count += len(piece)
            _check_length(source.path, count / sample_rate, max_seconds)
        pieces.extend(_resample(resampler, None, source.sample_rate))
        samples = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
        if len(samples) < MIN_SECONDS * sample_rate:
            raise TalkfaceError(
                f"sound '{source.path}' is too short: {len(samples) / sample_rate:.3f} s; "
                f"at least {MIN_SECONDS} s are needed"
            )
    return Audio(samples.astype(np.float32) / 32768.0, sample_rate)


def _check_length(path: Path, seconds: float, max_seconds: float) -> None:
    if seconds > max_seconds:
        raise TalkfaceError(
            f"sound '{path}' is too long: {seconds:.0f} s; allowed are {max_seconds:.0f} s; "
            "cut it, or raise max_seconds"
        )


def _resample(resampler: av.AudioResampler, mono: np.ndarray | None, rate: int) -> Iterator[np.ndarray]:
    """Push float32 (1, n), or None to flush; yield int16 pieces."""
    frame = None
    if mono is not None:
        frame = av.AudioFrame.from_ndarray(mono, format="fltp", layout="mono")
        frame.sample_rate = rate
    for output in resampler.resample(frame):
        yield output.to_ndarray()[0].copy()


class SoundBlocks(ABC):
    """A sound as a stream of float32 blocks at its own rate and channels, in presentation order.

    Attributes:
        sample_rate: Hz.
        channels: number of channels.
        speech_channels: indices of the channels that are not low-frequency effects.
    """

    sample_rate: int
    channels: int
    speech_channels: list[int]

    @abstractmethod
    def blocks(self) -> Iterator[np.ndarray]:
        """Yield float32 (channels, n); can be read once."""


class SoundQueue(SoundBlocks):
    """Mono sound that is put in as it comes, and taken out by a film that is written behind it.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int = 16000) -> None:
        self.sample_rate, self.channels, self.speech_channels = sample_rate, 1, [0]
        self._waiting: deque[np.ndarray] = deque()

    def put(self, samples: np.ndarray) -> None:
        """Append float32 in [-1, 1] or int16, (n,)."""
        scale = np.float32(1 / 32768 if samples.dtype == np.int16 else 1)
        self._waiting.append(samples.astype(np.float32) * scale)

    def blocks(self) -> Iterator[np.ndarray]:
        """What was put in and not yet taken; ends for good when it runs out."""
        while self._waiting:
            yield self._waiting.popleft()[None]


class SoundSource(SoundBlocks):
    """The sound of a file as a stream of float32 blocks at its own rate and channels, in presentation order.

    Use as a context manager. `blocks` can be read once.

    Attributes:
        sample_rate: Hz.
        channels: number of channels.
        speech_channels: indices of the channels that are not low-frequency effects.
        expected_seconds: what the header says, 0 if it says nothing.
    """

    def __init__(self, path: PathLike, what: str = "sound"):
        self._container = open_media(path, what)
        self.path = Path(path)
        if not self._container.streams.audio:
            self._container.close()
            raise TalkfaceError(f"{what} '{path}' holds no sound; give a sound file or a film with sound")
        self._stream = self._container.streams.audio[0]
        codec = self._stream.codec_context
        self.sample_rate = int(codec.sample_rate or 0)
        self.channels = int(codec.layout.nb_channels)
        if self.sample_rate <= 0 or self.channels <= 0:
            self._container.close()
            raise TalkfaceError(f"{what} '{path}' is damaged: it names no sample rate or no channels")
        names = [channel.name for channel in codec.layout.channels]
        speech = [i for i, name in enumerate(names) if name not in ("LFE", "LFE2")]
        self.speech_channels = speech or list(range(self.channels))
        picture = film_stream(self._container)
        self._origin = start_seconds(self._stream if picture is None else picture)
        self.expected_seconds = self._header_seconds()

    def __enter__(self) -> SoundSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def _header_seconds(self) -> float:
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (self._container.duration or 0) / av.time_base
        bit_rate = stream.codec_context.bit_rate
        if stream.codec_context.name.startswith("pcm_") and bit_rate:
            # recorders that were cut off, and pipes, leave a length in the header that the file does not have
            seconds = min(seconds, self._container.size * 8 / bit_rate)
        return seconds

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield float32 (channels, n) blocks; NaN is 0, infinity is clipped, holes are silence.

        Raises:
            TalkfaceError: nothing, or less than was lost, could be decoded.
        """
        position = 0  # samples yielded so far
        offset = 0.0  # seconds added to the clock after it restarted
        decoded = lost = 0
        for frame in self._decode():
            if frame is None:
                lost += 1
                continue
            decoded += 1
            block = self._samples(frame)
            if block.shape[0] != self.channels or frame.sample_rate != self.sample_rate:
                raise TalkfaceError(f"sound '{self.path}' changes its format on the way; convert it to wav")
            if frame.time is None:
                start = position
            else:
                start = round((frame.time - self._origin + offset) * self.sample_rate)
                if start < position - RESTART_SECONDS * self.sample_rate and position > 0:
                    offset += (position - start) / self.sample_rate
                    start = position
            if position > 0 and abs(start - position) <= STEP_SECONDS * self.sample_rate:
                start = position
            while start > position:  # in pieces, so that a long hole needs no memory
                silence = min(start - position, self.sample_rate)
                position += silence
                yield np.zeros((self.channels, silence), np.float32)
            block = block[:, position - start :]
            if block.shape[1]:
                position += block.shape[1]
                yield block
        if lost >= max(decoded, 1):
            raise TalkfaceError(f"sound '{self.path}' is damaged: {decoded} blocks decoded, {lost} lost")
        if lost:
            _log.warning("sound '%s': %d of %d blocks are damaged", self.path, lost, lost + decoded)

    def _decode(self) -> Iterator[av.AudioFrame | None]:
        """Yield frames, and None for each packet that is damaged."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError):
                yield None
                return
            try:
                yield from packet.decode()
            except (av.FFmpegError, OSError, ValueError):
                yield None

    def _samples(self, frame: av.AudioFrame) -> np.ndarray:
        """Any sample format -> float32 (channels, n) around [-1, 1]."""
        values = frame.to_ndarray()
        if not frame.format.is_planar:
            values = values.reshape(-1, frame.layout.nb_channels).T
        if values.dtype.kind == "f":
            clean = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=-1.0)
            return np.clip(clean, -4.0, 4.0).astype(np.float32)
        if values.dtype == np.uint8:
            return (values.astype(np.float32) - 128.0) / 128.0
        full_scale = 2.0 ** (8 * values.dtype.itemsize - 1)
        return (values / full_scale).astype(np.float32)
