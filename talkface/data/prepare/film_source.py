"""What every set of films shares: its files, duplicates, settings, and how one film becomes clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from talkface.data.base import Clip
from talkface.data.finding import Finder
from talkface.data.prepare.film_clips import FilmMaker
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.film_sync import SyncExpert
from talkface.data.prepare.source import About, RawItem, Rejected, item_id
from talkface.data.prepare.splits import list_files, mark_duplicates
from talkface.errors import TalkfaceError, require

FILM_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv", ".wmv", ".ts", ".mts", ".3gp", ".ogv",
)  # fmt: skip
UNKNOWN = "unknown"
"""Subject of films whose names do not tell it; they are rejected."""


class FilmSource:
    """One set of films in one folder; a `Source`. Sets differ in `plan`.

    Args:
        raw: the folder as downloaded and unpacked.
        recipe: None = the one that fits the set.
        sync: judges lips against sound; None switches the step off.
    """

    about: About
    usual = FilmRecipe()
    usual_sync = "none"
    """What judges lips against sound unless the command line says otherwise; the published sets are in step."""
    own_fps = 25.0
    """Of the set's films; that of the corpus where the recipe keeps it."""
    sample_rate = 16000
    needs_finder = True

    def __init__(
        self, raw: str | Path, recipe: FilmRecipe | None = None, sync: SyncExpert | None = None
    ) -> None:
        self.raw = Path(raw)
        self.recipe = recipe or self.usual
        self.sync = sync

    @property
    def fps(self) -> float:
        return self.recipe.fps or self.own_fps

    @property
    def image_size(self) -> int:
        return self.recipe.size

    @property
    def items_per_shard(self) -> int:
        return self.recipe.items_per_shard

    def plan(self, files: Sequence[str]) -> list[RawItem]:
        """The films among `files` (paths relative to `raw`, sorted), going by names and tables."""
        raise NotImplementedError

    def items(self) -> list[RawItem]:
        """See `Source.items`; a film that repeats another one byte by byte is a problem of its own."""
        if not self.raw.is_dir():
            raise TalkfaceError(f"raw: {self.raw} is no folder; give that of {self.about.name} as downloaded")
        if self.recipe.scenes:
            require("scenedetect", extra="films")  # now, not in every film
        everything = list_files(self.raw, ("",))
        files = [file for file in everything if is_text(file)]
        planned = self.plan(files)
        if not any(item.problem is None for item in planned):
            found = f"{len(files)} other files are there" if files else "it is empty"
            raise TalkfaceError(
                f"raw: {self.raw} holds no film of {self.about.name}: looked for "
                f"{', '.join(self.about.looks_for)}; {found}; unpack the archives into it"
            )
        strange = [readable(file) for file in films_among(everything) if not is_text(file)]
        items = [*planned, *(unusable(file, "name", "its name is not UTF-8; rename it") for file in strange)]
        return mark_duplicates(items, self.raw) if self.recipe.duplicates else items

    def settings(self) -> dict[str, Any]:
        return {
            "set": type(self).__name__,
            **self.recipe.settings(),
            "sync": None if self.sync is None else self.sync.name,
        }

    def make(self, item: RawItem, finder: Finder | None) -> Sequence[Clip | Rejected]:
        assert finder is not None  # `needs_finder`
        maker = FilmMaker(self.recipe, finder, self.sample_rate, self.sync)
        sound = item.files.get("sound")
        return maker.make(item, self.raw / item.file, None if sound is None else self.raw / sound)


def is_text(file: str) -> bool:
    """Whether the name is UTF-8."""
    return readable(file) == file


def readable(file: str) -> str:
    """The name with anything that is not UTF-8 escaped."""
    return file.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def films_among(files: Sequence[str]) -> list[str]:
    """Those whose ending is that of a film."""
    return [file for file in files if Path(file).suffix.lower() in FILM_SUFFIXES]


def one_of_each(files: Sequence[str], read: Callable[[str], RawItem]) -> list[RawItem]:
    """The films among `files`, each as `read` makes it of its name; a further film of the same take is unusable."""
    items: dict[str, RawItem] = {}
    for file in films_among(files):
        item = read(file)
        if item.id in items:
            item = unusable(file, "duplicate", f"the same take as {items[item.id].file}")
        items[item.id] = item
    return list(items.values())


def unusable(file: str, step: str, reason: str) -> RawItem:
    """A file that is rejected by its name alone."""
    return RawItem(item_id(file, always_hash=True), "train", UNKNOWN, file, problem=(step, reason))


def sound_beside(files: Mapping[str, str], *stems: str) -> dict[str, str]:
    """{"sound": path} of the first of `stems` that `files` (path without ending -> path) knows, or nothing."""
    return next(({"sound": files[stem]} for stem in stems if stem in files), {})
