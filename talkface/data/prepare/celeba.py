"""CelebA (Liu, Luo, Wang and Tang 2015, arXiv 1411.7766), its aligned and cropped pictures, into a corpus.

    <raw>/img_align_celeba/000001.jpg ... 202599.jpg      178 x 218 pixels, or in folders below, as archives unpack
    <raw>/list_eval_partition.txt                         0 train, 1 val, 2 test: 162,770 / 19,867 / 19,962
    <raw>/list_attr_celeba.txt                            40 attributes
    <raw>/identity_CelebA.txt                             who is who, where the authors gave it to you
    <raw>/list_landmarks_align_celeba.txt                 five points, optional

Rows 45 to 173 and columns 25 to 153 are the face; 128 pixels, reduced to 64 as pixel diffusion and the embedding
papers use them (arXiv 2301.07485). The partition is the official one by file name: code in circulation cuts an
unsorted directory listing instead and gets another test set on every machine. Tables that end in .csv, with commas, are
read as well.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkface.data.base import SPLITS, Clip
from talkface.data.finding import Finder
from talkface.data.prepare.source import About, RawItem, Rejected, file_digest, item_id
from talkface.data.writer import encode_jpeg
from talkface.errors import TalkfaceError
from talkface.media import read_image

PICTURES = "img_align_celeba"
PARTITION, ATTRIBUTES = "list_eval_partition", "list_attr_celeba"
IDENTITY, POINTS = "identity_CelebA", "list_landmarks_align_celeba"
ALIGNED = (218, 178)
ROWS, COLUMNS = slice(45, 173), slice(25, 153)
SIZES = (64, 128)
LANDMARKS = ("none", "found")
LAST_OF = (("train", 162770), ("val", 182637), ("test", 202599))
"""Number of the last picture of each split, as in `list_eval_partition.txt`."""
VERSION = 1
"""Raise when the same pictures and settings give another corpus."""


def official_split(number: int) -> str:
    """The split of picture `number` (1 to 202,599).

    Raises:
        ValueError: no picture has this number.
    """
    for split, last in LAST_OF:
        if 1 <= number <= last:
            return split
    raise ValueError(f"no picture has the number {number}")


def find_below(raw: Path, names: tuple[str, ...], depth: int = 2) -> Path | None:
    """The first of `names` in `raw` or in folders at most `depth` below, nearest first."""
    for level in range(depth + 1):
        for name in names:
            for path in sorted(raw.glob("*/" * level + name)):
                return path
    return None


def find_table(raw: Path, name: str) -> Path | None:
    return find_below(raw, (f"{name}.txt", f"{name}.csv"))


def read_table(path: Path) -> Iterator[list[str]]:
    """Lines of a table as words between blanks or commas, empty ones left out."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            if words := [word for word in re.split(r"[,\s]+", line.strip()) if word]:
                yield words


def read_named_rows(path: Path) -> dict[str, dict[str, str]]:
    """Picture -> column -> value, of a table whose rows begin with `.jpg` names and whose other line is the header."""
    names: list[str] = []
    rows: dict[str, dict[str, str]] = {}
    for words in read_table(path):
        if words[0].lower().endswith((".jpg", ".png")):
            rows[words[0]] = dict(zip(names, words[1:], strict=False))
        elif len(words) > 1:
            names = words[1:] if words[0].lower() in ("image_id", "image", "filename") else words
    return rows


def say_missing(raw: Path, about: About, missing: list[str]) -> TalkfaceError:
    """The error for a folder that is not of this set."""
    return TalkfaceError(
        f"raw: {raw} has no {', '.join(missing)} (looked there and two folders below); {about.name} has "
        f"{', '.join(about.looks_for)}; unpack its archives there"
    )


