"""GRID (Cooke et al., "An audio-visual corpus for speech perception and automatic speech recognition", JASA 2006).

    s<N>/**/<code>.mpg                      360 x 288 or 720 x 576, 25 frames per second, 3 s, with sound
    s<N>/align/<code>.align, align/s<N>/<code>.align, alignments/s<N>/<code>.align

34 speakers (no films of s21), 1000 sentences each. A code of six letters is the sentence: `bbaf2n` = BIN BLUE AT F TWO
NOW; an alignment gives the time of every word in 1/25000 s and must say the same. Words with their times (seconds from
the first picture) are in the meta data of each clip.

Test speakers are 1, 2, 20 and 22, two men and two women, as in LipNet (arXiv 1611.01599); validation: 26 and 31. GRID
is spoken without emotion, its clips are not labelled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from talkface.data.prepare.film_source import FilmSource, films_among, unusable
from talkface.data.prepare.source import About, RawItem
from talkface.errors import TalkfaceError

TEST_SPEAKERS = (1, 2, 20, 22)
VAL_SPEAKERS = (26, 31)
LAST_SPEAKER = 34
CLOCK = 25000
"""Ticks of an alignment per second."""
SILENCES = ("sil", "sp")
COMMANDS = {"b": "BIN", "l": "LAY", "p": "PLACE", "s": "SET"}
COLOURS = {"b": "BLUE", "g": "GREEN", "r": "RED", "w": "WHITE"}
PREPOSITIONS = {"a": "AT", "b": "BY", "i": "IN", "w": "WITH"}
DIGITS = {
    "z": "ZERO", "1": "ONE", "2": "TWO", "3": "THREE", "4": "FOUR", "5": "FIVE", "6": "SIX", "7": "SEVEN",
    "8": "EIGHT", "9": "NINE",
}  # fmt: skip
ADVERBS = {"a": "AGAIN", "n": "NOW", "p": "PLEASE", "s": "SOON"}
LETTERS = {letter: letter.upper() for letter in "abcdefghijklmnopqrstuvxyz"}
PARTS = (COMMANDS, COLOURS, PREPOSITIONS, LETTERS, DIGITS, ADVERBS)
SPEAKER = re.compile(r"s(\d{1,2})(?:\D.*)?$")


class Grid(FilmSource):
    """GRID's films, in any of the layouts in which they are passed on."""

    about = About(
        name="GRID",
        licence="GRID: free for research (spandh.dcs.shef.ac.uk/gridcorpus); on Zenodo under CC BY 4.0",
        download=(
            "https://zenodo.org/records/3625687: s1.zip to s34.zip (films; none of s21) and alignments.zip, unpacked "
            "into one folder"
        ),
        looks_for=("s<N>/**/<code>.mpg",),
        source="https://doi.org/10.1121/1.2229005",
    )

    def plan(self, files: Sequence[str]) -> list[RawItem]:
        words = {key: file for file in files if file.endswith(".align") and (key := _key(file)) is not None}
        items: dict[str, RawItem] = {}
        for file in films_among(files):
            item = self._item(file, words)
            if item.id in items:
                item = unusable(file, "duplicate", f"the same sentence as {items[item.id].file}")
            items[item.id] = item
        return list(items.values())

    def _item(self, file: str, words: dict[tuple[int, str], str]) -> RawItem:
        key = _key(file)
        if key is None:
            return unusable(file, "name", "not in a folder s1 to s34")
        speaker, code = key
        sentence = sentence_of(code)
        if sentence is None:
            return unusable(file, "name", f"'{code}' is no sentence of GRID")
        meta: dict[str, Any] = {}
        aligned = words.get(key)
        if aligned is not None:
            try:
                meta["words"] = read_alignment(self.raw / aligned)
            except TalkfaceError as error:
                return unusable(file, "label", str(error))
            said = " ".join(word["word"] for word in meta["words"])
            if said != sentence:
                return unusable(file, "label", f"its alignment says '{said}', its name '{sentence}'")
        split = "test" if speaker in TEST_SPEAKERS else "val" if speaker in VAL_SPEAKERS else "train"
        return RawItem(
            id=f"s{speaker}_{code}",
            split=split,
            subject=f"s{speaker}",
            file=file,
            files={} if aligned is None else {"words": aligned},
            transcript=sentence,
            meta=meta,
        )


def _key(file: str) -> tuple[int, str] | None:
    """Speaker and code of a path: the speaker's folder is the nearest one named s1 to s34 (`s1.mpg_vcd` is, too)."""
    path = PurePosixPath(file)
    for folder in reversed(path.parent.parts):
        match = SPEAKER.match(folder)
        if match and 1 <= int(match[1]) <= LAST_SPEAKER:
            return int(match[1]), path.stem.lower()
    return None


def sentence_of(code: str) -> str | None:
    """`bbaf2n` -> BIN BLUE AT F TWO NOW; None when it is no code."""
    if len(code) != len(PARTS):
        return None
    words = [part.get(letter) for part, letter in zip(PARTS, code, strict=True)]
    return None if None in words else " ".join(word for word in words if word is not None)


def read_alignment(path: Path) -> list[dict[str, Any]]:
    """[{word, start, end}] in upper case and seconds, without silence.

    Raises:
        TalkfaceError: a line is not `start end word`, or its times descend.
    """
    words: list[dict[str, Any]] = []
    before = 0
    for number, line in enumerate(path.read_text(errors="replace").split("\n"), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            start, end, word = int(fields[0]), int(fields[1]), fields[2]
        except (ValueError, IndexError) as error:
            raise TalkfaceError(
                f"line {number} of {path.name} is {line!r}; allowed: start end word"
            ) from error
        if not before <= start <= end:
            raise TalkfaceError(f"the times of {path.name} descend in line {number}")
        before = start
        if word not in SILENCES:
            words.append({"word": word.upper(), "start": start / CLOCK, "end": end / CLOCK})
    return words
