"""Talking pairs: the right frames, the right sound at the right time, nothing but the key decides."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from talkface.data import Corpus
from talkface.data.features import FeatureStore, compute_features, encoder_key
from talkface.data.order import EpochSampler
from talkface.data.references import same_pose_other_mouth
from talkface.data.talking import SOUND_MARGIN, TalkingDataset
from talkface.errors import TalkfaceError

RATE = 50.0


class ClockEncoder(nn.Module):
    """Features that tell the time: (seconds at the feature's centre, loudness)."""

    feature_rate = RATE
    feature_dim = 2

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def encode_long(self, waveform: Tensor) -> Tensor:
        hop = int(16000 / RATE)
        frames = waveform[: len(waveform) // hop * hop].view(-1, hop)
        centres = (torch.arange(len(frames), device=waveform.device) + 0.5) / RATE
        return torch.stack([centres, self.gain * frames.abs().mean(1)], dim=1)


@pytest.fixture
def features(train_corpus: Corpus) -> FeatureStore:
    return FeatureStore(compute_features(train_corpus, ClockEncoder()))


def grey(picture: Tensor) -> float:
    """The frame number that a picture of the test corpus was made from, read off its upper corner."""
    return (float((picture[:, 2:6, 2:6].mean() + 1) * 127.5) - 40) / 2


def test_shapes_ranges_and_mask(train_corpus: Corpus, features: FeatureStore) -> None:
    item = TalkingDataset(train_corpus, features, image_size=32, window=3)[1]
    assert {name: tuple(value.shape) for name, value in item.items()} == {
        "target": (3, 32, 32),
        "reference": (3, 32, 32),
        "masked": (3, 32, 32),
        "mask": (1, 32, 32),
        "landmarks": (48, 2),
        "points": (68, 2),
        "audio": (7, 2),
        "emotion": (),
        "clip": (),
        "frame": (),
    }
    hidden = item["mask"].expand(3, -1, -1) == 1
    assert 0.2 < hidden.float().mean() < 0.7
    assert (item["masked"][hidden] == -1).all()
    assert torch.equal(item["masked"][~hidden], item["target"][~hidden])
    assert item["emotion"].item() == 1 and item["clip"].item() == 1


def test_sound_belongs_to_the_target_frame(train_corpus: Corpus, features: FeatureStore) -> None:
    for window_rate, step in ((None, 1 / 25), (50.0, 1 / 50)):
        data = TalkingDataset(
            train_corpus, features, image_size=16, alignment="none", window=2, window_rate=window_rate
        )
        for key in range(0, 60, 7):
            item = data[key]
            frame = int(item["frame"])
            assert grey(item["target"]) == pytest.approx(frame, abs=1)
            expected = (frame + 0.5) / 25 + step * torch.arange(-2.0, 3.0)
            expected = expected.clamp(0.5 / RATE, 80 / 25 - 0.5 / RATE)
            assert torch.allclose(item["audio"][:, 0], expected, atol=2e-3)


def test_reference_rules(train_corpus: Corpus) -> None:
    numbers = {"any": [], "thesis": []}
    for rule, pairs in numbers.items():
        data = TalkingDataset(train_corpus, image_size=16, alignment="none", reference=rule)
        pairs += [
            (int(item["frame"]), round(grey(item["reference"]))) for item in map(data.__getitem__, range(500))
        ]
    assert all(target != reference for target, reference in numbers["any"])
    assert max(reference for _, reference in numbers["any"]) > 75
    assert all(reference < target + 60 for target, reference in numbers["thesis"])
    early = [reference for target, reference in numbers["thesis"] if target < 10]
    assert 55 < max(early) < 70

    far = TalkingDataset(train_corpus, image_size=16, alignment="none", reference_distance=30)
    pairs = [(int(item["frame"]), round(grey(item["reference"]))) for item in map(far.__getitem__, range(60))]
    assert min(abs(target - reference) for target, reference in pairs) >= 29


def test_sequences_are_consecutive(train_corpus: Corpus, features: FeatureStore) -> None:
    item = TalkingDataset(train_corpus, features, image_size=16, alignment="none", sequence_length=5)[0]
    assert item["target"].shape == (5, 3, 16, 16) and item["audio"].shape == (5, 9, 2)
    assert item["reference"].shape == (3, 16, 16)
    assert torch.equal(item["frame"].diff(), torch.ones(4, dtype=torch.long))
    assert [round(grey(picture)) for picture in item["target"]] == pytest.approx(
        item["frame"].tolist(), abs=1
    )


def test_sound_of_a_sequence_has_its_middle_in_the_middle(train_corpus: Corpus) -> None:
    data = TalkingDataset(train_corpus, image_size=16, alignment="none", sequence_length=5, with_sound=True)
    rate, clip = train_corpus.sample_rate, data.corpus.clips[0]
    whole = torch.from_numpy(train_corpus.read_audio(clip))
    for key in range(0, 10 * len(data), len(data)):
        item = data[key]
        assert item["sound"].shape == (round((5 / 25 + 2 * SOUND_MARGIN) * rate),)
        middle = round((int(item["frame"][0]) + 2.5) / 25 * rate)
        half = min(1000, middle, len(whole) - middle)
        centre = len(item["sound"]) // 2
        assert torch.equal(item["sound"][centre - half : centre + half], whole[middle - half : middle + half])
        if middle < centre:
            assert (item["sound"][: centre - middle] == 0).all()


def test_a_clip_without_landmarks_is_named(train_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TalkingDataset(train_corpus, image_size=16, sequence_length=4)
    clip = data.corpus.clips[1]
    read = Corpus.read_truth

    def damaged(self, entry, names=None):
        truth = read(self, entry, names)
        if entry.id == clip.id:
            truth["landmarks"] = np.full_like(truth["landmarks"], np.nan)
        return truth

    monkeypatch.setattr(Corpus, "read_truth", damaged)
    with pytest.raises(TalkfaceError, match=f"clip {clip.id} in .* has no landmarks in frame"):
        data[1]
    data[0]


def test_mask_of_the_thesis_starts_above_the_lips(train_corpus: Corpus) -> None:
    data = TalkingDataset(train_corpus, image_size=128, mask_kind="thesis", alignment="none")
    item = data[0]
    clip = train_corpus.clips[int(item["clip"])]
    lips = train_corpus.read_truth(clip)["landmarks"][int(item["frame"]), 48:, 1].min() * 128 / 96
    assert torch.nonzero(item["mask"][0].any(1))[0].item() == pytest.approx(lips - 5, abs=1)
    assert (item["mask"][0, -1] == 1).all()


def test_items_depend_on_seed_epoch_and_index_only(train_corpus: Corpus, features: FeatureStore) -> None:
    options = {"image_size": 32, "jitter": 1.0, "photometric": 1.0, "samples_per_clip": 2}
    first = TalkingDataset(train_corpus, features, seed=1, **options)
    second = pickle.loads(pickle.dumps(TalkingDataset(train_corpus, features, seed=1, **options)))
    for key in (9, 3, 3 + len(first)):
        for name, value in first[key].items():
            assert torch.equal(value, second[key][name]), name
    assert not torch.equal(first[3]["target"], first[3 + len(first)]["target"])
    assert not torch.equal(
        first[3]["target"], TalkingDataset(train_corpus, features, seed=2, **options)[3]["target"]
    )


def test_jitter_of_target_and_reference(train_corpus: Corpus) -> None:
    def eye(picture: torch.Tensor) -> torch.Tensor:
        return torch.nonzero(picture.mean(0) > 0.6).float().mean(0)

    for independent in (False, True):
        data = TalkingDataset(train_corpus, image_size=64, jitter=2.0, independent_jitter=independent)
        shifts = [
            float((eye(item["target"]) - eye(item["reference"])).norm())
            for item in map(data.__getitem__, range(6))
        ]
        assert (max(shifts) > 1.5) is independent


def test_features_are_cached_by_encoder_and_content(train_corpus: Corpus, features: FeatureStore) -> None:
    assert encoder_key(ClockEncoder()) != encoder_key(ClockEncoder(2.0))
    seen: list[int] = []

    class Counting(ClockEncoder):
        def encode_long(self, waveform: Tensor) -> Tensor:
            seen.append(len(waveform))
            return super().encode_long(waveform)

    for _ in range(2):
        folder = compute_features(train_corpus, Counting(3.0))
    assert len(seen) == len(train_corpus)
    stored = FeatureStore(folder).read(train_corpus.clips[1])
    direct = Counting(3.0).encode_long(torch.from_numpy(train_corpus.read_audio(train_corpus.clips[1])))
    assert np.allclose(stored, direct.detach().numpy(), atol=2e-3)
    # a shard whose rows were lost is computed again
    (folder / "features.json").unlink()
    (folder / "train-0.json").unlink()
    compute_features(train_corpus, Counting(3.0))
    assert len(seen) == 2 * len(train_corpus) + 1
    # another split adds its clips and keeps these
    everything = Corpus(train_corpus.folder)
    compute_features(Corpus(train_corpus.folder, "val"), Counting(3.0))
    assert all(FeatureStore(folder).read(clip).shape[1] == 2 for clip in everything)
    with pytest.raises(TalkfaceError, match="Linear has no 'feature_rate'"):
        compute_features(train_corpus, nn.Linear(1, 1))


def test_order_of_a_resumed_epoch(train_corpus: Corpus) -> None:
    data = TalkingDataset(train_corpus, image_size=16, samples_per_clip=4)
    whole = EpochSampler(data, seed=3, batch_size=2)
    assert sorted(whole) == list(range(12))
    whole.set_epoch(2)
    keys = list(whole)
    assert sorted(keys) == list(range(24, 36)) and keys != sorted(keys)
    resumed = EpochSampler(data, seed=3, batch_size=2, start_epoch=2, start_batch=4)
    assert list(resumed) == keys[8:]
    resumed.set_epoch(3)
    assert len(list(resumed)) == 12
    halves = [EpochSampler(data, seed=3, num_replicas=2, rank=rank, start_epoch=2) for rank in (0, 1)]
    assert sorted(list(halves[0]) + list(halves[1])) == sorted(keys)


def test_refused_choices(train_corpus: Corpus, corpus_folder: Path) -> None:
    with pytest.raises(TalkfaceError, match="reference: 'last'"):
        TalkingDataset(train_corpus, reference="last")
    with pytest.raises(TalkfaceError, match="alignment: 'eyes'"):
        TalkingDataset(train_corpus, alignment="eyes")
    with pytest.raises(TalkfaceError, match="mask kind: 'chin'"):
        TalkingDataset(train_corpus, mask_kind="chin")
    with pytest.raises(TalkfaceError, match=r"longest clip .* has 80 frames; sequence_length 81"):
        TalkingDataset(train_corpus, sequence_length=81)
    with pytest.raises(TalkfaceError, match="missing or unfinished"):
        FeatureStore(corpus_folder / "features" / "none")


def test_a_reference_in_the_same_pose_with_another_mouth(train_corpus: Corpus) -> None:
    points = np.random.default_rng(0).normal(size=(68, 2)) * 20 + 50
    turned, spoke = np.zeros((68, 2)), np.zeros((68, 2))
    turned[30] = (4, 0)  # the tip of the nose against the eyes
    spoke[57] = (0, 4)  # the lower lip
    amounts = [(0, 0), (0, 1), (0, 2), (0, 3), (5, 9), (5, 9), (5, 9), (5, 9)]
    landmarks = np.stack([points + turn * turned + speak * spoke for turn, speak in amounts])
    moved = 3 * landmarks[[0, 1, 2, 3, 4, 5, 6, 7]] + 7  # where the face is and how large says nothing
    for found in (landmarks, moved):
        assert same_pose_other_mouth(found, 0, np.arange(1, 7)).tolist() == [2, 3]
    assert same_pose_other_mouth(landmarks, 4, np.array([0, 3, 5, 7])).tolist() == [5]
    assert same_pose_other_mouth(landmarks, 4, np.array([6])).tolist() == [6]

    data = {
        rule: TalkingDataset(train_corpus, image_size=16, alignment="none", reference=rule)
        for rule in ("any", "pose")
    }
    for key in range(12):
        item, other = data["pose"][key], data["any"][key]
        assert torch.equal(item["target"], other["target"])
        clip = data["pose"].corpus.clips[int(item["clip"])]
        found = train_corpus.read_truth(clip)["landmarks"]
        frame = int(item["frame"])
        allowed = np.delete(np.arange(clip.num_frames), frame)
        chosen = same_pose_other_mouth(found, frame, allowed)
        assert np.abs(chosen - grey(item["reference"])).min() <= 1
