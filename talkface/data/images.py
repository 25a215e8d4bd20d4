"""Pictures for the first stage and class-conditional diffusion: from a corpus, from folders, or both.

An item is `images` (3, S, S) float in [-1, 1] and `label` (emotion id, -1 when unknown). Any folder of
pictures may be mixed in at a given share, which is how real photographs join a rendered corpus. The
augmentation is light and
the same for every source: jitter of the crop, mirror, exposure, contrast, colour, blur, noise and JPEG marks.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from talkface.data.base import ClipEntry, Corpus
from talkface.errors import TalkfaceError
from talkface.media import read_image, to_tensor
from talkface.portrait.crop import AlignedCrop, random_jitter

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
ALIGNMENTS = ("canonical", "none")


class LandmarkCache:
    """Landmarks of recently used clips; each worker keeps its own."""

    def __init__(self, corpus: Corpus, max_clips: int = 4096) -> None:
        self._corpus = corpus
        self._max_clips = max_clips
        self._read = lru_cache(max_clips)(self._load)

    def _load(self, clip: ClipEntry) -> np.ndarray:
        return self._corpus.read_truth(clip, ("landmarks",))["landmarks"].astype(np.float32)

    def __call__(self, clip: ClipEntry) -> np.ndarray:
        return self._read(clip)

    def __reduce__(self) -> tuple[type[LandmarkCache], tuple[Corpus, int]]:
        return type(self), (self._corpus, self._max_clips)


def list_pictures(folder: str | Path) -> list[Path]:
    """All pictures under `folder`, sorted by path.

    Raises:
        TalkfaceError: the folder does not exist or has no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TalkfaceError(f"folder of pictures: {folder} does not exist; give an existing folder")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not files:
        raise TalkfaceError(
            f"folder of pictures: {folder} has none of {', '.join(PICTURE_SUFFIXES)}; add pictures"
        )
    return files


def align(
    image: np.ndarray, points: np.ndarray, size: int, alignment: str, rng: np.random.Generator, jitter: float
) -> tuple[np.ndarray, np.ndarray]:
    """The crop (S, S, 3) and the landmarks in it (68, 2).

    `canonical` is the aligned crop that inference uses too; `none` resizes the whole frame, which is right
    for corpora that were cropped by one fixed box per clip (the paper's preparation).
    """
    if alignment == "none":
        scale = np.array([size / image.shape[1], size / image.shape[0]], np.float32)
        if image.shape[:2] != (size, size):
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        return image, points * scale
    if alignment != "canonical":
        raise TalkfaceError(f"alignment: {alignment!r}; allowed {', '.join(ALIGNMENTS)}")
    # strength 1: 2 % of the side, 4 % of scale and 3 degrees as standard deviations
    change = random_jitter(rng, 0.02 * jitter, 0.04 * jitter, 3.0 * jitter) if jitter > 0 else None
    crop = AlignedCrop.from_landmarks(image, points, size=size, jitter=change)
    return crop.image, crop.to_crop(points).astype(np.float32)


