"""Pictures: eyes land on their anchors, mixing keeps its share, randomness is the key's alone."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talkface.data import Corpus
from talkface.data.images import ImageDataset, Photometry, align, list_pictures
from talkface.errors import TalkfaceError
from talkface.portrait.crop import ANCHORS


def test_alignment_puts_eyes_on_their_anchors(train_corpus: Corpus) -> None:
    clip = train_corpus.clips[0]
    points = train_corpus.read_truth(clip)["landmarks"]
    rng = np.random.default_rng(0)
    for frame in (0, 50):
        image, moved = align(train_corpus.read_frame(clip, frame), points[frame], 64, "canonical", rng, 0.0)
        eye = moved[36:42].mean(0)
        assert np.abs(eye - ANCHORS[0] * 64).max() < 1.5
        bright = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        assert bright[int(eye[1]), int(eye[0])] > 200


def test_jitter_moves_picture_and_points_together(train_corpus: Corpus) -> None:
    clip = train_corpus.clips[0]
    points = train_corpus.read_truth(clip)["landmarks"][0]
    frame = train_corpus.read_frame(clip, 0)
    straight = align(frame, points, 64, "canonical", np.random.default_rng(1), 0.0)[1]
    image, moved = align(frame, points, 64, "canonical", np.random.default_rng(1), 1.0)
    assert np.abs(moved - straight).max() > 0.5
    for group in (slice(36, 42), slice(42, 48)):
        x, y = moved[group].mean(0)
        assert cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[int(y), int(x)] > 200


def test_fixed_box_keeps_the_frame(train_corpus: Corpus) -> None:
    clip = train_corpus.clips[0]
    points = train_corpus.read_truth(clip)["landmarks"][0]
    frame = train_corpus.read_frame(clip, 0)
    image, moved = align(frame, points, 48, "none", np.random.default_rng(0), 1.0)
    assert image.shape == (48, 48, 3)
    assert np.allclose(moved, points / 2)
    with pytest.raises(TalkfaceError, match="alignment: 'eyes'; allowed canonical, none"):
        align(frame, points, 48, "eyes", np.random.default_rng(0), 0.0)


def test_items_depend_on_the_key_only(train_corpus: Corpus) -> None:
    options = {"image_size": 32, "jitter": 1.0, "photometric": 1.0, "mirror": True, "samples_per_clip": 2}
    first, second = (ImageDataset(train_corpus, seed=5, **options) for _ in range(2))
    second = pickle.loads(pickle.dumps(second))
    for key in (7, 0, 7 + 6 * 3):
        assert torch.equal(first[key]["images"], second[key]["images"])
    assert not torch.equal(first[1]["images"], first[1 + len(first)]["images"])
    other_seed = ImageDataset(train_corpus, seed=6, **options)
    assert not torch.equal(first[1]["images"], other_seed[1]["images"])
    item = first[2]
    assert item["images"].shape == (3, 32, 32) and item["images"].dtype == torch.float32
    assert item["images"].abs().max() <= 1 and item["label"].item() == 2


def test_real_pictures_are_mixed_in_at_their_share(train_corpus: Corpus, tmp_path: Path) -> None:
    for number in range(3):
        picture = np.zeros((40, 60, 3), np.uint8)
        picture[..., 2] = 255
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture[..., ::1])
    files = list_pictures(tmp_path)
    mixed = ImageDataset(train_corpus, files, picture_share=0.25, image_size=16, samples_per_clip=200)
    from_folder = [
        bool((item["images"][0] > 0.9).all() and (item["images"][2] < -0.9).all())
        for item in map(mixed.__getitem__, range(600))
    ]
    assert 0.18 < np.mean(from_folder) < 0.32
    alone = ImageDataset(None, files, image_size=16)
    assert len(alone) == 3 and alone[0]["label"].item() == -1


def test_photometry_is_one_change_and_zero_strength_is_none() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    change = Photometry(np.random.default_rng(3), 1.0)
    assert np.array_equal(change(image), change(image))
    assert np.abs(change(image).astype(int) - image).max() > 2
    assert np.abs(Photometry(np.random.default_rng(3), 0.0)(image).astype(int) - image).max() <= 1


def test_missing_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(TalkfaceError, match="does not exist"):
        list_pictures(tmp_path / "none")
    with pytest.raises(TalkfaceError, match="has none of"):
        list_pictures(tmp_path)
    with pytest.raises(TalkfaceError, match="needs a corpus"):
        ImageDataset(None)
