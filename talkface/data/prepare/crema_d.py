"""CREMA-D (Cao et al., IEEE Transactions on Affective Computing 5(4), 2014): 91 actors, twelve sentences, six emotions.

    VideoFlash/<actor>_<sentence>_<emotion>_<level>.flv        480 x 360, 29.97 frames per second, with sound

or the same names with another ending (converted films), in any folder. Levels: LO, MD, HI = 1, 2, 3; XX (and X, once) =
none given. The labels are what the actors were asked to show. A clone without Git LFS holds placeholders instead of
films; they are named as such. One film that holds several emotions one after the other is left out by its name.

Its authors name no split. Fixed here: actors whose number ends in 5 are for tests, in 3 for validation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from talkface.data.prepare.film_source import FilmSource, one_of_each, unusable
from talkface.data.prepare.source import About, RawItem
from talkface.head.emotions import EMOTIONS

LABELS = {
    "ANG": "angry", "DIS": "disgusted", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad",
}  # fmt: skip
LEVELS = {"LO": 1, "MD": 2, "HI": 3, "XX": -1, "X": -1}
SENTENCES = {
    "IEO": "IT'S ELEVEN O'CLOCK",
    "TIE": "THAT IS EXACTLY WHAT HAPPENED",
    "IOM": "I'M ON MY WAY TO THE MEETING",
    "IWW": "I WONDER WHAT THIS IS ABOUT",
    "TAI": "THE AIRPLANE IS ALMOST FULL",
    "MTI": "MAYBE TOMORROW IT WILL BE COLD",
    "IWL": "I WOULD LIKE A NEW ALARM CLOCK",
    "ITH": "I THINK I HAVE A DOCTOR'S APPOINTMENT",
    "DFA": "DON'T FORGET A JACKET",
    "ITS": "I THINK I'VE SEEN THIS BEFORE",
    "TSI": "THE SURFACE IS SLICK",
    "WSI": "WE'LL STOP IN A COUPLE OF MINUTES",
}
KNOWN_FAULTS = {"1064_IEO_DIS_MD": "holds several emotions one after the other (a known fault of the set)"}
CODE = re.compile(r"(10\d\d)_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})$")
FIRST, LAST = 1001, 1091


class CremaD(FilmSource):
    """The films of CREMA-D."""

    about = About(
        name="CREMA-D",
        licence="CREMA-D: Open Database License (ODbL) 1.0 and Database Contents License",
        download=(
            "https://github.com/CheyneyComputerScience/CREMA-D, cloned with Git LFS: git lfs pull --include VideoFlash"
        ),
        looks_for=("VideoFlash/<actor>_<sentence>_<emotion>_<level>.flv",),
        source="https://doi.org/10.1109/TAFFC.2014.2336244",
    )

    def plan(self, files: Sequence[str]) -> list[RawItem]:
        return one_of_each(files, _item)


def _item(file: str) -> RawItem:
    stem = PurePosixPath(file).stem
    code = CODE.match(stem)
    if code is None:
        return unusable(file, "name", f"'{stem}' is not <actor>_<sentence>_<emotion>_<level>")
    actor, sentence, emotion, level = code.groups()
    for name, value, fine in (
        ("actor", actor, FIRST <= int(actor) <= LAST),
        ("sentence", sentence, sentence in SENTENCES),
        ("emotion", emotion, emotion in LABELS),
        ("level", level, level in LEVELS),
    ):
        if not fine:
            return unusable(file, "label", f"{name} {value} is not of CREMA-D")
    if stem in KNOWN_FAULTS:
        return unusable(file, "label", KNOWN_FAULTS[stem])
    return RawItem(
        id=stem,
        split={"5": "test", "3": "val"}.get(actor[-1], "train"),
        subject=actor,
        file=file,
        emotion=EMOTIONS.index(LABELS[emotion]),
        intensity=LEVELS[level],
        transcript=SENTENCES[sentence],
    )
