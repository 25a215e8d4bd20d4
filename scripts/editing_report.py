"""What `evaluate_editing.py` keeps, and the page it writes: the thesis's Table 4.2 with floors and ceilings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from measuring import cell, markdown

from talkface.errors import TalkfaceError

ACCURACY = "accuracy"
NUMBERS = ("PSNR", "SSIM", "LPIPS", "identity")
EQUAL = 99.0  # dB, written for equal pictures
FORMS = {"PSNR": "{:.2f}"}
# thesis, table 4.2, means over the six targets: accuracy, PSNR, SSIM, LPIPS
THESIS = {
    "3 400": (0.376, 31.70, 0.938, 0.029),
    "5 400": (0.556, 29.37, 0.908, 0.048),
    "1 500": (0.253, 32.58, 0.945, 0.026),
    "2 500": (0.425, 29.91, 0.915, 0.045),
    "3 500": (0.570, 28.09, 0.888, 0.063),
    "4 500": (0.676, 26.69, 0.862, 0.080),
    "5 500": (0.742, 25.52, 0.836, 0.096),
    "3 600": (0.719, 24.57, 0.816, 0.109),
    "5 600": (0.824, 21.90, 0.741, 0.152),
}


class Rows:
    """Measured rows in `<folder>/rows.jsonl`, each under the name of its cell; appended, never rewritten."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "rows.jsonl"
        self.cells: dict[str, dict[tuple[str, int], dict[str, Any]]] = defaultdict(dict)
        if self.path.is_file():
            for line in self.path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # empty, or cut short by an interruption
                    continue
                self.cells[row["cell"]][row["picture"], row["target"]] = row

    def check(self, about: dict[str, Any]) -> None:
        """Raises: TalkfaceError: the folder holds rows of another model, judge or way."""
        path = self.folder / "about.json"
        if path.is_file() and (old := json.loads(path.read_text())) != about:
            other = [name for name in about if old.get(name) != about[name]]
            raise TalkfaceError(
                f"--work: {self.folder} was measured with another {', '.join(other)}; give another"
            )
        path.write_text(json.dumps(about))

    def lacks(self, name: str, pictures: Sequence[str], target: int) -> bool:
        """Whether a cell has not all of these pictures."""
        return any((picture, target) not in self.cells[name] for picture in pictures)

    def add(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Keep rows."""
        new = [
            row | {"cell": name} for row in rows if (row["picture"], row["target"]) not in self.cells[name]
        ]
        # a line break first: an interrupted run may have left half a line
        with self.path.open("a") as file:
            file.write("".join("\n" + json.dumps(row) for row in new))
        for row in new:
            self.cells[name][row["picture"], row["target"]] = row

    def of(self, name: str) -> list[dict[str, Any]]:
        """All rows of a cell."""
        return list(self.cells[name].values())


def mean(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """Mean over rows that have the number."""
    values = [float(row[name]) for row in rows if name in row]
    return sum(values) / len(values) if values else None


def edited(rows: Sequence[dict[str, Any]], target: int | None = None) -> list[dict[str, Any]]:
    """Rows of pictures that were not of the target class already."""
    return [row for row in rows if row["label"] != row["target"] and target in (None, row["target"])]


def numbers(rows: Sequence[dict[str, Any]]) -> list[str]:
    """PSNR, SSIM, LPIPS, identity."""
    means = {name: mean(rows, name) for name in NUMBERS}
    if (means["PSNR"] or 0.0) >= EQUAL:
        means["PSNR"] = float("inf")
    return [cell(value, FORMS.get(name, "{:.3f}")) for name, value in means.items()]


def hit_rates(rows: Sequence[dict[str, Any]], targets: Sequence[int]) -> list[str]:
    """How often unedited pictures of other classes are judged to be of each target: mean, then each."""
    found: list[float] = []
    for target in targets:
        others = [row for row in rows if row["label"] != target]
        found.append(sum(row["judged"] == target for row in others) / max(1, len(others)))
    return [cell(sum(found) / len(found)), *(cell(value) for value in found)]


def course(values: Sequence[float]) -> str:
    """Whether every value is larger than the one before, or at least not smaller."""
    if all(after > before for before, after in pairwise(values)):
        return "rises"
    return "never falls" if all(after >= before for before, after in pairwise(values)) else "also falls"


def trends(rows: Rows, names: Sequence[str]) -> list[str]:
    """What the thesis found, asked of our numbers."""
    # cells may have been measured on different numbers of faces; only those that all have can be compared
    shared = (
        set.intersection(*({row["picture"] for row in rows.of(name)} for name in names)) if names else set()
    )
    grid = {
        tuple(map(float, name.split())): [row for row in rows.of(name) if row["picture"] in shared]
        for name in names
    }
    lines: list[str] = []
    for text, place in (("guidance", 0), ("strength", 1)):
        verdicts = []
        for fixed in sorted({key[1 - place] for key in grid}):
            line = [edited(grid[key]) for key in sorted(grid) if key[1 - place] == fixed]
            if len(line) > 1:
                hits = [mean(part, ACCURACY) or 0.0 for part in line]
                lost = course([-(mean(part, "PSNR") or 0.0) for part in line])
                verdicts.append((fixed, hits, course(hits), lost == "rises"))
        if verdicts:
            other = "strength" if place == 0 else "guidance"
            told = "; ".join(
                f"{other} {fixed:g}: accuracy {up} "
                f"({' '.join(f'{hit:.3f}' for hit in hits)}), PSNR {'falls' if down else 'does not always fall'}"
                for fixed, hits, up, down in verdicts
            )
            lines.append(f"- With {text}, at {told}.")
    return [f"On the {len(shared)} pictures that every cell has:", "", *lines] if lines else []


def report(rows: Rows, emotions: Sequence[str], about: dict[str, Any], figures: Sequence[str]) -> str:
    """The page."""
    names = [name for name in rows.cells if name[0].isdigit() and rows.of(name)]
    names.sort(key=lambda name: (float(name.split()[1]), float(name.split()[0])))
    targets = sorted({row["target"] for name in names for row in rows.of(name)})
    heads = [
        "guidance",
        "strength",
        *NUMBERS,
        ACCURACY,
        *(emotions[target] for target in targets),
        "pictures",
    ]
    body = []
    for kind in ("picture copied", "first stage"):
        found = rows.of(kind)
        if found:
            body.append([kind, "–", *numbers(found), *hit_rates(found, targets), str(len(found))])
    if drawn := edited(rows.of("guide alone")):
        single = [cell(mean(edited(drawn, target), ACCURACY)) for target in targets]
        faces = str(len({row["picture"] for row in drawn}))
        body.append(["guide alone", "–", *numbers(drawn), cell(mean(drawn, ACCURACY)), *single, faces])
    for name in names:
        scale, strength = name.split()
        if (cycle := rows.of(f"cycle {name}")) and name in ("1 500", "3 500"):
            body.append(
                [
                    f"{scale}, cycle",
                    strength,
                    *numbers(cycle),
                    *hit_rates(cycle, targets),
                    str(len(cycle)),
                ]
            )
        found = edited(rows.of(name))
        single = [cell(mean(edited(found, target), ACCURACY)) for target in targets]
        pictures = str(len({row["picture"] for row in rows.of(name)}))
        body.append([scale, strength, *numbers(found), cell(mean(found, ACCURACY)), *single, pictures])
    copied = rows.of("picture copied")
    own = sum(row["judged"] == row["label"] for row in copied) / max(1, len(copied))
    compared = [
        [
            *name.split(),
            *numbers(edited(rows.of(name)))[:3],
            cell(mean(edited(rows.of(name)), ACCURACY)),
            cell(THESIS[name][1], "{:.2f}"),
            *(cell(THESIS[name][index]) for index in (2, 3, 0)),
        ]
        for name in names
        if name in THESIS
    ]
    heads_thesis = ["guidance", "strength", "PSNR", "SSIM", "LPIPS", ACCURACY]
    heads_thesis += [f"thesis {one}" for one in ("PSNR", "SSIM", "LPIPS", ACCURACY)]
    return "\n".join(
        [
            "# Expression editing, measured",
            "",
            "Written by `scripts/evaluate_editing.py`; what it is: [expression_editing.md](../expression_editing.md).",
            "",
            f"Held-out faces of the corpus `{about['corpus']}` (split {about['split']}), edited with "
            f"{about['solver']}, {about['num_inference_steps']} steps each way, grid {about['grid']}, in "
            f"{about['precision']}; guidance while inverting: {about['inversion_guidance_scale']}; "
            f"a guided model inverts the {about['start']}. "
            f"Judge: {about['judge']}, which names the true emotion of {own:.1%} of the pictures as they are.",
            "",
            "Accuracy: share of pictures, not of the target class already, that the judge finds to be of it. In rows "
            "without a target: how often such pictures are judged to show it anyway. PSNR, SSIM, LPIPS and identity "
            "compare with the first stage's reconstruction; in the row of the first stage, with the picture.",
            "",
            markdown(heads, body),
            "",
            *trends(rows, names),
            "",
            "Beside the thesis (table 4.2; AffectNet, its own judge, pictures of the target class included: columns "
            "may be compared in their trends, not in their values):",
            "",
            markdown(heads_thesis, compared),
            "",
            *(f"![{name.removesuffix('.jpg').replace('_', ' ')}]({name})\n" for name in figures),
        ]
    )
