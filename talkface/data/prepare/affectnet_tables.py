"""AffectNet's folder and tables as its authors give them (arXiv 1708.03985).

`training.csv` and `validation.csv` list the pictures below `Manually_Annotated_Images/`: path, box of the face, 68
landmarks, expression, valence, arousal. Labels 0 to 7 are this project's emotions in their order (`EMOTIONS`); 8 none,
9 uncertain and 10 no face are left out. `validation.csv` was also handed out without its header line. AffectNet does
not say who is who: every picture is its own subject.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkface.data.base import EMOTIONS
from talkface.data.prepare.source import RawItem, item_id
from talkface.errors import TalkfaceError

FILES = {"train": "training.csv", "val": "validation.csv"}
PICTURES = "Manually_Annotated_Images"
COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
    "valence", "arousal",
)  # fmt: skip
LEFT_OUT = {8: "none", 9: "uncertain", 10: "no face"}


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


def read_rows(table: Path, split: str, with_points: bool, seen: dict[str, str]) -> Iterator[RawItem]:
    """The rows of `training.csv` or `validation.csv`, in their order.

    The meta data of a row are `box` (x, y, width, height), `valence`, `arousal` and, when asked for, `points`, float32
    (68, 2): an array, since numbers of their own would fill the memory for 287,651 rows.

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
                row = dict(zip(names, fields, strict=False))
                yield _row(row, split, with_points, seen, f"{table.name}:{number + 1}")


def _row(fields: dict[str, str], split: str, with_points: bool, seen: dict[str, str], line: str) -> RawItem:
    file = fields.get(COLUMNS[0], "").strip()
    name = item_id(file or line)

    def unusable(reason: str) -> RawItem:
        return RawItem(name, split, name, file or line, problem=("table", reason))

    if file and seen.get(name) == file:
        name = item_id(f"{file} {line}", always_hash=True)
        return unusable(f"repeats an earlier row ({line})")
    if name in seen:
        name = item_id(file or line, always_hash=True)
    seen[name] = file
    try:
        label, box = int(fields["expression"]), [float(fields[key]) for key in COLUMNS[1:5]]
        meta: dict[str, Any] = {
            "box": box,
            "valence": float(fields["valence"]),
            "arousal": float(fields["arousal"]),
        }
        if with_points:
            meta["points"] = _points(fields["facial_landmarks"])
    except (KeyError, ValueError) as error:
        return unusable(f"the row cannot be read ({line}: {error})")
    if not file or Path(file).is_absolute() or ".." in Path(file).parts:
        return unusable(f"the path of the picture is not allowed ({line})")
    problem = None
    if not 0 <= label < len(EMOTIONS):
        problem = ("label", f"label {label} ({LEFT_OUT.get(label, 'unknown')})")
    return RawItem(name, split, name, file, emotion=label, meta=meta, problem=problem)


def _points(text: str) -> np.ndarray:
    values = [float(value) for value in text.split(";")]
    if len(values) != 136:
        raise ValueError(f"{len(values)} numbers of landmarks")
    return np.array(values, np.float32).reshape(68, 2)
