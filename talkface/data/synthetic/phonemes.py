"""One phoneme inventory for all voices: ARPAbet (the 39 of CMUdict, plus AX and SIL).

Vowels may carry a stress digit as in CMUdict (0 none, 1 main, 2 secondary). IPA as espeak-ng writes it is
read by `from_ipa`; it covers English and is not a general IPA reader.
"""

from __future__ import annotations

VOWELS = ("AA", "AE", "AH", "AO", "AW", "AX", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
PHONEMES: tuple[str, ...] = ("SIL", *VOWELS, "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N",
"NG",
                             "P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH")  # fmt: skip
"""All symbols without stress; the index of a symbol here is its id in a corpus."""

# Longest match first; a long or r-coloured vowel may stand for two phonemes.
_IPA: dict[str, tuple[str, ...]] = {
    "tʃ": ("CH",), "dʒ": ("JH",), "aɪ": ("AY",), "aʊ": ("AW",), "eɪ": ("EY",), "oʊ": ("OW",), "əʊ": ("OW",),
    "ɔɪ": ("OY",), "ɔː": ("AO",), "oː": ("AO",), "ɑː": ("AA",), "iː": ("IY",), "uː": ("UW",), "ɜː": ("ER",),
    "eə": ("EH", "AX"), "ɪə": ("IH", "AX"), "iə": ("IY", "AX"), "ʊə": ("UH", "AX"), "ɛː": ("EH",),
    "a": ("AE",), "æ": ("AE",), "ɐ": ("AX",), "ɑ": ("AA",), "ɒ": ("AA",), "ʌ": ("AH",), "ə": ("AX",),
    "ɚ": ("ER",),
    "ɜ": ("ER",), "ɝ": ("ER",), "ɛ": ("EH",), "e": ("EH",), "ɪ": ("IH",), "ᵻ": ("IH",), "i": ("IY",),
    "o": ("AO",),
    "ɔ": ("AO",), "ʊ": ("UH",), "u": ("UW",), "ʉ": ("UW",), "p": ("P",), "b": ("B",), "t": ("T",),
    "d": ("D",),
    "k": ("K",), "ɡ": ("G",), "g": ("G",), "f": ("F",), "v": ("V",), "θ": ("TH",), "ð": ("DH",), "s": ("S",),
    "z": ("Z",), "ʃ": ("SH",), "ʒ": ("ZH",), "h": ("HH",), "m": ("M",), "n": ("N",), "ŋ": ("NG",),
    "l": ("L",),
    "ɫ": ("L",), "ɹ": ("R",), "r": ("R",), "ɾ": ("D",), "w": ("W",), "ʍ": ("W",), "j": ("Y",), "x": ("K",),
}  # fmt: skip
_STRESS = {"ˈ": 1, "ˌ": 2}


def split_stress(symbol: str) -> tuple[str, int | None]:
    """'AA1' -> ('AA', 1); 'B' -> ('B', None)."""
    return (symbol[:-1], int(symbol[-1])) if symbol[-1:].isdigit() else (symbol, None)


def from_ipa(text: str) -> list[tuple[str, int, int]]:
    """Reads espeak-ng's IPA.

    Returns:
        (ARPAbet symbol, first, end) for each phoneme, where text[first:end] wrote it; stress marks and signs
        that are not in the inventory (length, ties, glottal stops, punctuation) are passed over.
    """
    out: list[tuple[str, int, int]] = []
    position, stress = 0, 0
    while position < len(text):
        if text[position] in _STRESS:
            stress = _STRESS[text[position]]
            position += 1
            continue
        size = next((n for n in (2, 1) if text[position : position + n] in _IPA), 0)
        if size == 0:
            position += 1
            continue
        for symbol in _IPA[text[position : position + size]]:
            if symbol in VOWELS:
                symbol, stress = f"{symbol}{stress}", 0
            out.append((symbol, position, position + size))
        position += size
    return out
