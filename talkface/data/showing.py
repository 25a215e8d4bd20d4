"""One clip for the eye: a strip of frames with their landmarks, the sound below, and a table of what is known."""

from __future__ import annotations

import difflib
import itertools
from typing import Any

import cv2
import numpy as np

from talkface.data.base import EMOTIONS, ClipEntry, Corpus, unpack_masks
from talkface.errors import TalkfaceError
from talkface.portrait.sheet import sheet

CELL = 256
POINT, MASK, WAVE = (60, 255, 90), np.array([255, 60, 60]), (40, 90, 160)
WAVE_HEIGHT = 80


def find_clip(corpus: Corpus, name: str) -> ClipEntry:
    """The clip of that id. Raises: TalkfaceError: there is none; names similar ones."""
    for clip in corpus:
        if clip.id == name:
            return clip
    near = difflib.get_close_matches(name, [clip.id for clip in corpus], n=3, cutoff=0.5)
    some = near or [clip.id for clip in corpus.clips[:3]]
    raise TalkfaceError(f"ID: {name!r} is no clip of {corpus.info['name']}; did you mean {', '.join(some)}?")


def describe_clip(corpus: Corpus, clip: ClipEntry) -> list[tuple[str, str]]:
    """(name, value) rows."""
    truth = corpus.read_truth(clip)
    meta = corpus.read_meta(clip)
    rows = [
        ("id", clip.id),
        ("corpus", f"{corpus.info['name']} ({corpus.info['licence']})"),
        ("split", clip.split),
        ("subject", clip.subject),
        ("emotion", f"{clip.emotion} {EMOTIONS[clip.emotion]}" if clip.emotion >= 0 else "unknown"),
        ("intensity", str(clip.intensity) if clip.intensity >= 0 else "unknown"),
        ("frames", f"{clip.num_frames} of {corpus.image_size} pixels, {clip.fps:.6g} per second"),
        ("sound", f"{clip.duration:.3f} s at {corpus.sample_rate} Hz" if clip.has_audio else "none"),
        ("transcript", clip.transcript or "none"),
        ("arrays", ", ".join(f"{name} {array.shape}" for name, array in sorted(truth.items())) or "none"),
        ("shard", f"{clip.shard}.tar"),
        ("bytes", f"{sum(clip.frame_sizes) + clip.wav_size + clip.npz_size + clip.json_size}"),
        ("content", clip.content_hash[:16]),
    ]
    known = {"id", "subject", "emotion", "intensity", "transcript", "fps"}
    return rows + [(name, short(value)) for name, value in sorted(meta.items()) if name not in known]


def short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def draw_clip(corpus: Corpus, clip: ClipEntry, frames: int = 8) -> np.ndarray:
    """uint8 (H, W, 3): evenly spread frames with landmarks, their times above; a row of masks and the sound where the
    clip has them.
    """
    count = min(frames, clip.num_frames)
    numbers = [int((k + 0.5) * clip.num_frames / count) for k in range(count)]
    truth = corpus.read_truth(clip)
    pictures = [enlarge(corpus.read_frame(clip, number)) for number in numbers]
    rows: list[list[np.ndarray | None]] = [[]]
    for number, picture in zip(numbers, pictures, strict=True):
        marked = picture.copy()
        for name in ("landmarks", "points"):
            for x, y in truth[name][number] * (CELL / corpus.image_size) if name in truth else ():
                cv2.circle(marked, (int(x), int(y)), 2, POINT, -1, cv2.LINE_AA)
        rows[0].append(marked)
    if "face_mask" in truth:
        masks = unpack_masks(truth["face_mask"][numbers], corpus.image_size)
        rows.append([laid_over(*pair) for pair in zip(pictures, masks, strict=True)])
    names = [f"{clip.frame_time(number):.2f} s" for number in numbers] if clip.num_frames > 1 else []
    strip = sheet(rows, column_names=names, cell=CELL)
    if clip.has_audio:
        strip = np.concatenate([strip, draw_sound(corpus.read_audio(clip), strip.shape[1])])
    return strip


def enlarge(picture: np.ndarray) -> np.ndarray:
    method = cv2.INTER_CUBIC if picture.shape[0] < CELL else cv2.INTER_AREA
    return np.asarray(cv2.resize(picture, (CELL, CELL), interpolation=method), np.uint8)


def laid_over(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the mask in red over it."""
    large = cv2.resize(mask.astype(np.float32), (CELL, CELL), interpolation=cv2.INTER_LINEAR)[..., None]
    return (picture * (1 - 0.45 * large) + MASK * 0.45 * large).round().astype(np.uint8)


def draw_sound(samples: np.ndarray, width: int) -> np.ndarray:
    """The largest and smallest value of every column, from -1 to 1, scaled to the loudest."""
    canvas = np.full((WAVE_HEIGHT, width, 3), 255, np.uint8)
    middle, reach = WAVE_HEIGHT // 2, WAVE_HEIGHT // 2 - 4
    loudest = max(float(np.abs(samples).max(initial=0.0)), 1e-6)
    edges = np.linspace(0, len(samples), width + 1).astype(int)
    for column, (start, end) in enumerate(itertools.pairwise(edges)):
        part = samples[start:end]
        if len(part):
            top, bottom = (int(middle - reach * value / loudest) for value in (part.max(), part.min()))
            cv2.line(canvas, (column, top), (column, bottom), WAVE, 1)
    return canvas
