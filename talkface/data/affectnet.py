"""AffectNet (Mollahosseini, Hasani and Mahoor 2017, arXiv 1708.03985), as distributed, into a corpus.

    <raw>/training.csv, validation.csv        or in a folder below, as the archives unpack them
    <raw>/Manually_Annotated_Images/<n>/<hash>.jpg

A row is a picture, a face box, 68 landmarks, `expression`, `valence` and `arousal`. The eight expressions of the paper
(0 to 7; `talkface.head.emotions.EMOTIONS` has their names in this order) are kept: 287,651 for training, 4,000 for
validation; 8 none, 9 uncertain and 10 no face go to `rejected.parquet`, as does whatever cannot be read or
shows no face in its box.

The face is brought to the canonical crop (`portrait.crop.AlignedCrop`): a similarity by the landmarks that a finder
sees (or those of the row), mirrored beyond the border of the picture. The thesis's text says the same; its code
squeezes pictures to a square and rotates about a transposed centre, which is not repeated here.

AffectNet does not say who is who: every picture is its own subject. Valence and arousal, -1 to 1, are in the meta data
of each picture.
"""

from __future__ import annotations

import csv
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkface.data.base import EMOTIONS, Clip
from talkface.data.finding import Finder, finder_key
from talkface.data.writer import CorpusWriter, ShardWriter, encode_jpeg
from talkface.errors import TalkfaceError
from talkface.media import read_image
from talkface.portrait.crop import AlignedCrop

LICENCE = (
    "AffectNet: given to researchers by its authors (University of Denver); for research only, no passing on"
)
FILES = {"train": "training.csv", "val": "validation.csv"}
PICTURES = "Manually_Annotated_Images"
COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
    "valence", "arousal",
)  # fmt: skip
LEFT_OUT = {8: "none", 9: "uncertain", 10: "no face"}
SIZES = (128, 224, 256)
LANDMARKS = ("found", "annotated")
VERSION = 1
"""Raise when the same pictures and settings give another corpus."""
SEARCH_SIDE = 320
"""Longer sides are shrunk to this many pixels for the finder; it looks at the face with 128."""


class Rejected(Exception):
    """A picture is left out: step, reason, and score where there is one."""

    def __init__(self, step: str, reason: str, score: float | None = None) -> None:
        super().__init__(reason)
        self.step, self.reason, self.score = step, reason, score


@dataclass(frozen=True)
class AffectNetFolder:
    """Where the parts of a downloaded AffectNet lie."""

    tables: dict[str, Path]
    pictures: Path

    @classmethod
    def find(cls, raw: str | Path) -> AffectNetFolder:
        """Look in `raw` and one folder below.

        Raises:
            TalkfaceError: no such folder, or none of its tables or pictures is there.
        """
        raw = Path(raw)
        if not raw.is_dir():
            raise TalkfaceError(f"raw: {raw} does not exist; give the folder of AffectNet as downloaded")

        def look(name: str) -> Path | None:
            return next((path for pattern in (name, f"*/{name}") for path in sorted(raw.glob(pattern))), None)

        tables = {split: path for split, name in FILES.items() if (path := look(name))}
        pictures = look(PICTURES)
        missing = [name for split, name in FILES.items() if split not in tables]
        if missing or pictures is None:
            names = ", ".join([*missing, *([] if pictures else [f"{PICTURES}/"])])
            raise TalkfaceError(
                f"raw: {raw} has no {names} (looked there and one folder below); AffectNet has "
                f"{', '.join(FILES.values())} and {PICTURES}/; unpack its archives there"
            )
        return cls(tables, pictures)


@dataclass(frozen=True)
class Row:
    """One line of a table; `problem` says why it cannot be used."""

    id: str
    split: str
    file: str
    label: int = -1
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    valence: float = 0.0
    arousal: float = 0.0
    points: np.ndarray | None = None
    problem: tuple[str, str] | None = None


def read_rows(table: Path, split: str, with_points: bool, seen: dict[str, str]) -> Iterator[Row]:
    """The rows of `training.csv` or `validation.csv`, in their order.

    Args:
        with_points: also read the 68 landmarks of each row.
        seen: id -> file of all rows so far; extended. Ids are unique, repeated files are marked.

    Raises:
        TalkfaceError: the columns are not AffectNet's.
    """
    csv.field_size_limit(1 << 20)
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        names: list[str] = list(COLUMNS)
        for number, fields in enumerate(csv.reader(file)):
            if number == 0 and COLUMNS[0] in fields:
                names = fields
                if absent := [name for name in COLUMNS if name not in names]:
                    raise TalkfaceError(
                        f"{table} has no column {', '.join(absent)}; AffectNet's are {', '.join(COLUMNS)}; "
                        "unpack the archive again"
                    )
                continue
            if number == 0 and len(fields) != len(COLUMNS):
                raise TalkfaceError(
                    f"{table} starts with {fields[:2]}; AffectNet's columns are {', '.join(COLUMNS)}; "
                    "give the table of AffectNet's manually annotated pictures"
                )
            if fields:
                yield _row(
                    dict(zip(names, fields, strict=False)),
                    split,
                    with_points,
                    seen,
                    f"{table.name}:{number + 1}",
                )


