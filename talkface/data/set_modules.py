"""Data modules of single sets: the shared ones with the papers' values and the command that prepares the corpus.

AffectNet's is in `emotion_modules.py`. This file imports Lightning, so nothing but training may import it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from talkface.data.modules import ImageDataModule, TalkingDataModule
from talkface.data.talking import Reference


class CelebADataModule(ImageDataModule):
    """Aligned faces of CelebA: `images` (3, S, S) in [-1, 1], cut as the embedding papers cut them.

    Args:
        corpus: folder or URL of the prepared corpus.
        image_size: that of the corpus is 64 unless it was prepared with 128.
        mirror: flip half of the pictures.
        others: see `ImageDataModule`.
    """

    def __init__(
        self,
        corpus: str = "corpora/celeba",
        *,
        image_size: int = 64,
        alignment: str = "none",
        mirror: bool = True,
        batch_size: int = 64,
        num_workers: int = 4,
        **options: Any,
    ) -> None:
        options.setdefault("preparation", "python data_prep/celeba.py --raw CelebA --out corpora/celeba")
        super().__init__(
            corpus,
            image_size=image_size,
            alignment=alignment,
            mirror=mirror,
            batch_size=batch_size,
            num_workers=num_workers,
            **options,
        )


class MetFacesDataModule(ImageDataModule):
    """Faces in works of art: `images` (3, S, S) in [-1, 1].

    Args:
        corpus: folder or URL of the prepared corpus.
        alignment: "none" takes the set's own crop, "canonical" the face alone, by its landmarks.
        jitter: of the crop, with "canonical"; mirror: flip half of the pictures. 1,336 pictures are few.
        samples_per_clip: times that every picture comes in one epoch.
        others: see `ImageDataModule`.
    """

    def __init__(
        self,
        corpus: str = "corpora/metfaces",
        *,
        image_size: int = 128,
        alignment: str = "none",
        jitter: float = 0.0,
        mirror: bool = True,
        samples_per_clip: int = 8,
        batch_size: int = 32,
        num_workers: int = 4,
        **options: Any,
    ) -> None:
        options.setdefault(
            "preparation", "python data_prep/metfaces.py --raw MetFaces --out corpora/metfaces"
        )
        super().__init__(
            corpus,
            image_size=image_size,
            alignment=alignment,
            jitter=jitter,
            mirror=mirror,
            samples_per_clip=samples_per_clip,
            batch_size=batch_size,
            num_workers=num_workers,
            **options,
        )


class MEADDataModule(TalkingDataModule):
    """Talking pairs of MEAD as the thesis draws them: fixed box per film, its mask and its rule for the reference.

    Args:
        corpus: folder or URL of the prepared corpus.
        others: see `TalkingDataModule`.
    """

    def __init__(
        self,
        corpus: str = "corpora/mead",
        encoder: nn.Module | None = None,
        *,
        image_size: int = 128,
        window: int = 8,
        alignment: str = "none",
        mask_kind: str = "thesis",
        reference: Reference = "thesis",
        batch_size: int = 32,
        num_workers: int = 4,
        **options: Any,
    ) -> None:
        options.setdefault("preparation", "python data_prep/mead.py --raw MEAD --out corpora/mead")
        super().__init__(
            corpus,
            encoder,
            image_size=image_size,
            window=window,
            alignment=alignment,
            mask_kind=mask_kind,
            reference=reference,
            batch_size=batch_size,
            num_workers=num_workers,
            **options,
        )
