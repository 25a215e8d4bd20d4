"""Lightning data modules for emotion-conditional diffusion: any labelled corpus, and AffectNet.

The samples are made in `labelled.py`. This file imports Lightning, so nothing but training may import it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from talkface.data.base import Corpus
from talkface.data.finding import make_finder
from talkface.data.labelled import LabelledPictures
from talkface.data.latents import LatentStore, compute_latents
from talkface.data.modules import CorpusDataModule
from talkface.data.prepare.affectnet import AffectNetRecipe, prepare_affectnet
from talkface.data.synthetic.clips import SyntheticRecipe
from talkface.errors import TalkfaceError


class EmotionDataModule(CorpusDataModule):
    """Pictures with their emotion (`LabelledPictures`) from a corpus.

    Args:
        corpus, preparation, synthetic, batch_size, num_workers, seed: see `CorpusDataModule`.
        cache_latents: encode every picture (and its mirror image) once with the model's first stage, into the corpus
            folder (see `latents.py`), and train on these. Crop and colours cannot vary then.
        others: see `LabelledPictures`. Validation is neither augmented nor balanced.

    Raises:
        TalkfaceError: `cache_latents` with `jitter` or `photometric`.
    """

    def __init__(
        self,
        corpus: str,
        *,
        image_size: int = 128,
        alignment: str = "canonical",
        jitter: float = 0.0,
        photometric: float = 0.0,
        mirror: bool = False,
        balanced: bool = False,
        frames_per_clip: int = 1,
        truth: Sequence[str] = (),
        meta: Sequence[str] = (),
        reference: bool = False,
        cache_latents: bool = False,
        batch_size: int = 24,
        num_workers: int = 0,
        seed: int = 23,
        preparation: str | None = None,
        synthetic: SyntheticRecipe | None = None,
    ) -> None:
        super().__init__(corpus, preparation, synthetic, batch_size, num_workers, seed, image_size=image_size)
        if cache_latents and (jitter > 0 or photometric > 0):
            raise TalkfaceError(
                f"cache_latents with jitter {jitter} and photometric {photometric}; allowed is 0 for both, since a "
                "picture is encoded once; use cache_latents: false to vary it"
            )
        self.cache_latents = cache_latents
        self.same: dict[str, Any] = {
            "image_size": image_size,
            "alignment": alignment,
            "frames_per_clip": frames_per_clip,
            "truth": list(truth),
            "meta": list(meta),
            "reference": reference,
            "seed": seed,
        }
        self.augmentation: dict[str, Any] = {
            "jitter": jitter,
            "photometric": photometric,
            "mirror": mirror,
            "balanced": balanced,
        }

    def setup(self, stage: str) -> None:
        train, val = (Corpus(str(self.corpus), split) for split in self.splits())
        self.train_set = LabelledPictures(train, **self.same, **self.augmentation)
        self.val_set = LabelledPictures(val, **self.same)

    def train_dataloader(self) -> DataLoader[Any]:
        self._encode(self.train_set)
        return super().train_dataloader()

    def val_dataloader(self) -> DataLoader[Any]:
        self._encode(self.val_set)
        return super().val_dataloader()

    def _encode(self, data: Any) -> None:
        """Give `data` the latents of the model in training; its first stage has its weights by now."""
        if not self.cache_latents or data.latents is not None:
            return
        assert self.trainer is not None
        model: Any = self.trainer.lightning_module
        first_stage = getattr(model, "first_stage", None)
        if not isinstance(first_stage, nn.Module) or any(p.requires_grad for p in first_stage.parameters()):
            raise TalkfaceError(
                f"cache_latents: True with {type(model).__name__}; allowed for a model with a frozen first stage; "
                "use cache_latents: false"
            )
        stores = []
        for flipped in (False, True) if data.mirror else (False,):
            arguments = (
                data.corpus,
                data.pictures,
                partial(data.read, flipped=flipped),
                first_stage,
                f"{data.image_size}-{data.alignment}{'-mirrored' if flipped else ''}",
            )
            # one process writes; the others then find everything done
            if self.trainer.is_global_zero:
                compute_latents(*arguments, model.device, progress=show_progress)
            self.trainer.strategy.barrier()
            stores.append(LatentStore(compute_latents(*arguments, model.device)))
        data.use_latents(stores[0], stores[1] if data.mirror else None)


class AffectNetDataModule(EmotionDataModule):
    """AffectNet: eight emotions, 287,651 pictures for training, 4,000 for validation.

    Args:
        corpus: folder of the prepared corpus.
        raw: AffectNet as downloaded; prepared into `corpus` once, when that folder is missing or unfinished. None:
            `corpus` must be there (`python data_prep/affectnet.py`).
        image_size: also the side of the prepared faces, if one of those that the preparation makes; else they are
            prepared at 128 and scaled.
        finder: who finds the landmarks, see `talkface.data.finding.make_finder`.
        others: see `EmotionDataModule`.
    """

    def __init__(
        self,
        corpus: str = "corpora/affectnet",
        raw: str | None = None,
        *,
        finder: str = "bundled",
        image_size: int = 128,
        alignment: str = "none",
        jitter: float = 0.0,
        photometric: float = 0.0,
        mirror: bool = False,
        balanced: bool = False,
        cache_latents: bool = False,
        batch_size: int = 24,
        num_workers: int = 0,
        seed: int = 23,
        preparation: str | None = None,
    ) -> None:
        super().__init__(
            corpus,
            image_size=image_size,
            alignment=alignment,
            jitter=jitter,
            photometric=photometric,
            mirror=mirror,
            balanced=balanced,
            cache_latents=cache_latents,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            preparation=preparation or f"python data_prep/affectnet.py --raw AffectNet --out {corpus}",
        )
        self.raw, self.finder = raw, finder

    def prepare_data(self) -> None:
        """Prepare the corpus from `raw` when it must be; once per machine."""
        if self.raw is not None and not (Path(str(self.corpus)) / "index.parquet").is_file():
            size = self.image_size if self.image_size in (128, 224, 256) else 128
            prepare_affectnet(
                self.raw, str(self.corpus), AffectNetRecipe(size=size), make_finder(self.finder)
            )
        super().prepare_data()


def show_progress(done: int, total: int) -> None:
    """One rewritten line: latents of how many pictures are ready."""
    end = "\n" if done >= total else "\r"
    print(f"latents: {done}/{total} pictures", end=end, file=sys.stderr, flush=True)
