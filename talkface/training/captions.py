"""Sentences about rendered faces, and which of them are true of which picture.

A picture is a row of attributes (`ATTRIBUTES`), read from the seed of its person, its emotion and its pose. A caption
claims values of some attributes; it is true of every picture that has these values, so one caption may be true of many
pictures of a batch. "man" and "woman" say only that somebody wears a beard or make-up: that is all that the renderer
knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from talkface.data.synthetic.appearance import Person

SILENT = -1
# attribute -> its values; a value's words stand in WORDS
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "emotion": ("neutral", "happy", "sad", "surprised", "fear", "disgusted", "angry", "contempt"),
    "age": ("young", "middle-aged", "old"),
    "hair": ("bald", "short", "long"),
    "hair_colour": ("black", "brown", "blond", "red", "grey"),
    "glasses": ("none", "glasses"),
    "beard": ("none", "stubble", "moustache", "beard"),
    "skin": ("light", "medium", "dark"),
    "turned": ("left", "ahead", "right"),
    "noun": ("person", "man", "woman"),
}
NAMES = tuple(ATTRIBUTES)
EMOTION_WORDS = (
    ("neutral", "calm"), ("happy", "smiling", "joyful"), ("sad", "unhappy"), ("surprised", "astonished"),
    ("scared", "afraid", "fearful"), ("disgusted",), ("angry", "furious"), ("contemptuous", "scornful"),
)  # fmt: skip
_AGE_WORDS = (("young",), ("middle-aged",), ("old", "elderly"))
_BEARD_WORDS = ("", "stubble", "a moustache", "a beard")
_TURNED_WORDS = ("turned to the left", "looking ahead", "turned to the right")
LEAST_TURN = 8.0  # degrees
QUESTIONS: dict[str, tuple[str, ...]] = {
    "age": ("young face", "middle-aged face", "old face"),
    "hair": ("bald face", "face with short hair", "face with long hair"),
    "hair_colour": tuple(f"face with {colour} hair" for colour in ATTRIBUTES["hair_colour"]),
    "glasses": ("face without glasses", "face with glasses"),
    "beard": ("face without a beard", "face with stubble", "face with a moustache", "face with a beard"),
    "skin": tuple(f"face with {shade} skin" for shade in ATTRIBUTES["skin"]),
    "turned": tuple(f"face, {words}" for words in _TURNED_WORDS),
}
"""Attribute -> a sentence for each of its values: of these exactly one is true of a picture."""


@dataclass(frozen=True)
class Caption:
    """text, and (A,) int64 claims in the order of `NAMES`: a value's number, or SILENT."""

    text: str
    claims: np.ndarray


def attributes_of(person: Person, emotion: int, pose: np.ndarray) -> np.ndarray:
    """(A,) int64 values, in the order of `NAMES`, of one picture.

    Args:
        pose: (6,) as in the corpus; its second number is the turn of the head in radians, to the picture's right.
    """
    turn = float(np.rad2deg(pose[1]))
    beard = {"none": 0, "stubble": 1, "moustache": 2}.get(person.beard, 3)
    painted = person.numbers["blush"] > 0
    values = {
        "emotion": emotion,
        "age": int(person.age > 0.3) + int(person.age > 0.6),
        "hair": {"bald": 0, "long": 2, "long_fringe": 2}.get(person.hair_style, 1),
        "hair_colour": SILENT if person.hair_style == "bald" else hair_colour(person.hair),
        "glasses": int(person.glasses),
        "beard": beard,
        "skin": int(person.skin_darkness > 0.35) + int(person.skin_darkness > 0.65),
        "turned": 1 + int(turn > LEAST_TURN) - int(turn < -LEAST_TURN),
        "noun": 1 if beard > 1 else 2 if painted else 0,
    }
    return np.array([values[name] for name in NAMES], np.int64)


