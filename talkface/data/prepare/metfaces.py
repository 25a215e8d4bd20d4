"""MetFaces (Karras et al. 2020, arXiv 2006.06676): 1,336 faces in works of art, into a corpus.

    <raw>/metfaces.json        one record per face: work, title, artist, md5, landmarks in the photograph of the work
    <raw>/images/<work>-<face>.png      1024 x 1024 pixels, aligned

Landmarks are those of the record (dlib's 68), taken through the crop that made the picture, as `metfaces.py` of the
set's authors computes it; nothing is searched for. A file whose md5 is not that of the record is left out. The set has
no splits: every work, with all faces in it, goes to one by a hash of its number.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkface.data.base import Clip
from talkface.data.finding import Finder
from talkface.data.prepare.celeba import find_below, read_picture, resize, say_missing
from talkface.data.prepare.source import About, RawItem, Rejected, file_digest, item_id
from talkface.data.writer import encode_jpeg
from talkface.errors import TalkfaceError

TABLE, PICTURES = "metfaces.json", "images"
SIZES = (64, 128, 256, 512, 1024)
TOLD = ("title", "artist_display_name", "meta_url", "source_url")
VERSION = 1
"""Raise when the same pictures and settings give another corpus."""


ABOUT = About(
    name="MetFaces",
    licence="MetFaces: CC BY-NC 2.0 by NVIDIA Corporation (works: CC0, Metropolitan Museum of Art); not for "
    "commercial use, name the authors and what was changed",
    download="metfaces.json and images/ (1.6 GB), linked from github.com/NVlabs/metfaces-dataset, in one folder",
    looks_for=(TABLE, f"{PICTURES}/"),
    source="arXiv 2006.06676",
)


@dataclass(frozen=True)
class MetFacesRecipe:
    """How pictures are stored.

    Args:
        size: side in pixels.
        held_out: share of the works that is not for training, one half each in val and test; 0 = all for training.
        quality: of the JPEG files.
        items_per_shard: pictures that form a shard.
    """

    size: int = 256
    held_out: float = 0.1
    quality: int = 95
    items_per_shard: int = 400

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise TalkfaceError(f"size: {self.size}; allowed {', '.join(map(str, SIZES))}")
        if not 0 <= self.held_out < 1:
            raise TalkfaceError(f"held_out: {self.held_out}; allowed 0 to less than 1")
        if not 1 <= self.quality <= 100 or self.items_per_shard < 1:
            raise TalkfaceError(
                f"quality {self.quality}, items_per_shard {self.items_per_shard}; allowed 1-100 and 1 or more"
            )

    def split(self, work: str) -> str:
        """The split of a work: a fixed pseudo-random number of its name."""
        draw = int.from_bytes(hashlib.sha256(f"MetFaces {work}".encode()).digest()[:8], "big") / 2**64
        return "train" if draw >= self.held_out else ("val" if draw < self.held_out / 2 else "test")


def points_in_crop(record: dict[str, Any]) -> np.ndarray:
    """Landmarks (68, 2) of a record in its aligned crop, as shares of the side.

    1. Landmarks were found in the photograph shrunk `shrink` times; pixel centres are at + 0.5.
    2. The crop is a square about a point a tenth below the middle of the eyes; its horizontal half axis follows the
       line between the eyes and the turned line from eyes to mouth, and is as long as 2 eye distances or 1.8 times
       the way from eyes to mouth, whichever is more.

    Raises:
        ValueError: no 68 points, or points on one spot.
    """
    spec = record["face_spec"]
    points = (np.asarray(spec["landmarks"], np.float64) + 0.5) * float(spec["shrink"])
    if points.shape != (68, 2):
        raise ValueError(f"landmarks of shape {points.shape}")
    left, right = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    eyes, across = (left + right) / 2, right - left
    down = (points[48] + points[54]) / 2 - eyes
    axis = across - np.array([-down[1], down[0]])
    length = float(np.hypot(*axis))
    if length < 1e-6:
        raise ValueError("landmarks on one spot")
    axis *= max(2.0 * float(np.hypot(*across)), 1.8 * float(np.hypot(*down))) / length
    axes = np.stack([axis, np.array([-axis[1], axis[0]])])
    return (points - (eyes + 0.1 * down)) @ axes.T / (axis @ axis) / 2 + 0.5


class MetFacesSource:
    """The source of `data_prep/metfaces.py`; see the head of this file.

    Raises:
        TalkfaceError: records or pictures are not there.
    """

    about = ABOUT
    fps = 25.0
    sample_rate = 16000
    needs_finder = False

    def __init__(self, raw: str | Path, recipe: MetFacesRecipe | None = None) -> None:
        self.raw, self.recipe = Path(raw), recipe or MetFacesRecipe()
        if not self.raw.is_dir():
            raise TalkfaceError(f"raw: {raw} does not exist; give the folder of MetFaces as downloaded")
        table = find_below(self.raw, (TABLE,))
        missing = [] if table else [TABLE]
        if not (table.parent if table else self.raw).joinpath(PICTURES).is_dir():
            missing.append(f"{PICTURES}/")
        if table is None or missing:
            raise say_missing(self.raw, self.about, missing)
        self.table = table
        self.image_size, self.items_per_shard = self.recipe.size, self.recipe.items_per_shard

    def items(self) -> list[RawItem]:
        try:
            records = json.loads(self.table.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise TalkfaceError(f"{self.table} is no JSON ({error}); download it again") from error
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise TalkfaceError(f"{self.table} is no list of records; give the one of MetFaces")
        place = self.table.parent.relative_to(self.raw)
        found: list[RawItem] = []
        seen: set[str] = set()
        for number, record in enumerate(records):
            file = str(record.get("image_path", ""))
            work = str(record.get("obj_id", ""))
            made, problem = item_id(file.removeprefix(f"{PICTURES}/") or f"record-{number}"), None
            meta: dict[str, Any] = {"file": file, "work": work, "md5": record.get("image_md5", "")}
            meta |= {key: record[key] for key in TOLD if key in record}
            if not file or not work or Path(file).is_absolute() or ".." in Path(file).parts:
                problem = ("table", f"record {number} has no usable obj_id and image_path")
            elif file in seen:
                problem = ("table", f"repeats an earlier record ({number})")
            if file in seen:
                made = item_id(f"{file} {number}", always_hash=True)
            seen.add(file)
            try:
                meta["points"] = np.round(points_in_crop(record), 6).tolist()
            except (KeyError, TypeError, ValueError) as error:
                problem = problem or ("table", f"record {number} has no 68 landmarks ({error})")
            path = (place / file).as_posix() if file else f"{TABLE}:{number}"
            found.append(
                RawItem(made, self.recipe.split(work), work or made, path, meta=meta, problem=problem)
            )
        # faces that were found in the same work stay together
        return sorted(found, key=lambda item: (item.split, item.file, item.id))

    def settings(self) -> dict[str, Any]:
        return {
            "set": self.about.name,
            "version": VERSION,
            "size": self.recipe.size,
            "held_out": self.recipe.held_out,
            "quality": self.recipe.quality,
            "tables": {TABLE: file_digest(self.table)},
        }

    def make(self, item: RawItem, finder: Finder | None) -> list[Clip]:
        image = read_picture(self.raw, item.file)
        meta = dict(item.meta)
        md5 = hashlib.md5((self.raw / item.file).read_bytes(), usedforsecurity=False).hexdigest()
        if meta.pop("md5") not in ("", md5):
            raise Rejected("md5", "the file is not the one that the record describes; download it again")
        if image.shape[0] != image.shape[1]:
            raise Rejected(
                "size", f"{image.shape[1]} x {image.shape[0]} pixels; the set's pictures are square"
            )
        size = self.recipe.size
        truth = {"landmarks": (np.asarray(meta.pop("points"))[None] * size).astype(np.float32)}
        frames = [encode_jpeg(resize(image, size), self.recipe.quality)]
        return [Clip(item.id, item.split, item.subject, frames, truth=truth, meta=meta)]
