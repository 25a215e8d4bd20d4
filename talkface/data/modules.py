"""Lightning data modules: which corpus, which encoder, which loader.

The samples themselves are made in `talking.py`, `images.py` and `labelled.py`; modules of single sets are in
`set_modules.py` and `emotion_modules.py`.

This file imports Lightning, so nothing but training may import it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from talkface.data.base import Corpus
from talkface.data.features import FeatureStore, compute_features, encoder_key
from talkface.data.images import ImageDataset, list_pictures
from talkface.data.labelled import LabelledPictures
from talkface.data.order import EpochSampler
from talkface.data.remote import is_url
from talkface.data.synthetic.clips import SyntheticRecipe, prepare_synthetic
from talkface.data.talking import Reference, TalkingDataset
from talkface.errors import TalkfaceError


class CorpusDataModule(pl.LightningDataModule):
    """Pictures with their emotion (`LabelledPictures`) from any corpus; and what all data modules of this package
    share: finding or rendering the corpus, loaders that resume exactly.

    Args:
        corpus: folder of a prepared corpus, or the URL of one (see `talkface.data.remote`).
        preparation: the command that makes this corpus; named when the folder is missing.
        synthetic: rendered into `corpus` when that folder is missing (small experiments need no other step).
        batch_size: per process.
        num_workers: loader processes; samples do not depend on it.
        seed: of the data order and of every random choice in a sample.
        image_size: side in pixels; frames are taken whole.
    """

    def __init__(
        self,
        corpus: str | None,
        preparation: str | None = None,
        synthetic: SyntheticRecipe | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 23,
        *,
        image_size: int = 128,
    ) -> None:
        super().__init__()
        self.corpus = corpus
        self.preparation = preparation
        self.synthetic = synthetic
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.image_size = image_size
        # each a Dataset with a length, which torch's class does not declare; None before `setup`
        self.train_set: Any = None
        self.val_set: Any = None

    def prepare_data(self) -> None:
        """Render the corpus when it may be and must be; once per machine."""
        if self.corpus is None or is_url(self.corpus) or (Path(self.corpus) / "index.parquet").is_file():
            return
        if self.synthetic is not None:
            prepare_synthetic(self.corpus, self.synthetic)
        elif not Path(self.corpus).is_dir():
            hint = (
                f"make it with: {self.preparation}"
                if self.preparation
                else "make it with a script in data_prep/"
            )
            raise TalkfaceError(f"corpus: {self.corpus} does not exist; {hint}")

    def splits(self) -> tuple[str, str]:
        """The splits for training and for validation: val, or else test, or else train itself."""
        have = {clip.split for clip in Corpus(str(self.corpus))}
        return "train", next((split for split in ("val", "test") if split in have), "train")

    def setup(self, stage: str) -> None:
        size = self.image_size
        self.train_set, self.val_set = (
            LabelledPictures(Corpus(str(self.corpus), split), image_size=size, seed=self.seed)
            for split in self.splits()
        )

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.train_set is not None
        sampler = EpochSampler(
            self.train_set,
            seed=self.seed,
            batch_size=self.batch_size,
            groups=self._shards(),
            **self._position(),
        )
        if sampler.num_samples < self.batch_size:
            raise TalkfaceError(
                f"batch_size: {self.batch_size} is more than one epoch has ({sampler.num_samples} items); "
                "lower batch_size or raise samples_per_clip"
            )
        return self._loader(self.train_set, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        assert self.val_set is not None
        return self._loader(self.val_set, shuffle=False)

    def _shards(self) -> np.ndarray | None:
        """The shard of every training item where shards come over a line; None where any order costs the same."""
        corpus = getattr(self.train_set, "corpus", None)
        return None if corpus is None or corpus.remote is None else self.train_set.shard_of_items()

    def _position(self) -> dict[str, Any]:
        """Epoch and batch at which the (perhaps resumed) trainer continues, and this process' rank."""
        trainer = self.trainer
        if trainer is None:
            return {}
        loop: Any = trainer.fit_loop  # Lightning sets its counters without declaring them
        assert self.train_set is not None
        steps = len(self.train_set) // trainer.world_size // self.batch_size
        limit = trainer.limit_train_batches
        steps = (
            min(steps, limit) if isinstance(limit, int) else int(steps * (1.0 if limit is None else limit))
        )
        # a checkpoint written in `on_train_batch_end` counts that batch as processed but not yet as completed
        done = loop.epoch_loop.batch_progress.current.processed
        return {
            "start_epoch": loop.epoch_progress.current.processed,
            "start_batch": 0 if done >= steps else done,
            "num_replicas": trainer.world_size,
            "rank": trainer.global_rank,
        }

    def _loader(self, dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )


