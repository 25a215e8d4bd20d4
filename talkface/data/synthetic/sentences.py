"""Sentences to speak: a small grammar over our own word lists, with many lip closures and rounded vowels.

Three kinds: statements, short commands (six words, as a person would instruct a machine), and questions.
Each split draws its nouns, names, letters and adverbs from its own half of the lists, so that no sentence of
one split can occur in the other. `loose_words` is for readers of lips: words in no order, so that nothing but the
mouth tells the next one.
"""

from __future__ import annotations

import numpy as np

__all__ = ["loose_words", "sentence"]

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

_COMMON = """
about above across act add after age air all almost alone along also always and animal another answer any apple area arm
around ask away baby back bad bag ball band bank base bath be beach bed before begin behind best better between beyond
big bird bit black blood blow board body bone book both bottom box boy brain branch bread break breath brick bring
brother build burn busy buy cake call calm car care carry case catch cause chain chair chance change cheese chew chief
child choice church city claim class clean clear climb close cloth coffee cold come cook cool copper corn count cover
cow crowd cry cup cut dance dark day dead deep desk do dog door doubt down dream dress drink drive dry dust each ear
early earth east eat edge egg eight else end enough even evening ever every eye face fact fall family far fast father
favour fear feed feel few field fight fill film find fine finger fire firm first five flag flat flight floor flower fly
follow food foot for force form forty four free friend from front fruit full fun game gather gave gentle get ghost gift
girl glass go gold good grain grass great green ground group guard guess guide gun hair half hall hand happen happy hard
have head health hear heart heat height help here high hill hold hole home honey hope horse hour house how huge human
hundred hurry ice idea if inch inside iron island jacket job join joke joy juice jump keep key kick kind king kitchen
knee knife know ladder lady lake land large last laugh law lay lead leaf learn leave leg lemon less letter life light
like line lip list little live long look loose loud love low luck lunch machine make man many march mark market match
may meal mean meat meet middle might mile milk mind minute mix money month moon more morning most mother mountain mouth
move much music must name narrow near neck need never new next nice night nine noise none north nose note nothing now
number obvious ocean odd off office often oil old once one only open orange order other our out over own page pain paint
pair park part party pass past pay peace pen people pepper perhaps pick picture piece pipe place plan plant plate play
please plenty point pool poor post pound power press price pride public pull pure purpose push put queen question quick
rain raise rather reach read ready real red reason rest rice rich ride right ring rise road rock roof room rope rough
round row rule run safe salt same sand save say school sea search season seat second see seed seem sell send sense serve
seven shade shake shape share sharp she sheep shelf shine shirt shoe shoot shop short shoulder shout side sign silver
simple since sing sister sit six size skin sky sleep slow small smile smoke snow soap soft some son song soon sound soup
south space speak speed spoon spring square stand star start stay steam step stick stone stop story street strong sudden
sugar summer sun supper sure surface sweet swim table tail take tale talk tall taste tea teach tell ten than that their
them then these they thick thin thing think third this those thought thousand three through throw time tiny to
tomorrow tongue tool tooth top touch toward town trade train travel tree true try turn twenty two type uncle under until
up usual valley value very view visit voice wait walk wall want war warm wash waste watch water way we weak wear week
weigh well west wet what wheel when where which while white who whole why wide wild will wind window wine wing winter
wise wish with without woman wonder wood word work world worth would write wrong year yellow yes yesterday yet you young
"""


def loose_words(seed: int) -> str:
    """Three to six common words without order or sense; none is of those that only the test split says."""
    held_out = {
        word for words in (_NOUNS, _NAMES, _ADVERBS) for word in " ".join(words[1::2]).lower().split()
    }
    allowed = [word for word in _COMMON.split() if word not in held_out]
    random = np.random.default_rng([seed, 0x10053])
    return (
        " ".join(allowed[int(place)] for place in random.integers(len(allowed), size=random.integers(3, 7)))
        + "."
    )


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
