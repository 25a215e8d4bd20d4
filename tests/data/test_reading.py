"""What training reads: nothing twice over ranks and workers, sound that belongs to its frame at any frame rate."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from talkface.data import Clip, Corpus, CorpusWriter
from talkface.data.features import FeatureStore, compute_features
from talkface.data.labelled import LabelledPictures
from talkface.data.order import EpochSampler
from talkface.data.talking import TalkingDataset
from talkface.errors import TalkfaceError

SIZE = 32
RATES = {"film": 24000 / 1001, "pal": 25.0, "ntsc": 30000 / 1001, "fast": 50.0}


def flat_frame(level: int) -> bytes:
    data = cv2.imencode(".jpg", np.full((SIZE, SIZE, 3), level, np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98])[1]
    return data.tobytes()


def clock_clip(name: str, fps: float, seconds: float, split: str = "train") -> Clip:
    """The sound tells the time: its level is seconds / 10; frame k has grey level k modulo 200."""
    frames = int(seconds * fps)
    time = (np.arange(int(seconds * 16000)) + 0.5) / 16000
    points = np.random.default_rng(0).uniform(8, 24, (frames, 68, 2)).astype(np.float32)
    return Clip(
        name,
        split,
        name,
        [flat_frame(k % 200) for k in range(frames)],
        (time / 10).astype(np.float32),
        {"landmarks": points},
        fps=fps,
    )


class LevelEncoder(nn.Module):
    """The level of the sound in seconds, 50 times a second; feature i belongs to (i + 0.5) / 50 s."""

    feature_rate, feature_dim = 50.0, 1

    def encode_long(self, waveform: Tensor) -> Tensor:
        return 10 * waveform[: len(waveform) // 320 * 320].view(-1, 320).mean(1, keepdim=True)


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clocks")
    writer = CorpusWriter(folder, name="clocks", licence="CC0-1.0", source="tests", fps=25, image_size=SIZE)
    with writer.shard("train-0") as shard:
        for name, fps in RATES.items():
            shard.add(clock_clip(name, fps, 8.0))
    writer.finish(["train-0"])
    return folder


@pytest.mark.parametrize("window_rate", [None, 25.0])
def test_the_middle_of_the_window_is_the_middle_of_the_frame(clocks: Path, window_rate: float | None) -> None:
    corpus = Corpus(clocks, "train")
    data = TalkingDataset(
        corpus,
        FeatureStore(compute_features(corpus, LevelEncoder())),
        window=3,
        window_rate=window_rate,
        image_size=16,
        alignment="none",
        sequence_length=4,
        samples_per_clip=6,
    )
    seen = set()
    for key in range(len(data)):
        item = data[key]
        clip = corpus.clips[int(item["clip"])]
        seen.add(clip.id)
        for frame, window, picture in zip(item["frame"].tolist(), item["audio"], item["target"], strict=True):
            level = float((picture.mean() + 1) * 127.5)
            assert level == pytest.approx(frame % 200, abs=1.5)
            expected = (frame + 0.5) / RATES[clip.id] + torch.arange(-3.0, 4.0) / (
                window_rate or RATES[clip.id]
            )
            # before the first and after the last feature there is nothing but these
            end = len(corpus.read_audio(clip)) // 320 / 50 - 0.01
            # a step of half precision near 8 is 1/256; a frame is 1/24 to 1/50
            assert (window[:, 0] - expected.clamp(0.01, end)).abs().max() < 0.006
    assert seen == set(RATES)


class Keys(torch.utils.data.Dataset):
    """Tells which item was asked for, and by which worker."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: int) -> tuple[int, int]:
        worker = torch.utils.data.get_worker_info()
        return key, -1 if worker is None else worker.id


@pytest.mark.parametrize(
    ("ranks", "workers", "grouped"), [(1, 2, False), (2, 2, True), (3, 0, True), (4, 0, False)]
)
def test_ranks_and_workers_share_an_epoch(ranks: int, workers: int, grouped: bool) -> None:
    length, batch = 50, 3
    groups = np.array([f"shard-{k // 7}" for k in range(length)]) if grouped else None
    epochs = []
    for epoch in (0, 1):
        seen: list[int] = []
        for rank in range(ranks):
            data = Keys(length)
            sampler = EpochSampler(
                data,
                seed=5,
                num_replicas=ranks,
                rank=rank,
                batch_size=batch,
                groups=groups,
                groups_together=2,
            )
            sampler.set_epoch(epoch)
            loader = DataLoader(data, batch, sampler=sampler, num_workers=workers)
            rows = [
                (int(key), int(worker)) for keys, who in loader for key, worker in zip(keys, who, strict=True)
            ]
            assert len(rows) == length // ranks  # as many in every process, or one would wait for the others
            assert {worker for _, worker in rows} == (set(range(workers)) or {-1})
            seen += [key for key, _ in rows]
        assert max(Counter(seen).values()) == 1
        assert len(seen) == length // ranks * ranks and {key // length for key in seen} == {epoch}
        epochs.append([key % length for key in seen])
    assert epochs[0] != epochs[1]


