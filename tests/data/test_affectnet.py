"""AffectNet's own layout -> corpus: the right faces in the right place, every fault named, nothing twice."""

from __future__ import annotations

import csv
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as parquet
import pytest

from talkface.data import Corpus
from talkface.data.prepare.affectnet import AffectNetRecipe, prepare_affectnet
from talkface.data.prepare.affectnet_tables import COLUMNS, AffectNetFolder
from talkface.data.prepare.source import item_id
from talkface.errors import TalkfaceError
from talkface.portrait.crop import ANCHORS

SIDE = 96
Rows = list[dict[str, object]]


def write_table(path: Path, rows: Rows, header: bool = True) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(COLUMNS)
        writer.writerows([row[name] for name in COLUMNS] for row in rows)


def row(file: str, label: object, points: np.ndarray, box: tuple[int, int, int, int]) -> dict[str, object]:
    return {
        "subDirectory_filePath": file,
        **dict(zip(COLUMNS[1:5], box, strict=True)),
        "facial_landmarks": ";".join(f"{value:.2f}" for value in points.flatten()),
        "expression": label,
        "valence": 0.25 * int(label) - 1 if str(label).isdigit() else 0,
        "arousal": 0.5,
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, draw_faces, draw_face_points) -> Path:
    """Two tables and drawn faces, with one fault of every kind."""
    folder = tmp_path_factory.mktemp("AffectNet")
    pictures = folder / "Manually_Annotated" / "Manually_Annotated_Images"
    tables: dict[str, Rows] = {"training": [], "validation": []}

    def face(table: str, file: str, label: object, x: int = 30, y: int = 40) -> None:
        path = pictures / file
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw_faces(200, 240, [(x, y, SIDE)])[..., ::-1])
        points = draw_face_points(SIDE) + np.float32([x, y])
        tables[table].append(row(file, label, points, (x, y, SIDE, SIDE)))

    for number in range(11):
        face("training", f"{number % 3}/face{number:03d}.jpg", number, 30 + 5 * number)
    face("training", "7/näme with space.JPG", 1)
    face("training", "7/two.jpg", 2)
    # the neighbour is larger, the row's box says who is meant
    cv2.imwrite(str(pictures / "7/two.jpg"), draw_faces(200, 240, [(5, 40, SIDE), (110, 40, 128)])[..., ::-1])
    tables["training"][-1]["face_x"] = 5
    face("training", "7/odd.jpg", "happy")
    face("training", "7/text.jpg", 3)
    (pictures / "7/text.jpg").write_text("this is no picture")
    face("training", "7/blank.jpg", 4)
    cv2.imwrite(str(pictures / "7/blank.jpg"), np.full((200, 240, 3), 128, np.uint8))
    face("training", "7/outside.jpg", 5)
    tables["training"][-1] |= {"face_x": 900, "face_y": 900}
    tables["training"].append(tables["training"][0])
    tables["training"].append(tables["training"][0] | {"subDirectory_filePath": "7/gone.jpg"})
    tables["training"].append(tables["training"][0] | {"subDirectory_filePath": "../../training.csv"})
    for number in range(8):
        face("validation", f"9/val{number}.png", number)
    write_table(folder / "training.csv", tables["training"])
    write_table(folder / "validation.csv", tables["validation"], header=False)
    return folder


@pytest.fixture(scope="module")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory, drawn_face_finder) -> Path:
    out = tmp_path_factory.mktemp("corpora") / "affectnet"
    prepare_affectnet(raw, out, AffectNetRecipe(pictures_per_shard=7), drawn_face_finder, lambda line: None)
    return out


def test_faces_are_aligned_and_keep_what_the_table_says(prepared: Path) -> None:
    corpus = Corpus(prepared)
    assert corpus.image_size == 128 and "research only" in corpus.info["licence"]
    assert sorted(clip.emotion for clip in Corpus(prepared, "train")) == [0, 1, 1, 2, 2, 3, 4, 5, 6, 7]
    assert [clip.emotion for clip in Corpus(prepared, "val")] == list(range(8))
    for clip in corpus:
        image = corpus.read_frame(clip, 0)
        points = corpus.read_truth(clip)["landmarks"][0]
        assert image.shape == (128, 128, 3) and points.shape == (68, 2)
        # the anchors are the mean face's in the least squares, and dark pupils are where they say
        assert np.abs(points[36:42].mean(0) - ANCHORS[0] * 128).max() < 4
        for eye in (points[36:42].mean(0), points[42:48].mean(0)):
            x, y = eye.astype(int)
            assert cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[y - 1 : y + 2, x - 1 : x + 2].min() < 120
    meta = corpus.read_meta(corpus.clips[3])
    assert meta["file"] == "0/face003.jpg" and meta["valence"] == -0.25 and meta["arousal"] == 0.5


def test_the_face_in_the_box_is_taken(prepared: Path) -> None:
    corpus = Corpus(prepared)
    scale = {clip.id: corpus.read_meta(clip)["scale"] for clip in corpus}
    assert scale["7_two"] == pytest.approx(scale["0_face000"], rel=0.05)  # the other one is a third larger


