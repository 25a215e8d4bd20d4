"""RAVDESS (Livingstone and Russo, PLoS ONE 13(5), 2018): 24 actors, two sentences, eight emotions; speech films only.

    Actor_<NN>/<modality>-<channel>-<emotion>-<intensity>-<statement>-<repetition>-<actor>.mp4    1280 x 720, 29.97

at any depth. Modality 01 is film with sound, 02 the same film without, 03 sound alone; channel 01 is speech, 02 song.
Films of modality 02 and songs go to `rejected.parquet`, counted. The emotion `calm` has no place among the eight of the
corpus format: its clips are kept without a label, with `"label": "calm"` in their meta data. Intensity: normal = 2,
strong = 3, on the scale of three that MEAD and CREMA-D have.

Splits: actors 21 to 24 test, 19 and 20 validation; odd actors are men, even ones women.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from talkface.data.prepare.film_source import FilmSource, one_of_each, unusable
from talkface.data.prepare.source import About, RawItem
from talkface.head.emotions import EMOTIONS

LABELS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry", "06": "fear", "07": "disgusted",
    "08": "surprised",
}  # fmt: skip
INTENSITIES = {"01": 2, "02": 3}
STATEMENTS = {"01": "KIDS ARE TALKING BY THE DOOR", "02": "DOGS ARE SITTING BY THE DOOR"}
TEST_ACTORS = range(21, 25)
VAL_ACTORS = range(19, 21)
CODE = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)$")
FOLDER = re.compile(r"Actor_(\d\d)$")


class Ravdess(FilmSource):
    """The speech films of RAVDESS."""

    about = About(
        name="RAVDESS",
        licence="RAVDESS: CC BY-NC-SA 4.0; commercial use on request to its authors",
        download="https://zenodo.org/records/1188976: Video_Speech_Actor_01.zip to _24.zip, unpacked into one folder",
        looks_for=("Actor_<NN>/01-01-*.mp4",),
        source="https://doi.org/10.1371/journal.pone.0196391",
    )

    def plan(self, files: Sequence[str]) -> list[RawItem]:
        return one_of_each(files, _item)


def _item(file: str) -> RawItem:
    path = PurePosixPath(file)
    code = CODE.match(path.stem)
    if code is None:
        return unusable(file, "name", f"'{path.stem}' is not seven numbers of two digits")
    modality, channel, emotion, intensity, statement, repetition, actor = code.groups()
    if modality != "01":
        return unusable(file, "modality", {"02": "film without sound (modality 02)"}.get(modality, "no film"))
    if channel != "01":
        return unusable(file, "modality", "song (channel 02)" if channel == "02" else f"channel {channel}")
    folder = next((match[1] for part in path.parts if (match := FOLDER.match(part))), actor)
    for name, value, fine in (
        ("emotion", emotion, emotion in LABELS),
        ("intensity", intensity, intensity in INTENSITIES and (emotion, intensity) != ("01", "02")),
        ("statement", statement, statement in STATEMENTS),
        ("repetition", repetition, repetition in ("01", "02")),
        ("actor", actor, 1 <= int(actor) <= 24 and actor == folder),
    ):
        if not fine:
            where = f" in the folder Actor_{folder}" if name == "actor" and folder != actor else ""
            return unusable(file, "label", f"{name} {value} is not of RAVDESS{where}")
    label = LABELS[emotion]
    number = int(actor)
    return RawItem(
        id=path.stem,
        split="test" if number in TEST_ACTORS else "val" if number in VAL_ACTORS else "train",
        subject=f"actor_{actor}",
        file=file,
        emotion=EMOTIONS.index(label) if label in EMOTIONS else -1,
        intensity=INTENSITIES[intensity],
        transcript=STATEMENTS[statement],
        meta={"label": label, "repetition": int(repetition)},
    )
