"""The corpus format: one folder, whatever the data came from.

    corpus.json           name, licence, source, fps, sample rate, image size, preparation settings and hash
    index.parquet         one row per clip: id, split, subject, ..., shard and byte offset of every member
    rejected.parquet      one row per raw file left out: file, step, reason, score
    shards/<name>.tar     WebDataset: <id>.000.jpg ..., <id>.wav (16 kHz mono PCM), <id>.npz, <id>.json
    features/<key>/       sidecar shards of cached sound features, by content hash (see `features.py`)

The shards are plain WebDataset tars and can be streamed by any reader of that format. The index also holds
byte offsets, so one frame of one clip is one `pread`: no scanning, no extraction, safe with forked workers.
A picture is a clip of one frame without sound. This file reads (bytes: `shards.py`); `writer.py` writes, `remote.py`
brings what is behind a URL.
"""

from __future__ import annotations

import copy
import io
import json
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkface.data.remote import READINGS, Reading, RemoteFolder, is_url, open_remote
from talkface.data.shards import ShardFiles
from talkface.errors import TalkfaceError, require
from talkface.head.emotions import EMOTIONS as EMOTIONS  # corpora label clips with them

FORMAT = "talkface-corpus"
FORMAT_VERSION = 1
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Clip:
    """One clip as it is handed to the writer.

    Args:
        id: letters, digits, `_` and `-` only; unique in the corpus.
        split: train, val or test. A subject belongs to one split only.
        frames: JPEG bytes, all of the corpus' image size.
        audio: mono float32 in [-1, 1] at the corpus' sample rate, or None for pictures.
        truth: arrays that go to the `.npz`; `landmarks` is (T, 68, 2) float32 pixels of the frames.
        emotion, intensity: ids, -1 when unknown (intensity 1 to 3 where a level exists).
        fps: frames per second of this clip; None = the corpus' rate.
        meta: anything JSON can hold (voice, licence of one item, phonemes with times, ...).
    """

    id: str
    split: str
    subject: str
    frames: list[bytes]
    audio: np.ndarray | None = None
    truth: dict[str, np.ndarray] = field(default_factory=dict)
    emotion: int = -1
    intensity: int = -1
    transcript: str = ""
    fps: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClipEntry:
    """One row of the index: what a clip is and where its bytes lie."""

    id: str
    split: str
    subject: str
    emotion: int
    intensity: int
    transcript: str
    fps: float
    num_frames: int
    duration: float
    shard: str
    content_hash: str
    frame_offsets: tuple[int, ...]
    frame_sizes: tuple[int, ...]
    wav_offset: int
    wav_size: int
    npz_offset: int
    npz_size: int
    json_offset: int
    json_size: int

    @property
    def has_audio(self) -> bool:
        return self.wav_size > 0

    def frame_time(self, frame: int) -> float:
        """Seconds at the centre of frame `frame`."""
        return (frame + 0.5) / self.fps


