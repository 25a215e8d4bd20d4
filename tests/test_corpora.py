"""`talkface data`: every planted fault is found and counted, caches are made once, a clip can be looked at."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from talkface import cli
from talkface.data import Clip, Corpus, CorpusWriter
from talkface.data.features import FeatureStore, encoder_key
from talkface.data.labelled import LabelledPictures
from talkface.data.latents import LatentStore
from talkface.experts.speech import LogMelEncoder
from talkface.media import read_image

SIZE = 32


def clip(name: str, split: str = "train", **changes) -> Clip:
    """A second of a moving bar, a tone, and landmarks."""
    frames = []
    for k in range(25):
        picture = np.full((changes.pop("side", SIZE), SIZE, 3), 90, np.uint8)
        picture[:, k : k + 6] = 200
        frames.append(cv2.imencode(".jpg", picture)[1].tobytes())
    points = np.random.default_rng(0).uniform(6, 26, (25, 68, 2)).astype(np.float32)
    tone = (0.3 * np.sin(np.arange(16000) / 16000 * 2 * np.pi * 220)).astype(np.float32)
    given = {
        "subject": name,
        "frames": frames,
        "audio": tone,
        "truth": {"landmarks": points},
        "emotion": 1,
        "transcript": "A WORD",
        "meta": {"sync": {"offset": -2.0, "residual": 0.0}},
    }
    return Clip(name, split, **(given | changes))


def write(folder: Path, clips: list[Clip]) -> Path:
    writer = CorpusWriter(folder, name="bars", licence="CC0-1.0", source="tests", fps=25, image_size=SIZE)
    with writer.shard("all-0") as shard:
        for one in clips:
            shard.add(one)
    writer.finish(["all-0"])
    return folder


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    picture = Clip("bare", "val", "bare", clip("x").frames[:1], meta={"file": "näme.png"})
    return write(tmp_path_factory.mktemp("bars"), [clip("a"), clip("b"), clip("c", "val"), picture])


def table(out: str) -> dict[str, tuple[int, int, str]]:
    """Check -> (clips, wrong, first)."""
    rows = [line.split(maxsplit=3) for line in out.splitlines()[2:]]
    return {row[0]: (int(row[1]), int(row[2]), row[3] if len(row) > 3 else "") for row in rows}


def test_a_sound_corpus(bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(bars)]) == 0
    out = capsys.readouterr().out
    assert "bars, 4 clips of 4 subjects (train 2, val 2), 32 pixels, 25 fps" in out
    rows = table(out)
    assert {name: row[:2] for name, row in rows.items()} == {
        "content": (4, 0),
        "ids": (4, 0),
        "splits": (4, 0),
        "fps": (4, 0),
        "frames": (4, 0),
        "sound": (3, 0),
        "landmarks": (3, 0),
        "labels": (4, 0),
        "sync": (3, 0),
    }
    assert cli.main(["data", "check", str(bars), "--sample", "2"]) == 0
    assert table(capsys.readouterr().out)["content"][0] == 2


def rewrite_index(folder: Path, change) -> None:
    path = folder / "index.parquet"
    rows = parquet.read_table(path).to_pylist()
    for row in rows:
        change(row)
    parquet.write_table(pa.Table.from_pylist(rows), path)


def test_every_fault_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tone = clip("x").audio
    assert tone is not None
    far = np.random.default_rng(0).uniform(6, 26, (25, 68, 2)).astype(np.float32)
    far[7, :40] += 60
    broken = far.copy()
    broken[3] = np.nan
    folder = write(
        tmp_path / "bad",
        [
            clip("good"),
            clip("flipped"),
            clip("moved", subject="one"),
            clip("moved2", subject="one"),
            clip("fast", fps=1000.0),
            clip("small", frames=[cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()] * 25),
            clip("text", frames=[b"no picture at all"] * 25),
            clip("long", audio=np.concatenate([tone, tone])),
            clip("silent", audio=np.zeros(16000, np.float32)),
            clip("far", truth={"landmarks": far}),
            clip("nan", truth={"landmarks": broken}),
            clip("few", truth={"landmarks": far[:9]}),
            clip("label", emotion=9),
            clip("late", meta={"sync": {"residual": 2.5}}),
            clip("last"),
        ],
    )
    entries = {entry.id: entry for entry in Corpus(folder)}
    shard = folder / "shards" / "all-0.tar"
    data = bytearray(shard.read_bytes())
    data[entries["flipped"].frame_offsets[4] + 30] ^= 1
    shard.write_bytes(data[: entries["last"].wav_offset + 10])
    rewrite_index(folder, lambda row: row.update(split="test") if row["id"] == "moved2" else None)
    rewrite_index(folder, lambda row: row.update(id="moved") if row["id"] == "moved2" else None)
    assert cli.main(["data", "check", str(folder)]) == 1
    rows = table(capsys.readouterr().out)
    wrong = {name: row[1] for name, row in rows.items()}
    assert wrong == {
        "content": 2,
        "ids": 1,
        "splits": 1,
        "fps": 1,
        "frames": 2,
        "sound": 3,  # long, silent, and the sound of `fast` does not last as its frames
        "landmarks": 3,
        "labels": 1,
        "sync": 1,
    }
    for name, words in {
        "content": "flipped: the bytes are not those that were written",
        "splits": "moved: subject one is in train and test",
        "fps": "fast: 1000.0 frames per second",
        "frames": "small: frame 0 has 8 x 8 pixels, the corpus 32",
        "landmarks": "far: 41% in the picture in frame 7",
        "labels": "label: emotion 9",
        "sync": "late: the sound is +2.5 frames late",
    }.items():
        assert words in rows[name][2], (name, rows[name])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "{none}"], "has no corpus.json"),
        (["show", "{bars}", "aa"], "'aa' is no clip of bars; did you mean a"),
        (["show", "{bars}", "a", "--out", "{none}/x/y.png"], "y.png"),
        (["show", "{bars}", "a", "--frames", "0"], "--frames"),
        (["cache", "{bars}"], "nothing to do"),
        (
            ["cache", "{bars}", "--features", "mfcc"],
            "'mfcc'; allowed articulation, logmel, wav2vec2, phonemes",
        ),
        (["cache", "{bars}", "--features", "{none}.yaml"], "does not exist"),
        (["cache", "{bars}", "--features", "logmel", "--weights", "x"], "allowed with --features wav2vec2"),
        (["cache", "{bars}", "--latents", "unet"], "--latents"),
        (["cache", "{bars}", "--latents", "first_stage", "--bundle", "{none}"], "none"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: str, bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [part.format(bars=bars, none=tmp_path / "none") for part in arguments]
    assert cli.main(["data", *filled]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("talkface: error:")]
    assert len(lines) == 1 and words in lines[0], lines


def test_show(bars: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "show", str(bars), "a", "--frames", "5"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["emotion"] == "1 happy" and rows["transcript"] == "A WORD" and rows["picture"] == "a.png"
    assert rows["frames"] == "25 of 32 pixels, 25 per second" and "landmarks (25, 68, 2)" in rows["arrays"]
    strip = read_image(tmp_path / "a.png")
    assert strip.shape[1] > 5 * 256 and strip.shape[0] > 256 + 60
    # the green of the points, the blue of the sound
    green = (strip[..., 1].astype(int) - strip[..., 0] > 120).sum()
    assert green > 5 * 68 * 4 and (strip[-80:, :, 2].astype(int) - strip[-80:, :, 0] > 80).sum() > 2000
    assert cli.main(["data", "show", str(bars), "bare", "--out", "sub.png"]) == 0
    assert "näme.png" in capsys.readouterr().out and read_image(tmp_path / "sub.png").shape == (256, 256, 3)


def test_cache(bars: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "cache", str(bars), "--latents", "first_stage", "--bundle", str(tiny_bundle)]
    arguments += ["--features", "logmel", "--device", "cpu", "--mirror", "--frames-per-clip", "3"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out.split()
    corpus = Corpus(bars)
    features = FeatureStore(bars / "features" / encoder_key(LogMelEncoder()))
    assert str(features.folder) in out
    assert all(features.read(one).shape == (50, 80) for one in corpus if one.has_audio)
    plain, mirrored = (Path(word) for word in out if "/latents/" in word)
    pictures = LabelledPictures(corpus, frames_per_clip=3).pictures
    assert len(pictures) == 10
    one, other = (np.stack([LatentStore(path).read(p) for p in pictures]) for path in (plain, mirrored))
    assert one.shape == (10, 3, 8, 8) and not np.allclose(one, other)
    stamps = {path: path.stat().st_mtime_ns for path in bars.rglob("*") if path.is_file()}
    config = tmp_path / "run.yaml"
    spec = {"class_path": "talkface.experts.speech.LogMelEncoder", "init_args": {"bands": 40}}
    config.write_text(json.dumps({"data": {"init_args": {"encoder": spec}}}))
    assert cli.main([*arguments[:-7], "--features", str(config), "--device", "cpu"]) == 0
    assert cli.main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in bars.rglob("*") if path.is_file()} == stamps
