"""The report says what is in the corpus and what is not, in one file that needs no other."""

from __future__ import annotations

import html
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkface.data import Clip, Corpus, CorpusWriter
from talkface.data.prepare.counts import MOST_REASONS, count_corpus, group_reasons
from talkface.data.prepare.report import POINT, contact_sheet, write_report
from talkface.data.prepare.source import About
from talkface.data.writer import encode_jpeg
from talkface.media import read_image

pytest.importorskip("pyarrow")
SIDE = 64


def write_films(folder: Path) -> Path:
    """Three clips of two people, one without sound; frame k is k * 20 bright, its landmarks lie on one spot."""
    writer = CorpusWriter(
        folder, name="Films <1>", licence="CC0-1.0", source="tests", fps=25, image_size=SIDE
    )
    points = np.full((10, 68, 2), 32.5, np.float32)
    with writer.shard("train-00000") as shard:
        for number, (subject, seconds) in enumerate((("anna", 2.5), ("bert", 0.4), ("bert", 61.0))):
            frames = [encode_jpeg(np.full((SIDE, SIDE, 3), 20 * k, np.uint8), 95) for k in range(10)]
            sound = None if number == 1 else np.zeros(int(16000 * seconds), np.float32)
            shard.add(
                Clip(f"clip{number}", "train", subject, frames, sound, {"landmarks": points}, emotion=number)
            )
        for number in range(9):
            shard.reject(f"raw/{number}.mp4", "sound", f"{number} s of sound (and 'x{number}')")
        shard.reject("raw/no.mp4", "read", "the file is <missing>")
    writer.finish(["train-00000"])
    return folder


def test_numbers_of_the_page_are_those_of_the_corpus(tmp_path: Path) -> None:
    folder = write_films(tmp_path)
    counts = count_corpus(folder)
    assert (counts.clips, counts.pictures, counts.frames, counts.with_sound) == (3, 0, 30, 2)
    assert counts.seconds == pytest.approx(2.5 + 0.4 + 61.0)
    assert counts.subjects == {"train": {"anna": 1, "bert": 2}} and counts.splits == {"train": 3}
    assert [row for row in counts.durations if row[2]] == [(0, 1, 1), (2, 3, 1), (60, 600, 1)]
    assert counts.rejected == [
        ("sound", "# s of sound (...)", 9, "raw/0.mp4"), ("read", "the file is <missing>", 1, "raw/no.mp4")
    ]  # fmt: skip
    write_report(folder, About("Films <1>", "CC0-1.0", "nothing"))
    page = (folder / "report.html").read_text()
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))
    for words in ("Films <1>", "3 clips", "10 left out", "no clip in the split val", "1 clips are without sound",
                  "77% of the files were left out", "the file is <missing> raw/no.mp4 1", "bert train 2",
                  "60 to 600 s 1", "sad 1 1"):  # fmt: skip
        assert words in text, words
    # one file, no script, nothing to load, no trace of this machine
    assert not re.search(r"<script|<link|src='(?!data:)|href|https?:", page) and str(tmp_path) not in page
    again = page.encode()
    write_report(folder, About("Films <1>", "CC0-1.0", "nothing"))
    assert (folder / "report.html").read_bytes() == again


def test_a_film_is_a_row_from_its_first_frame_to_its_last(tmp_path: Path) -> None:
    folder = write_films(tmp_path)
    drawn = contact_sheet(Corpus(folder))
    write_report(folder, About("Films", "CC0-1.0", "nothing"))
    assert np.array_equal(read_image(folder / "contact_sheet.png"), drawn)
    row = drawn[:SIDE]
    left = np.flatnonzero((row[5] < 5).all(axis=1))[0]  # the first frame is black
    places = [left + number * (SIDE + 2) + 5 for number in range(8)]
    levels = [int(row[5, x].mean()) for x in places]
    assert levels == sorted(levels) and levels[0] < 3 and abs(levels[-1] - 180) < 3
    assert np.abs(row[32, places[0] - 5 + 32].astype(int) - POINT).max() < 40  # where the landmarks are
    assert drawn.shape[0] == 3 * (SIDE + 2) - 2


def test_pictures_are_rows_of_one_class(tmp_path: Path) -> None:
    writer = CorpusWriter(tmp_path, name="p", licence="CC0-1.0", source="tests", fps=25, image_size=SIDE)
    with writer.shard("train-00000") as shard:
        for number in range(30):
            emotion = number % 2
            frame = encode_jpeg(np.full((SIDE, SIDE, 3), 50 + 150 * emotion, np.uint8), 95)
            shard.add(Clip(f"p{number}", "train", f"s{number}", [frame], emotion=emotion))
    writer.finish(["train-00000"])
    drawn = cv2.cvtColor(contact_sheet(Corpus(tmp_path)), cv2.COLOR_RGB2GRAY)
    assert drawn.shape[0] == 2 * (SIDE + 2) - 2
    for row, level in ((0, 50), (1, 200)):
        part = drawn[row * (SIDE + 2) : row * (SIDE + 2) + SIDE, -8 * (SIDE + 2) + 2 :]
        assert np.abs(part[10, 10 :: SIDE + 2].astype(int) - level).max() < 4


def test_reasons_are_added_up() -> None:
    few = [{"step": "label", "reason": f"label {n % 3}", "file": f"{n}"} for n in range(6)]
    assert group_reasons(few) == [("label", f"label {n}", 2, str(n)) for n in range(3)]
    many = [{"step": "read", "reason": "odd" + "!" * n, "file": f"{n}"} for n in range(MOST_REASONS + 5)]
    grouped = group_reasons(many)
    assert len(grouped) == MOST_REASONS + 1 and grouped[-1][1:3] == ("other reasons", 5)
    assert sum(row[2] for row in grouped) == len(many)
