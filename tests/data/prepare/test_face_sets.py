"""CelebA, CelebAMask-HQ and MetFaces in their own layouts -> corpora: right pixels, right splits, every fault named."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pyarrow.parquet as parquet
import pytest

from talkface.data import Corpus
from talkface.data.base import unpack_masks
from talkface.data.prepare.celeba import CelebARecipe, CelebASource, official_split
from talkface.data.prepare.celebamask_hq import (
    CLASSES,
    FACE_CLASSES,
    CelebAMaskSource,
    merge_masks,
    resize_classes,
)
from talkface.data.prepare.metfaces import MetFacesRecipe, MetFacesSource, points_in_crop
from talkface.data.prepare.run import prepare
from talkface.errors import TalkfaceError

ROOT = Path(__file__).parents[3]


def silent(line: str) -> None:
    """Says nothing."""


def rejected(corpus: Path) -> dict[str, tuple[str, str]]:
    """File name -> (step, reason)."""
    rows = parquet.read_table(corpus / "rejected.parquet").to_pylist()
    return {row["file"].rpartition("/")[2]: (row["step"], row["reason"]) for row in rows}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"prepare_{name}", ROOT / "data_prep" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------------------------ CelebA


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory, draw_faces) -> Path:
    """The archives' folders: Img, Anno, Eval; one fault of every kind."""
    raw = tmp_path_factory.mktemp("CelebA")
    pictures = raw / "Img" / "img_align_celeba"
    for folder in (pictures, raw / "Anno", raw / "Eval"):
        folder.mkdir(parents=True)
    faces: dict[int, int] = {}
    # number -> (split, person); 5 and 14 are of the same person in two splits
    people = {
        1: (0, 1),
        2: (0, 1),
        3: (0, 2),
        4: (0, 3),
        5: (0, 4),
        6: (0, 4),
        7: (0, 5),
        8: (0, 5),
        9: (0, 6),
    }
    people |= {10: (1, 7), 11: (1, 8), 12: (2, 9), 13: (2, 9), 14: (2, 4), 15: (7, 10), 16: (0, 11)}
    for number in people:
        # the same face in the same place, as aligned pictures have it; the grey of a corner tells the number
        picture = draw_faces(218, 178, [(25, 50, 128)])
        picture[46:56, 26:36] = 10 * number
        faces[number] = 10 * number
        cv2.imwrite(str(pictures / f"{number:06d}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    (pictures / "000003.jpg").write_bytes((pictures / "000003.jpg").read_bytes()[:700])
    cv2.imwrite(str(pictures / "000007.jpg"), np.zeros((178, 178, 3), np.uint8))
    (pictures / "000008.jpg").unlink()
    cv2.imwrite(str(pictures / "000009.jpg"), np.full((218, 178, 3), 90, np.uint8))
    shutil.copy(pictures / "000001.jpg", pictures / "copy of 1.jpg")
    lines = [f"{number:06d}.jpg {split}\n" for number, (split, _) in people.items()]
    (raw / "Eval" / "list_eval_partition.txt").write_text("".join(lines))
    (raw / "Anno" / "identity_CelebA.txt").write_text(
        "".join(f"{number:06d}.jpg {person}\n" for number, (_, person) in people.items())
    )
    rows = [f"{number:06d}.jpg -1  {1 if number % 2 else -1}\n" for number in people if number != 16]
    (raw / "Anno" / "list_attr_celeba.txt").write_text(f"{len(rows)}\nBald Smiling \n{''.join(rows)}")
    rows = [f"{number:06d}.jpg  69  109  106  113   77  142  73 152  108 154\n" for number in people]
    header = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    (raw / "Anno" / "list_landmarks_align_celeba.txt").write_text(f"{len(rows)}\n{header}\n{''.join(rows)}")
    return raw


def test_celeba_is_cut_and_split_as_published(celeba: Path, tmp_path: Path, drawn_face_finder) -> None:
    source = CelebASource(celeba, CelebARecipe(landmarks="found", items_per_shard=4))
    prepare(source, tmp_path / "out", finder=drawn_face_finder, report=silent)
    corpus = Corpus(tmp_path / "out")
    assert corpus.image_size == 64 and "non-commercial" in corpus.info["licence"]
    found = {clip.id: (clip.split, clip.subject) for clip in corpus}
    train = {"000001": "1", "000002": "1", "000004": "3", "000005": "4", "000006": "4"}
    assert found == {
        **{name: ("train", person) for name, person in train.items()},
        **{"000010": ("val", "7"), "000011": ("val", "8"), "000012": ("test", "9"), "000013": ("test", "9")},
    }
    for clip in corpus:
        image = corpus.read_frame(clip, 0)
        # rows 46:56, columns 26:36 of the picture are rows 1:11, columns 1:11 of the cut, halved
        assert image.shape == (64, 64, 3)
        assert np.abs(image[1:5, 1:5].astype(int) - 10 * int(clip.id)).max() <= 4
        truth = corpus.read_truth(clip)
        assert truth["points"][0, 0] == pytest.approx([(69 - 25) / 2, (109 - 45) / 2])
        eye = truth["landmarks"][0, 36:42].mean(axis=0).astype(int)
        assert image[eye[1] - 1 : eye[1] + 2, eye[0] - 1 : eye[0] + 2].min() < 120
        meta = corpus.read_meta(clip)
        assert meta["attributes"] == {"Bald": 0, "Smiling": int(clip.id) % 2}
    found = rejected(tmp_path / "out")
    expected = {
        "000003.jpg": ("read", "damaged"),
        "000007.jpg": ("size", "178 x 178 pixels"),
        "000008.jpg": ("read", "missing"),
        "000009.jpg": ("landmarks", "no face found"),
        "000014.jpg": ("split", "person 4 is also in train"),
        "000015.jpg": ("table", "split '7'"),
        "000016.jpg": ("table", "not in list_attr_celeba.txt"),
        "copy of 1.jpg": ("table", "not in list_eval_partition.txt"),
    }
    assert found.keys() == expected.keys()
    for file, (step, words) in expected.items():
        assert found[file][0] == step and words in found[file][1], (file, found[file])


def test_celeba_without_identities_and_as_csv(celeba: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "img_align_celeba").mkdir(parents=True)
    # one archive in circulation has the folder twice and its tables with commas
    shutil.copytree(celeba / "Img" / "img_align_celeba", raw / "img_align_celeba" / "img_align_celeba")
    (raw / "list_eval_partition.csv").write_text("image_id,partition\n000001.jpg,0\n000002.jpg,1\n")
    (raw / "list_attr_celeba.csv").write_text("image_id,Bald,Smiling\n000001.jpg,-1,1\n000002.jpg,1,-1\n")
    prepare(CelebASource(raw, CelebARecipe(128)), tmp_path / "out", report=silent)
    corpus = Corpus(tmp_path / "out")
    assert [(clip.id, clip.split, clip.subject) for clip in corpus] == [
        ("000001", "train", "000001"),
        ("000002", "val", "000002"),
    ]
    assert corpus.read_meta(corpus.clips[1])["attributes"] == {"Bald": 1, "Smiling": 0}
    assert corpus.read_truth(corpus.clips[0]) == {}
    with pytest.raises(TalkfaceError, match="has no 'landmarks'; it has no arrays"):
        corpus.read_truth(corpus.clips[0], ("landmarks",))


def test_the_official_partition() -> None:
    numbers = range(1, 202600)
    splits = [official_split(number) for number in numbers]
    assert [splits.count(name) for name in ("train", "val", "test")] == [162770, 19867, 19962]
    for number in (0, 202600):
        with pytest.raises(ValueError):
            official_split(number)


# ----------------------------------------------------------------------------------------------------- CelebAMask-HQ


def rectangle(top: int, bottom: int, left: int, right: int, side: int = 512) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


MASKS = {
    "hair": rectangle(40, 200, 100, 412),
    "skin": rectangle(120, 420, 140, 372),
    "l_eye": rectangle(220, 240, 280, 330),
    "u_lip": rectangle(350, 365, 210, 300),
    "neck": rectangle(400, 512, 200, 312),
}


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory, draw_faces) -> Path:
    raw = tmp_path_factory.mktemp("mask") / "CelebAMask-HQ"
    pictures, masks = raw / "CelebA-HQ-img", raw / "CelebAMask-HQ-mask-anno"
    pictures.mkdir(parents=True)
    # number -> number in CelebA
    original = {0: 119614, 1: 162770, 2: 162771, 3: 182637, 4: 182638, 5: 7, 6: 8, 7: 9, 8: 10, 2000: 11}
    face = cv2.resize(draw_faces(256, 256, [(64, 64, 128)]), (1024, 1024), interpolation=cv2.INTER_CUBIC)
    for number in original:
        folder = masks / str(number // 2000)
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(pictures / f"{number}.jpg"), face[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
        for part, mask in MASKS.items():
            # as published: three equal channels
            cv2.imwrite(str(folder / f"{number:05d}_{part}.png"), cv2.merge([mask] * 3))
    for path in masks.glob("0/00005_*.png"):
        path.unlink()
    (masks / "0" / "00006_skin.png").write_bytes(b"\x89PNG nothing")
    cv2.imwrite(str(masks / "0" / "00007_skin.png"), MASKS["skin"][:256, :256])
    (pictures / "8.jpg").unlink()
    shutil.copy(pictures / "0.jpg", pictures / "77.jpg")
    lines = [f"{number}  {name - 1}  {name:06d}.jpg\n" for number, name in original.items()]
    (raw / "CelebA-HQ-to-CelebA-mapping.txt").write_text("idx  orig_idx  orig_file\n" + "".join(lines))
    rows = "".join(f"{number}.jpg 1.5 -2.25 0.125\n" for number in original)
    (raw / "CelebAMask-HQ-pose-anno.txt").write_text(f"{len(original)}\nYaw Pitch Raw\n{rows}")
    rows = "".join(f"{number}.jpg  1 -1\n" for number in original)
    (raw / "CelebAMask-HQ-attribute-anno.txt").write_text(f"{len(original)}\nSmiling Young\n{rows}")
    return raw


def test_masks_are_merged_in_the_official_order(masked: Path, tmp_path: Path) -> None:
    assert len(CLASSES) == 19 and [CLASSES.index(name) for name in ("skin", "hair", "cloth")] == [1, 13, 18]
    prepare(CelebAMaskSource(masked.parent), tmp_path / "out", report=silent)
    corpus = Corpus(tmp_path / "out")
    splits = {clip.id: clip.split for clip in corpus}
    # the authors' own script takes 2 (162771.jpg) for training; CelebA's partition has it in val
    assert splits == {
        "00000": "train",
        "00001": "train",
        "00002": "val",
        "00003": "val",
        "00004": "test",
        "02000": "train",
    }
    truth = corpus.read_truth(corpus.clips[0])
    classes = truth["parsing"][0]
    expected = np.zeros((512, 512), np.uint8)
    for part in ("skin", "l_eye", "u_lip", "hair", "neck"):
        expected[MASKS[part] > 0] = CLASSES.index(part)
    assert np.array_equal(classes, expected)
    assert CLASSES[classes[150, 200]] == "hair" and CLASSES[classes[410, 250]] == "neck"  # over the skin
    mask = unpack_masks(truth["face_mask"], 512)[0]
    assert np.array_equal(mask, np.isin(expected, [CLASSES.index(part) for part in FACE_CLASSES]))
    assert mask[230, 300] and mask[300, 160] and not mask[150, 200] and not mask[500, 250]
    meta = corpus.read_meta(corpus.clips[0])
    assert meta["pose"] == {"yaw": 1.5, "pitch": -2.25, "roll": 0.125} and meta["original"] == "119614.jpg"
    assert meta["attributes"] == {"Smiling": 1, "Young": 0}
    found = rejected(tmp_path / "out")
    expected_faults = {
        "5.jpg": ("masks", "no part has a mask"),
        "6.jpg": ("masks", "00006_skin.png is not a picture"),
        "7.jpg": ("masks", "256 x 256 pixels"),
        "8.jpg": ("read", "missing"),
        "77.jpg": ("table", "not in CelebA-HQ-to-CelebA-mapping.txt"),
    }
    assert found.keys() == expected_faults.keys()
    for file, (step, words) in expected_faults.items():
        assert found[file][0] == step and words in found[file][1], (file, found[file])


def test_classes_shrink_by_area() -> None:
    rng = np.random.default_rng(0)
    classes = merge_masks(MASKS)
    for size in (128, 256, 1024):
        small = resize_classes(classes, size)
        assert small.shape == (size, size) and set(np.unique(small)) <= set(np.unique(classes))
        for number in np.unique(classes):
            assert (small == number).mean() == pytest.approx((classes == number).mean(), abs=0.003)
    # numbers between two classes never appear, as they do when numbers are averaged
    noisy = rng.choice(np.array([1, 13], np.uint8), (512, 512))
    assert set(np.unique(resize_classes(noisy, 128))) == {1, 13}


def test_persons_of_celeba_keep_their_split(masked: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(masked, raw)
    (raw / "identity_CelebA.txt").write_text("119614.jpg 5\n000011.jpg 5\n162771.jpg 5\n")
    items = {item.id: item for item in CelebAMaskSource(raw).items()}
    assert items["00000"].subject == items["02000"].subject == "5" and items["00001"].subject == "00001"
    assert items["00002"].problem == ("split", "person 5 is also in train")


# ---------------------------------------------------------------------------------------------------------- MetFaces


def portrait(number: int, points: np.ndarray, shrink: int) -> tuple[np.ndarray, dict[str, object]]:
    """An aligned picture as the set's authors cut it, with a white dot at each mouth corner; and its face_spec."""
    landmarks = points / shrink - 0.5
    eyes = (points[36:42].mean(0) + points[42:48].mean(0)) / 2
    across = points[42:48].mean(0) - points[36:42].mean(0)
    down = (points[48] + points[54]) / 2 - eyes
    x = across - np.array([-down[1], down[0]])
    x *= max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8) / np.hypot(*x)
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * down
    # the corners of the crop in the photograph go to the corners of the picture
    corners = np.float32([centre - x - y, centre - x + y, centre + x + y])
    matrix = cv2.getAffineTransform(corners, np.float32([[0, 0], [0, 1024], [1024, 1024]]))
    photograph = np.full((900, 900, 3), 40 + number, np.uint8)
    for corner in points[[48, 54]]:
        cv2.circle(photograph, tuple(int(v) for v in corner), 5, (255, 255, 255), -1)
    picture = cv2.warpAffine(photograph, matrix, (1024, 1024), borderMode=cv2.BORDER_REFLECT)
    return picture, {"rect": [0, 0, 9, 9], "landmarks": landmarks.tolist(), "shrink": shrink}


@pytest.fixture(scope="module")
def metfaces(tmp_path_factory: pytest.TempPathFactory, draw_face_points) -> Path:
    raw = tmp_path_factory.mktemp("metfaces") / "metfaces-dataset"
    (raw / "images").mkdir(parents=True)
    records = []
    for number in range(14):
        work, face = f"1{number // 2:04d}", number % 2
        turn = np.deg2rad(8 * (number % 5) - 16)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points = (draw_face_points(300) - 150) @ rotation.T + (450, 430)
        picture, spec = portrait(number, points, 1 + number % 3)
        file = f"images/{work}-{face:02d}.png"
        cv2.imwrite(str(raw / file), picture[..., ::-1])
        records.append(
            {
                "obj_id": work,
                "meta_url": f"https://example.org/{work}",
                "source_path": f"unprocessed/image-{work}.png",
                "image_path": file,
                "image_md5": hashlib.md5((raw / file).read_bytes()).hexdigest(),
                "title": "Bildnis eines Herrn mit Schnürhut",
                "artist_display_name": "Unknown",
                "face_spec": spec,
                "face_idx": face,
            }
        )
    (raw / records[1]["image_path"]).unlink()
    picture = cv2.imread(str(raw / records[2]["image_path"]))
    picture[0, 0] += 1
    cv2.imwrite(str(raw / records[2]["image_path"]), picture)
    records[3]["face_spec"] = records[3]["face_spec"] | {"landmarks": [[1, 2]]}
    records.append(records[4])
    (raw / "metfaces.json").write_text(json.dumps(records))
    return raw


def test_landmarks_of_metfaces_lie_on_the_face(metfaces: Path, tmp_path: Path) -> None:
    prepare(MetFacesSource(metfaces, MetFacesRecipe(256, held_out=0.4)), tmp_path / "out", report=silent)
    corpus = Corpus(tmp_path / "out")
    assert len(corpus) == 11 and "CC BY-NC" in corpus.info["licence"]
    for clip in corpus:
        image = corpus.read_frame(clip, 0)
        points = corpus.read_truth(clip)["landmarks"][0]
        assert image.shape == (256, 256, 3) and points.shape == (68, 2)
        for x, y in points[[48, 54]].astype(int):
            assert image[y - 1 : y + 2, x - 1 : x + 2].min() > 200  # the dots
        assert np.ptp(points[[36, 45], 1]) < 8  # upright, however the face hung
    homes = {clip.subject: clip.split for clip in corpus}
    assert len(set(homes.values())) > 1 and corpus.read_meta(corpus.clips[0])["title"].endswith("Schnürhut")
    found = rejected(tmp_path / "out")
    assert found.keys() == {"10000-01.png", "10001-00.png", "10001-01.png", "10002-00.png"}
    assert found["10000-01.png"] == ("read", "the file is missing")
    assert found["10001-00.png"][0] == "md5" and "68 landmarks" in found["10001-01.png"][1]
    assert "repeats" in found["10002-00.png"][1]
    everything = MetFacesSource(metfaces, MetFacesRecipe(held_out=0.0))
    assert {item.split for item in everything.items()} == {"train"}


def test_points_in_crop_of_an_upright_face() -> None:
    points = np.zeros((68, 2))
    points[36:42], points[42:48], points[48], points[54] = (100, 100), (200, 100), (110, 200), (190, 200)
    spec = {"landmarks": (points / 2 - 0.5).tolist(), "shrink": 2}
    found = points_in_crop({"face_spec": spec})
    # half a side is 2 eye distances = 200 pixels; its middle is 10 below the eyes
    assert found[36] == pytest.approx([0.5 - 50 / 400, 0.5 - 10 / 400])
    assert found[54] == pytest.approx([0.5 + 40 / 400, 0.5 + 90 / 400])
    with pytest.raises(ValueError, match="one spot"):
        points_in_crop({"face_spec": {"landmarks": np.zeros((68, 2)).tolist(), "shrink": 1}})


# ------------------------------------------------------------------------------------------------------- wrong folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("celeba", "has no list_eval_partition.txt, list_attr_celeba.txt, img_align_celeba/"),
        ("celebamask_hq", "has no CelebA-HQ-img/, CelebAMask-HQ-mask-anno/, CelebA-HQ-to-CelebA-mapping.txt"),
        ("metfaces", "has no metfaces.json, images/"),
    ],
)
def test_a_wrong_folder_is_told(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "training.csv").write_text("of another set")
    out = tmp_path / "out"
    assert script(name).main(["--raw", str(tmp_path / "raw"), "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and "licence" in said.out and not out.exists()
    assert script(name).main(["--raw", str(tmp_path / "raw"), "--out", str(out), "--size", "7"]) == 2


def test_scripts_prepare(
    celeba: Path, masked: Path, metfaces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, raw, count in (
        ("celeba", celeba, 10),
        ("celebamask_hq", masked, 6),
        ("metfaces", metfaces, 11),
    ):
        arguments = ["--raw", str(raw), "--out", str(tmp_path / name), "--workers", "1"]
        assert script(name).main([*arguments, "--dry-run"]) == 0
        assert not (tmp_path / name).exists()
        assert script(name).main(arguments) == 0
        assert f"{count} pictures" in capsys.readouterr().out
        assert (tmp_path / name / "contact_sheet.png").is_file()
