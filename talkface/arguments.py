"""Arguments of the command line: what is allowed, and the one line that says so.

Only the standard library is imported, so that a mistyped path answers at once.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from talkface.errors import TalkfaceError

FILM_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
_NTSC = {
    "23.976": Fraction(24000, 1001),
    "23.98": Fraction(24000, 1001),
    "29.97": Fraction(30000, 1001),
    "59.94": Fraction(60000, 1001),
}


def check_input(option: str, path: Path) -> None:
    """Raises: TalkfaceError: `path` is no readable file with contents."""
    if not path.exists():
        raise TalkfaceError(f"{option}: {path} does not exist; give an existing file")
    if not path.is_file():
        raise TalkfaceError(f"{option}: {path} is not a file; give a file")
    if path.stat().st_size == 0:
        raise TalkfaceError(f"{option}: {path} is empty (0 bytes); give a file with contents")
    if not os.access(path, os.R_OK):
        raise TalkfaceError(f"{option}: {path} may not be read; change its permissions or give another file")


def check_output(path: Path, inputs: Sequence[Path]) -> None:
    """Raises: TalkfaceError: no film can be written to `path`, or it is one of `inputs`."""
    if path.suffix.lower() not in FILM_SUFFIXES:
        raise TalkfaceError(f"--out: {path} is no film name; allowed endings are {', '.join(FILM_SUFFIXES)}")
    if path.is_dir():
        raise TalkfaceError(f"--out: {path} is a folder; give the name of a film in it")
    folder = path.parent
    if not folder.is_dir():
        raise TalkfaceError(f"--out: the folder {folder} does not exist; make it first: mkdir -p '{folder}'")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TalkfaceError(
            f"--out: the folder {folder} cannot be written ({error.strerror or error}); choose another"
        ) from error
    if path.exists() and any(path.samefile(other) for other in inputs):
        raise TalkfaceError(f"--out: {path} is also an input and would be lost; choose another name")


def whole(lowest: int, highest: int = 2**63 - 1) -> Callable[[str], int]:
    """A type for argparse: whole numbers in a range."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if not lowest <= value <= highest:
            allowed = f"{lowest} to {highest}" if highest < 2**31 else f"{lowest} or more"
            raise argparse.ArgumentTypeError(f"{text}; allowed are whole numbers, {allowed}")
        return value

    return parse


def number(lowest: float, highest: float) -> Callable[[str], float]:
    """A type for argparse: numbers in a range."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text}; allowed are numbers from {lowest:g} to {highest:g}")
        return value

    return parse


def frame_rate(text: str) -> Fraction:
    """A type for argparse: exact frames a second, 1 to 240; 29.97 and its like are the NTSC rates."""
    try:
        rate = _NTSC.get(text) or Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 1 <= rate <= 240:
        raise argparse.ArgumentTypeError(
            f"{text}; allowed are 1 to 240 frames a second, as 25, 29.97 or 30000/1001"
        )
    return rate


def add_liveliness(parser: argparse.ArgumentParser) -> None:
    """--emotion, --emotion-intensity, --motion: what a face does besides speaking."""
    parser.add_argument(
        "--emotion", metavar="NAME", help="neutral, happy, sad, surprised, fear, disgusted, angry, contempt"
    )
    parser.add_argument(
        "--emotion-intensity",
        type=number(0, 1),
        default=1.0,
        metavar="X",
        help="how strongly a picture shows it, 0 to 1 (default: 1)",
    )
    parser.add_argument(
        "--motion",
        choices=("none", "subtle", "lively"),
        help="what a picture does besides speaking: blinks, head, brows (default: subtle)",
    )