def test_shards_come_in_turns() -> None:
    length, together = 600, 3
    groups = np.repeat([f"s{k:02d}" for k in range(20)], 30)
    sampler = EpochSampler(Keys(length), seed=1, groups=groups, groups_together=together)
    order = [str(groups[key]) for key in sampler]
    assert sorted(sampler) == list(range(length))
    for start in range(0, length, 30 * together):
        part = order[start : start + 30 * together]
        assert len(set(part)) <= together
        changes = sum(one != other for one, other in itertools.pairwise(part))
        assert changes > len(part) / 3  # mixed, not one after the other
    firsts = list(dict.fromkeys(order))
    sampler.set_epoch(1)
    assert list(dict.fromkeys(str(groups[key % length]) for key in sampler)) != firsts
    # several ranks walk through the same shards at the same time
    halves = []
    for rank in (0, 1):
        half = EpochSampler(
            Keys(length), seed=1, num_replicas=2, rank=rank, groups=groups, groups_together=together
        )
        halves.append([str(groups[key]) for key in half])
    for one, other in zip(*(np.array_split(half, 6) for half in halves), strict=True):
        assert set(one) & set(other)


def test_samples_do_not_depend_on_workers(clocks: Path) -> None:
    data = TalkingDataset(Corpus(clocks), image_size=16, alignment="none", samples_per_clip=3, jitter=1.0)
    runs = []
    for workers in (0, 2):
        sampler = EpochSampler(data, seed=2, start_epoch=1)
        runs.append(list(DataLoader(data, 2, sampler=sampler, num_workers=workers)))
    for one, other in zip(*runs, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_clips_that_cannot_be_used_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = CorpusWriter(tmp_path, name="mixed", licence="CC0-1.0", source="tests", fps=25, image_size=SIZE)
    silent = clock_clip("silent", 25, 1)
    with writer.shard("train-0") as shard:
        shard.add(clock_clip("short", 25, 0.2))
        shard.add(clock_clip("good", 25, 1))
        shard.add(Clip("silent", "train", "silent", silent.frames, truth=silent.truth))
        shard.add(Clip("bare", "train", "bare", [flat_frame(9)], emotion=3))
    writer.finish(["train-0"])
    corpus = Corpus(tmp_path, "train")
    features = FeatureStore(compute_features(corpus, LevelEncoder()))
    data = TalkingDataset(corpus, features, image_size=16, alignment="none", sequence_length=8)
    assert [clip.id for clip in data.corpus] == ["good"] and data[3]["audio"].shape == (8, 9, 1)
    assert "left out 3 of 4 clips: 2 shorter than 8 frames, 1 without sound" in caplog.text
    assert len(TalkingDataset(corpus, image_size=16, alignment="none").corpus) == 3
    with pytest.raises(TalkfaceError, match="has 25 frames; sequence_length 26 needs 26"):
        TalkingDataset(corpus, sequence_length=26)
    with pytest.raises(TalkfaceError, match=r"no clip of .* has sound"):
        TalkingDataset(corpus.subset([clip for clip in corpus if clip.id == "silent"]), features)
    with pytest.raises(TalkfaceError, match=r"bare .*has no 'landmarks'; it has no arrays"):
        LabelledPictures(corpus, alignment="canonical")[3]
    assert LabelledPictures(corpus, image_size=16)[3]["label"] == 3


def test_features_of_splits_that_share_a_shard(tmp_path: Path) -> None:
    """A second split adds to the shard of the first; what was there stays readable."""
    writer = CorpusWriter(tmp_path, name="shared", licence="CC0-1.0", source="tests", fps=25, image_size=SIZE)
    with writer.shard("all-0") as shard:
        for number, split in enumerate(("train", "val", "train", "test")):
            shard.add(clock_clip(f"c{number}", 25, 1 + 0.5 * number, split))
    writer.finish(["all-0"])
    for split in ("train", "val", "test", None, "train"):
        folder = compute_features(Corpus(tmp_path, split), LevelEncoder())
    everything = Corpus(tmp_path)
    for clip in everything:
        direct = LevelEncoder().encode_long(torch.from_numpy(everything.read_audio(clip))).numpy()
        assert np.allclose(FeatureStore(folder).read(clip), direct, atol=2e-3)
    # killed between the shard and the list of its rows: what is there is kept
    before = (folder / "all-0.tar").read_bytes()
    (folder / "features.json").unlink()
    compute_features(everything, LevelEncoder())
    assert (folder / "all-0.tar").read_bytes() == before
    shutil.rmtree(folder)


def test_numbers_of_the_meta_data(tmp_path: Path) -> None:
    writer = CorpusWriter(tmp_path, name="told", licence="CC0-1.0", source="tests", fps=25, image_size=SIZE)
    with writer.shard("train-0") as shard:
        for number in range(3):
            about = {"valence": 0.5 * number - 0.5, "attributes": {"Smiling": number % 2}, "file": "x.jpg"}
            shard.add(Clip(f"p{number}", "train", f"p{number}", [flat_frame(9)], meta=about))
    writer.finish(["train-0"])
    data = LabelledPictures(Corpus(tmp_path), image_size=16, meta=("valence", "attributes.Smiling"))
    items = [data[number] for number in range(3)]
    assert [float(item["valence"]) for item in items] == [-0.5, 0.0, 0.5]
    assert [float(item["attributes.Smiling"]) for item in items] == [0, 1, 0]
    for name in ("file", "attributes", "attributes.Bald", "arousal"):
        with pytest.raises(TalkfaceError, match=f"has no number '{name}'; it has attributes"):
            LabelledPictures(Corpus(tmp_path), meta=(name,))[0]