class TalkingDataModule(CorpusDataModule):
    """Pairs for the talking face (`TalkingDataset`) from a corpus.

    Args:
        corpus, preparation, synthetic, batch_size, num_workers, seed: see `CorpusDataModule`.
        encoder: frozen sound encoder (talkface.experts.speech); its features are computed once and cached
            in the corpus folder. None when the model uses no sound.
        encoder_device: where features are computed; None = cuda when there is one.
        others: see `TalkingDataset`. Validation uses the same crop and pairs without augmentation.
    """

    def __init__(
        self,
        corpus: str,
        encoder: nn.Module | None = None,
        *,
        window: int = 4,
        window_rate: float | None = None,
        image_size: int = 128,
        mask_kind: str = "lower_face",
        alignment: str = "canonical",
        reference: Reference = "any",
        reference_distance: int = 0,
        jitter: float = 0.0,
        independent_jitter: bool = True,
        photometric: float = 0.0,
        guide_error: float | None = None,
        with_sound: bool = False,
        sequence_length: int = 1,
        samples_per_clip: int = 1,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 23,
        preparation: str | None = None,
        synthetic: SyntheticRecipe | None = None,
        encoder_device: str | None = None,
    ) -> None:
        super().__init__(corpus, preparation, synthetic, batch_size, num_workers, seed, image_size=image_size)
        # a plain attribute of a data module; the encoder never becomes part of the trained model. To a type checker the
        # attributes of a plain Module are Tensors or Modules
        self.encoder: Any = encoder
        self.encoder_device = encoder_device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.window = window
        self.same: dict[str, Any] = {
            "window": window,
            "window_rate": window_rate,
            "image_size": image_size,
            "mask_kind": mask_kind,
            "alignment": alignment,
            "reference": reference,
            "reference_distance": reference_distance,
            "guide_error": guide_error,
            "with_sound": with_sound,
            "sequence_length": sequence_length,
            "seed": seed,
        }
        self.augmentation = {
            "jitter": jitter,
            "independent_jitter": independent_jitter,
            "photometric": photometric,
            "samples_per_clip": samples_per_clip,
        }

    @property
    def feature_dim(self) -> int:
        """Dimension of the sound features; 0 without an encoder."""
        return 0 if self.encoder is None else int(self.encoder.feature_dim)

    def prepare_data(self) -> None:
        super().prepare_data()
        if self.encoder is not None:
            compute_features(Corpus(str(self.corpus)), self.encoder, self.encoder_device, show_progress)

    def feature_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation (feature_dim,) of the training features, from at most 200 clips."""
        assert isinstance(self.train_set, TalkingDataset) and self.train_set.features is not None
        clips = self.train_set.corpus.clips
        few = clips[:: max(1, len(clips) // 200)]
        features = np.concatenate([self.train_set.features.read(clip) for clip in few]).astype(np.float64)
        mean, std = features.mean(axis=0), features.std(axis=0)
        return torch.from_numpy(mean).float(), torch.from_numpy(std).float().clamp(min=1e-3)

    def film_batch(self, num_frames: int) -> dict[str, torch.Tensor]:
        """The first frames of the first validation clip as one batch, all with the same reference."""
        assert isinstance(self.val_set, TalkingDataset)
        data = self.val_set.as_sequences(num_frames)
        item = data[0]
        shared = ("reference", "emotion", "clip", "sound")
        count = len(item["target"])
        return {
            name: value.expand(count, *value.shape) if name in shared else value
            for name, value in item.items()
        }

    def setup(self, stage: str) -> None:
        train, val = self.splits()
        self.train_set = self._talking(train, self.augmentation)
        self.val_set = self._talking(val, {})

    def _talking(self, split: str, augmentation: dict[str, Any]) -> TalkingDataset:
        corpus = Corpus(str(self.corpus), split)
        features = None
        if self.encoder is not None:
            features = FeatureStore(corpus.folder / "features" / encoder_key(self.encoder))
        return TalkingDataset(corpus, features, **self.same, **augmentation)


class ImageDataModule(CorpusDataModule):
    """Single pictures (`ImageDataset`) from a corpus, from folders, or both.

    Args:
        corpus, preparation, synthetic, batch_size, num_workers, seed: see `CorpusDataModule`; corpus may be
            None.
        pictures: folders of pictures to mix in (or to use alone).
        picture_share: share of items that come from `pictures` when there is also a corpus.
        val_pictures: how many files of `pictures` (every n-th) are held out when there is no corpus.
        others: see `ImageDataset`. Validation is not augmented.
    """

    def __init__(
        self,
        corpus: str | None = None,
        pictures: list[str] | None = None,
        *,
        picture_share: float = 0.3,
        val_pictures: int = 200,
        image_size: int = 128,
        alignment: str = "canonical",
        jitter: float = 0.0,
        photometric: float = 0.0,
        mirror: bool = False,
        samples_per_clip: int = 1,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 23,
        preparation: str | None = None,
        synthetic: SyntheticRecipe | None = None,
    ) -> None:
        super().__init__(corpus, preparation, synthetic, batch_size, num_workers, seed, image_size=image_size)
        self.pictures = pictures or []
        self.val_pictures = val_pictures
        self.picture_share = picture_share
        self.same: dict[str, Any] = {"image_size": image_size, "alignment": alignment, "seed": seed}
        self.augmentation: dict[str, Any] = {
            "jitter": jitter,
            "photometric": photometric,
            "mirror": mirror,
            "samples_per_clip": samples_per_clip,
        }

    def setup(self, stage: str) -> None:
        files = [path for folder in self.pictures for path in list_pictures(folder)]
        if self.corpus is None:
            every = max(2, len(files) // max(1, self.val_pictures))
            held_out = files[::every]
            files = [path for number, path in enumerate(files) if number % every]
            self.val_set = ImageDataset(None, held_out, **self.same)
            self.train_set = ImageDataset(None, files, **self.same, **self.augmentation)
            return
        train, val = self.splits()
        self.train_set = ImageDataset(
            Corpus(self.corpus, train),
            files,
            picture_share=self.picture_share,
            **self.same,
            **self.augmentation,
        )
        self.val_set = ImageDataset(Corpus(self.corpus, val), **self.same)


def show_progress(done: int, total: int) -> None:
    """One rewritten line: sound features of how many clips are ready."""
    end = "\n" if done >= total else "\r"
    print(f"sound features: {done}/{total} clips", end=end, file=sys.stderr, flush=True)