def _row(fields: dict[str, str], split: str, with_points: bool, seen: dict[str, str], line: str) -> Row:
    file = fields.get(COLUMNS[0], "").strip()
    name = picture_id(file or line)
    if file and seen.get(name) == file:
        duplicate = picture_id(f"{file} {line}", always_hash=True)
        return Row(duplicate, split, file, problem=("table", f"repeats an earlier row ({line})"))
    if name in seen:
        name = picture_id(file or line, always_hash=True)
    seen[name] = file
    try:
        label, box = int(fields["expression"]), tuple(float(fields[key]) for key in COLUMNS[1:5])
        valence, arousal = float(fields["valence"]), float(fields["arousal"])
        points = _points(fields["facial_landmarks"]) if with_points else None
    except (KeyError, ValueError) as error:
        return Row(name, split, file or line, problem=("table", f"the row cannot be read ({line}: {error})"))
    if not file or Path(file).is_absolute() or ".." in Path(file).parts:
        return Row(
            name, split, file or line, problem=("table", f"the path of the picture is not allowed ({line})")
        )
    problem = None
    if not 0 <= label < len(EMOTIONS):
        problem = ("label", f"label {label} ({LEFT_OUT.get(label, 'unknown')})")
    # a tuple made by a generator has any length to mypy; `box` has the four of COLUMNS[1:5]
    return Row(name, split, file, label, box, valence, arousal, points, problem)  # type: ignore[arg-type]


def _points(text: str) -> np.ndarray:
    values = [float(value) for value in text.split(";")]
    if len(values) != 136:
        raise ValueError(f"{len(values)} numbers of landmarks")
    return np.array(values, np.float32).reshape(68, 2)


def picture_id(file: str, always_hash: bool = False) -> str:
    """An id of letters, digits, `_` and `-` for a path below the picture folder."""
    stem = file.rpartition(".")[0] or file
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", stem.replace("/", "_"))
    if plain == stem.replace("/", "_") and len(plain) <= 80 and not always_hash:
        return plain
    return f"{plain[:60]}-{hashlib.sha256(file.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class AffectNetRecipe:
    """How pictures become aligned faces.

    Args:
        size: side of the faces in pixels: 128 (the paper), 224 or 256.
        landmarks: "found" by a face finder, or "annotated", those of the table.
        quality: of the JPEG files.
        pictures_per_shard: rows of a table that form a shard, the unit of resuming.
    """

    size: int = 128
    landmarks: str = "found"
    quality: int = 95
    pictures_per_shard: int = 1000

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise TalkfaceError(f"size: {self.size}; allowed {', '.join(map(str, SIZES))}")
        if self.landmarks not in LANDMARKS:
            raise TalkfaceError(f"landmarks: {self.landmarks!r}; allowed {', '.join(LANDMARKS)}")
        if not 1 <= self.quality <= 100 or self.pictures_per_shard < 1:
            raise TalkfaceError(
                f"quality {self.quality}, pictures_per_shard {self.pictures_per_shard}; allowed 1-100 and 1 or more"
            )

    def plan(self, folder: AffectNetFolder) -> dict[str, list[Row]]:
        """Shard name -> its rows; a function of the tables and these settings alone."""
        seen: dict[str, str] = {}
        shards: dict[str, list[Row]] = {}
        for split, table in sorted(folder.tables.items()):
            for number, row in enumerate(read_rows(table, split, self.landmarks == "annotated", seen)):
                shards.setdefault(f"{split}-{number // self.pictures_per_shard:05d}", []).append(row)
        return shards


def find_face(image: np.ndarray, row: Row, finder: Finder) -> np.ndarray:
    """Landmarks (68, 2) of the face in the row's box, in pixels of `image`.

    The finder sees the box and half its size around it, so that large pictures cost no more than small ones and
    neighbours are not mistaken for the face.

    Raises:
        Rejected: nobody is found there.
    """
    height, width = image.shape[:2]
    x, y, wide, high = row.box
    if wide <= 1 or high <= 1:
        x, y, wide, high = 0.0, 0.0, float(width), float(height)
    left, top = (max(0, int(start - side / 2)) for start, side in ((x, wide), (y, high)))
    right, bottom = min(width, int(x + 1.5 * wide) + 1), min(height, int(y + 1.5 * high) + 1)
    if right - left < 4 or bottom - top < 4:
        raise Rejected("landmarks", "the box of the face lies outside the picture")
    part = np.ascontiguousarray(image[top:bottom, left:right])
    zoom = min(1.0, SEARCH_SIDE / max(part.shape[:2]))
    if zoom < 1:
        part = np.asarray(cv2.resize(part, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), np.uint8)
    scale = np.array([(right - left) / part.shape[1], (bottom - top) / part.shape[0]])
    faces = [(face, np.asarray(face.points, np.float64) * scale + (left, top)) for face in finder.find(part)]
    if not faces:
        raise Rejected("landmarks", "no face found")
    face, points = max(faces, key=lambda pair: _overlap(pair[1], (x, y, wide, high)))
    if _overlap(points, (x, y, wide, high)) < 0.2:
        raise Rejected("landmarks", "no face found in the box", float(face.score))
    return points.astype(np.float32)


