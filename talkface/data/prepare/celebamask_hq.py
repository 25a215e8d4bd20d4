"""CelebAMask-HQ (Lee, Liu, Wu and Luo 2020, arXiv 1907.11922): 30,000 faces with 19 classes of parts, into a corpus.

    <raw>/CelebA-HQ-img/0.jpg ... 29999.jpg                       1024 x 1024 pixels
    <raw>/CelebAMask-HQ-mask-anno/<n>/<00000>_<part>.png          512 x 512, one file per part that is there
    <raw>/CelebA-HQ-to-CelebA-mapping.txt                         which picture of CelebA each one is
    <raw>/CelebAMask-HQ-attribute-anno.txt, CelebAMask-HQ-pose-anno.txt     optional
    <raw>/identity_CelebA.txt                                     CelebA's, optional: who is who

Parts are painted over each other in the order of the authors' `g_mask.py`, which gives the class numbers of
`CLASSES`. The splits are those of CelebA's partition by the name of the original file. The authors' `g_partition.py`
compares the mapping's index, which counts from 0, with numbers that count from 1, and so moves one picture into the
training set; this does not. `face_mask` joins what belongs to the face itself (`FACE_CLASSES`); ears, hair, hats,
neck and clothes do not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkface.data.base import Clip, pack_masks
from talkface.data.finding import Finder
from talkface.data.prepare.celeba import (
    IDENTITY,
    LANDMARKS,
    find_below,
    find_table,
    home_splits,
    largest_face,
    official_split,
    read_named_rows,
    read_picture,
    read_table,
    resize,
    say_missing,
)
from talkface.data.prepare.source import About, RawItem, Rejected, file_digest
from talkface.data.writer import encode_jpeg
from talkface.errors import TalkfaceError

PICTURES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
MAPPING = "CelebA-HQ-to-CelebA-mapping"
ATTRIBUTES, POSE = "CelebAMask-HQ-attribute-anno", "CelebAMask-HQ-pose-anno"
CLASSES = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip",
    "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""Class number -> part; eye_g glasses, ear_r earring, neck_l necklace; sides as the person's own."""
