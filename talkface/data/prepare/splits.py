"""Which split a subject belongs to, for sets that do not say it themselves; and files that are there twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from talkface.data.prepare.source import RawItem
from talkface.errors import TalkfaceError


def check_shares(val_share: float, test_share: float) -> None:
    """Raises: TalkfaceError: a share is negative, or nothing is left for training."""
    if min(val_share, test_share) < 0 or val_share + test_share >= 1:
        raise TalkfaceError(
            f"shares of val and test: {val_share:g}, {test_share:g}; allowed are 0 or more, together below 1"
        )


def split_of(subject: str, val_share: float, test_share: float) -> str:
    """train, val or test, from a hash of the name: a subject keeps its split when others come or go."""
    digest = hashlib.sha256(subject.encode("utf-8", "surrogateescape")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < val_share:
        return "val"
    return "test" if place < val_share + test_share else "train"


def mark_duplicates(items: Sequence[RawItem], raw: Path) -> list[RawItem]:
    """The items, those whose file repeats an earlier one's contents marked as a problem.

    Files are read whole only where two have the same number of bytes.
    """
    by_size: dict[int, list[int]] = {}
    for number, item in enumerate(items):
        path = raw / item.file
        if item.problem is None and path.is_file() and (size := path.stat().st_size):
            by_size.setdefault(size, []).append(number)
    marked = list(items)
    for numbers in by_size.values():
        first: dict[bytes, str] = {}
        for number in numbers if len(numbers) > 1 else ():
            item = items[number]
            with (raw / item.file).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            earlier = first.setdefault(digest, item.file)
            if earlier != item.file:
                marked[number] = replace(item, problem=("duplicate", f"the same bytes as '{earlier}'"))
    return marked


def list_files(raw: Path, suffixes: Sequence[str]) -> list[str]:
    """Paths below `raw` with one of these endings, relative, with `/`, sorted; hidden ones and links are left out.

    Names that are no UTF-8 keep their bytes as Python's surrogates.
    """
    found = []
    for folder, folders, files in os.walk(raw):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(folder).relative_to(raw)
        found += [
            (below / name).as_posix()
            for name in files
            if not name.startswith(".") and name.lower().endswith(tuple(suffixes))
        ]
    return sorted(found)
