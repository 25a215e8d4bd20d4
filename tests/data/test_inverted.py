"""Inverted pictures: each is inverted once, by what makes the model; items are the same whoever asks; targets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("pytorch_lightning")

from talkface.data import Clip, Corpus, CorpusWriter
from talkface.data.inverted import InvertedPictures, balanced_choice, inversion_key, invert_pictures, place_of
from talkface.data.inverted_module import InvertedDataModule
from talkface.data.labelled import LabelledPictures
from talkface.errors import TalkfaceError

LABELS = [0] * 9 + [1] * 4 + [2] * 3 + [-1] * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = CorpusWriter(
        tmp_path / "c", name="greys", licence="CC0-1.0", source="tests", fps=25, image_size=16
    )
    for split, labels in (("train", LABELS), ("val", [0, 1, 2, 0])):
        with writer.shard(split) as shard:
            for number, label in enumerate(labels):
                image = np.full((16, 16, 3), 20 + 9 * number + 3 * (split == "val"), np.uint8)
                data = cv2.imencode(".jpg", image)[1].tobytes()
                points = np.zeros((1, 68, 2), np.float32)
                name = f"{split}{number:02}"
                shard.add(Clip(name, split, name, [data], truth={"landmarks": points}, emotion=label))
    writer.finish(["train", "val"])
    return tmp_path / "c"


class Inverter:
    """Stands for a model: latents are the picture's brightness and its label."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.seen: list[int] = []
        self.fail_after = fail_after

    def __call__(self, images, labels, guides):
        if self.fail_after is not None and len(self.seen) >= self.fail_after:
            raise KeyboardInterrupt
        self.seen += labels.tolist()
        latents = images.mean((1, 2, 3))[:, None, None, None].expand(-1, 2, 4, 4) + 10 * labels.view(
            -1, 1, 1, 1
        )
        return {"noisy_latents": latents, "source": images}


def pictures(folder: Path) -> LabelledPictures:
    return LabelledPictures(Corpus(folder, "train"), image_size=16)


def test_the_choice_is_balanced_as_far_as_labels_go() -> None:
    labels = np.array(LABELS)
    chosen = balanced_choice(labels, 9, seed=1)
    assert Counter(labels[chosen].tolist()) == {0: 3, 1: 3, 2: 3} and len(set(chosen)) == 9
    assert balanced_choice(labels, 9, seed=1) == chosen != balanced_choice(labels, 9, seed=2)
    everything = balanced_choice(labels, 100, seed=1)
    assert Counter(labels[everything].tolist()) == {0: 9, 1: 4, 2: 3}
    assert 1 not in labels[balanced_choice(labels, 100, seed=1, without=[1])]


def test_each_picture_is_inverted_once_and_an_interrupted_run_goes_on(folder: Path, tmp_path: Path) -> None:
    data, chosen = pictures(folder), [0, 9, 13, 1, 10]
    with pytest.raises(KeyboardInterrupt):
        invert_pictures(data, chosen, tmp_path / "k", Inverter(fail_after=2), batch_size=2)
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "k").iterdir()}
    assert len(first) == 2
    done: list[tuple[int, int]] = []
    rest = Inverter()
    invert_pictures(data, chosen, tmp_path / "k", rest, batch_size=2, progress=lambda *now: done.append(now))
    assert rest.seen == [2, 0, 1] and done == [(4, 5), (5, 5)]
    assert all(path.stat().st_mtime_ns == written for path, written in first.items())
    again = Inverter()
    invert_pictures(data, chosen, tmp_path / "k", again)
    assert again.seen == [] and len(list((tmp_path / "k").iterdir())) == 5


def test_items_are_what_was_kept_with_a_target_of_another_label(folder: Path, tmp_path: Path) -> None:
    data, chosen = pictures(folder), [0, 9, 13, 1]
    invert_pictures(data, chosen, tmp_path / "k", Inverter())
    items = InvertedPictures(data, chosen, [1, 2, 5], tmp_path / "k", seed=4)
    found = Counter()
    for key in range(60 * len(items)):
        found[int(data.labels[chosen[key % 4]]), items.target(key)] += 1
    assert set(found) == {(0, 1), (0, 2), (0, 5), (1, 2), (1, 5), (2, 1), (2, 5)}
    assert min(found[0, target] for target in (1, 2, 5)) > 25
    item = items[4 + 1]
    assert int(item["label"]) == 1 and int(item["number"]) == 9 and int(item["target"]) == items.target(5)
    grey = item["source"].mean()
    torch.testing.assert_close(item["noisy_latents"][0, 0, 0], grey + 10, atol=0.01, rtol=0)
    assert items[5]["target"] == item["target"]


def test_validation_takes_turns_through_the_targets(folder: Path, tmp_path: Path) -> None:
    data = SimpleNamespace(labels=np.array([label for _ in range(12) for label in range(8)]))
    items = InvertedPictures(data, range(96), [1, 2, 3, 4, 5, 6], tmp_path, drawn=False)
    targets = [items.target(index) for index in range(96)]
    assert all(target != label for target, label in zip(targets, data.labels, strict=True))
    assert min(Counter(targets).values()) >= 12
    assert targets == [items.target(index + 96) for index in range(96)]


def test_the_key_names_everything_that_decides() -> None:
    torch.manual_seed(0)
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    settings = {"strength": 500, "guidance_scale": 1.0}
    key = inversion_key([one], settings)
    assert key == inversion_key([one], dict(settings))
    others = {
        inversion_key([other], settings),
        inversion_key([one], settings | {"guidance_scale": 3.0}),
        inversion_key([one], settings | {"strength": 400}),
        inversion_key([one, other], settings),
    }
    assert len(others | {key}) == 5


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    data = pictures(folder)
    invert_pictures(data, [0], tmp_path / "k", Inverter())
    path = place_of(tmp_path / "k", data.pictures[0])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(TalkfaceError, match=r"inverted picture: .* is missing or damaged; delete it"):
        InvertedPictures(data, [0], [1], tmp_path / "k")[0]


def test_mistakes_of_the_module(folder: Path) -> None:
    with pytest.raises(TalkfaceError, match=r"targets: .'glad'.; allowed: neutral, happy"):
        InvertedDataModule(str(folder), targets=["glad"])
    with pytest.raises(TalkfaceError, match="targets: none"):
        InvertedDataModule(str(folder), targets=[])
    module = InvertedDataModule(str(folder), targets=["happy"], num_latents=100, image_size=16)
    module.setup("fit")
    assert set(module.train_set.data.labels[module.train_set.chosen]) == {0, 2}
    assert module.picture_names([3]) == ["train03"]
