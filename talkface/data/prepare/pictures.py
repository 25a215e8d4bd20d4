"""Any folder of pictures to a corpus of aligned faces: subjects from folders or files, splits from their names."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkface.data.base import EMOTIONS, Clip
from talkface.data.finding import Finder
from talkface.data.images import PICTURE_SUFFIXES
from talkface.data.prepare.aligned import ALIGNMENTS, all_faces, cut_face, read_picture
from talkface.data.prepare.source import About, RawItem, Rejected, item_id
from talkface.data.prepare.splits import check_shares, list_files, mark_duplicates, split_of
from talkface.data.writer import encode_jpeg
from talkface.errors import TalkfaceError, check_range

ABOUT = About(
    name="Pictures",
    licence="that of your pictures; ask the people they show",
    download="nothing; give any folder with pictures, in folders or not "
    f"({', '.join(suffix.lstrip('.') for suffix in PICTURE_SUFFIXES)})",
    looks_for=tuple(f"*{suffix}" for suffix in PICTURE_SUFFIXES),
)
SUBJECTS = ("folder", "file")
SEVERAL = ("largest", "reject")
FACE_IN_LARGE = 640
"""Longer sides are shrunk to this many pixels for the finder."""
VERSION = 1
"""Raise when the same pictures and settings give another corpus."""


@dataclass(frozen=True)
class PicturesRecipe:
    """How a folder becomes aligned faces.

    Args:
        size: side of the faces in pixels.
        subjects: who is who: "folder" (the folder that a file lies in, directly; files at the top are subjects of
            their own) or "file" (every file).
        emotions: a folder named after an emotion (`talkface.head.emotions`) labels what lies below it; such a
            folder is no subject.
        several: of several faces take the "largest", or "reject" the picture.
        smallest: faces whose square has fewer pixels of the picture on a side are rejected.
        alignment: see `aligned.cut_face`.
        val_share, test_share: of the subjects.
        quality: of the JPEG files.
        pictures_per_shard: files that form a shard, the unit of resuming.
    """

    size: int = 256
    subjects: str = "folder"
    emotions: bool = False
    several: str = "largest"
    smallest: int = 48
    alignment: str = "canonical"
    val_share: float = 0.05
    test_share: float = 0.05
    quality: int = 95
    pictures_per_shard: int = 500

    def __post_init__(self) -> None:
        check_range("size", self.size, 16, 2048)
        check_range("quality", self.quality, 1, 100)
        check_range("smallest", self.smallest, 0, 4096)
        check_range("pictures_per_shard", self.pictures_per_shard, 1, 10**6)
        check_shares(self.val_share, self.test_share)
        for name, allowed in (("subjects", SUBJECTS), ("several", SEVERAL), ("alignment", ALIGNMENTS)):
            if (value := getattr(self, name)) not in allowed:
                raise TalkfaceError(f"{name}: {value!r}; allowed {', '.join(allowed)}")


class PicturesSource:
    """A folder of pictures.

    Args:
        raw: the folder; hidden files and folders in it are not looked at.
    """

    about = ABOUT
    fps: float = 25  # pictures have none; a corpus states one
    sample_rate = 16000
    needs_finder = True

    def __init__(self, raw: str | Path, recipe: PicturesRecipe | None = None) -> None:
        self.raw, self.recipe = Path(raw), recipe or PicturesRecipe()
        self.image_size = self.recipe.size
        self.items_per_shard = self.recipe.pictures_per_shard

    def items(self) -> list[RawItem]:
        if not self.raw.is_dir():
            raise TalkfaceError(f"raw: {self.raw} does not exist; give a folder of pictures")
        files = list_files(self.raw, PICTURE_SUFFIXES)
        if not files:
            raise TalkfaceError(
                f"raw: {self.raw} and its folders hold no picture; looked for {', '.join(ABOUT.looks_for)}"
            )
        taken: set[str] = set()
        return mark_duplicates([self._item(file, taken) for file in files], self.raw)

    def _item(self, file: str, taken: set[str]) -> RawItem:
        name = item_id(file)
        if name in taken:  # the same name with another ending
            name = item_id(file, always_hash=True)
        taken.add(name)
        *folders, _ = file.split("/")
        emotion = -1
        if self.recipe.emotions:
            labels = [EMOTIONS.index(part.lower()) for part in folders if part.lower() in EMOTIONS]
            folders = [part for part in folders if part.lower() not in EMOTIONS]
            emotion = labels[-1] if labels else -1
        subject = name
        if self.recipe.subjects == "folder" and folders:
            subject = item_id("/".join(folders) + ".")
        split = split_of(subject, self.recipe.val_share, self.recipe.test_share)
        if (shown := file.encode("utf-8", "replace").decode()) != file:
            return RawItem(
                name, split, subject, shown, problem=("read", "the name is no UTF-8; rename the file")
            )
        return RawItem(name, split, subject, file, emotion=emotion)

    def settings(self) -> dict[str, Any]:
        return {"recipe": asdict(self.recipe), "version": VERSION}

    def make(self, item: RawItem, finder: Finder | None) -> list[Clip]:
        assert finder is not None
        image = read_picture(self.raw, item.file)
        if min(image.shape[:2]) < 16:
            raise Rejected("read", f"the picture has {image.shape[1]} x {image.shape[0]} pixels")
        faces = all_faces(image, finder, FACE_IN_LARGE)
        if not faces:
            raise Rejected("landmarks", "no face found")
        if len(faces) > 1 and self.recipe.several == "reject":
            raise Rejected("landmarks", f"{len(faces)} faces found", float(len(faces)))
        points, score = max(faces, key=lambda face: float(np.ptp(face[0], axis=0).prod()))
        crop = cut_face(image, points, self.recipe.size, self.recipe.alignment)
        side = crop.scale * crop.size
        if side < self.recipe.smallest:
            raise Rejected("size", f"the face has {side:.0f} pixels; wanted {self.recipe.smallest}", side)
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
                    "faces": len(faces),
                    "score": round(score, 4),
                    "coverage": round(crop.coverage, 4),
                    "scale": round(crop.scale, 4),
                },
            )
        ]
