"""Sound as it comes over a pipe: 16-bit mono at 16 kHz, raw or as a wav file whose header may not know its length."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from talkface.errors import TalkfaceError

BLOCK = 3200  # bytes: 0.1 s; a pipe may give less
_POLL_SECONDS = 0.02
_OPEN_ENDED = 0x7FFF0000  # lengths that writers to a pipe put into the header
_CONVERT = "convert it on the way: ffmpeg -i SOUND -f s16le -ar 16000 -ac 1 - | talkface stream --audio - …"
_OTHER_FILES = {
    b"ID3": "mp3",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"\x1aE\xdf\xa3": "mkv",
    b"RF64": "rf64",
    b"FORM": "aiff",
    b"\x89PNG": "png",
    b"\xff\xd8\xff\xe0": "jpeg",
}


def read_pcm(source: BinaryIO, sample_rate: int = 16000, follow: float = 0.0) -> Iterator[np.ndarray]:
    """Yield int16 (n,) as they come, n > 0.

    Args:
        source: unbuffered, so that a read returns what is there: raw little-endian samples, or a wav file.
        follow: seconds after which a file that does not grow any more has ended; 0: at its present end. Pipes end when
            their writer closes them.

    Raises:
        TalkfaceError: a wav file of another rate, width or number of channels; another kind of sound file.
    """
    head = _read(source, 12, follow)
    left = -1  # bytes of sound still to come; -1: not known
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        left = _wav_length(source, sample_rate, follow)
        if follow or not 0 < left < _OPEN_ENDED:
            left = -1
        head = b""
    elif kind := next((name for magic, name in _OTHER_FILES.items() if head.startswith(magic)), None):
        raise TalkfaceError(f"sound: this is {kind}; allowed are raw 16-bit samples and wav; {_CONVERT}")
    elif head[4:8] == b"ftyp":
        raise TalkfaceError(f"sound: this is mp4; allowed are raw 16-bit samples and wav; {_CONVERT}")
    rest = head
    while True:
        whole = len(rest) // 2 * 2
        if whole:
            yield np.frombuffer(rest[:whole], "<i2").astype(np.int16)
        wanted = BLOCK if left < 0 else min(BLOCK, left)
        piece = _read_some(source, wanted, follow) if wanted else b""
        if not piece:
            return
        left -= len(piece) if left >= 0 else 0
        rest = rest[whole:] + piece


def _wav_length(source: BinaryIO, sample_rate: int, follow: float) -> int:
    """Bytes of sound that the header tells; afterwards the source is at the first of them."""
    while len(head := _read(source, 8, follow)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            return int(size)
        body = _read(source, size + size % 2, follow)
        if name == b"fmt " and len(body) >= 16:
            code, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if code not in (1, 0xFFFE) or (channels, rate, bits) != (1, sample_rate, 16):
                raise TalkfaceError(
                    f"sound: a wav file of {bits} bits, {rate} Hz, {channels} channels; allowed are 16 bits, "
                    f"{sample_rate} Hz, 1 channel; {_CONVERT}"
                )
    raise TalkfaceError("sound: the wav file ends within its header; give one with sound")


def _read(source: BinaryIO, count: int, follow: float) -> bytes:
    """`count` bytes, fewer only at the end."""
    data = b""
    while len(data) < count and (piece := _read_some(source, count - len(data), follow)):
        data += piece
    return data


def _read_some(source: BinaryIO, count: int, follow: float) -> bytes:
    """Up to `count` bytes, none only at the end: where nothing came for `follow` seconds."""
    patience = time.monotonic() + follow
    while not (piece := source.read(count)) and time.monotonic() < patience:
        time.sleep(_POLL_SECONDS)
    return piece or b""
