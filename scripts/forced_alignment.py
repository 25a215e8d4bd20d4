"""When each phone of a known sentence is spoken: forced alignment by PocketSphinx; the sentences of GRID's films."""

from __future__ import annotations

import re

import numpy as np

from talkface.errors import TalkfaceError, require
from talkface.media import Audio

FRAMES_A_SECOND = 100
# Cooke et al. 2006, "An audio-visual corpus for speech perception and automatic speech recognition", table I
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GRID_WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    {word[0] if word == "zero" else str(number): word for number, word in enumerate(_DIGITS)},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
Phone = tuple[str, float, float]


def grid_sentence(name: str) -> str:
    """The sentence of a film of the GRID corpus, from the six signs at the end of its name.

    Raises:
        TalkfaceError: it has no such name.
    """
    signs = name[-6:].lower()
    if len(signs) < 6 or any(sign not in words for sign, words in zip(signs, GRID_WORDS, strict=True)):
        raise TalkfaceError(
            f"film {name}: not a name of the GRID corpus, which ends like bbaf2n (bin blue at f two now); "
            "give films of GRID, or put each film's sentence into a file NAME.txt beside it"
        )
    return " ".join(words[sign] for sign, words in zip(signs, GRID_WORDS, strict=True))


def align(sound: Audio, text: str) -> list[Phone]:
    """(ARPAbet symbol, start, end) in seconds of every phone, pauses left out; exact to 10 ms at best.

    Two passes: words, then the phones of the pronunciations that were found.

    Args:
        sound: at 16 kHz.
        text: what is said.

    Raises:
        TalkfaceError: a word is not in the dictionary, or the sound does not hold the sentence.
    """
    pocketsphinx = require("pocketsphinx", extra="eval")
    words = re.sub(r"[^a-z' ]", " ", text.lower()).split()
    # a decoder remembers the level of the last sound: a new one for each
    decoder = pocketsphinx.Decoder(samprate=sound.sample_rate, loglevel="FATAL", lm=None)
    samples = (np.clip(sound.samples, -1, 1) * 32767).astype("<i2").tobytes()
    if unknown := [word for word in words if decoder.lookup_word(word) is None]:
        raise TalkfaceError(f"alignment: the word '{unknown[0]}' is not in the dictionary of PocketSphinx")
    try:
        decoder.set_align_text(" ".join(words))
        _listen(decoder, samples)
        decoder.set_alignment()
        _listen(decoder, samples)
    except RuntimeError as error:
        raise TalkfaceError(f"alignment: the sound does not fit the sentence '{text}' ({error})") from error
    phones = [phone for word in decoder.get_alignment().words() for phone in word]
    return [
        (phone.name, phone.start / FRAMES_A_SECOND, (phone.start + phone.duration) / FRAMES_A_SECOND)
        for phone in phones
        if phone.name != "SIL"
    ]


def _listen(decoder, samples: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