def _overlap(points: np.ndarray, box: tuple[float, float, float, float]) -> float:
    """Share of the landmarks' bounding box that lies in the box."""
    low, high = points.min(axis=0), points.max(axis=0)
    start, end = np.array(box[:2]), np.array(box[:2]) + box[2:]
    inside = np.clip(np.minimum(high, end) - np.maximum(low, start), 0, None).prod()
    return float(inside / max(float((high - low).prod()), 1e-6))


def make_picture(row: Row, pictures: Path, recipe: AffectNetRecipe, finder: Finder | None) -> Clip:
    """The aligned face of one row.

    Raises:
        Rejected: the row, the file or the face in it does not allow it.
    """
    if row.problem is not None:
        raise Rejected(*row.problem)
    path = pictures / row.file
    if not path.is_file():
        raise Rejected("read", "the file is missing")
    try:
        image = read_image(path)
    except TalkfaceError as error:
        raise Rejected("read", str(error).replace(str(path), row.file)) from error
    points = row.points if finder is None else find_face(image, row, finder)
    assert points is not None
    try:
        crop = AlignedCrop.from_landmarks(image, points, size=recipe.size)
    except TalkfaceError as error:
        raise Rejected("align", str(error)) from error
    return Clip(
        id=row.id,
        split=row.split,
        subject=row.id,
        frames=[encode_jpeg(crop.image, recipe.quality)],
        truth={"landmarks": crop.to_crop(points).astype(np.float32)[None]},
        emotion=row.label,
        meta={
            "file": row.file,
            "valence": row.valence,
            "arousal": row.arousal,
            "coverage": round(crop.coverage, 4),
            "scale": round(crop.scale, 4),
        },
    )


def write_shard(
    shard: ShardWriter, rows: list[Row], pictures: Path, recipe: AffectNetRecipe, finder: Finder | None
) -> None:
    """One shard from its rows alone, so that shards may be written by several processes."""
    with shard:
        for row in rows:
            try:
                shard.add(make_picture(row, pictures, recipe, finder))
            except Rejected as why:
                shard.reject(row.file, why.step, why.reason, why.score)


def prepare_affectnet(
    raw: str | Path,
    out: str | Path,
    recipe: AffectNetRecipe | None = None,
    finder: Finder | None = None,
    report: Callable[[str], None] | None = None,
) -> None:
    """Write what is missing of the corpus `out`, and finish it.

    Args:
        raw: AffectNet's own folder (see `AffectNetFolder`).
        finder: for landmarks "found"; None makes the bundled one.
        report: receives one line per shard; None prints to stderr.

    Raises:
        TalkfaceError: `raw` is no AffectNet, none of its pictures can be used, or `out` was prepared with other
            settings.
    """
    say = report or partial(print, file=sys.stderr, flush=True)
    recipe = recipe or AffectNetRecipe()
    folder = AffectNetFolder.find(raw)
    if recipe.landmarks == "annotated":
        finder = None
    elif finder is None:
        from talkface.data.finding import make_finder

        finder = make_finder()
    shards = recipe.plan(folder)
    writer = corpus_writer(out, folder, recipe, finder)
    missing = {name: rows for name, rows in shards.items() if not writer.is_done(name)}
    total, done = sum(map(len, missing.values())), 0
    for name, rows in missing.items():
        write_shard(writer.shard(name), rows, folder.pictures, recipe, finder)
        done += len(rows)
        say(f"AffectNet: {done}/{total} rows")
    writer.finish(shards)


def corpus_writer(
    out: str | Path, folder: AffectNetFolder, recipe: AffectNetRecipe, finder: Finder | None
) -> CorpusWriter:
    """The writer of this recipe; raises when `out` holds another one."""
    config: dict[str, Any] = {
        "size": recipe.size,
        "landmarks": recipe.landmarks if finder is None else finder_key(finder),
        "quality": recipe.quality,
        "pictures_per_shard": recipe.pictures_per_shard,
        "tables": {split: file_digest(table) for split, table in sorted(folder.tables.items())},
        "version": VERSION,
    }
    return CorpusWriter(
        out,
        name="AffectNet",
        licence=LICENCE,
        source="arXiv 1708.03985",
        fps=25,
        image_size=recipe.size,
        config=config,
    )


def file_digest(path: Path) -> str:
    """The first 16 hex digits of a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