ABOUT = About(
    name="CelebA",
    licence="CelebA: for non-commercial research only; no copy may be passed on, nor what is derived from it",
    download="img_align_celeba.zip, list_eval_partition.txt, list_attr_celeba.txt and, on request, "
    "identity_CelebA.txt from mmlab.ie.cuhk.edu.hk/projects/CelebA.html, unpacked into one folder",
    looks_for=(f"{PICTURES}/", f"{PARTITION}.txt", f"{ATTRIBUTES}.txt"),
    source="arXiv 1411.7766",
)


@dataclass(frozen=True)
class CelebARecipe:
    """How aligned pictures become faces.

    Args:
        size: side in pixels, 64 (the papers) or 128.
        landmarks: "none", since all faces stand in the same place; or 68 "found" by a face finder, which also leaves
            out pictures without a face.
        quality: of the JPEG files.
        items_per_shard: pictures that form a shard.
    """

    size: int = 64
    landmarks: str = "none"
    quality: int = 98
    items_per_shard: int = 2000

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise TalkfaceError(f"size: {self.size}; allowed {', '.join(map(str, SIZES))}")
        if self.landmarks not in LANDMARKS:
            raise TalkfaceError(f"landmarks: {self.landmarks!r}; allowed {', '.join(LANDMARKS)}")
        if not 1 <= self.quality <= 100 or self.items_per_shard < 1:
            raise TalkfaceError(
                f"quality {self.quality}, items_per_shard {self.items_per_shard}; allowed 1-100 and 1 or more"
            )


class CelebASource:
    """The source of `data_prep/celeba.py`; see the head of this file.

    Raises:
        TalkfaceError: pictures, partition or attributes are not there.
    """

    about = ABOUT
    fps = 25.0
    sample_rate = 16000

    def __init__(self, raw: str | Path, recipe: CelebARecipe | None = None) -> None:
        self.raw, self.recipe = Path(raw), recipe or CelebARecipe()
        if not self.raw.is_dir():
            raise TalkfaceError(f"raw: {raw} does not exist; give the folder of CelebA as downloaded")
        pictures = find_below(self.raw, (PICTURES,))
        if pictures is not None and (pictures / PICTURES).is_dir():
            pictures /= PICTURES  # an archive in circulation holds the folder in a folder of the same name
        self.tables = {
            name: path
            for name in (PARTITION, ATTRIBUTES, IDENTITY, POINTS)
            if (path := find_table(self.raw, name))
        }
        missing = [f"{name}.txt" for name in (PARTITION, ATTRIBUTES) if name not in self.tables]
        if pictures is None or missing:
            raise say_missing(self.raw, self.about, [*missing, *([] if pictures else [f"{PICTURES}/"])])
        self.pictures = pictures
        self.image_size, self.items_per_shard = self.recipe.size, self.recipe.items_per_shard
        self.needs_finder = self.recipe.landmarks == "found"

    def items(self) -> list[RawItem]:
        partition = {words[0]: words[1] for words in read_table(self.tables[PARTITION]) if len(words) > 1}
        partition = {name: code for name, code in partition.items() if name.lower().endswith(".jpg")}
        if not partition:
            raise TalkfaceError(
                f"{self.tables[PARTITION]} lists no picture; its lines are '000001.jpg 0'; download it again"
            )
        attributes = read_named_rows(self.tables[ATTRIBUTES])
        points = read_named_rows(self.tables[POINTS]) if POINTS in self.tables else {}
        identity: dict[str, str] = {}
        if IDENTITY in self.tables:
            identity = {words[0]: words[1] for words in read_table(self.tables[IDENTITY]) if len(words) > 1}
        there = set(os.listdir(self.pictures))
        homes = home_splits(partition, identity)
        found = []
        for name in sorted(
            partition.keys() | {name for name in there if name.lower().endswith((".jpg", ".png"))}
        ):
            person = identity.get(name)
            split = split_of(partition.get(name, ""))
            meta: dict[str, Any] = {"file": name}
            if name in attributes:
                meta["attributes"] = {key: int(value == "1") for key, value in attributes[name].items()}
            if name in points:
                meta["points"] = [float(value) for value in points[name].values()]
            problem = None
            if name not in partition:
                problem = ("table", f"not in {self.tables[PARTITION].name}")
            elif split is None:
                problem = ("table", f"split '{partition[name]}' (allowed 0, 1, 2)")
            elif name not in there:
                problem = ("read", "the file is missing")
            elif name not in attributes:
                problem = ("table", f"not in {self.tables[ATTRIBUTES].name}")
            elif person is not None and homes[person] != split:
                problem = ("split", f"person {person} is also in {homes[person]}")
            made = item_id(name, always_hash=name not in partition)
            found.append(
                RawItem(
                    made, split or "train", person or made, self._relative(name), meta=meta, problem=problem
                )
            )
        return found

    def _relative(self, name: str) -> str:
        return (self.pictures.relative_to(self.raw) / name).as_posix()

    def settings(self) -> dict[str, Any]:
        return {
            "set": self.about.name,
            "version": VERSION,
            "size": self.recipe.size,
            "landmarks": self.recipe.landmarks,
            "quality": self.recipe.quality,
            "tables": {name: file_digest(path) for name, path in sorted(self.tables.items())},
        }

    def make(self, item: RawItem, finder: Finder | None) -> list[Clip]:
        image = read_picture(self.raw, item.file)
        if image.shape[:2] != ALIGNED:
            raise Rejected(
                "size",
                f"{image.shape[1]} x {image.shape[0]} pixels; aligned pictures have {ALIGNED[1]} x {ALIGNED[0]}",
            )
        size = self.recipe.size
        scale, corner = size / (ROWS.stop - ROWS.start), np.array([COLUMNS.start, ROWS.start])
        face = resize(np.ascontiguousarray(image[ROWS, COLUMNS]), size)
        truth: dict[str, np.ndarray] = {}
        meta = dict(item.meta)
        if "points" in meta:
            truth["points"] = (np.reshape(meta.pop("points"), (1, 5, 2)) - corner).astype(np.float32) * scale
        if finder is not None and self.needs_finder:
            points = (largest_face(finder, image) - corner) * scale
            truth["landmarks"] = points.astype(np.float32)[None]
        return [
            Clip(
                item.id,
                item.split,
                item.subject,
                [encode_jpeg(face, self.recipe.quality)],
                truth=truth,
                meta=meta,
            )
        ]


