"""Two files that show at a glance whether a corpus is sound: `report.html` and `contact_sheet.png`.

The page is one file: styles and pictures are inside, no script. Neither file holds a date or a path of this machine, so
that equal corpora have equal reports.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkface.data.base import SPLITS, ClipEntry, Corpus, read_corpus_info
from talkface.data.prepare.counts import Counts, class_name, count_corpus, is_picture
from talkface.data.prepare.source import About
from talkface.data.writer import write_atomically
from talkface.errors import TalkfaceError
from talkface.portrait.sheet import sheet

REPORT = "report.html"
CONTACT_SHEET = "contact_sheet.png"
COLUMNS = 8
MOST_ROWS = 12
CELL = 128
POINT = (40, 255, 120)


def write_report(folder: Path, about: About) -> Counts | None:
    """Draw both files of a finished corpus.

    Returns:
        What was counted; None when the corpus holds nothing (the page is written all the same).
    """
    counts = count_corpus(folder)
    picture = b""
    if counts.clips:
        drawn = contact_sheet(Corpus(folder))
        picture = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
        png = cv2.imencode(".png", drawn[..., ::-1])[1].tobytes()
        write_atomically(folder / CONTACT_SHEET, png)
    page = report_page(read_corpus_info(folder), about, counts, picture)
    write_atomically(folder / REPORT, page.encode())
    return counts if counts.clips else None


def contact_sheet(corpus: Corpus) -> np.ndarray:
    """Pictures of the corpus with their landmarks, uint8 (H, W, 3).

    Of films every row is a clip, from its first frame to its last; of pictures every row is a class or, where there
    are none, a split. Clips are taken evenly spread, in the order of the index.
    """
    clips = corpus.clips
    rows: list[list[np.ndarray | None]]
    if all(is_picture(clip) for clip in clips):
        groups = _groups(clips)
        shown = {name: [(clip, 0) for clip in _spread(group, COLUMNS)] for name, group in groups.items()}
    else:
        shown = {
            f"{clip.id[-24:]}": [(clip, frame) for frame in _spread(range(clip.num_frames), COLUMNS)]
            for clip in _spread(clips, MOST_ROWS)
        }
    rows = [[_drawn(corpus, clip, frame) for clip, frame in places] for places in shown.values()]
    return sheet(rows, row_names=list(shown), cell=min(CELL, max(corpus.image_size, 32)))


def _groups(clips: Sequence[ClipEntry]) -> dict[str, list[ClipEntry]]:
    names = sorted({clip.emotion for clip in clips})
    if len(names) > 1:
        return {class_name(emotion): [clip for clip in clips if clip.emotion == emotion] for emotion in names}
    found: dict[str, list[ClipEntry]] = {}
    for split in SPLITS:
        members = _spread([clip for clip in clips if clip.split == split], 4 * COLUMNS)
        for start in range(0, len(members), COLUMNS):
            found[split if not start else f"{split} {start // COLUMNS + 1}"] = members[
                start : start + COLUMNS
            ]
    return found


def _spread(values: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the values, evenly spread, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(number * (len(values) - 1) / (count - 1))] for number in range(count)]


def _drawn(corpus: Corpus, clip: ClipEntry, frame: int) -> np.ndarray:
    image = corpus.read_frame(clip, frame)
    try:
        points = corpus.read_truth(clip, ("landmarks",))["landmarks"][frame] if clip.npz_size else ()
    except TalkfaceError:  # a corpus without landmarks
        points = ()
    for x, y in points:
        # coordinates are continuous: the first pixel's centre is 0.5
        place = (round(float(x) - 0.5), round(float(y) - 0.5))
        cv2.circle(image, place, max(0, image.shape[0] // 160), POINT, -1)
    return image


def warnings_of(counts: Counts) -> list[str]:
    """What a person should look at before training on it."""
    found = []
    steps, items = counts.steps(), counts.clips + counts.left_out
    if defects := steps.get("defect", 0):
        found.append(f"{defects} files ended in a defect of talkface; please report the reason below")
    if not counts.clips:
        return [*found, "the corpus is empty"]
    if counts.left_out > 0.2 * items:
        found.append(f"{counts.left_out / items:.0%} of the files were left out")
    found += [f"no clip in the split {split}" for split in ("train", "val") if split not in counts.splits]
    known = {name: sum(row.values()) for name, row in counts.classes.items() if name != "unknown"}
    if known and max(known.values()) >= 10 * min(known.values()):
        found.append(
            f"{max(known, key=lambda name: known[name])} is {max(known.values()) / min(known.values()):.0f} times "
            f"as frequent as {min(known, key=lambda name: known[name])}"
        )
    if 0 < counts.with_sound < counts.clips:
        found.append(f"{counts.clips - counts.with_sound} clips are without sound")
    return found


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2430;background:#fff;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p.about{color:#5a6675;margin:.2rem 0}
.tiles{display:flex;flex-wrap:wrap;gap:.7rem;margin:1.2rem 0}
.tiles div{background:#f2f5f9;border-radius:8px;padding:.6rem 1rem;min-width:7rem}
.tiles b{display:block;font-size:1.5rem}
.look{background:#fff4e0;border-left:4px solid #e09a20;padding:.5rem 1rem;border-radius:4px}
.sound{background:#e9f7ee;border-left:4px solid #2d9d5c;padding:.5rem 1rem;border-radius:4px}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2rem .6rem;border-bottom:1px solid #e3e8ee}
th{font-weight:600}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.bar{width:35%}
td.bar i{display:block;height:.8rem;background:#4a86c8;border-radius:2px;min-width:1px}
img{max-width:100%}pre{background:#f2f5f9;padding:1rem;border-radius:8px;overflow:auto}code{overflow-wrap:anywhere}
"""


