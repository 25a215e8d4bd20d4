"""A face that speaks while the sound is still coming: chunks of sound in, frames out, with bounded delay and memory.

A frame is made as soon as the sound up to `lookahead` after it is there, for as many frames as a network call holds
(`group`). The sound encoder would look farther ahead; what it cannot hear yet is filled with the mirror image of the
last sound heard, which keeps the colour of the vowel being spoken. What it measures on a whole sound (its level) is
estimated as the sound goes by. Frames do not depend on how the sound is cut into chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkface.conditioning.audio import FeatureWindow
from talkface.errors import TalkfaceError
from talkface.pipelines.sources import FoundFace, Shot, Timeline, frame_count
from talkface.pipelines.talking_film import TalkingFilm

LARGEST_SAMPLE = 4.0  # full scale is 1; what is far beyond it was meant to be int16


def checked(chunk: Any, number: int) -> np.ndarray:
    """A chunk of sound as float32 (n,). Raises: TalkfaceError: neither float32 nor int16, not (n,), not finite."""
    name = f"audio_chunks: chunk {number}"
    if not isinstance(chunk, np.ndarray) or chunk.dtype not in (np.float32, np.int16):
        kind = f"is of {chunk.dtype}" if isinstance(chunk, np.ndarray) else f"is a {type(chunk).__name__}"
        raise TalkfaceError(f"{name} {kind}; allowed are numpy arrays of float32 in [-1, 1], or of int16")
    if chunk.ndim != 1:
        raise TalkfaceError(
            f"{name} has the shape {chunk.shape}; allowed is (n,): mono sound; average the channels"
        )
    if chunk.dtype == np.int16:
        return chunk.astype(np.float32) / 32768.0
    largest = np.abs(chunk).max(initial=0.0)
    if not largest <= LARGEST_SAMPLE:  # nan is not less either
        raise TalkfaceError(
            f"{name} holds values up to {largest:g}; allowed are finite values in [-1, 1], or int16"
        )
    return chunk


class LiveSound:
    """Sound that is still coming, with the features of the part that the next frames need.

    Args:
        chunks: float32 in [-1, 1] or int16, (n,) with any n, at `speech.sample_rate`.
        speech: the encoder, or who listens in its place (`film_settings.listener`).
        group: frames that are made together.
        lookahead: seconds of sound after the centre of a group's last frame that are waited for; None: features are
            made exactly as for a whole sound, chunk by chunk of `SpeechEncoder.encode_long`.
        level: what `speech.level` returns for a whole sound; None: estimated as the sound goes by, or, without
            bound of `lookahead`, measured when it has ended.
        device: where `speech` computes.
        amplified: what is done to features (T, D) before they are used; None: nothing.
    """

    def __init__(
        self,
        chunks: Iterable[np.ndarray],
        speech: Any,
        *,
        group: int,
        lookahead: float | None,
        level: Tensor | None,
        device: torch.device,
        amplified: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._chunks, self.speech = iter(chunks), speech
        self.group, self.lookahead = group, lookahead
        self._level = level
        self._running = speech.running_level() if lookahead is not None and level is None else None
        self._device, self._amplified = device, amplified
        self._hop = speech.sample_rate / speech.feature_rate
        self._reach = round(speech.context_seconds * speech.feature_rate)
        self.features = FeatureWindow(speech.feature_dim)
        self._pieces: list[np.ndarray] = [np.zeros(0, np.float32)]
        self._kept_from = self._received = self._levelled = self._chunk_number = 0
        self._ended = False

    def timeline(self, fps: Fraction) -> Timeline:
        """Of unknown length: no times yet, only the rate."""
        return Timeline(fps, np.empty(0), np.empty(0))

    def shots(self, face: FoundFace, fps: Fraction, beside: float) -> Iterator[Shot]:
        """The same picture for every frame, each when its sound is there and `features` hold what it needs.

        Args:
            beside: seconds around a frame whose features it needs.

        Raises:
            TalkfaceError: a chunk is not allowed; the sound ended before half a frame.
        """
        step = float(1 / fps)
        for start in count(0, self.group):
            centres = [float(index * step + 0.5 * step) for index in range(start, start + self.group)]
            end = self._sample(centres[-1] + (self.lookahead or 0.0))
            self._receive(end)
            if self._ended:
                centres = centres[: max(0, frame_count(self._seconds, fps) - start)]
            if centres:
                first = max(0, math.floor((centres[0] - beside) * self.speech.feature_rate - 0.5))
                last = math.ceil((centres[-1] + beside) * self.speech.feature_rate - 0.5)
                with torch.inference_mode():
                    if self.lookahead is None:
                        self._encode_as_a_whole(first, last)
                    else:
                        self._encode_ahead(first, last, end)
            for number, centre in enumerate(centres):
                yield Shot(start + number, centre, face.picture, face.crop, face.points)
            if len(centres) < self.group:
                return

    @property
    def _seconds(self) -> float:
        return self._received / self.speech.sample_rate

    def _sample(self, seconds: float) -> int:
        return math.ceil(seconds * self.speech.sample_rate)

    def _receive(self, end: float) -> None:
        """Wait until the first `end` samples are there, or the sound has ended."""
        with torch.inference_mode(False):  # whoever makes the sound may use torch as well
            while self._received < end and not self._ended:
                try:
                    chunk = next(self._chunks)
                except StopIteration:
                    self._ended = True
                    self._chunks = iter(())
                    return
                self._pieces.append(checked(chunk, self._chunk_number))
                self._chunk_number += 1
                self._received += len(chunk)

    def _samples(self, start: int, stop: int) -> Tensor:
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces)]
        return torch.from_numpy(self._pieces[0][start - self._kept_from : stop - self._kept_from])

    def _forget(self, before: int) -> None:
        kept = self._samples(max(before, self._kept_from), self._received).numpy().copy()
        self._pieces, self._kept_from = [kept], max(before, self._kept_from)

    def _encode(self, samples: Tensor) -> Tensor:
        options = {} if self._level is None else {"level": self._level}
        found: Tensor = self.speech(samples.to(self._device)[None], **options)[0]
        return (found if self._amplified is None else self._amplified(found)).float().cpu()

    def _encode_ahead(self, first: int, last: int, end: int) -> None:
        """Features `first` to `last` from the first `end` samples, the rest mirrored; at the end all there are."""
        known = min(end, self._received)
        if self._running is not None:
            self._level = self._running.update(self._samples(self._levelled, known).to(self._device))
            self._levelled = known
        start, stop = max(0, first - self._reach), last + 1 + self._reach
        if self._ended:
            total = self.speech.num_features(known)
            stop, last = min(stop, total), min(last, total - 1)
            heard = self._samples(
                round(start * self._hop), known if stop == total else round(stop * self._hop)
            )
        else:
            heard = self._samples(round(start * self._hop), min(known, round(stop * self._hop)))
            heard = _mirrored(heard, round(stop * self._hop) - round(start * self._hop))
        self.features.replace(first, self._encode(heard)[first - start : last + 1 - start])
        self._forget(round(start * self._hop))

    def _encode_as_a_whole(self, first: int, last: int) -> None:
        """Features up to `last`, in the chunks and with the context of `SpeechEncoder.encode_long`."""
        if self._level is None and self.speech.level(torch.zeros(1, self.speech.sample_rate)) is not None:
            self._receive(math.inf)
            self._level = self.speech.level(self._samples(0, self._received).to(self._device)[None])
        step = round(self.speech.chunk_seconds * self.speech.feature_rate)
        while (begin := len(self.features)) <= last:
            end = begin + step + self._reach
            self._receive(round((end + 1) * self._hop))
            start, stop, total = max(0, begin - self._reach), end, end + 1
            if self._ended:
                total = self.speech.num_features(self._received)
                stop = min(end, total)
            if begin >= total:
                return
            heard = self._samples(
                round(start * self._hop), self._received if stop == total else round(stop * self._hop)
            )
            rows = self._encode(heard)[begin - start : min(begin + step, stop) - start]
            self.features.extend(rows, forget=first)
            self._forget(round((begin + step - self._reach) * self._hop))


def _mirrored(samples: Tensor, length: int) -> Tensor:
    """(n,) continued to (length,) with its own last part backwards, with silence where that is too short."""
    missing = length - len(samples)
    back = samples[:-1].flip(0)[:missing]
    return torch.cat([samples, back, samples.new_zeros(missing - len(back))])


class FrameStream(Iterator[np.ndarray]):
    """Iterate over it for uint8 (H, W, 3) RGB frames, once; `close`, or leaving its `with` block, frees everything.

    Attributes:
        fps: exact rate.
        delay: seconds from a sound until the frames that show it can be made, at most; computing comes on top.
            Infinite without a bound of the lookahead.
        pixel_aspect, notes, metadata: see `TalkingFilm`.
    """

    def __init__(self, film: TalkingFilm, sound: LiveSound) -> None:
        self.fps, self.pixel_aspect = film.fps, film.pixel_aspect
        self.notes, self.metadata = film.notes, film.metadata
        waits = math.inf if sound.lookahead is None else sound.lookahead
        self.delay = waits + (sound.group - 0.5) / float(film.fps)
        self._frames: Iterator[np.ndarray] = iter(film)

    def __next__(self) -> np.ndarray:
        return next(self._frames)

    def __enter__(self) -> FrameStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop: there are no more frames, and what made them is freed."""
        frames, self._frames = self._frames, iter(())
        if hasattr(frames, "close"):
            frames.close()
