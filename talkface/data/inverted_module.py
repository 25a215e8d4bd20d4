"""Lightning data module of inverted pictures, for CLIP-guided finetuning; the pictures are inverted by the model.

This file imports Lightning, so nothing but training may import it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from talkface.data.base import EMOTIONS, Corpus
from talkface.data.inverted import InvertedPictures, balanced_choice, inversion_key, invert_pictures
from talkface.data.labelled import LabelledPictures
from talkface.data.modules import CorpusDataModule
from talkface.data.synthetic.clips import SyntheticRecipe
from talkface.errors import TalkfaceError

SIX = ("happy", "sad", "surprised", "fear", "disgusted", "angry")


class InvertedDataModule(CorpusDataModule):
    """`InvertedPictures` of any labelled corpus.

    Args:
        corpus, preparation, synthetic, batch_size, num_workers, seed: see `CorpusDataModule`.
        num_latents, num_validation: pictures for training and validation, every emotion equally often; all where there
            are fewer.
        targets: emotions to edit to: one (the thesis, which has a model for each), or several for a model of all.
        alignment, frames_per_clip: see `LabelledPictures`.
        cache: folder of inverted pictures; None: in the corpus.

    Raises:
        TalkfaceError: unknown or no targets, too few pictures.
    """

    def __init__(
        self,
        corpus: str,
        *,
        num_latents: int = 1000,
        num_validation: int = 100,
        targets: Sequence[str] = SIX,
        image_size: int = 128,
        alignment: str = "canonical",
        frames_per_clip: int = 1,
        cache: str | None = None,
        batch_size: int = 4,
        num_workers: int = 0,
        seed: int = 23,
        preparation: str | None = None,
        synthetic: SyntheticRecipe | None = None,
    ) -> None:
        super().__init__(corpus, preparation, synthetic, batch_size, num_workers, seed, image_size=image_size)
        if not targets or (unknown := [name for name in targets if name not in EMOTIONS]):
            raise TalkfaceError(f"targets: {unknown if targets else 'none'}; allowed: {', '.join(EMOTIONS)}")
        self.targets = [EMOTIONS.index(name) for name in targets]
        self.counts = (num_latents, num_validation)
        self.same: dict[str, Any] = {
            "image_size": image_size,
            "alignment": alignment,
            "frames_per_clip": frames_per_clip,
        }
        self.cache = cache

    def setup(self, stage: str) -> None:
        sets: list[InvertedPictures] = []
        for split, count in zip(self.splits(), self.counts, strict=True):
            data = LabelledPictures(Corpus(str(self.corpus), split), **self.same)
            only = self.targets if len(self.targets) == 1 else []
            chosen = balanced_choice(data.labels, count, self.seed, only)
            if not chosen:
                raise TalkfaceError(f"corpus: {self.corpus} has no picture to edit in its split {split}")
            sets.append(InvertedPictures(data, chosen, self.targets, Path(), self.seed, drawn=not sets))
        self.train_set, self.val_set = sets

    def invert(self, model: Any) -> None:
        """Fill the cache with what `model` makes of the pictures: its `inverted`, and `path.of_inversion()`."""
        guided = "frames" in model.conditioner.conditioners
        names = [EMOTIONS[target] for target in self.targets] if guided else []
        settings = model.path.of_inversion() | self.same | {"guides": names}
        key = inversion_key([model.network, model.conditioner, model.first_stage], settings)
        for data in (self.train_set, self.val_set):
            assert isinstance(data, InvertedPictures)
            base = data.data.corpus.folder / "inverted" if self.cache is None else Path(self.cache)
            data.folder = base / key
            arguments = (data.data, data.chosen, data.folder, model.inverted, names)
            # one process inverts; the others then find everything done
            if self.trainer is None or self.trainer.is_global_zero:
                invert_pictures(*arguments, model.trainer.strategy.root_device, progress=show_progress)
            model.trainer.strategy.barrier()

    def picture_names(self, numbers: Sequence[int]) -> list[str]:
        """Ids of training pictures, for messages."""
        assert isinstance(self.train_set, InvertedPictures)
        return [self.train_set.data.pictures[number].clip.id for number in numbers]


def show_progress(done: int, total: int) -> None:
    """One rewritten line: how many pictures are inverted."""
    print(
        f"inverted: {done}/{total} pictures", end="\n" if done >= total else "\r", file=sys.stderr, flush=True
    )
