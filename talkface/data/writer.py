"""Writing a corpus: atomic shards, resumable, the same bytes whatever the number of workers.

The unit of work is a shard. A preparation script decides which clips form which shard (a pure function of its
settings), writes every shard through `CorpusWriter.shard`, and calls `finish`. A shard appears under its
name only when complete, with its rows of the index beside it, so a killed preparation continues with the
shards that are missing and `finish` merely joins the rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
import wave
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from talkface.data.base import (
    FORMAT,
    FORMAT_VERSION,
    SPLITS,
    Clip,
    ClipEntry,
    check_splits,
    read_description,
)
from talkface.errors import TalkfaceError, require

REJECTION_COLUMNS = ("file", "step", "reason", "score")


class CorpusWriter:
    """Creates or continues the corpus in `folder`.

    Args:
        folder: where; made when missing.
        name, licence, source: words for `corpus.json`; the licence is that of the product.
        fps, sample_rate, image_size: of every clip (a clip may state its own fps).
        config: the preparation settings, JSON only. Their hash guards against mixing two preparations in
            one folder.

    Raises:
        TalkfaceError: the folder holds a corpus that was prepared with other settings or by another version, or
            files that are no corpus.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str,
        licence: str,
        source: str,
        fps: float,
        image_size: int,
        sample_rate: int = 16000,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        settings = {"config": config or {}, "fps": fps, "image_size": image_size, "sample_rate": sample_rate}
        self.info: dict[str, Any] = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "name": name,
            "licence": licence,
            "source": source,
            "preparation_hash": preparation_hash(settings),
            **settings,
        }
        self._check_same_preparation()
        for part in ("shards", "parts"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "corpus.json", to_json(self.info))

    def _check_same_preparation(self) -> None:
        if (self.folder / "corpus.json").is_file():
            found = read_description(self.folder).get("preparation_hash")
            if found != self.info["preparation_hash"]:
                raise TalkfaceError(
                    f"{self.folder} holds a corpus prepared with other settings (hash {found}, "
                    f"asked {self.info['preparation_hash']}); give another folder or delete this one"
                )
        elif self.folder.exists() and not self.folder.is_dir():
            raise TalkfaceError(f"{self.folder} is a file; give a folder for the corpus")

    @classmethod
    def join(cls, folder: str | Path) -> CorpusWriter:
        """The writer of a corpus that another process started, with that one's settings."""
        joined = cls.__new__(cls)
        joined.folder = Path(folder)
        joined.info = read_description(joined.folder)
        return joined

    def is_done(self, shard: str) -> bool:
        """Whether the shard is complete on disk."""
        part, tar = self.folder / "parts" / f"{shard}.json", self.folder / "shards" / f"{shard}.tar"
        return part.is_file() and tar.is_file()

    def shard(self, name: str) -> ShardWriter:
        """A context manager that writes the shard `name`."""
        return ShardWriter(self, name)

    def finish(self, shards: Iterable[str]) -> None:
        """Join the rows of `shards`, in that order, into the index and mark the corpus as usable.

        Raises:
            TalkfaceError: a shard is missing, two clips share an id, or a subject is in two splits.
        """
        rows: list[dict[str, Any]] = []
        rejections: list[dict[str, Any]] = []
        for shard in shards:
            path = self.folder / "parts" / f"{shard}.json"
            if not path.is_file():
                raise TalkfaceError(
                    f"the shard {shard} of {self.folder} is not written yet; run the preparation again"
                )
            part = json.loads(path.read_text())
            rows += part["clips"]
            rejections += part["rejected"]
        entries = [ClipEntry(**row) for row in rows]
        check_splits(entries)
        seen: set[str] = set()
        for entry in entries:
            if entry.id in seen:
                raise TalkfaceError(f"clip id {entry.id!r} occurs twice in {self.folder}; ids must be unique")
            seen.add(entry.id)
        write_parquet(self.folder / "rejected.parquet", rejections, REJECTION_COLUMNS)
        write_parquet(self.folder / "index.parquet", rows, tuple(ClipEntry.__dataclass_fields__))


