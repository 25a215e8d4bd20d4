"""The corpus format: what is written is read, shards are WebDataset tars, mistakes are refused."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkface.data import Clip, Corpus, CorpusWriter
from talkface.data.base import pack_masks, unpack_masks
from talkface.errors import TalkfaceError

SIZE = 24


def make_clip(number: int, split: str = "train", subject: str | None = None, frames: int = 3) -> Clip:
    rng = np.random.default_rng(number)
    pictures = [np.full((SIZE, SIZE, 3), 10 * number + 5 * k, np.uint8) for k in range(frames)]
    return Clip(
        id=f"clip_{number}",
        split=split,
        subject=subject or f"s{number}",
        frames=[cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures],
        audio=rng.uniform(-1, 1, 1600).astype(np.float32),
        truth={
            "landmarks": rng.uniform(0, SIZE, (frames, 68, 2)).astype(np.float32),
            "phoneme": np.arange(frames),
        },
        emotion=number % 8,
        intensity=2,
        transcript="A WORD",
        meta={"voice": "nobody"},
    )


def make_writer(folder: Path, **config: object) -> CorpusWriter:
    return CorpusWriter(
        folder, name="tiny", licence="CC0-1.0", source="made here", fps=25, image_size=SIZE, config=config
    )


def write(folder: Path, shards: dict[str, list[Clip]]) -> None:
    writer = make_writer(folder)
    for name, clips in shards.items():
        with writer.shard(name) as shard:
            for clip in clips:
                shard.add(clip)
    writer.finish(shards)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    clips = [make_clip(number) for number in range(4)]
    write(tmp_path, {"train-0": clips[:3], "train-1": clips[3:]})
    corpus = Corpus(tmp_path)
    assert [entry.id for entry in corpus] == [clip.id for clip in clips]
    assert corpus.fps == 25 and corpus.info["licence"] == "CC0-1.0"
    for clip, entry in zip(clips, corpus, strict=True):
        assert entry.num_frames == 3 and entry.duration == pytest.approx(0.1)
        assert entry.frame_time(1) == pytest.approx(1.5 / 25)
        for frame in (2, 0):
            image = corpus.read_frame(entry, frame)
            assert image.shape == (SIZE, SIZE, 3)
            assert abs(int(image.mean()) - (10 * int(clip.id[-1]) + 5 * frame)) <= 1
        assert clip.audio is not None
        assert np.abs(corpus.read_audio(entry) - clip.audio).max() < 1e-4
        truth = corpus.read_truth(entry)
        assert np.array_equal(truth["landmarks"], clip.truth["landmarks"])
        meta = corpus.read_meta(entry)
        assert (
            meta["transcript"] == "A WORD" and meta["voice"] == "nobody" and meta["emotion"] == clip.emotion
        )


def test_shards_are_webdataset_tars(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    clips = [make_clip(number) for number in range(2)]
    write(tmp_path, {"train-0": clips})
    samples = list(webdataset.WebDataset(str(tmp_path / "shards" / "train-0.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["clip_0", "clip_1"]
    assert samples[1]["002.jpg"] == clips[1].frames[2]
    with tarfile.open(tmp_path / "shards" / "train-0.tar") as tar:
        assert tar.getnames()[:4] == ["clip_0.000.jpg", "clip_0.001.jpg", "clip_0.002.jpg", "clip_0.wav"]


def test_bytes_repeat(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, {"train-0": [make_clip(1), make_clip(2)]})
    for file in ("shards/train-0.tar", "index.parquet", "corpus.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_an_error_leaves_no_shard_and_the_rest_stays(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    with writer.shard("train-0") as shard:
        shard.add(make_clip(0))
    with pytest.raises(RuntimeError), writer.shard("train-1") as shard:
        shard.add(make_clip(1))
        raise RuntimeError("the machine stops")
    assert not any(path.name.startswith(".") for path in (tmp_path / "shards").iterdir())
    with pytest.raises(TalkfaceError, match="unfinished"):
        Corpus(tmp_path)
    again = make_writer(tmp_path)
    assert again.is_done("train-0") and not again.is_done("train-1")
    with pytest.raises(TalkfaceError, match=r"train-1 .* not written"):
        again.finish(["train-0", "train-1"])
    with again.shard("train-1") as shard:
        shard.add(make_clip(1))
    again.finish(["train-0", "train-1"])
    assert len(Corpus(tmp_path)) == 2


def test_rejections_are_kept(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    writer = make_writer(tmp_path)
    with writer.shard("train-0") as shard:
        shard.add(make_clip(0))
        shard.reject("raw/7.mp4", "landmarks", "no face", 0.1)
    writer.finish(["train-0"])
    assert parquet.read_table(tmp_path / "rejected.parquet").to_pylist() == [
        {"file": "raw/7.mp4", "step": "landmarks", "reason": "no face", "score": 0.1}
    ]


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([make_clip(0), make_clip(1, split="test", subject="s0")], "s0.*splits train and test"),
        ([make_clip(0), make_clip(0)], "clip_0.*twice"),
        ([make_clip(0, split="training")], "training.*allowed train, val, test"),
        ([Clip(id="a.b", split="train", subject="s", frames=[b"x"])], "clip id: 'a.b'"),
        ([Clip(id="a", split="train", subject="s", frames=[])], "no frames"),
        ([Clip("a", "train", "s", [b"x"], truth={"words": np.array(["x", None], object)})], "object array"),
    ],
)
def test_what_the_format_refuses(tmp_path: Path, clips: list[Clip], message: str) -> None:
    with pytest.raises(TalkfaceError, match=message):
        write(tmp_path, {"train-0": clips})


def test_other_settings_do_not_mix(tmp_path: Path) -> None:
    make_writer(tmp_path, crop=1)
    make_writer(tmp_path, crop=1)
    with pytest.raises(TalkfaceError, match="other settings"):
        make_writer(tmp_path, crop=2)


def test_broken_corpora_are_named(tmp_path: Path) -> None:
    with pytest.raises(TalkfaceError, match=r"no corpus\.json"):
        Corpus(tmp_path)
    write(tmp_path, {"train-0": [make_clip(0)]})
    with pytest.raises(TalkfaceError, match="no clip in split 'test'"):
        Corpus(tmp_path, split="test")
    shard = tmp_path / "shards" / "train-0.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    corpus = Corpus(tmp_path)
    with pytest.raises(TalkfaceError, match="truncated"):
        corpus.read_audio(corpus.clips[0])
    (tmp_path / "corpus.json").write_text('{"format": "other"}')
    with pytest.raises(TalkfaceError, match="format 'other'"):
        Corpus(tmp_path)


def test_masks_round_trip() -> None:
    masks = np.random.default_rng(0).random((2, 5, 13)) < 0.5
    assert np.array_equal(unpack_masks(pack_masks(masks), 13), masks)
