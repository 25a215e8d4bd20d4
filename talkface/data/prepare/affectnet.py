"""AffectNet to a corpus of aligned faces with their emotion, valence and arousal (arXiv 1708.03985).

Every picture becomes the canonical crop (`talkface.portrait.crop`) that inference uses too: turned, scaled and moved so
that eyes and nose lie in fixed places. The thesis's text describes this; its code rotates about a transposed centre,
which is not repeated here. `alignment="compat"` is its crop without the rotation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkface.data.base import Clip
from talkface.data.finding import Finder
from talkface.data.prepare.affectnet_tables import FILES, PICTURES, AffectNetFolder, read_rows
from talkface.data.prepare.aligned import ALIGNMENTS, cut_face, face_in_box, read_picture
from talkface.data.prepare.run import prepare
from talkface.data.prepare.source import About, RawItem, file_digest
from talkface.data.writer import encode_jpeg
from talkface.errors import TalkfaceError

LICENCE = (
    "AffectNet: given to researchers by its authors (University of Denver); for research only, no passing on"
)
ABOUT = About(
    name="AffectNet",
    licence=LICENCE,
    download="ask its authors for the manually annotated images (mohammadmahoor.com/affectnet); unpack the archives "
    f"into one folder, which then holds {', '.join(FILES.values())} and {PICTURES}/",
    looks_for=(*FILES.values(), f"{PICTURES}/"),
    source="arXiv 1708.03985",
)
SIZES = (128, 224, 256)
LANDMARKS = ("found", "annotated")
VERSION = 1
"""Raise when the same pictures and settings give another corpus."""


@dataclass(frozen=True)
class AffectNetRecipe:
    """How pictures become aligned faces.

    Args:
        size: side of the faces in pixels: 128 (the paper), 224 or 256.
        landmarks: "found" by a face finder, or "annotated", those of the table.
        quality: of the JPEG files.
        pictures_per_shard: rows of a table that form a shard, the unit of resuming.
        alignment: see `aligned.cut_face`.
    """

    size: int = 128
    landmarks: str = "found"
    quality: int = 95
    pictures_per_shard: int = 1000
    alignment: str = "canonical"

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise TalkfaceError(f"size: {self.size}; allowed {', '.join(map(str, SIZES))}")
        if self.landmarks not in LANDMARKS:
            raise TalkfaceError(f"landmarks: {self.landmarks!r}; allowed {', '.join(LANDMARKS)}")
        if self.alignment not in ALIGNMENTS:
            raise TalkfaceError(f"alignment: {self.alignment!r}; allowed {', '.join(ALIGNMENTS)}")
        if not 1 <= self.quality <= 100 or self.pictures_per_shard < 1:
            raise TalkfaceError(
                f"quality {self.quality}, pictures_per_shard {self.pictures_per_shard}; allowed 1-100 and 1 or more"
            )


class AffectNetSource:
    """AffectNet as downloaded.

    Args:
        raw: its folder (see `AffectNetFolder`).

    Raises:
        TalkfaceError: `raw` is no AffectNet.
    """

    about = ABOUT
    fps: float = 25  # pictures have none; a corpus states one
    sample_rate = 16000
    finder_setting = "landmarks"  # where the settings name the finder

    def __init__(self, raw: str | Path, recipe: AffectNetRecipe | None = None) -> None:
        self.recipe = recipe or AffectNetRecipe()
        self.folder = AffectNetFolder.find(raw)
        self.image_size = self.recipe.size
        self.items_per_shard = self.recipe.pictures_per_shard
        self.needs_finder = self.recipe.landmarks == "found"

    def items(self) -> list[RawItem]:
        seen: dict[str, str] = {}
        annotated = not self.needs_finder
        tables = sorted(self.folder.tables.items())
        return [row for split, table in tables for row in read_rows(table, split, annotated, seen)]

    def settings(self) -> dict[str, Any]:
        recipe = self.recipe
        found: dict[str, Any] = {
            "size": recipe.size,
            "landmarks": recipe.landmarks,
            "quality": recipe.quality,
            "pictures_per_shard": recipe.pictures_per_shard,
            "tables": {split: file_digest(table) for split, table in sorted(self.folder.tables.items())},
            "version": VERSION,
        }
        # only where it is not the usual one: older corpora do not name it
        return found if recipe.alignment == "canonical" else found | {"alignment": recipe.alignment}

    def make(self, item: RawItem, finder: Finder | None) -> list[Clip]:
        image = read_picture(self.folder.pictures, item.file)
        if finder is None:
            points = item.meta["points"]
        else:
            points = face_in_box(image, item.meta["box"], finder)
        crop = cut_face(image, points, self.recipe.size, self.recipe.alignment)
        return [
            Clip(
                id=item.id,
                split=item.split,
                subject=item.subject,
                frames=[encode_jpeg(crop.image, self.recipe.quality)],
                truth={"landmarks": crop.to_crop(points).astype(np.float32)[None]},
                emotion=item.emotion,
                meta={
                    "file": item.file,
                    "valence": item.meta["valence"],
                    "arousal": item.meta["arousal"],
                    "coverage": round(crop.coverage, 4),
                    "scale": round(crop.scale, 4),
                },
            )
        ]


def prepare_affectnet(
    raw: str | Path,
    out: str | Path,
    recipe: AffectNetRecipe | None = None,
    finder: Finder | None = None,
    report: Callable[[str], None] | None = None,
) -> None:
    """Write what is missing of the corpus `out`, and finish it, in this process.

    Args:
        finder: for landmarks "found"; None makes the bundled one.
        report: receives a few lines; None prints to stderr.

    Raises:
        TalkfaceError: see `run.prepare`.
    """
    prepare(AffectNetSource(raw, recipe), out, finder=finder, report=report)