def report_page(info: dict[str, Any], about: About, counts: Counts, picture: bytes) -> str:
    """The page as HTML; `picture` is the contact sheet as JPEG."""
    say = html.escape
    looks = warnings_of(counts)
    notes = (
        "<div class=look><b>Look at this</b><ul>"
        + "".join(f"<li>{say(note)}</li>" for note in looks)
        + "</ul></div>"
        if looks
        else "<div class=sound>Nothing unusual was counted; look at the pictures all the same.</div>"
    )
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{say(info['name'])}: report</title><style>{STYLE}</style>",
        f"<h1>{say(info['name'])}</h1><p class=about>{say(info['licence'])}</p>",
        f"<p class=about>{say(about.source)}</p>" if about.source else "",
        _tiles(counts, info),
        notes,
    ]
    if picture:
        data = base64.b64encode(picture).decode()
        parts.append(
            f"<h2>Contact sheet</h2><img alt='pictures with landmarks' src='data:image/jpeg;base64,{data}'>"
        )
    splits = [split for split in SPLITS if split in counts.splits]
    classes: list[tuple[str | int, ...]] = [
        (name, *(row[split] for split in splits), sum(row.values())) for name, row in counts.classes.items()
    ]
    parts.append(_section("Classes", ("emotion", *splits, "all"), classes))
    parts.append(
        _section("Splits and subjects", ("split", "subjects", "most of one", "clips"), _splits(counts))
    )
    busiest = [
        (subject, split, count)
        for split in splits
        for subject, count in sorted(counts.subjects[split].items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    if len(busiest) < counts.clips:  # else every picture is a subject of its own
        parts.append(
            _section("Subjects", ("subject", "split", "clips"), sorted(busiest, key=lambda row: -row[2])[:30])
        )
    lengths = [
        (f"{start:g} to {end:g} s" if np.isfinite(end) else f"{start:g} s or more", count)
        for start, end, count in counts.durations
    ]
    parts.append(_section("Durations", ("length", "clips"), lengths))
    left_out = [(step, reason, file, count) for step, reason, count, file in counts.rejected]
    parts.append(_section("Left out", ("step", "reason", "for example", "files"), left_out))
    settings = {
        key: info[key]
        for key in ("config", "fps", "image_size", "sample_rate", "preparation_hash", "version")
    }
    parts.append(
        f"<h2>Settings</h2><pre>{say(json.dumps(settings, indent=1, ensure_ascii=False))}</pre></html>\n"
    )
    return "\n".join(part for part in parts if part)


def _tiles(counts: Counts, info: dict[str, Any]) -> str:
    words = "pictures" if counts.pictures == counts.clips else "clips"
    subjects = sum(map(len, counts.subjects.values()))
    tiles = [
        (words, f"{counts.clips:,}"),
        ("subjects", f"{subjects:,}"),
        ("left out", f"{counts.left_out:,}"),
    ]
    if words == "clips":
        length = counts.seconds
        tiles += [
            ("length", f"{length / 3600:.1f} h" if length >= 3600 else f"{length / 60:.1f} min"),
            ("frames", f"{counts.frames:,}"),
            ("with sound", f"{counts.with_sound:,}"),
            ("a second", f"{info['fps']:g} frames"),
        ]
    tiles.append(("side", f"{info['image_size']} px"))
    return (
        "<div class=tiles>" + "".join(f"<div><b>{value}</b>{name}</div>" for name, value in tiles) + "</div>"
    )


def _splits(counts: Counts) -> list[tuple[str, int, int, int]]:
    return [
        (split, len(counts.subjects[split]), max(counts.subjects[split].values()), count)
        for split, count in counts.splits.items()
    ]


def _section(title: str, names: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """A table whose last column is also drawn as a bar; nothing where there are no rows."""
    rows = list(rows)
    if not rows:
        return ""
    longest = max(max(int(row[-1]) for row in rows), 1)
    head = "".join(
        f"<th{' class=n' if isinstance(value, int) else ''}>{html.escape(name)}</th>"
        for name, value in zip(names, rows[0], strict=True)
    )
    body = []
    for row in rows:
        cells = "".join(
            f"<td class=n>{value:,}</td>" if isinstance(value, int) else f"<td>{html.escape(value)}</td>"
            for value in row
        )
        body.append(
            f"<tr>{cells}<td class=bar><i style='width:{100 * int(row[-1]) / longest:.1f}%'></i></td></tr>"
        )
    return f"<h2>{title}</h2><table><tr>{head}<th></th></tr>{''.join(body)}</table>"
