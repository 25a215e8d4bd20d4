"""Any folder of pictures: every fault named, names of any kind, subjects and splits as asked for."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from talkface.data import Corpus
from talkface.data.prepare.pictures import PicturesRecipe, PicturesSource
from talkface.data.prepare.run import prepare
from talkface.data.prepare.splits import split_of
from talkface.errors import TalkfaceError

parquet = pytest.importorskip("pyarrow.parquet")
SIDE = 96


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, draw_faces) -> Path:
    folder = tmp_path_factory.mktemp("pictures")

    def save(name: str, squares: list[tuple[int, int, int]]) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = cv2.imencode(path.suffix, draw_faces(200, 240, squares)[..., ::-1])[1]
        path.write_bytes(data.tobytes())

    for person in range(6):
        for number in range(3):
            save(f"person {person}/{number}.png", [(20 + 7 * person, 30 + 9 * number, SIDE)])
    save("Zoë Müller/happy/ein Bild ü.jpg", [(11, 12, SIDE)])
    save("Zoë Müller/ein Bild ü.jpg", [(17, 12, SIDE)])
    save("Zoë Müller/ein Bild ü.PNG", [(19, 12, SIDE)])
    save("alone.webp", [(23, 14, SIDE)])
    save("two.png", [(5, 40, 72), (110, 40, 128)])
    save("small.png", [(100, 100, 28)])
    save("wall.png", [])
    save(".hidden/x.png", [(20, 20, SIDE)])
    (folder / "broken.jpg").write_bytes((folder / "Zoë Müller/ein Bild ü.jpg").read_bytes()[:300])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.gif.png").write_bytes(b"")
    (folder / "person 5/copy.png").write_bytes((folder / "person 5/0.png").read_bytes())
    (folder / "notes.txt").write_text("not looked at")
    cv2.imwrite(str(folder / "dot.png"), np.zeros((3, 3, 3), np.uint8))
    return folder


@pytest.fixture(scope="module")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory, drawn_face_finder) -> Path:
    out = tmp_path_factory.mktemp("corpora") / "pictures"
    recipe = PicturesRecipe(size=64, emotions=True, val_share=0.3, test_share=0.0, pictures_per_shard=5)
    prepare(PicturesSource(raw, recipe), out, finder=drawn_face_finder, report=lambda line: None)
    return out


def test_every_fault_is_named_and_the_rest_is_there(prepared: Path, raw: Path) -> None:
    rejected = {row["file"]: row for row in parquet.read_table(prepared / "rejected.parquet").to_pylist()}
    expected = {
        "broken.jpg": ("read", "damaged"),
        "text.png": ("read", "not a picture"),
        "empty.gif.png": ("read", "empty"),
        "dot.png": ("read", "3 x 3 pixels"),
        "wall.png": ("landmarks", "no face found"),
        "small.png": ("size", "wanted 48"),
        "person 5/copy.png": ("duplicate", "the same bytes as 'person 5/0.png'"),
    }
    assert rejected.keys() == expected.keys()
    for file, (step, words) in expected.items():
        assert rejected[file]["step"] == step and words in rejected[file]["reason"]
        assert str(raw) not in rejected[file]["reason"]
    corpus = Corpus(prepared)
    files = {corpus.read_meta(clip)["file"] for clip in corpus}
    everything = {path.relative_to(raw).as_posix() for path in raw.rglob("*.*") if path.is_file()}
    assert files == everything - expected.keys() - {"notes.txt", ".hidden/x.png"}
    for clip in corpus:
        assert corpus.read_frame(clip, 0).shape == (64, 64, 3)


def test_subjects_are_folders_and_keep_to_one_split(prepared: Path) -> None:
    corpus = Corpus(prepared)
    about = {corpus.read_meta(clip)["file"]: clip for clip in corpus}
    people = {f"person {n}": {about[f"person {n}/{k}.png"].subject for k in range(3)} for n in range(6)}
    assert all(len(subjects) == 1 for subjects in people.values())
    assert len(set().union(*people.values())) == 6
    assert {clip.split for clip in corpus} == {"train", "val"}
    zoe = [clip for file, clip in about.items() if file.startswith("Zoë")]
    assert len(zoe) == 3 and len({clip.subject for clip in zoe}) == 1 and len({clip.id for clip in zoe}) == 3
    assert about["Zoë Müller/happy/ein Bild ü.jpg"].emotion == 1 and about["alone.webp"].emotion == -1
    assert corpus.read_meta(about["two.png"])["faces"] == 2
    assert about["alone.webp"].subject == about["alone.webp"].id


def test_splits_are_shares_of_the_subjects_and_stay() -> None:
    splits = [split_of(f"s{number}", 0.1, 0.2) for number in range(4000)]
    assert abs(splits.count("val") / 4000 - 0.1) < 0.02 and abs(splits.count("test") / 4000 - 0.2) < 0.02
    assert splits[:100] == [split_of(f"s{number}", 0.1, 0.2) for number in range(100)]


def test_options_of_the_recipe(raw: Path, tmp_path: Path, drawn_face_finder) -> None:
    recipe = PicturesRecipe(size=64, subjects="file", several="reject", smallest=0, alignment="compat")
    prepare(PicturesSource(raw, recipe), tmp_path / "out", finder=drawn_face_finder, report=lambda line: None)
    corpus = Corpus(tmp_path / "out")
    assert len({clip.subject for clip in corpus}) == len(corpus)
    rejected = parquet.read_table(tmp_path / "out" / "rejected.parquet").to_pylist()
    two = next(row for row in rejected if row["file"] == "two.png")
    assert (two["reason"], two["score"]) == ("2 faces found", 2.0)
    # upright: the landmarks fill the square's longer side exactly
    points = np.stack([corpus.read_truth(clip)["landmarks"][0] for clip in corpus])
    assert np.abs(np.ptp(points, axis=1).max(axis=1) - 64).max() < 0.01


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"subjects": "person"}, "subjects: 'person'; allowed folder, file"),
        ({"size": 4}, "size: 4; allowed are 16 to 2048"),
        ({"val_share": 0.5, "test_share": 0.5}, "together below 1"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(TalkfaceError, match=words):
        PicturesRecipe(**settings)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[3] / "data_prep" / "pictures.py"
    spec = importlib.util.spec_from_file_location("prepare_pictures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_says_what_it_would_do(script: ModuleType, raw: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--raw", str(raw), "--out", str(tmp_path / "out"), "--dry-run"]
    assert script.main([*arguments, "--limit", "20", "--pictures-per-shard", "7"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("licence: that of your pictures") and "\ndownload: " in told
    counts = json.loads(told[told.index("{") : told.rindex("}") + 1])
    assert sum(count for split in counts.values() for count in split.values()) == 20
    assert "would prepare 20 items in" in told and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--raw", "{tmp}/none"], "raw: .*none does not exist"),
        (["--raw", "{tmp}/empty"], "hold no picture; looked for"),
        (["--out", "{raw}/corpus"], "lies in the raw folder"),
        (["--limit", "0"], "allowed are whole numbers, 1 or more"),
        (["--engine", "cloud"], "invalid choice"),
        (["--size", "9"], "size: 9; allowed are 16 to 2048"),
        (["--finder-weights", "{tmp}/nothing"], "nothing"),
    ],
)
def test_mistakes_are_one_line(
    script: ModuleType, raw: Path, tmp_path: Path, capsys, change: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    options = {"--raw": str(raw), "--out": str(tmp_path / "out"), "--workers": "1"}
    options |= {change[0]: change[1].format(tmp=tmp_path, raw=raw)}
    assert script.main([part for pair in options.items() for part in pair]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("pictures: error: ") and re.search(words, lines[0])