class Corpus:
    """A prepared corpus, opened for random access.

    Args:
        folder: the corpus folder, or the URL of one (see `remote.py`).
        split: keep only this split; None keeps all.
        reading: of a URL: "shards" keeps whole shards on this machine, "ranges" reads single members and keeps
            nothing.

    Attributes:
        folder: on this machine; of a remote corpus what is kept of it, and its sidecars.
        clips: rows of the index, of that split.

    Raises:
        TalkfaceError: the folder is no corpus, was written by a newer version, was left unfinished, holds
            no clip of that split, or one of its subjects appears in two splits.
    """

    def __init__(self, folder: str | Path, split: str | None = None, reading: Reading = "shards") -> None:
        if reading not in READINGS:
            raise TalkfaceError(f"reading: {reading!r}; allowed {', '.join(READINGS)}")
        self.remote: RemoteFolder | None = None
        if is_url(folder):
            self.remote, self.folder = open_remote(str(folder))
        else:
            self.folder = Path(folder)
        self.info = read_corpus_info(self.folder)
        entries = read_index(self.folder / "index.parquet")
        self._check_splits(entries)
        if split is not None and split not in SPLITS:
            raise TalkfaceError(f"split: {split!r}; allowed {', '.join(SPLITS)}")
        self.clips: list[ClipEntry] = [entry for entry in entries if split in (None, entry.split)]
        if not self.clips:
            raise TalkfaceError(
                f"the corpus {folder} has no clip in split {split!r}; prepare it with that split"
            )
        self._shards = ShardFiles(self.folder / "shards", self.remote, reading)

    def _check_splits(self, entries: Iterable[ClipEntry]) -> None:
        check_splits(entries)

    def bring_sidecar(self, kind: str, key: str) -> Path:
        """The folder of cached features or latents; those beside a remote corpus are brought here, all at once.

        Args:
            kind: "features" or "latents".
            key: of the encoder, see `features.py` and `latents.py`.
        """
        folder = self.folder / kind / key
        if self.remote is None or (folder / f"{kind}.json").is_file():
            return folder
        place = f"{kind}/{key}"
        try:
            places = json.loads(self.remote.read(f"{place}/{kind}.json"))["places"]
            ending = {"features": "tar", "latents": "npy"}[kind]
            for shard in sorted({str(value[0]) for value in places.values()}):
                self.remote.fetch(f"{place}/{shard}.{ending}", folder / f"{shard}.{ending}")
            self.remote.fetch(f"{place}/{kind}.json", folder / f"{kind}.json")
        except FileNotFoundError:
            pass  # nobody computed them there
        return folder

    @property
    def fps(self) -> float:
        return float(self.info["fps"])

    @property
    def sample_rate(self) -> int:
        return int(self.info["sample_rate"])

    @property
    def image_size(self) -> int:
        return int(self.info["image_size"])

    def subset(self, clips: Iterable[ClipEntry]) -> Corpus:
        """The same corpus with some of its clips only."""
        other = copy.copy(self)
        other.clips = list(clips)
        return other

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[ClipEntry]:
        return iter(self.clips)

    def read_frame(self, clip: ClipEntry, frame: int) -> np.ndarray:
        """Frame `frame` as uint8 (H, W, 3) RGB."""
        data = self._shards.read(clip.shard, clip.frame_offsets[frame], clip.frame_sizes[frame])
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise TalkfaceError(
                f"frame {frame} of clip {clip.id} in {self.folder} is no JPEG; prepare the corpus again"
            )
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def read_audio(self, clip: ClipEntry) -> np.ndarray:
        """The sound as mono float32 in [-1, 1] at `sample_rate`; empty for a clip without sound."""
        if not clip.has_audio:
            return np.zeros(0, np.float32)
        with wave.open(io.BytesIO(self._shards.read(clip.shard, clip.wav_offset, clip.wav_size))) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return samples.astype(np.float32) / 32768.0

    def read_truth(self, clip: ClipEntry, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays of the `.npz`, all of them or those named (only these are decompressed)."""
        if not clip.npz_size:
            self._check_truth(clip, names, [])
            return {}
        data = self._shards.read(clip.shard, clip.npz_offset, clip.npz_size)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            self._check_truth(clip, names, file.files)
            return {name: file[name] for name in (file.files if names is None else names)}

    def _check_truth(self, clip: ClipEntry, names: Iterable[str] | None, there: list[str]) -> None:
        if missing := [name for name in names or () if name not in there]:
            raise TalkfaceError(
                f"clip {clip.id} in {self.folder} has no '{missing[0]}'; it has {', '.join(there) or 'no arrays'}; "
                "prepare the corpus with that step"
            )

    def read_members(self, clip: ClipEntry) -> list[bytes]:
        """The files of a clip in the order in which they were written: frames, sound, arrays, meta data."""
        places = list(zip(clip.frame_offsets, clip.frame_sizes, strict=True))
        places += [(clip.wav_offset, clip.wav_size), (clip.npz_offset, clip.npz_size)]
        places.append((clip.json_offset, clip.json_size))
        return [self._shards.read(clip.shard, offset, size) for offset, size in places if size]

    def read_meta(self, clip: ClipEntry) -> dict[str, Any]:
        """The `.json` of the clip."""
        return json.loads(self._shards.read(clip.shard, clip.json_offset, clip.json_size))


def pack_masks(masks: np.ndarray) -> np.ndarray:
    """(T, H, W) bool -> (T, H, ceil(W / 8)) uint8, as stored in the `.npz`."""
    return np.packbits(masks.astype(bool), axis=-1)


def unpack_masks(packed: np.ndarray, width: int) -> np.ndarray:
    """The inverse of `pack_masks`: (T, H, width) bool."""
    return np.unpackbits(packed, axis=-1, count=width).astype(bool)


def read_description(folder: Path) -> dict[str, Any]:
    """`corpus.json` of a corpus, which may be unfinished.

    Raises:
        TalkfaceError: it is missing or damaged, or of another format or version.
    """
    path = folder / "corpus.json"
    if not path.is_file():
        raise TalkfaceError(
            f"corpus: {folder} has no corpus.json; prepare it with a script in data_prep/ first"
        )
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text
        raise TalkfaceError(f"{path} is not valid JSON ({error}); prepare the corpus again") from error
    found = info if isinstance(info, dict) else {}
    version = found.get("version")
    if found.get("format") != FORMAT or not isinstance(version, int):
        raise TalkfaceError(
            f"{path} says format {found.get('format')!r} version {version!r}; allowed {FORMAT!r} "
            f"version {FORMAT_VERSION}; prepare the corpus again, into another folder"
        )
    if version != FORMAT_VERSION:
        newer = version > FORMAT_VERSION
        raise TalkfaceError(
            f"{path}: version {version} of the format, made by {'a newer' if newer else 'an older'} talkface; "
            f"allowed is {FORMAT_VERSION}; {'update talkface' if newer else 'prepare it again, into another folder'}"
        )
    return info


def read_corpus_info(folder: Path) -> dict[str, Any]:
    """`corpus.json` of a finished corpus, checked."""
    info = read_description(folder)
    if not (folder / "index.parquet").is_file():
        raise TalkfaceError(
            f"the corpus {folder} is unfinished (no index.parquet); run its preparation again, it continues"
        )
    return info


def read_index(path: Path) -> list[ClipEntry]:
    """The rows of `index.parquet`."""
    parquet = require("pyarrow.parquet", extra="train")
    rows = parquet.read_table(path).to_pylist()
    return [
        ClipEntry(
            **{
                **row,
                "frame_offsets": tuple(row["frame_offsets"]),
                "frame_sizes": tuple(row["frame_sizes"]),
            }
        )
        for row in rows
    ]


def check_splits(entries: Iterable[ClipEntry]) -> None:
    """Raise unless every subject lives in exactly one split."""
    home: dict[str, str] = {}
    for entry in entries:
        split = home.setdefault(entry.subject, entry.split)
        if split != entry.split:
            raise TalkfaceError(
                f"subject {entry.subject!r} appears in the splits {split} and {entry.split}; "
                "a subject belongs to one split; prepare the corpus with splits by subject"
            )