class ShardWriter:
    """One shard in the making; complete on a clean exit, nothing left on an error."""

    def __init__(self, corpus: CorpusWriter, name: str) -> None:
        self.corpus = corpus
        self.name = name
        self.path = corpus.folder / "shards" / f"{name}.tar"
        self._temporary = self.path.with_name(f".{name}.{os.getpid()}.partial")
        self._clips: list[dict[str, Any]] = []
        self._rejected: list[dict[str, Any]] = []

    def __enter__(self) -> ShardWriter:
        self._file = self._temporary.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        complete = False
        try:
            if kind is None:
                self._tar.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                complete = True
        finally:
            # on a full disk closing writes what is left in the buffer, and fails once more
            with contextlib.suppress(OSError):
                self._file.close()
            if not complete:
                self._temporary.unlink(missing_ok=True)
        if not complete:
            return
        os.replace(self._temporary, self.path)
        part = to_json({"clips": self._clips, "rejected": self._rejected})
        write_atomically(self.corpus.folder / "parts" / f"{self.name}.json", part)

    def reject(self, file: str, step: str, reason: str, score: float | None = None) -> None:
        """Record that a raw file was left out, at which step and why."""
        self._rejected.append({"file": file, "step": step, "reason": reason, "score": score})

    def add(self, clip: Clip) -> None:
        """Append one clip.

        Raises:
            TalkfaceError: the id, split or an array of the clip is not what the format allows.
        """
        info = self.corpus.info
        check_clip(clip)
        fps = float(clip.fps or info["fps"])
        digest = hashlib.sha256()
        places: dict[str, list[tuple[int, int]]] = {}

        def member(kind: str, extension: str, data: bytes) -> None:
            header = tarfile.TarInfo(f"{clip.id}.{extension}")
            header.size = len(data)
            # ustar: one 512-byte header block, then the data; TarInfo's default time is 0, so bytes repeat
            places.setdefault(kind, []).append((self._file.tell() + 512, len(data)))
            self._tar.addfile(header, io.BytesIO(data))
            digest.update(data)

        for number, frame in enumerate(clip.frames):
            member("frame", f"{number:03d}.jpg", frame)
        if clip.audio is not None:
            member("wav", "wav", wav_bytes(clip.audio, info["sample_rate"]))
        if clip.truth:
            member("npz", "npz", npz_bytes(clip.truth))
        about = {
            "id": clip.id,
            "subject": clip.subject,
            "emotion": clip.emotion,
            "intensity": clip.intensity,
            "transcript": clip.transcript,
            "fps": fps,
            **clip.meta,
        }
        member("json", "json", to_json(about))
        nowhere = (0, 0)
        entry = ClipEntry(
            id=clip.id,
            split=clip.split,
            subject=clip.subject,
            emotion=clip.emotion,
            intensity=clip.intensity,
            transcript=clip.transcript,
            fps=fps,
            num_frames=len(clip.frames),
            duration=len(clip.audio) / info["sample_rate"]
            if clip.audio is not None
            else len(clip.frames) / fps,
            shard=self.name,
            content_hash=digest.hexdigest(),
            frame_offsets=tuple(offset for offset, _ in places["frame"]),
            frame_sizes=tuple(size for _, size in places["frame"]),
            wav_offset=places.get("wav", [nowhere])[0][0],
            wav_size=places.get("wav", [nowhere])[0][1],
            npz_offset=places.get("npz", [nowhere])[0][0],
            npz_size=places.get("npz", [nowhere])[0][1],
            json_offset=places["json"][0][0],
            json_size=places["json"][0][1],
        )
        self._clips.append(asdict(entry))


def check_clip(clip: Clip) -> None:
    """Raise unless the clip can be stored."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", clip.id):
        raise TalkfaceError(f"clip id: {clip.id!r}; allowed 1 to 80 letters, digits, '_' and '-'; rename it")
    if clip.split not in SPLITS:
        raise TalkfaceError(f"split of clip {clip.id}: {clip.split!r}; allowed {', '.join(SPLITS)}")
    if not clip.frames:
        raise TalkfaceError(f"clip {clip.id} has no frames; reject it instead of adding it")
    for name, array in clip.truth.items():
        if array.dtype == object:
            raise TalkfaceError(
                f"'{name}' of clip {clip.id} is an object array; allowed are numbers and strings"
            )


def preparation_hash(settings: dict[str, Any]) -> str:
    """16 hex digits that change whenever a setting changes."""
    return hashlib.sha256(to_json(settings)).hexdigest()[:16]


def to_json(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def encode_jpeg(frame: np.ndarray, quality: int) -> bytes:
    """uint8 RGB (H, W, 3) as JPEG without chroma subsampling: lips and teeth are small."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def wav_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """Mono float32 in [-1, 1] as 16-bit PCM."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(samples, -1.0, 1.0) * 32767.0).round().astype("<i2").tobytes())
    return buffer.getvalue()


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    contents: dict[str, Any] = {name: arrays[name] for name in sorted(arrays)}
    np.savez_compressed(buffer, **contents)
    return buffer.getvalue()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all, also after a loss of power."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_parquet(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    pyarrow, parquet = require("pyarrow", extra="train"), require("pyarrow.parquet", extra="train")
    if rows:
        table = pyarrow.Table.from_pylist(rows).select(list(columns))
    else:
        table = pyarrow.table({column: pyarrow.array([], pyarrow.string()) for column in columns})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_atomically(path, buffer.getvalue())
