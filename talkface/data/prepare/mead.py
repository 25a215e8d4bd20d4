"""MEAD (Wang et al., "MEAD: A large-scale audio-visual dataset for emotional talking-face generation", ECCV 2020).

    <subject>/video/front/<emotion>/level_<k>/<NNN>.mp4      1920 x 1080, 30 frames per second
    <subject>/audio/<emotion>/level_<k>/<NNN>.m4a            48 kHz

as `video.tar` and `audio.tar` of every subject unpack; also without the folder `video`. The other six views are passed
over. Quirks of the archives: subject W017 has no front view, some subjects lack emotions, numbers of film and sound go
apart where one of them was lost (the length of both is compared), archives that were cut off hold damaged films.

The defaults are the thesis's: one square for the whole clip, from the first frame's landmarks and 10 pixels of a
picture of height 216; 128 pixels; 30 frames per second. Where its code cuts a wrong piece at a border, the picture is
mirrored here. Its test subjects are kept; it names none for validation: here M042 and W038.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.film_source import FilmSource, films_among, sound_beside, unusable
from talkface.data.prepare.film_sync import SyncExpert
from talkface.data.prepare.source import About, RawItem, file_digest
from talkface.errors import TalkfaceError
from talkface.head.emotions import EMOTIONS

TEST_SUBJECTS = ("M003", "M023", "M033", "M040", "W009", "W021", "W040")
VAL_SUBJECTS = ("M042", "W038")
VIEWS = ("down", "left_30", "left_60", "right_30", "right_60", "top")
TRANSCRIPTS = "list_full_mead_annotated.txt"
SOUNDS = (".m4a", ".wav", ".mp3", ".aac")
FRONT = re.compile(r"(?:^|.*/)(?P<subject>[MW]\d{3})/(?:video/)?front/(?P<rest>.+)$")
OTHER_VIEW = re.compile(rf"(?:^|.*/)[MW]\d{{3}}/(?:video/)?(?:{'|'.join(VIEWS)})/")
TAKE = re.compile(r"(?P<emotion>[^/]+)/level_(?P<level>[123])/(?P<number>\d{3})\.mp4$")


class Mead(FilmSource):
    """MEAD's front view.

    Args:
        transcripts: file of lines `<subject>_level_<k>_<emotion>_<NNN> TEXT`; None = `list_full_mead_annotated.txt` in
            the raw folder, if it is there.
    """

    about = About(
        name="MEAD",
        licence="MEAD: for research only, by its authors (SenseTime Research and others); no passing on",
        download=(
            "https://wywu.github.io/projects/MEAD/MEAD.html: video.tar and audio.tar of every subject, each unpacked "
            "into a folder named as the subject (M003/video/front/..., M003/audio/...)"
        ),
        looks_for=("<subject>/video/front/<emotion>/level_<k>/<NNN>.mp4",),
        source="https://wywu.github.io/projects/MEAD/MEAD.html",
    )
    usual = FilmRecipe(fps=None, box="fixed", margin="thesis")
    own_fps = 30.0

    def __init__(
        self,
        raw: str | Path,
        recipe: FilmRecipe | None = None,
        sync: SyncExpert | None = None,
        transcripts: str | Path | None = None,
    ) -> None:
        super().__init__(raw, recipe, sync)
        beside = self.raw / TRANSCRIPTS
        self.transcripts = Path(transcripts) if transcripts else beside if beside.is_file() else None

    def settings(self) -> dict[str, Any]:
        known = None if self.transcripts is None else file_digest(self.transcripts)
        return super().settings() | {"transcripts": known}

    def plan(self, files: Sequence[str]) -> list[RawItem]:
        texts = {} if self.transcripts is None else read_transcripts(self.transcripts)
        sounds = {
            str(Path(file).with_suffix("")): file for file in files if Path(file).suffix.lower() in SOUNDS
        }
        items: dict[str, RawItem] = {}
        for file in films_among(files):
            if OTHER_VIEW.match(file):
                continue
            item = self._item(file, sounds, texts)
            if item.id in items and item.problem is None:
                item = unusable(file, "duplicate", f"the same take as {items[item.id].file}")
            items[item.id] = item
        return list(items.values())

    def _item(self, file: str, sounds: dict[str, str], texts: dict[str, str]) -> RawItem:
        place = FRONT.match(file)
        if place is None:
            return unusable(file, "name", "not in <subject>/video/front/")
        take = TAKE.match(place["rest"])
        if take is None:
            return unusable(file, "name", f"not <emotion>/level_<k>/<NNN>.mp4: {place['rest']}")
        subject, emotion = place["subject"], take["emotion"]
        if emotion not in EMOTIONS:
            return unusable(file, "label", f"emotion '{emotion}' is none of MEAD's")
        name = f"{subject}_level_{take['level']}_{emotion}_{take['number']}"
        folder = file[: place.start("subject")]
        beside = f"{folder}{subject}/audio/{emotion}/level_{take['level']}/{take['number']}"
        return RawItem(
            id=name,
            split=split_of(subject),
            subject=subject,
            file=file,
            files=sound_beside(sounds, beside),
            emotion=EMOTIONS.index(emotion),
            intensity=int(take["level"]),
            transcript=texts.get(name, ""),
        )


def split_of(subject: str) -> str:
    return "test" if subject in TEST_SUBJECTS else "val" if subject in VAL_SUBJECTS else "train"


def read_transcripts(path: Path) -> dict[str, str]:
    """Lines `key TEXT` of a file.

    Raises:
        TalkfaceError: the file is missing or a line has no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TalkfaceError(f"transcripts: {path} cannot be read ({error}); give a text file") from error
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        key, _, text = line.strip().partition(" ")
        if not text.strip():
            raise TalkfaceError(
                f"transcripts: line {number} of {path} is {line!r}; allowed: a key, a space, text"
            )
        texts[key] = text.strip()
    return texts