def hair_colour(albedo: torch.Tensor) -> int:
    """(3,) linear RGB -> number of the colour in ATTRIBUTES["hair_colour"]."""
    red, green, blue = (255 * float(value) ** (1 / 2.2) for value in albedo.clamp(0, 1))
    lightest, spread = max(red, green, blue), max(red, green, blue) - min(red, green, blue)
    if lightest < 62:
        return 0
    if spread < 0.13 * lightest:
        return 4
    if red - green > 0.38 * red:
        return 3
    return 2 if lightest > 135 else 1


def mirrored(values: np.ndarray) -> np.ndarray:
    """(A,) attributes of the mirrored picture."""
    out = values.copy()
    out[NAMES.index("turned")] = 2 - out[NAMES.index("turned")]
    return out


def short_caption(rng: np.random.Generator, values: np.ndarray) -> Caption:
    """Says the emotion alone: "happy face"."""
    claims = np.full(len(NAMES), SILENT, np.int64)
    claims[0] = values[0]
    return Caption(f"{_pick(rng, EMOTION_WORDS[values[0]])} {_pick(rng, ('face', 'face', 'person'))}", claims)


def long_caption(rng: np.random.Generator, values: np.ndarray) -> Caption:
    """Says some of what is true: "old man with grey hair and glasses, smiling"; without an article in front."""
    value = dict(zip(NAMES, values.tolist(), strict=True))
    claims = np.full(len(NAMES), SILENT, np.int64)

    def say(name: str, share: float) -> bool:
        said = value[name] != SILENT and rng.random() < share
        if said:
            claims[NAMES.index(name)] = value[name]
        return said

    words: list[str] = []
    attachments: list[str] = []
    ends: list[str] = []
    if say("age", 0.4):
        words.append(_pick(rng, _AGE_WORDS[value["age"]]))
    if say("emotion", 0.55):
        word = _pick(rng, EMOTION_WORDS[value["emotion"]])
        (words if rng.random() < 0.6 else ends).append(word)
    if value["noun"] and say("noun", 0.6):
        noun = ATTRIBUTES["noun"][value["noun"]]
    else:
        noun = _pick(rng, ("face", "person"))
    if value["skin"] != 1 and say("skin", 0.25):
        attachments.append(f"{ATTRIBUTES['skin'][value['skin']]} skin")
    if value["hair"] == 0:
        if say("hair", 0.5):
            words.append("bald")
    else:
        length, colour = say("hair", 0.35), say("hair_colour", 0.4)
        said = [ATTRIBUTES["hair"][value["hair"]]] * length + [
            ATTRIBUTES["hair_colour"][value["hair_colour"]]
        ] * colour
        if said:
            attachments.append(" ".join([*said, "hair"]))
    if value["beard"] and say("beard", 0.5):
        attachments.append(_BEARD_WORDS[value["beard"]])
    if value["glasses"] and say("glasses", 0.7):
        attachments.append("glasses")
    if say("turned", 0.25):
        ends.append(_TURNED_WORDS[value["turned"]])
    rng.shuffle(attachments)
    text = " ".join([*words, noun])
    if attachments:
        text += " with " + " and ".join(attachments)
    return Caption(", ".join([text, *ends]), claims)


def truth(values: np.ndarray, claims: np.ndarray) -> np.ndarray:
    """(B, A) attributes of pictures, (K, A) claims of captions -> (B, K) bool: which are true of which."""
    same = values[:, None] == claims[None]
    return np.asarray((same | (claims[None] == SILENT)).all(axis=2))


def vocabulary() -> list[str]:
    """Every word that a caption may hold, sorted."""
    texts = [
        *(word for group in (*EMOTION_WORDS, *_AGE_WORDS) for word in group),
        *(value for values in ATTRIBUTES.values() for value in values),
        *_BEARD_WORDS,
        *_TURNED_WORDS,
        *(sentence.replace(",", "") for sentences in QUESTIONS.values() for sentence in sentences),
        "person and",
    ]
    return sorted({word for text in texts for word in text.replace("-", " ").split()})


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
