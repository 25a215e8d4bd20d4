"""Numbers of a corpus that a person checks: per split, class, subject, length, and what was left out and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkface.data.base import EMOTIONS, SPLITS, ClipEntry, read_index
from talkface.data.prepare.source import RawItem
from talkface.errors import require

MOST_REASONS = 12  # shown per step; the others are added up
ALIKE = 4
DURATIONS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 60.0, 600.0)  # seconds, starts of the bins


@dataclass(frozen=True)
class Counts:
    """What `report.html` and the last line of a script say.

    Attributes:
        splits: clips by split, in the order train, val, test.
        classes: emotion (or "unknown") -> split -> clips.
        subjects: split -> subject -> clips.
        durations: (seconds from, seconds to, clips), of clips with more than one frame.
        rejected: (step, reason, files, one of them), the most frequent first.
    """

    clips: int
    pictures: int
    frames: int
    seconds: float
    with_sound: int
    splits: dict[str, int]
    classes: dict[str, dict[str, int]]
    subjects: dict[str, dict[str, int]]
    durations: list[tuple[float, float, int]]
    rejected: list[tuple[str, str, int, str]]

    @property
    def left_out(self) -> int:
        return sum(count for _, _, count, _ in self.rejected)

    def steps(self) -> dict[str, int]:
        """Files left out by step, by name of the step."""
        found: Counter[str] = Counter()
        for step, _, count, _ in self.rejected:
            found[step] += count
        return dict(sorted(found.items()))


def count_corpus(folder: Path) -> Counts:
    """Count what the index and `rejected.parquet` of a finished corpus say."""
    parquet = require("pyarrow.parquet", extra="train")
    entries = read_index(folder / "index.parquet")
    classes: dict[str, dict[str, int]] = {}
    subjects: dict[str, dict[str, int]] = {}
    for entry in entries:
        by_split = classes.setdefault(class_name(entry.emotion), dict.fromkeys(SPLITS, 0))
        by_split[entry.split] += 1
        of_split = subjects.setdefault(entry.split, {})
        of_split[entry.subject] = of_split.get(entry.subject, 0) + 1
    splits = Counter(entry.split for entry in entries)
    order = [*EMOTIONS, "unknown"]
    return Counts(
        clips=len(entries),
        pictures=sum(is_picture(entry) for entry in entries),
        frames=sum(entry.num_frames for entry in entries),
        seconds=sum(entry.duration for entry in entries if not is_picture(entry)),
        with_sound=sum(entry.has_audio for entry in entries),
        splits={split: splits[split] for split in SPLITS if splits[split]},
        classes=dict(sorted(classes.items(), key=lambda pair: order.index(pair[0]))),
        subjects=subjects,
        durations=_histogram([entry.duration for entry in entries if not is_picture(entry)]),
        rejected=group_reasons(parquet.read_table(folder / "rejected.parquet").to_pylist()),
    )


def class_name(emotion: int) -> str:
    return EMOTIONS[emotion] if 0 <= emotion < len(EMOTIONS) else "unknown"


def is_picture(entry: ClipEntry) -> bool:
    return entry.num_frames == 1 and not entry.has_audio


def _histogram(values: Sequence[float]) -> list[tuple[float, float, int]]:
    ends = [*DURATIONS[1:], float("inf")]
    bins = [
        (start, end, sum(start <= value < end for value in values))
        for start, end in zip(DURATIONS, ends, strict=True)
    ]
    filled = [number for number, (_, _, count) in enumerate(bins) if count]
    return bins[filled[0] : filled[-1] + 1] if filled else []


def group_reasons(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, int, str]]:
    """(step, reason, files, first file) of rows of `rejected.parquet`.

    A step shows `MOST_REASONS` at most. Where more than `ALIKE` reasons of a step differ in numbers, or in words in
    brackets or quotes, they are one.
    """
    exact: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        plain = re.sub(r"\(.*\)|'.*'", "(...)", row["reason"])
        alike = exact.setdefault((row["step"], re.sub(r"\d+(\.\d+)?", "#", plain)), {})
        alike.setdefault(row["reason"], []).append(row["file"])
    found: list[tuple[str, str, list[str]]] = []
    for (step, plain), reasons in exact.items():
        if len(reasons) <= ALIKE:
            found += [(step, reason, files) for reason, files in reasons.items()]
        else:
            found.append((step, plain, [file for files in reasons.values() for file in files]))
    found.sort(key=lambda row: (-len(row[2]), row[:2]))
    shown: Counter[str] = Counter()
    others: dict[str, list[str]] = {}
    result = []
    for step, reason, files in found:
        shown[step] += 1
        if shown[step] > MOST_REASONS:
            others.setdefault(step, []).extend(files)
        else:
            result.append((step, reason, len(files), files[0]))
    return result + [(step, "other reasons", len(files), files[0]) for step, files in sorted(others.items())]


def describe_plan(items: Iterable[RawItem]) -> dict[str, dict[str, int]]:
    """What `--dry-run` prints: items per split by emotion, and how many names and tables alone leave out."""
    counts: dict[str, Counter[str]] = {}
    for item in items:
        what = class_name(item.emotion) if item.problem is None else _plain_problem(*item.problem)
        counts.setdefault(item.split, Counter())[what] += 1
    return {split: dict(sorted(found.items())) for split, found in counts.items()}


def _plain_problem(step: str, reason: str) -> str:
    # the place in a table says nothing in a sum
    return "unusable rows" if step == "table" else reason
