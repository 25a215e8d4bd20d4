"""What a set of raw data says about itself: the interface between one set and everything that prepares corpora.

A `Source` lists its items from names and tables alone, so that planning, `--dry-run` and shards never decode a pixel,
and turns one item into clips. All else (shards, processes, resuming, reports) is in `run.py` and knows no set.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from talkface.data.base import Clip
from talkface.data.finding import Finder


class Rejected(Exception):
    """An item is left out: step, reason, and score where there is one (a confidence, a number of faces)."""

    def __init__(self, step: str, reason: str, score: float | None = None) -> None:
        super().__init__(step, reason, score)  # all of them, so that it can be pickled
        self.step, self.reason, self.score = step, reason, score

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class RawItem:
    """One raw file (picture or film), as planned from names and tables alone.

    Args:
        id: letters, digits, `_` and `-` only, unique in the set (see `item_id`).
        split: train, val or test. A subject belongs to one split only.
        file: path relative to the raw folder, as it will stand in `rejected.parquet`.
        files: further files by role ("sound", "words", "mask:hair", ...), relative to the raw folder.
        emotion, intensity, transcript: as in `Clip`.
        meta: anything JSON can hold.
        problem: (step, reason): reject it without looking.
    """

    id: str
    split: str
    subject: str
    file: str
    files: Mapping[str, str] = field(default_factory=dict)
    emotion: int = -1
    intensity: int = -1
    transcript: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class About:
    """What a person must know about a set before preparing it.

    Args:
        name: as its authors write it.
        licence: what one may do with it.
        download: what to fetch from where, and how to lay it out.
        looks_for: names (patterns) of files and folders by which a raw folder is known.
        source: where it is published (paper, page).
    """

    name: str
    licence: str
    download: str
    looks_for: tuple[str, ...] = ()
    source: str = ""


class Source(Protocol):
    """One set of raw data in one folder, with one recipe. Picklable: other processes call `make`."""

    about: About
    fps: float
    """Of the corpus; a clip may state its own."""
    image_size: int
    """Side of its pictures in pixels."""
    sample_rate: int
    items_per_shard: int
    """Items that form one shard, the unit of resuming."""
    needs_finder: bool
    """Whether `make` looks for faces."""

    def items(self) -> list[RawItem]:
        """All items in a fixed order: a function of the folder and the recipe.

        Raises:
            TalkfaceError: the folder is not of this set; says which file of which set was looked for.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """Everything but the items that decides the result, JSON only; it is stored and hashed."""
        ...

    def make(self, item: RawItem, finder: Finder | None) -> Sequence[Clip | Rejected]:
        """The clips of one item: a pure function of the item, its files, the settings and the finder.

        A film of which parts are left out gives a `Rejected` for each of them, among its clips.

        Raises:
            Rejected: the item cannot be used.
        """
        ...


def item_id(path: str, always_hash: bool = False) -> str:
    """An id of letters, digits, `_` and `-` for a relative path.

    Names that hold anything else, or are long, get a hash. Only paths that differ in their ending, or in `/` and `_`,
    share an id: give the second one `always_hash`.

    Args:
        path: with `/` between its parts; the ending is left out.
        always_hash: add a hash of `path` even when its letters are allowed.
    """
    stem = path.rpartition(".")[0] or path
    flat = stem.replace("/", "_")
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", flat)
    if plain == flat and len(plain) <= 80 and not always_hash:
        return plain
    return f"{plain[:60]}-{hashlib.sha256(path.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def file_digest(path: Path) -> str:
    """The first 16 hex digits of a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
