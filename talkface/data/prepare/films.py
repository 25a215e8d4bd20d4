"""Any folder of talking films: nothing is known of them but their names, and their transcripts where there are some.

Who speaks is not known either. A film in a folder belongs to the person of that folder (the first one below the raw
folder), a film beside no folder is a person of its own; or every film is. What is wrong here puts one person into two
splits, so sort films by person where people appear in several.

A transcript stands in `<film>.txt` beside the film, or in a table of lines `path<TAB>text`. It is given to clips that
are the whole film; films that are cut carry it in their meta data (`film_transcript`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.film_source import FILM_SUFFIXES, FilmSource, films_among
from talkface.data.prepare.film_sync import SyncExpert
from talkface.data.prepare.source import About, RawItem, file_digest, item_id
from talkface.data.prepare.splits import split_of
from talkface.errors import TalkfaceError

SUBJECTS = ("folder", "film")
LONGEST_TRANSCRIPT = 100_000  # letters: a larger text beside a film is something else


class Films(FilmSource):
    """Talking films of any kind.

    Args:
        transcripts: table of lines `path<TAB>text`; None = the texts beside the films.
        subjects: who is one person: a "folder" or a "film".
        val_share, test_share: of the people, by a hash of their names.

    Raises:
        TalkfaceError: a share or a choice that is not allowed.
    """

    about = About(
        name="films",
        licence="that of your films: see to it that the people in them, and their makers, agree",
        download="your own films, one person in sight, with sound; a folder per person",
        looks_for=tuple(f"*{suffix}" for suffix in FILM_SUFFIXES),
        source="a folder of films",
    )
    usual = FilmRecipe(scenes=True, least_seconds=1.0, most_seconds=10.0, least_face=64.0, least_quality=0.1)
    usual_sync = "shape"

    def __init__(
        self,
        raw: str | Path,
        recipe: FilmRecipe | None = None,
        sync: SyncExpert | None = None,
        transcripts: str | Path | None = None,
        subjects: Literal["folder", "film"] = "folder",
        val_share: float = 0.05,
        test_share: float = 0.05,
    ) -> None:
        super().__init__(raw, recipe, sync)
        if subjects not in SUBJECTS:
            raise TalkfaceError(f"subjects: {subjects!r}; allowed {', '.join(SUBJECTS)}")
        if not (val_share >= 0 and test_share >= 0 and val_share + test_share < 1):
            raise TalkfaceError(
                f"splits: {val_share},{test_share}; allowed are shares from 0 with a sum below 1"
            )
        self.transcripts = None if transcripts is None else Path(transcripts)
        self.subjects, self.val_share, self.test_share = subjects, val_share, test_share

    def settings(self) -> dict[str, Any]:
        return super().settings() | {
            "transcripts": None if self.transcripts is None else file_digest(self.transcripts),
            "subjects": self.subjects,
            "splits": [self.val_share, self.test_share],
        }

    def plan(self, files: Sequence[str]) -> list[RawItem]:
        table = None if self.transcripts is None else read_table(self.transcripts)
        texts = set(files)
        films = films_among(files)
        ids = Counter(item_id(file) for file in films)
        items = []
        for file in films:
            stem = str(PurePosixPath(file).with_suffix(""))
            person = self._subject(file)
            beside = f"{stem}.txt"
            if table is not None:
                text = table.get(file, table.get(stem, ""))
            else:
                text = self._text(beside) if beside in texts else ""
            items.append(
                RawItem(
                    # a.mp4 and a.mov, or a/b.mp4 and a_b.mp4, would share an id
                    id=item_id(file, always_hash=ids[item_id(file)] > 1),
                    split=split_of(person, self.val_share, self.test_share),
                    subject=person,
                    file=file,
                    transcript=text,
                    meta={"film_transcript": text} if text else {},
                )
            )
        return items

    def _subject(self, file: str) -> str:
        parts = PurePosixPath(file).parts
        if self.subjects == "folder" and len(parts) > 1:
            return parts[0]
        return file

    def _text(self, file: str) -> str:
        with (self.raw / file).open("rb") as opened:
            data = opened.read(LONGEST_TRANSCRIPT + 1)
        text = "" if len(data) > LONGEST_TRANSCRIPT else data.decode("utf-8-sig", "replace")
        return " ".join(text.split())


def read_table(path: Path) -> dict[str, str]:
    """Lines `path<TAB>text` of a file; the path with or without its ending.

    Raises:
        TalkfaceError: the file cannot be read, or a line has no tab.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TalkfaceError(f"transcripts: {path} cannot be read ({error}); give a text file") from error
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        file, tab, text = line.partition("\t")
        if not tab:
            raise TalkfaceError(f"transcripts: line {number} of {path} has no tab; allowed: path, tab, text")
        texts[file.strip()] = " ".join(text.split())
    return texts