class Photometry:
    """One random change of exposure, colour and sharpness, the same for every picture it is called with."""

    def __init__(self, rng: np.random.Generator, strength: float) -> None:
        draw = rng.standard_normal(8) * strength
        self.gain = np.exp(0.10 * draw[0] + 0.05 * draw[1:4]).astype(np.float32)
        self.offset = float(0.04 * draw[4])
        self.gamma = float(np.exp(0.12 * draw[5]))
        self.saturation = float(np.exp(0.15 * draw[6]))
        self.blur = float(max(0.0, 0.5 * draw[7])) if rng.random() < 0.3 else 0.0
        self.noise = float(0.012 * strength * rng.random()) if rng.random() < 0.3 else 0.0
        self.quality = int(rng.integers(45, 95)) if rng.random() < 0.3 * min(strength, 1.0) else None
        self.noise_seed = int(rng.integers(2**31))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        value = image.astype(np.float32) / 255.0
        grey = value @ np.array([0.299, 0.587, 0.114], np.float32)
        value = grey[..., None] + self.saturation * (value - grey[..., None])
        value = np.clip(value * self.gain + self.offset, 0.0, 1.0) ** self.gamma
        if self.blur > 0.2:
            value = cv2.GaussianBlur(value, (0, 0), self.blur)
        if self.noise > 0:
            value = value + self.noise * np.random.default_rng(self.noise_seed).standard_normal(
                value.shape, dtype=np.float32
            )
        result = (np.clip(value, 0.0, 1.0) * 255.0).round().astype(np.uint8)
        if self.quality is not None:
            _, data = cv2.imencode(".jpg", result[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            decoded: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
            result = np.ascontiguousarray(decoded[..., ::-1])
        return result


class ImageDataset(Dataset[dict[str, torch.Tensor]]):
    """Pictures of a corpus, of folders, or a mixture.

    Args:
        corpus: a corpus (frames are drawn at random from each clip), or None.
        pictures: files to mix in (see `list_pictures`).
        picture_share: probability that an item is one of `pictures` when there is also a corpus.
        image_size: side of the result in pixels.
        alignment, jitter: see `align`; pictures of folders are cropped square about the centre.
        photometric: strength of `Photometry`, 0 = off.
        mirror: flip half of the pictures.
        samples_per_clip: items of one epoch per clip.
        seed: items depend on (seed, epoch, index) only.
    """

    def __init__(
        self,
        corpus: Corpus | None,
        pictures: list[Path] | None = None,
        *,
        picture_share: float = 0.3,
        image_size: int = 128,
        alignment: str = "canonical",
        jitter: float = 0.0,
        photometric: float = 0.0,
        mirror: bool = False,
        samples_per_clip: int = 1,
        seed: int = 0,
    ) -> None:
        if corpus is None and not pictures:
            raise TalkfaceError(
                "a data set of pictures needs a corpus, a folder of pictures, or both; none was given"
            )
        if alignment not in ALIGNMENTS:
            raise TalkfaceError(f"alignment: {alignment!r}; allowed {', '.join(ALIGNMENTS)}")
        self.corpus = corpus
        self.pictures = pictures or []
        self.picture_share = 1.0 if corpus is None else (picture_share if self.pictures else 0.0)
        self.image_size = image_size
        self.alignment = alignment
        self.jitter = jitter
        self.photometric = photometric
        self.mirror = mirror
        self.samples_per_clip = samples_per_clip
        self.seed = seed
        self._landmarks = LandmarkCache(corpus) if corpus is not None else None

    def __len__(self) -> int:
        if self.corpus is None:
            return len(self.pictures)
        return len(self.corpus) * self.samples_per_clip

    def shard_of_items(self) -> np.ndarray | None:
        """(N,) the shard of every item; None for pictures of folders."""
        if self.corpus is None:
            return None
        return np.tile(np.array([clip.shard for clip in self.corpus]), self.samples_per_clip)

    def __getitem__(self, key: int) -> dict[str, torch.Tensor]:
        epoch, index = divmod(key, len(self))
        rng = np.random.default_rng([self.seed, epoch, index])
        if rng.random() < self.picture_share:
            number = index if self.corpus is None else int(rng.integers(len(self.pictures)))
            image, label = self._picture(self.pictures[number], rng), -1
        else:
            image, label = self._frame(index % len(self.corpus or ()), rng)
        if self.mirror and rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
        if self.photometric > 0:
            image = Photometry(rng, self.photometric)(image)
        return {"images": to_tensor(image)[0], "label": torch.tensor(label)}

    def _frame(self, number: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        assert self.corpus is not None and self._landmarks is not None
        clip = self.corpus.clips[number]
        frame = int(rng.integers(clip.num_frames))
        image = self.corpus.read_frame(clip, frame)
        points = (
            self._landmarks(clip)[frame] if self.alignment == "canonical" else np.zeros((68, 2), np.float32)
        )
        return align(image, points, self.image_size, self.alignment, rng, self.jitter)[0], clip.emotion

    def _picture(self, path: Path, rng: np.random.Generator) -> np.ndarray:
        image = read_image(path)
        height, width = image.shape[:2]
        side = min(height, width)
        if self.jitter > 0:
            side = max(1, int(side * rng.uniform(1.0 - 0.3 * min(self.jitter, 1.0), 1.0)))
        top, left = (height - side) // 2, (width - side) // 2
        if self.jitter > 0:
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        square = image[top : top + side, left : left + side]
        method = cv2.INTER_AREA if side >= self.image_size else cv2.INTER_CUBIC
        return cv2.resize(square, (self.image_size, self.image_size), interpolation=method)
