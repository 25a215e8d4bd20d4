"""The scripts for films as one types them: what they say without looking at a picture, and mistakes in one line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SCRIPTS = Path(__file__).parents[4] / "data_prep"
FILMS = {
    "mead": "M003/video/front/happy/level_2/001.mp4",
    "grid": "s1/bbaf2n.mpg",
    "ravdess": "Actor_23/01-01-03-02-01-01-23.mp4",
    "crema_d": "VideoFlash/1005_DFA_HAP_XX.flv",
    "films": "somebody/a film.mp4",
}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"prepare_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FILMS)
def test_dry_run_says_what_would_be_done(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "raw" / FILMS[name]
    film.parent.mkdir(parents=True)
    film.write_bytes(b"no film, but nobody looks")
    out = tmp_path / "out"
    options = ["--raw", str(tmp_path / "raw"), "--out", str(out), "--dry-run", "--no-scenes"]
    if name != "mead":  # its margin goes with its fixed box
        options += ["--box", "fixed", "--most-seconds", "off", "--margin", "0.2"]
    assert script(name).main([*options, "--fps", "own", "--most-difference", "off"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("licence: ") and "\ndownload: " in said
    assert "would prepare 1 items in 1 shards" in said and not out.exists()
    counts = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert list(counts) == ["test"] if name != "films" else counts


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--fps", "fast"], "--fps"),
        (["--size", "7"], "size: 7; allowed 32 to 1024"),
        (["--box", "round"], "--box"),
        ([], "looked for"),
    ],
)
def test_mistakes_are_one_line(
    name: str, wrong: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw").mkdir()
    code = script(name).main(
        ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--no-scenes", *wrong]
    )
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and words in error, error


def test_the_whole_way(
    raw_films: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundled finder on a drawn face: prepared, reported, and complete when asked again."""
    pytest.importorskip("pyarrow.parquet")
    raw_films.talking(tmp_path / "raw" / "somebody" / "a film.mp4", frames=6)
    options = ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--least-seconds", "0.2"]
    options += ["--no-scenes", "--least-quality", "0", "--least-face", "32", "--workers", "1", "--size", "64"]
    assert script("films").main(options) == 0
    assert "1 clips; left out: none" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").is_file() and (tmp_path / "out" / "contact_sheet.png").is_file()
    assert script("films").main(options) == 0
    assert "complete" in capsys.readouterr().err
