"""The espeak-ng library through ctypes: sound with phoneme events, and IPA of a text.

The library and its data are found in the `espeakng-loader` wheel. Its synthesizer keeps hidden state (the
phase of its pitch flutter) that a restart does not clear, so each call loads the library afresh and unloads
it, which takes 4 ms and makes the sound depend on the arguments alone (but for variants with `breath`,
whose noise is seeded by the clock). Calls are serialized.
"""

from __future__ import annotations

import _ctypes
import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from talkface.errors import TalkfaceError, require

__all__ = ["installed", "ipa", "speak"]

_PHONEME_EVENTS, _IPA_NAMES = 1, 2  # options of espeak_Initialize
_SYNCHRONOUS = 2  # sound goes to the callback, and the call returns when all of it is made
_END, _PHONEME = 0, 7  # event types
_RATE, _PITCH = 1, 3  # parameters
_UTF8 = 1
_LOCK = threading.Lock()


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def installed() -> None:
    """Raises TalkfaceError, naming the extra to install, when espeak-ng cannot be had."""
    require("espeakng_loader", extra="synthetic")


def speak(text: str, voice: str, pitch: int, speed: int) -> tuple[np.ndarray, int, list[tuple[float, str]]]:
    """Synthesizes `text`.

    Args:
        voice: espeak-ng's name or path of a language, with "+variant" for another timbre.
        pitch: 0 to 99; speed: words a minute.

    Returns:
        (samples (n,) float in [-1, 1], sample rate, [(seconds, IPA)] in order; '' is a pause).
    """
    blocks: list[np.ndarray] = []
    phonemes: list[tuple[float, str]] = []

    def receive(sound, count: int, events) -> int:
        if count > 0 and sound:
            blocks.append(np.ctypeslib.as_array(sound, shape=(count,)).astype(np.float64))
        index = 0
        while events[index].type != _END:
            if events[index].type == _PHONEME:
                written = bytes(events[index].id.string).split(b"\0")[0].decode(errors="ignore")
                phonemes.append((events[index].audio_position / 1000.0, written))
            index += 1
        return 0

    with _loaded(voice) as (library, rate):
        callback = _Callback(receive)
        library.espeak_SetSynthCallback(callback)
        library.espeak_SetParameter(_RATE, speed, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        data = text.encode() + b"\0"
        library.espeak_Synth(data, len(data), 0, 0, 0, _UTF8, None, None)
    return (np.concatenate(blocks) if blocks else np.zeros(0)) / 32768.0, rate, phonemes


def ipa(text: str, voice: str) -> list[str]:
    """The clauses of `text` in IPA."""
    with _loaded(voice) as (library, _):
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        rest, clauses = ctypes.c_char_p(text.encode()), []
        while rest.value:
            clauses.append(library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, 2).decode())
        return clauses


@contextmanager
def _loaded(voice: str) -> Iterator[tuple[ctypes.CDLL, int]]:
    """A fresh library that speaks as `voice`, and its sample rate."""
    loader = require("espeakng_loader", extra="synthetic")
    data = loader.get_data_path()
    with _LOCK:
        library = ctypes.CDLL(loader.get_library_path())
        try:
            rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _PHONEME_EVENTS | _IPA_NAMES)
            if rate <= 0:
                raise TalkfaceError(
                    f"espeak-ng cannot start with the data in {data}; "
                    "reinstall it: pip install --force-reinstall espeakng-loader"
                )
            if library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise TalkfaceError(
                    f"espeak-ng voice: {voice!r} is unknown; see the folders lang and voices in {data}"
                )
            yield library, rate
            library.espeak_Terminate()
        finally:
            getattr(_ctypes, "FreeLibrary" if sys.platform == "win32" else "dlclose")(library._handle)
