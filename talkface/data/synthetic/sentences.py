"""Sentences to speak: a small grammar over our own word lists, with many lip closures and rounded vowels.

Three kinds: statements, short commands (six words, as a person would instruct a machine), and questions.
Each split draws its nouns, names, letters and adverbs from its own half of the lists, so that no sentence of
one split can occur in the other.
"""

from __future__ import annotations

import numpy as np

__all__ = ["sentence"]

_ADJECTIVES = (
    "blue", "brown", "cheap", "smooth", "warm", "pale", "broken", "heavy", "tiny", "vague", "proud", "yellow",
    "fresh", "quiet", "wooden", "famous", "purple", "curious", "sharp", "gloomy", "bright", "empty",
    "foreign", "thick",
)  # fmt: skip
_NOUNS = (
    "boat", "paper", "mountain", "shepherd", "voice", "window", "bamboo", "fish", "problem", "jewel", "thief",
    "piano", "chapter", "map", "ship", "bishop", "wolf", "robe", "valley", "oven", "teacher", "puppet",
    "bridge",
    "whistle", "farmer", "bottle", "museum", "yacht", "feather", "camp", "goose", "village", "weather",
    "palm",
    "lamp", "cushion", "root", "thumb", "garage", "bear", "measure", "wife", "harbour", "shovel", "poem",
    "ribbon",
    "engine", "mirror", "path", "shop", "wave", "mushroom", "olive", "vehicle", "boss", "judge", "cloud",
    "toy",
)  # fmt: skip
_VERBS = (
    "moved", "painted", "watched", "broke", "found", "bought", "washed", "hid", "proved", "wrapped", "chose",
    "pushed", "saved", "showed", "grew", "measured", "forgot", "loved", "pulled", "covered", "kept", "shaped",
)  # fmt: skip
_PLACES = (
    "above the harbour wall", "by the old mill", "in the garden", "near my house", "under a heavy roof",
    "at the mouth of the river",
    "behind the church", "on five big boats", "before breakfast", "without a good reason",
    "for the whole month",
    "with both hands", "through the open door", "beyond the farm", "after the show", "in poor weather",
    "between two worlds", "around the pool", "from top to bottom", "just as we thought",
)  # fmt: skip
_NAMES = (
    "Bob", "Emma", "Paul", "Sophie", "Victor", "Maya", "George", "Phoebe", "Wim", "Olive", "Joshua", "Beth",
    "Hugo",
    "Pam", "Ruth", "Oscar", "Fiona", "Mabel", "Owen", "Abby",
)  # fmt: skip
_ASIDES = ("maybe", "of course", "I believe", "by chance", "for once", "you see", "oh well", "happily")
_ORDERS = ("place", "put", "bin", "lay", "set", "move", "push", "keep", "show", "give", "bring", "file")
_COLOURS = ("blue", "green", "red", "white", "black", "pink", "brown", "orange", "yellow", "purple")
_WHERE = ("at", "by", "in", "with", "below", "above", "from", "over")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVXYZ"
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve")
_ADVERBS = ("now", "please", "soon", "again", "today", "first", "gently", "twice", "together", "at once")


def sentence(seed: int, split: str = "train") -> str:
    """Sentence number `seed` of a split ("train" or "test"); the same number gives the same sentence."""
    random = np.random.default_rng([seed, 0x5E47])

    def word(words: tuple[str, ...] | str, own: bool = False) -> str:
        """One of `words`; `own`: of the half that belongs to the split."""
        if own:
            words = words[split == "test" :: 2]
        return words[int(random.integers(len(words)))]

    kind = int(random.integers(5))
    if kind < 2:
        return (
            f"{word(_ORDERS)} {word(_COLOURS)} {word(_WHERE)} {word(_LETTERS, True)} "
            f"{word(_DIGITS)} {word(_ADVERBS, True)}."
        )
    noun, name, place = word(_NOUNS, True), word(_NAMES, True), word(_PLACES)
    if kind == 2:
        return f"{name} {word(_VERBS)} the {word(_ADJECTIVES)} {noun} {place}."
    if kind == 3:
        first, second = word(_ADJECTIVES), word(_ADJECTIVES)
        return (
            f"{word(_ASIDES).capitalize()}, my {first} {noun} {word(_VERBS)} "
            f"the {second} {word(_NOUNS, True)} number {word(_DIGITS)} {place}."
        )
    return f"Why would {name} and {word(_NAMES, True)} put the {noun} {place}?"