FACE_CLASSES = ("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
MASK_SIDE = 512
SIZES = (128, 256, 512, 1024)
VERSION = 1
"""Raise when the same pictures and settings give another corpus."""
MASK_NAME = re.compile(r"(\d{5})_([a-z_]+)\.png")


ABOUT = About(
    name="CelebAMask-HQ",
    licence="CelebAMask-HQ: for non-commercial research only; nothing of it or derived from it may be passed on",
    download="CelebAMask-HQ.zip, linked from github.com/switchablenorms/CelebAMask-HQ, unpacked; "
    "identity_CelebA.txt of CelebA beside it, where you have it",
    looks_for=(f"{PICTURES}/", f"{MASKS}/", f"{MAPPING}.txt"),
    source="arXiv 1907.11922",
)


@dataclass(frozen=True)
class CelebAMaskRecipe:
    """How pictures and masks are stored.

    Args:
        size: side in pixels; 512 is that of the masks.
        landmarks: "none", or 68 "found" by a face finder, which also leaves out pictures without a face.
        quality: of the JPEG files.
        items_per_shard: pictures that form a shard.
    """

    size: int = 512
    landmarks: str = "none"
    quality: int = 95
    items_per_shard: int = 500

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise TalkfaceError(f"size: {self.size}; allowed {', '.join(map(str, SIZES))}")
        if self.landmarks not in LANDMARKS:
            raise TalkfaceError(f"landmarks: {self.landmarks!r}; allowed {', '.join(LANDMARKS)}")
        if not 1 <= self.quality <= 100 or self.items_per_shard < 1:
            raise TalkfaceError(
                f"quality {self.quality}, items_per_shard {self.items_per_shard}; allowed 1-100 and 1 or more"
            )


def merge_masks(masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Class numbers, uint8 (H, W): parts (H, W) over each other in the official order; what is not 0 counts."""
    merged = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for number, part in enumerate(CLASSES):
        if part in masks:
            merged[masks[part] != 0] = number
    return merged


def resize_classes(classes: np.ndarray, size: int) -> np.ndarray:
    """Class numbers at another size: the class that covers most of a pixel's area, never a mixture of two numbers."""
    if classes.shape[0] == size:
        return classes
    if classes.shape[0] < size:
        return np.asarray(cv2.resize(classes, (size, size), interpolation=cv2.INTER_NEAREST), np.uint8)
    present = np.unique(classes)
    shares = [
        cv2.resize((classes == number).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        for number in present
    ]
    return present[np.argmax(shares, axis=0)].astype(np.uint8)


class CelebAMaskSource:
    """The source of `data_prep/celebamask_hq.py`; see the head of this file.

    Raises:
        TalkfaceError: pictures, masks or the mapping are not there.
    """

    about = ABOUT
    fps = 25.0
    sample_rate = 16000

    def __init__(self, raw: str | Path, recipe: CelebAMaskRecipe | None = None) -> None:
        self.raw, self.recipe = Path(raw), recipe or CelebAMaskRecipe()
        if not self.raw.is_dir():
            raise TalkfaceError(f"raw: {raw} does not exist; give the folder of CelebAMask-HQ as downloaded")
        pictures, masks = (find_below(self.raw, (name,)) for name in (PICTURES, MASKS))
        names = (MAPPING, ATTRIBUTES, POSE, IDENTITY)
        self.tables = {name: path for name in names if (path := find_table(self.raw, name))}
        missing = [f"{name}/" for name, path in ((PICTURES, pictures), (MASKS, masks)) if path is None]
        if MAPPING not in self.tables:
            missing.append(f"{MAPPING}.txt")
        if pictures is None or masks is None or missing:
            raise say_missing(self.raw, self.about, missing)
        self.pictures, self.masks = pictures, masks
        self.image_size, self.items_per_shard = self.recipe.size, self.recipe.items_per_shard
        self.needs_finder = self.recipe.landmarks == "found"

    def items(self) -> list[RawItem]:
        original = {
            int(words[0]): words[2]
            for words in read_table(self.tables[MAPPING])
            if len(words) >= 3 and words[0].isdigit()
        }
        masks = self._list_masks()
        tables = {
            name: read_named_rows(self.tables[name]) for name in (ATTRIBUTES, POSE) if name in self.tables
        }
        persons: dict[str, str] = {}
        if IDENTITY in self.tables:
            persons = {words[0]: words[1] for words in read_table(self.tables[IDENTITY]) if len(words) > 1}
        splits = {number: split_of_original(name) for number, name in original.items()}
        code = {"train": "0", "val": "1", "test": "2", None: ""}
        homes = home_splits({name: code[splits[number]] for number, name in original.items()}, persons)
        there = {int(path.stem) for path in map(Path, os.listdir(self.pictures)) if path.stem.isdigit()}
        found = []
        for number in sorted(original.keys() | there):
            name, split = f"{number}.jpg", splits.get(number)
            person = persons.get(original.get(number, ""))
            parts = masks.get(number, {})
            meta: dict[str, Any] = {"file": name, "original": original.get(number, "")}
            if row := tables.get(ATTRIBUTES, {}).get(name):
                meta["attributes"] = {key: int(value == "1") for key, value in row.items()}
            if row := tables.get(POSE, {}).get(name):
                meta["pose"] = dict(zip(("yaw", "pitch", "roll"), map(float, row.values()), strict=False))
            problem = None
            strange = sorted(set(parts) - set(CLASSES))
            if number not in original:
                problem = ("table", f"not in {self.tables[MAPPING].name}")
            elif split is None:
                problem = ("table", f"the original '{original[number]}' is no picture of CelebA")
            elif number not in there:
                problem = ("read", "the file is missing")
            elif not parts:
                problem = ("masks", "no part has a mask")
            elif strange:
                problem = ("masks", f"unknown part '{strange[0]}'")
            elif person is not None and homes[person] != split:
                problem = ("split", f"person {person} is also in {homes[person]}")
            made = f"{number:05d}"
            files = {f"mask:{part}": file for part, file in sorted(parts.items())}
            file = (self.pictures.relative_to(self.raw) / name).as_posix()
            found.append(
                RawItem(made, split or "train", person or made, file, files, meta=meta, problem=problem)
            )
        return found

    def _list_masks(self) -> dict[int, dict[str, str]]:
        """Picture -> part -> file relative to `raw`."""
        found: dict[int, dict[str, str]] = {}
        for folder in sorted(path for path in self.masks.iterdir() if path.is_dir()):
            place = folder.relative_to(self.raw).as_posix()
            for name in sorted(os.listdir(folder)):
                if match := MASK_NAME.fullmatch(name):
                    found.setdefault(int(match[1]), {})[match[2]] = f"{place}/{name}"
        return found

    def settings(self) -> dict[str, Any]:
        return {
            "set": self.about.name,
            "version": VERSION,
            "size": self.recipe.size,
            "landmarks": self.recipe.landmarks,
            "quality": self.recipe.quality,
            "classes": list(CLASSES),
            "tables": {name: file_digest(path) for name, path in sorted(self.tables.items())},
        }

    def make(self, item: RawItem, finder: Finder | None) -> list[Clip]:
        image = read_picture(self.raw, item.file)
        if image.shape[0] != image.shape[1]:
            raise Rejected(
                "size", f"{image.shape[1]} x {image.shape[0]} pixels; the set's pictures are square"
            )
        size = self.recipe.size
        face = resize(image, size)
        parts = {role.removeprefix("mask:"): self._read_mask(file) for role, file in item.files.items()}
        classes = resize_classes(merge_masks(parts), size)
        mask = np.isin(classes, [CLASSES.index(part) for part in FACE_CLASSES])
        truth = {"parsing": classes[None], "face_mask": pack_masks(mask[None])}
        if finder is not None and self.needs_finder:
            truth["landmarks"] = largest_face(finder, face).astype(np.float32)[None]
        frames = [encode_jpeg(face, self.recipe.quality)]
        return [Clip(item.id, item.split, item.subject, frames, truth=truth, meta=dict(item.meta))]

    def _read_mask(self, file: str) -> np.ndarray:
        mask = cv2.imread(str(self.raw / file), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise Rejected("masks", f"{Path(file).name} is not a picture or is damaged")
        if mask.shape != (MASK_SIDE, MASK_SIDE):
            raise Rejected(
                "masks",
                f"{Path(file).name} has {mask.shape[1]} x {mask.shape[0]} pixels; masks have {MASK_SIDE}",
            )
        return np.asarray(mask)


def split_of_original(name: str) -> str | None:
    """The split of a picture of CelebA by its name; None for a name that CelebA does not have."""
    stem = name.partition(".")[0]
    try:
        return official_split(int(stem))
    except ValueError:
        return None
