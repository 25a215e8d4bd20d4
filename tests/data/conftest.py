"""A tiny corpus with known contents: frame k of a clip has a known grey level and drawn eyes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from talkface.data import Clip, Corpus, CorpusWriter

SIZE = 96
FRAMES = 80


def face_points(size: int, turn: float = 0.0) -> np.ndarray:
    """68 plausible landmarks of a face that fills a `size` picture, turned in the plane by `turn` radians."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0.3, 0.7, (68, 2))
    points[36:42] = (0.36, 0.42)
    points[42:48] = (0.64, 0.42)
    points[31:36] = (0.5, 0.58)
    points[48:68] = np.array([0.5, 0.7]) + 0.08 * rng.uniform(-1, 1, (20, 2))
    middle = np.array([0.5, 0.5])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (((points - middle) @ rotation.T + middle) * size).astype(np.float32)


def make_talking_clip(number: int, split: str, frames: int = FRAMES) -> Clip:
    """Frame k has grey level 40 + 2 k; its eyes are drawn white."""
    points = np.stack([face_points(SIZE, 0.002 * k) for k in range(frames)])
    pictures = []
    for k in range(frames):
        picture = np.full((SIZE, SIZE, 3), 40 + 2 * k, np.uint8)
        for eye in (points[k, 36:42].mean(0), points[k, 42:48].mean(0)):
            cv2.circle(picture, tuple(int(v) for v in eye), 4, (255, 255, 255), -1)
        pictures.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes())
    time = np.arange(int(16000 * frames / 25)) / 16000
    return Clip(
        id=f"{split}_{number}",
        split=split,
        subject=f"{split}{number}",
        frames=pictures,
        audio=(0.3 * np.sin(2 * np.pi * (200 + 40 * number) * time)).astype(np.float32),
        truth={"landmarks": points},
        emotion=number % 8,
        transcript="A WORD",
    )


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    writer = CorpusWriter(folder, name="dots", licence="CC0-1.0", source="tests", fps=25, image_size=SIZE)
    for split, count in (("train", 3), ("val", 1)):
        with writer.shard(f"{split}-0") as shard:
            for number in range(count):
                shard.add(make_talking_clip(number, split))
    writer.finish(["train-0", "val-0"])
    return folder


@pytest.fixture
def train_corpus(corpus_folder: Path) -> Corpus:
    return Corpus(corpus_folder, "train")
