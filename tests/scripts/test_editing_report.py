"""The evaluation of editing: rows that survive interruptions, and numbers of the page that can be done by hand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from editing_report import ACCURACY, Rows, report

from talkface.errors import TalkfaceError
from talkface.head.emotions import EMOTIONS

ABOUT = {
    "corpus": "faces",
    "split": "test",
    "solver": "ddim",
    "num_inference_steps": 40,
    "grid": "paper",
    "precision": "float32",
    "inversion_guidance_scale": "the same",
    "start": "picture",
    "judge": "a judge",
}


def row(picture: str, label: int, target: int, judged: int, psnr: float = 30.0) -> dict:
    return {
        "picture": picture,
        "label": label,
        "target": target,
        "judged": judged,
        ACCURACY: judged == target,
        "PSNR": psnr,
        "SSIM": 0.9,
    }


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    rows.check(ABOUT)
    rows.add("3 500", [row("a", 0, 1, 1), row("b", 0, 1, 0)])
    rows.add("3 500", [row("a", 0, 1, 2)])  # measured already: the first stays
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('\n{"cell": "3 500", "pict')  # the power went out
    again = Rows(tmp_path)
    again.check(ABOUT)
    assert [found["judged"] for found in again.of("3 500")] == [1, 0]
    assert not again.lacks("3 500", ["a", "b"], 1)
    assert (
        again.lacks("3 500", ["a", "c"], 1)
        and again.lacks("3 500", ["a"], 2)
        and again.lacks("1 500", ["a"], 1)
    )
    # what is added now begins a line of its own
    again.add("3 500", [row("c", 0, 1, 1)])
    assert not Rows(tmp_path).lacks("3 500", ["a", "b", "c"], 1)
    with pytest.raises(TalkfaceError, match="another judge"):
        again.check(ABOUT | {"judge": "another"})


def test_numbers_of_the_page(tmp_path: Path) -> None:
    """Happy (1) and sad (2) as targets; pictures that are of the target class already count for nothing."""
    rows = Rows(tmp_path)
    rows.add("picture copied", [row("a", 0, 0, 1, 99.0), row("b", 1, 0, 1, 99.0)])
    for name, hits, psnr in (("1 500", 0, 35.0), ("3 500", 1, 31.0)):
        rows.add(name, [row("a", 0, 1, 1, psnr), row("b", 1, 1, 1, 99.0)])
        rows.add(name, [row("a", 0, 2, 2 * hits, psnr), row("b", 1, 2, 0, psnr)])
    text = report(rows, EMOTIONS, ABOUT, ["editing_people.jpg"])
    table = {tuple(cells(line)[:2]): cells(line) for line in text.splitlines() if line.startswith("|")}
    # guidance, strength, PSNR, SSIM, LPIPS, identity, accuracy, happy, sad, pictures
    lines = [
        cells(line)
        for line in text.splitlines()
        if line.startswith("| 3 | 500") or line.startswith("| 1 | 500")
    ]
    assert lines[0] == ["1", "500", "35.00", "0.900", "–", "–", "0.333", "1.000", "0.000", "2"]
    assert lines[1] == ["3", "500", "31.00", "0.900", "–", "–", "0.667", "1.000", "0.500", "2"]
    # of one picture that was not happy one is judged happy, of two that were not sad none is sad
    assert table["picture copied", "–"] == [
        "picture copied",
        "–",
        "∞",
        "0.900",
        "–",
        "–",
        "0.500",
        "1.000",
        "0.000",
        "2",
    ]
    assert "true emotion of 50.0%" in text
    assert "strength 500: accuracy rises (0.333 0.667), PSNR falls." in text
    assert "28.09" in text and "(editing_people.jpg)" in text


def test_cells_are_compared_on_the_pictures_that_all_have(tmp_path: Path) -> None:
    """A hundred easy pictures that only one cell has must not make a trend."""
    rows = Rows(tmp_path)
    rows.add("1 500", [row("a", 0, 1, 0, 35.0), *(row(f"easy{n}", 0, 1, 1, 20.0) for n in range(100))])
    rows.add("3 500", [row("a", 0, 1, 1, 31.0)])
    text = report(rows, EMOTIONS, ABOUT, [])
    assert "On the 1 pictures" in text
    assert "strength 500: accuracy rises (0.000 1.000), PSNR falls." in text


def test_a_trend_that_stops_is_told_from_one_that_turns(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    hits = {1: (0, 0), 2: (1, 0), 3: (1, 0), 4: (1, 1)}
    for scale, (one, other) in hits.items():
        rows.add(f"{scale} 500", [row("a", 0, 1, one, 40.0 - scale), row("b", 0, 1, other, 40.0 - scale)])
        rows.add(f"{5 - scale} 600", [row("a", 0, 1, one, 30.0), row("b", 0, 1, other, 30.0)])
    text = report(rows, EMOTIONS, ABOUT, [])
    assert "strength 500: accuracy never falls (0.000 0.500 0.500 1.000), PSNR falls" in text
    assert "strength 600: accuracy also falls (1.000 0.500 0.500 0.000), PSNR does not always fall" in text
