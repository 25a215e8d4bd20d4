"""Data modules: where a resumed training continues, what is held out, which step is missing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("pytorch_lightning")

from talkface.data import Clip, CorpusWriter
from talkface.data.modules import CorpusDataModule, ImageDataModule, TalkingDataModule
from talkface.data.set_modules import CelebADataModule, MetFacesDataModule
from talkface.errors import TalkfaceError


def fake_trainer(epoch: int, batch: int, limit: float | None = 1.0) -> Any:
    """The counters of a trainer that stopped after `batch` batches of `epoch`."""
    return SimpleNamespace(
        world_size=1,
        global_rank=0,
        limit_train_batches=limit,
        fit_loop=SimpleNamespace(
            epoch_loop=SimpleNamespace(
                batch_progress=SimpleNamespace(current=SimpleNamespace(processed=batch))
            ),
            epoch_progress=SimpleNamespace(current=SimpleNamespace(processed=epoch)),
        ),
    )


def clips_and_frames(module: TalkingDataModule) -> list[tuple[int, int]]:
    return [
        (int(clip), int(frame))
        for batch in module.train_dataloader()
        for clip, frame in zip(batch["clip"], batch["frame"], strict=True)
    ]


def test_a_resumed_epoch_goes_on_where_it_stopped(corpus_folder: Path) -> None:
    module = TalkingDataModule(str(corpus_folder), image_size=16, batch_size=2, samples_per_clip=4)
    module.prepare_data()
    module.setup("fit")
    module.trainer = fake_trainer(epoch=3, batch=0)
    whole = clips_and_frames(module)
    assert len(whole) == 12
    module.trainer = fake_trainer(epoch=3, batch=4)
    assert clips_and_frames(module) == whole[8:]
    # an epoch that was complete is not continued
    for done, limit in ((6, 1.0), (2, 2)):
        module.trainer = fake_trainer(epoch=3, batch=done, limit=limit)
        assert clips_and_frames(module) == whole


def test_validation_is_not_augmented(corpus_folder: Path) -> None:
    plain, augmented = (
        TalkingDataModule(str(corpus_folder), image_size=16, batch_size=1, **options)
        for options in ({}, {"jitter": 1.0, "photometric": 1.0})
    )
    for module in (plain, augmented):
        module.setup("fit")
    first, second = (next(iter(module.val_dataloader())) for module in (plain, augmented))
    assert torch.equal(first["target"], second["target"])
    film = plain.film_batch(5)
    assert film["target"].shape == (5, 3, 16, 16) and film["reference"].shape == (5, 3, 16, 16)
    assert torch.equal(film["reference"][0], film["reference"][4])


def test_pictures_alone_are_split(tmp_path: Path) -> None:
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((20, 20, 3), 20 * number, np.uint8))
    module = ImageDataModule(pictures=[str(tmp_path)], image_size=8, batch_size=1, val_pictures=5)
    module.setup("fit")
    train = {int(batch["images"].mean() * 1000) for batch in module.train_dataloader()}
    val = {int(batch["images"].mean() * 1000) for batch in module.val_dataloader()}
    assert len(train) == 5 == len(val) and not train & val


def test_what_is_missing_is_named(tmp_path: Path, corpus_folder: Path) -> None:
    module = TalkingDataModule(str(tmp_path / "none"), preparation="python prepare.py")
    with pytest.raises(TalkfaceError, match=r"none does not exist; make it with: python prepare\.py"):
        module.prepare_data()
    module = TalkingDataModule(str(corpus_folder), image_size=16, batch_size=50)
    module.setup("fit")
    with pytest.raises(TalkfaceError, match="batch_size: 50 is more than one epoch has"):
        module.train_dataloader()


def test_any_corpus_here_or_behind_a_url(corpus_folder: Path, tmp_path: Path, monkeypatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("TALKFACE_CACHE", str(tmp_path))
    files = fsspec.filesystem("memory")
    for path in corpus_folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/any/{path.relative_to(corpus_folder).as_posix()}", path.read_bytes())
    batches = []
    for place in (str(corpus_folder), "memory://any"):
        module = CorpusDataModule(place, batch_size=3, image_size=16)
        module.prepare_data()
        module.setup("fit")
        (batch,) = list(module.train_dataloader())
        assert batch["images"].shape == (3, 3, 16, 16) and sorted(batch["label"].tolist()) == [0, 1, 2]
        batches.append(
            {int(label): image for label, image in zip(batch["label"], batch["images"], strict=True)}
        )
        assert len(list(module.val_dataloader())) == 1
    assert all(torch.equal(batches[0][label], batches[1][label]) for label in range(3))


def test_a_corpus_without_held_out_pictures_is_its_own_validation(tmp_path: Path) -> None:
    writer = CorpusWriter(tmp_path, name="few", licence="CC0-1.0", source="tests", fps=25, image_size=8)
    with writer.shard("train-0") as shard:
        for number in range(4):
            data = cv2.imencode(".jpg", np.full((8, 8, 3), 50 * number, np.uint8))[1].tobytes()
            shard.add(Clip(f"p{number}", "train", f"p{number}", [data]))
    writer.finish(["train-0"])
    module = MetFacesDataModule(str(tmp_path), image_size=16, batch_size=4, num_workers=0, mirror=False)
    module.setup("fit")
    assert module.splits() == ("train", "train") and len(module.train_set) == 8 * len(module.val_set)
    module = CelebADataModule(str(tmp_path), num_workers=0, batch_size=4)
    module.setup("fit")
    (batch,) = list(module.train_dataloader())
    assert batch["images"].shape == (4, 3, 64, 64)