def test_every_fault_is_named(prepared: Path) -> None:
    found = {
        (line["file"], line["step"]): line["reason"]
        for line in parquet.read_table(prepared / "rejected.parquet").to_pylist()
    }
    expected = {
        ("2/face008.jpg", "label"): "label 8 (none)",
        ("0/face009.jpg", "label"): "label 9 (uncertain)",
        ("1/face010.jpg", "label"): "label 10 (no face)",
        ("7/odd.jpg", "table"): "happy",
        ("7/text.jpg", "read"): "not a picture",
        ("7/blank.jpg", "landmarks"): "no face found",
        ("7/outside.jpg", "landmarks"): "outside the picture",
        ("0/face000.jpg", "table"): "repeats an earlier row",
        ("7/gone.jpg", "read"): "missing",
        ("../../training.csv", "table"): "not allowed",
    }
    assert found.keys() == expected.keys()
    for key, words in expected.items():
        assert words in found[key]


def test_ids_are_unique_and_allowed() -> None:
    assert item_id("689/737db2.jpg") == "689_737db2"
    odd = [item_id(name) for name in ("a b.jpg", "a-b.jpg", "ä.jpg", "ö.jpg", "x" * 200 + ".jpg")]
    assert len(set(odd)) == 5 and max(map(len, odd)) <= 80


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_interrupted_preparation_continues_to_the_same_bytes(
    raw: Path, prepared: Path, tmp_path: Path, drawn_face_finder
) -> None:
    class Stops(type(drawn_face_finder)):
        left = 9

        def find(self, image: np.ndarray):
            Stops.left -= 1
            if Stops.left == 0:
                raise KeyboardInterrupt
            return super().find(image)

    stops = Stops()
    stops.__class__.__name__ = type(
        drawn_face_finder
    ).__name__  # the same finder, as far as the corpus can tell
    recipe = AffectNetRecipe(pictures_per_shard=7)
    with pytest.raises(KeyboardInterrupt):
        prepare_affectnet(raw, tmp_path / "again", recipe, stops, lambda line: None)
    with pytest.raises(TalkfaceError, match="unfinished"):
        Corpus(tmp_path / "again")
    done = sorted((tmp_path / "again" / "shards").glob("*.tar"))
    assert [path.name for path in done] == ["train-00000.tar"]
    stamp = done[0].stat().st_mtime_ns
    prepare_affectnet(raw, tmp_path / "again", recipe, drawn_face_finder, lambda line: None)
    assert done[0].stat().st_mtime_ns == stamp
    assert contents(tmp_path / "again") == contents(prepared)


def test_landmarks_of_the_table_need_no_finder(raw: Path, tmp_path: Path) -> None:
    prepare_affectnet(raw, tmp_path / "out", AffectNetRecipe(224, "annotated"), report=lambda line: None)
    corpus = Corpus(tmp_path / "out")
    assert corpus.image_size == 224 and "7_blank" in [clip.id for clip in corpus]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "validation.csv").unlink(), r"has no validation\.csv"),
        (lambda folder: shutil.rmtree(folder / "Manually_Annotated"), "has no Manually_Annotated_Images/"),
        (lambda folder: shutil.rmtree(folder), "does not exist"),
    ],
)
def test_a_wrong_folder_is_told(
    raw: Path, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    change(folder)
    with pytest.raises(TalkfaceError, match=words):
        AffectNetFolder.find(folder)


def test_other_tables_and_settings_are_refused(
    raw: Path, prepared: Path, tmp_path: Path, drawn_face_finder
) -> None:
    with pytest.raises(TalkfaceError, match="prepared with other settings"):
        prepare_affectnet(raw, prepared, AffectNetRecipe(256), drawn_face_finder, lambda line: None)
    folder = tmp_path / "raw"
    (folder / "Manually_Annotated_Images").mkdir(parents=True)
    for text, words in (("a,b\n1,2\n", "starts with"), ("subDirectory_filePath,x\n", "has no column face_x")):
        for name in ("training.csv", "validation.csv"):
            (folder / name).write_text(text)
        with pytest.raises(TalkfaceError, match=words):
            prepare_affectnet(folder, tmp_path / "out", AffectNetRecipe(), drawn_face_finder)
    with pytest.raises(TalkfaceError, match="size: 100; allowed 128, 224, 256"):
        AffectNetRecipe(100)


def test_the_script_prepares_and_counts(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(__file__).parents[2] / "data_prep" / "affectnet.py"
    spec = importlib.util.spec_from_file_location("prepare_affectnet", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    arguments = [
        "--raw",
        str(raw),
        "--out",
        str(tmp_path / "out"),
        "--landmarks",
        "annotated",
        "--workers",
        "1",
    ]
    assert script.main([*arguments, "--dry-run"]) == 0
    assert '"label 8 (none)": 1' in capsys.readouterr().out and not (tmp_path / "out").exists()
    assert script.main(arguments) == 0
    assert "20 pictures; left out: 3 at 'label', 2 at 'read', 3 at 'table'" in capsys.readouterr().out
    assert script.main(["--raw", str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith("affectnet: error: raw: ")
