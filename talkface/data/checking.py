"""Is a corpus what it says? Every clip is read again and compared with the index and with itself.

    content      the bytes of a clip have the hash that the index tells
    ids          no id twice
    splits       no subject in two splits
    fps          a rate above 0 and at most 240 frames per second
    frames       the first frame is a JPEG of the corpus' size
    sound        16-bit mono at the corpus' rate, as long as the index says and as the frames last, and not silent
    landmarks    (frames, 68, 2), finite, at least half of them in the picture in every frame
    labels       emotion -1 to 7, intensity -1 to 3
    sync         of clips that an expert measured: at most one frame off after preparation

What a preparation leaves out on purpose never comes here; a finding means a damaged disk, a broken copy, or a defect of
the script that made the corpus.
"""

from __future__ import annotations

import hashlib
import io
import wave
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from talkface.data.base import EMOTIONS, ClipEntry, Corpus
from talkface.data.remote import Reading
from talkface.errors import TalkfaceError

CHECKS = ("content", "ids", "splits", "fps", "frames", "sound", "landmarks", "labels", "sync")
HIGHEST_RATE = 240.0
SILENCE = 1e-4
"""Root mean square below which a sound is silent: -80 dB."""
LEAST_INSIDE = 0.5
FRAMES_OFF = 1.0


@dataclass
class Finding:
    """One row of the result: how many clips a check looked at, and what is wrong with which."""

    check: str
    clips: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)

    def add(self, clip: ClipEntry, problem: str | None) -> None:
        self.clips += 1
        if problem is not None:
            self.wrong.append((clip.id, problem))


class _Unchecked(Corpus):
    """A corpus whose splits may overlap, so that it can be told where."""

    def _check_splits(self, entries: Iterable[ClipEntry]) -> None:
        pass


def check_corpus(
    folder: str | Path,
    sample: int | None = None,
    reading: Reading = "shards",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Corpus, list[Finding]]:
    """Look at every clip, or at `sample` of them, evenly spread; ids and splits are those of all.

    Args:
        progress: called with (clips done, clips in all).

    Raises:
        TalkfaceError: there is no finished corpus.
    """
    corpus = _Unchecked(folder, reading=reading)
    rows = {name: Finding(name) for name in CHECKS}
    seen: set[str] = set()
    home: dict[str, str] = {}
    for clip in corpus:
        rows["ids"].add(clip, "the id occurs twice" if clip.id in seen else None)
        seen.add(clip.id)
        split = home.setdefault(clip.subject, clip.split)
        what = f"subject {clip.subject} is in {split} and {clip.split}"
        rows["splits"].add(clip, None if split == clip.split else what)
        fine = np.isfinite(clip.fps) and 0 < clip.fps <= HIGHEST_RATE
        rows["fps"].add(clip, None if fine else f"{clip.fps} frames per second")
        fine = -1 <= clip.emotion < len(EMOTIONS) and -1 <= clip.intensity <= 3
        rows["labels"].add(clip, None if fine else f"emotion {clip.emotion}, intensity {clip.intensity}")
    count = len(corpus) if sample is None else min(sample, len(corpus))
    chosen = [corpus.clips[number * len(corpus) // count] for number in range(count)]
    for done, clip in enumerate(chosen, 1):
        _look(corpus, clip, rows)
        if progress is not None:
            progress(done, count)
    return corpus, list(rows.values())


def _look(corpus: Corpus, clip: ClipEntry, rows: dict[str, Finding]) -> None:
    try:
        members = corpus.read_members(clip)
    except TalkfaceError as error:
        rows["content"].add(clip, str(error))
        return
    digest = hashlib.sha256(b"".join(members)).hexdigest()
    rows["content"].add(
        clip, None if digest == clip.content_hash else "the bytes are not those that were written"
    )
    if digest != clip.content_hash:
        return  # whatever else is wrong follows from that
    rows["frames"].add(clip, _frame_problem(members[0], corpus.image_size))
    if clip.has_audio:
        rows["sound"].add(clip, _sound_problem(members[clip.num_frames], clip, corpus.sample_rate))
    truth = corpus.read_truth(clip)
    if "landmarks" in truth:
        rows["landmarks"].add(clip, _landmark_problem(truth["landmarks"], clip.num_frames, corpus.image_size))
    sync = corpus.read_meta(clip).get("sync")
    if isinstance(sync, dict) and "residual" in sync:
        off = float(sync["residual"])
        rows["sync"].add(clip, None if abs(off) <= FRAMES_OFF else f"the sound is {off:+.1f} frames late")


def _frame_problem(data: bytes, size: int) -> str | None:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return "frame 0 is no picture"
    if image.shape[:2] != (size, size):
        return f"frame 0 has {image.shape[1]} x {image.shape[0]} pixels, the corpus {size}"
    return None


def _sound_problem(data: bytes, clip: ClipEntry, sample_rate: int) -> str | None:
    try:
        with wave.open(io.BytesIO(data)) as file:
            form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64) / 32768
    except (wave.Error, EOFError, ValueError) as error:
        return f"no WAV ({error})"
    if form != (1, 2, sample_rate):
        return (
            f"{form[0]} channels of {8 * form[1]} bits at {form[2]} Hz; the corpus has 1, 16, {sample_rate}"
        )
    seconds, film = len(samples) / sample_rate, clip.num_frames / clip.fps if clip.fps > 0 else 0.0
    if abs(seconds - clip.duration) > 1 / sample_rate:
        return f"{seconds:.3f} s, the index says {clip.duration:.3f} s"
    if clip.fps > 0 and abs(seconds - film) > FRAMES_OFF / clip.fps + 1 / sample_rate:
        return f"{seconds:.3f} s, its {clip.num_frames} frames last {film:.3f} s"
    if not len(samples) or float(np.sqrt(np.mean(samples**2))) < SILENCE:
        return "silent"
    return None


def _landmark_problem(points: np.ndarray, frames: int, size: int) -> str | None:
    if points.shape != (frames, 68, 2):
        return f"shape {points.shape}, expected {(frames, 68, 2)}"
    if not np.isfinite(points).all():
        return f"not finite in frame {int(np.argmax(~np.isfinite(points).all(axis=(1, 2))))}"
    inside = ((points >= 0) & (points <= size)).all(axis=2).mean(axis=1)
    if inside.min() < LEAST_INSIDE:
        return f"{inside.min():.0%} in the picture in frame {int(inside.argmin())}"
    return None