def split_of(code: str) -> str | None:
    return {str(number): split for number, split in enumerate(SPLITS)}.get(code)


def home_splits(partition: dict[str, str], identity: dict[str, str]) -> dict[str, str]:
    """Person -> the split that most of their pictures are in; the first of equals."""
    counts: dict[str, Counter[str]] = {}
    for name, person in identity.items():
        if split := split_of(partition.get(name, "")):
            counts.setdefault(person, Counter())[split] += 1
    return {
        person: min(SPLITS, key=lambda s: (-found[s], SPLITS.index(s))) for person, found in counts.items()
    }


def read_picture(raw: Path, file: str) -> np.ndarray:
    """uint8 (H, W, 3). Raises: Rejected: missing or no picture."""
    path = raw / file
    if not path.is_file():
        raise Rejected("read", "the file is missing")
    try:
        return read_image(path)
    except TalkfaceError as error:
        raise Rejected("read", str(error).replace(str(path), file)) from error


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """A square picture at another size: areas when it shrinks, cubic when it grows."""
    if image.shape[0] == size:
        return image
    method = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size, size), interpolation=method), np.uint8)


def largest_face(finder: Finder, image: np.ndarray) -> np.ndarray:
    """Landmarks (68, 2) of the face with the largest box. Raises: Rejected: there is none."""
    faces = finder.find(image)
    if not faces:
        raise Rejected("landmarks", "no face found")
    return max(
        (np.asarray(face.points, np.float64) for face in faces), key=lambda p: float(np.ptp(p, axis=0).prod())
    )
