"""Labelled pictures and cached latents: the same items either way, balance, what makes a cache another one."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("pytorch_lightning")

from talkface.data import Clip, Corpus, CorpusWriter
from talkface.data.emotion_modules import AffectNetDataModule, EmotionDataModule
from talkface.data.labelled import LabelledPictures, spread
from talkface.data.latents import LatentStore, compute_latents
from talkface.data.prepare.affectnet import AffectNetRecipe
from talkface.errors import TalkfaceError
from talkface.head import ACTIONS
from talkface.media import to_tensor
from talkface.networks.vqgan import VQGAN

LABELS = [0] * 12 + [1] * 5 + [3] * 2 + [-1]


def tiny_vqgan(seed: int = 0) -> VQGAN:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = VQGAN(
            channels=8,
            channel_mult=(1, 2),
            num_res_blocks=1,
            attention_resolutions=(),
            image_size=16,
            codebook_size=16,
        )
    return made.eval().requires_grad_(False)


@pytest.fixture
def pictures_folder(tmp_path: Path) -> Path:
    """Twenty pictures, each of its own grey and brighter on its left; two validation pictures."""
    writer = CorpusWriter(
        tmp_path / "c", name="greys", licence="CC0-1.0", source="tests", fps=25, image_size=16
    )
    for split, labels in (("train", LABELS), ("val", [0, 1])):
        for part in range(0, len(labels), 8):
            with writer.shard(f"{split}-{part}") as shard:
                for number, label in enumerate(labels[part : part + 8], part):
                    image = np.full((16, 16, 3), 20 + 9 * number, np.uint8)
                    image[:, :8] += 30
                    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
                    points = np.zeros((1, 68, 2), np.float32)
                    name = f"{split}{number}"
                    shard.add(Clip(name, split, name, [data], truth={"landmarks": points}, emotion=label))
    writer.finish([f"train-{part}" for part in range(0, len(LABELS), 8)] + ["val-0"])
    return tmp_path / "c"


def cached(data: LabelledPictures, first_stage: VQGAN) -> list[Path]:
    return [
        compute_latents(
            data.corpus,
            data.pictures,
            partial(data.read, flipped=flip),
            first_stage,
            f"16-{flip}",
            batch_size=3,
        )
        for flip in (False, True)
    ]


def test_cached_items_are_the_encoded_pictures(pictures_folder: Path) -> None:
    first_stage = tiny_vqgan()
    options = {"image_size": 16, "mirror": True, "balanced": True, "seed": 3}
    plain, fast = (LabelledPictures(Corpus(pictures_folder, "train"), **options) for _ in range(2))
    fast.use_latents(*(LatentStore(folder) for folder in cached(fast, first_stage)))
    fast = pickle.loads(pickle.dumps(fast))
    flips = 0
    for key in range(2 * len(plain)):
        picture, latents = plain[key], fast[key]
        assert set(latents) == {"target_latents", "label"} and latents["label"] == picture["label"]
        expected = first_stage.encode(picture["images"][None])[0]
        assert torch.allclose(latents["target_latents"], expected, rtol=1e-3, atol=1e-3)
        other = first_stage.encode(picture["images"][None].flip(3))[0]
        assert not torch.allclose(latents["target_latents"], other, rtol=1e-3, atol=1e-3)
        flips += int(picture["images"][0, 8, 2] < picture["images"][0, 8, 13])
    assert 10 < flips < 30


def test_a_balanced_epoch_shows_every_emotion_equally_often(pictures_folder: Path) -> None:
    data = LabelledPictures(Corpus(pictures_folder, "train"), image_size=16, balanced=True)
    plain = LabelledPictures(Corpus(pictures_folder, "train"), image_size=16)
    assert len(data) == len(plain) == 20
    assert Counter(int(plain[k]["label"]) for k in range(20)) == Counter(LABELS)
    shown: Counter[float] = Counter()
    for epoch in range(3):
        items = [data[20 * epoch + k] for k in range(20)]
        counts = Counter(int(item["label"]) for item in items)
        assert counts == {0: 7, 1: 7, 3: 6}
        shown.update(round(float(item["images"].mean()), 3) for item in items if item["label"] == 0)
    # 21 turns for 12 pictures: all are seen, none three times
    assert len(shown) == 12 and set(shown.values()) == {1, 2}
    assert torch.equal(data[25]["images"], data[25]["images"])


def test_frames_are_spread_over_a_clip() -> None:
    assert spread(1, 5) == [0] and spread(10, 1) == [5] and spread(10, 5) == [1, 3, 5, 7, 9]
    assert spread(3, 8) == [0, 1, 2]


def test_a_cache_belongs_to_one_first_stage_and_to_its_pictures(
    pictures_folder: Path, tmp_path: Path
) -> None:
    data = LabelledPictures(Corpus(pictures_folder, "train"), image_size=16)
    few = data.pictures[:9]
    first, second = tiny_vqgan(), tiny_vqgan(1)

    def compute(pictures, first_stage, corpus=data.corpus, calls=None):
        progress = None if calls is None else lambda done, total: calls.append((done, total))
        return compute_latents(corpus, pictures, data.read, first_stage, "16-none", progress=progress)

    folder = compute(few, first)
    assert compute(few, second) != folder
    with pytest.raises(TalkfaceError, match="has no latents in"):
        LatentStore(folder).read(data.pictures[9])
    before = [LatentStore(folder).read(picture) for picture in few]
    # growing keeps what is there, also when it stopped between its two files
    part = folder / "train-8.json"
    rows = part.read_text()
    compute(data.pictures, first)
    part.write_text(rows)
    (folder / "latents.json").unlink()
    with pytest.raises(TalkfaceError, match="missing or unfinished"):
        LatentStore(folder)
    compute(data.pictures, first)
    store = LatentStore(folder)
    assert all(np.array_equal(store.read(picture), old) for picture, old in zip(few, before, strict=True))
    for picture in data.pictures[9:]:
        expected = first.encode(to_tensor(data.read(picture)))[0].numpy()
        assert np.allclose(store.read(picture), expected, atol=2e-3)
    calls: list[tuple[int, int]] = []
    compute(data.pictures, first, calls=calls)
    assert not calls
    # a picture with other contents is not taken for the old one
    other = shutil.copytree(pictures_folder, tmp_path / "other")
    index = Corpus(other, "train")
    changed = data.pictures[0]._replace(
        clip=SimpleNamespace(**vars(index.clips[0]) | {"content_hash": "new"})
    )
    compute([changed], first, index)
    assert len(json.loads((other / "latents" / folder.name / "train-0.json").read_text())) == 9


def trainer(model: object) -> Any:
    return SimpleNamespace(
        lightning_module=model,
        is_global_zero=True,
        strategy=SimpleNamespace(barrier=lambda: None),
        world_size=1,
        global_rank=0,
        limit_train_batches=1.0,
        fit_loop=SimpleNamespace(
            epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(processed=0))),
            epoch_progress=SimpleNamespace(current=SimpleNamespace(processed=0)),
        ),
    )


def test_the_module_encodes_with_the_model_in_training(pictures_folder: Path, capsys) -> None:
    module = EmotionDataModule(
        str(pictures_folder), image_size=16, alignment="none", mirror=True, cache_latents=True, batch_size=4
    )
    module.setup("fit")
    model = SimpleNamespace(first_stage=tiny_vqgan(), device=torch.device("cpu"))
    # what a Trainer tells the module, without the seconds that a Trainer takes to start
    module.trainer = trainer(model)
    batch = next(iter(module.train_dataloader()))
    assert batch["target_latents"].shape == (4, 3, 8, 8) and batch["label"].dtype == torch.int64
    assert "latents: 20/20 pictures" in capsys.readouterr().err
    val = next(iter(module.val_dataloader()))
    assert val["target_latents"].shape == (2, 3, 8, 8)
    model.first_stage.requires_grad_(True)
    again = EmotionDataModule(str(pictures_folder), image_size=16, alignment="none", cache_latents=True)
    again.setup("fit")
    again.trainer = trainer(model)
    with pytest.raises(TalkfaceError, match="allowed for a model with a frozen first stage"):
        again.train_dataloader()


def test_mistakes_are_named(pictures_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TalkfaceError, match=r"cache_latents with jitter 0\.0 and photometric 0\.5"):
        EmotionDataModule(str(pictures_folder), photometric=0.5, cache_latents=True)
    with pytest.raises(TalkfaceError, match="frames_per_clip: 0"):
        LabelledPictures(Corpus(pictures_folder), frames_per_clip=0)
    with pytest.raises(TalkfaceError, match=r"make it with: python data_prep/affectnet\.py"):
        AffectNetDataModule(str(tmp_path / "none")).prepare_data()
    with pytest.raises(TalkfaceError, match=r"raw: .*none does not exist"):
        AffectNetDataModule(str(tmp_path / "out"), raw=str(tmp_path / "none")).prepare_data()
    with pytest.raises(TalkfaceError, match="finder: 'mine'; allowed bundled"):
        AffectNetDataModule(str(tmp_path / "out"), raw=str(tmp_path), finder="mine").prepare_data()
    assert AffectNetRecipe().size == 128


def test_truth_comes_with_its_picture_and_turns_with_it(tmp_path: Path) -> None:
    writer = CorpusWriter(tmp_path, name="g", licence="CC0-1.0", source="tests", fps=25, image_size=16)
    left, right = (ACTIONS.index(f"mouthSmile{side}") for side in ("Left", "Right"))
    with writer.shard("train-0") as shard:
        for number in range(4):
            image = np.full((16, 16, 3), 20, np.uint8)
            image[:, :8] += 60
            actions = np.zeros((1, 52), np.float32)
            actions[0, left] = 0.1 * number
            truth = {
                "landmarks": np.zeros((1, 68, 2), np.float32),
                "actions": actions,
                "intensity": np.array([0.2 * number], np.float32),
            }
            data = cv2.imencode(".jpg", image)[1].tobytes()
            shard.add(Clip(f"c{number}", "train", f"p{number}", [data], truth=truth, emotion=1))
    writer.finish(["train-0"])
    items = LabelledPictures(
        Corpus(tmp_path, "train"), image_size=16, mirror=True, truth=("actions", "intensity")
    )
    flips = 0
    for key in range(40):
        item = items[key]
        flipped = bool(item["images"][0, 8, 2] < item["images"][0, 8, 13])
        flips += flipped
        assert item["intensity"] == pytest.approx(0.2 * (key % 4))
        assert item["actions"][right if flipped else left] == pytest.approx(0.1 * (key % 4))
        assert item["actions"][left if flipped else right] == 0
    assert 5 < flips < 35
    with pytest.raises(TalkfaceError, match="truth: \\['voice'\\]; allowed actions, intensity"):
        LabelledPictures(Corpus(tmp_path, "train"), truth=("voice",))


def test_a_reference_is_another_picture_of_the_person(tmp_path: Path) -> None:
    """Seen by their brightness: person 0 has three pictures, person 1 one. Both pictures are mirrored, or neither."""
    writer = CorpusWriter(tmp_path / "c", name="g", licence="CC0-1.0", source="tests", fps=25, image_size=16)
    with writer.shard("train-0") as shard:
        for number, person in enumerate((0, 0, 0, 1)):
            image = np.full((16, 16, 3), 30 + 40 * number, np.uint8)
            image[:, :8] += 30
            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
            points = {"landmarks": np.zeros((1, 68, 2), np.float32)}
            shard.add(Clip(f"p{number}", "train", f"s{person}", [data], truth=points, emotion=number))
    writer.finish(["train-0"])
    plain = LabelledPictures(Corpus(tmp_path / "c"), image_size=16, mirror=True, reference=True)
    stored = LabelledPictures(Corpus(tmp_path / "c"), image_size=16, mirror=True, reference=True)
    stage = tiny_vqgan()
    stored.use_latents(*map(LatentStore, cached(stored, stage)))
    keys = [epoch * 4 + index for epoch in range(8) for index in range(4)]
    seen = Counter()
    for key in keys:
        item, latents = plain[key], stored[key]
        levels = [
            round((float(item[name].mean()) + 1) * 127.5 - 45) // 40 for name in ("images", "reference")
        ]
        turned = [
            bool(item[name][..., :4].mean() < item[name][..., -4:].mean()) for name in ("images", "reference")
        ]
        assert levels[0] == key % 4 and turned[0] == turned[1]
        seen[tuple(levels)] += 1
        with torch.no_grad():
            expected = stage.encode(torch.stack([item["images"], item["reference"]]))
        for name, value in zip(("target_latents", "reference_latents"), expected, strict=True):
            assert torch.allclose(latents[name], value, atol=2e-3)
    assert set(seen) == {(a, b) for a in range(3) for b in range(3) if a != b} | {(3, 3)}
