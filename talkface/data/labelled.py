"""Pictures with their emotion, for class-conditional diffusion: from files, or as cached latents.

Which frames take part is fixed (`frames_per_clip`, evenly spread), so that each can be encoded once. What an item is
depends on (seed, epoch, index) only, and is the same picture whether latents are cached or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from talkface.data.base import Corpus
from talkface.data.images import ALIGNMENTS, LandmarkCache, Photometry, align
from talkface.data.latents import LatentStore, Picture
from talkface.errors import TalkfaceError
from talkface.head.model import MIRRORED_ACTIONS
from talkface.media import to_tensor

TRUTH = ("actions", "intensity")


class LabelledPictures(Dataset[dict[str, torch.Tensor]]):
    """Items: `images` (3, S, S) in [-1, 1] or `target_latents` (C, h, w), `label` (emotion id, -1 unknown), and what
    `truth` names; with `reference` also another picture of the person, `reference` or `reference_latents`, alike.

    Args:
        corpus: of pictures or clips.
        image_size: side in pixels.
        alignment, jitter: see `talkface.data.images.align`; "none" for a corpus of aligned faces.
        photometric: strength of `Photometry`, 0 = off.
        mirror: flip half of the pictures.
        balanced: every emotion equally often: an epoch has as many items as without, the pictures of a rare
            emotion come several times, those of a frequent one take turns from epoch to epoch.
        frames_per_clip: frames of each clip, evenly spread; 1 for pictures.
        truth: arrays of the corpus to give with each picture, one value or vector per frame: `intensity`, `actions`
            (whose sides change places in a mirrored picture).
        meta: numbers of the clips' meta data to give, float () each: `valence` and `arousal` of AffectNet, or with a
            dot `attributes.Smiling` of CelebA.
        reference: also give another picture of the same subject, drawn anew each time (the picture itself where there
            is no other), mirrored like the first.
        seed: of every random choice.

    Attributes:
        latents: (plain, mirrored) stores to read instead of pictures; see `use_latents`.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        image_size: int = 128,
        alignment: str = "none",
        jitter: float = 0.0,
        photometric: float = 0.0,
        mirror: bool = False,
        balanced: bool = False,
        frames_per_clip: int = 1,
        truth: Sequence[str] = (),
        meta: Sequence[str] = (),
        reference: bool = False,
        seed: int = 0,
    ) -> None:
        if unknown := [name for name in truth if name not in TRUTH]:
            raise TalkfaceError(f"truth: {unknown}; allowed {', '.join(TRUTH)}")
        if alignment not in ALIGNMENTS:
            raise TalkfaceError(f"alignment: {alignment!r}; allowed {', '.join(ALIGNMENTS)}")
        if frames_per_clip < 1:
            raise TalkfaceError(f"frames_per_clip: {frames_per_clip}; allowed 1 or more")
        self.corpus, self.image_size, self.alignment = corpus, image_size, alignment
        self.jitter, self.photometric, self.mirror = jitter, photometric, mirror
        self.balanced, self.seed = balanced, seed
        self.pictures = [
            Picture(clip, frame) for clip in corpus for frame in spread(clip.num_frames, frames_per_clip)
        ]
        self.labels = np.array([picture.clip.emotion for picture in self.pictures])
        self.latents: tuple[LatentStore, LatentStore | None] | None = None
        self.truth, self.meta = tuple(truth), tuple(meta)
        self._truth: dict[str, dict[str, np.ndarray]] = {}
        self._landmarks = LandmarkCache(corpus)
        self.reference = reference
        self._people: dict[str, list[int]] = {}
        for number, picture in enumerate(self.pictures):
            self._people.setdefault(picture.clip.subject, []).append(number)
        self._members = [
            np.flatnonzero(self.labels == label) for label in np.unique(self.labels[self.labels >= 0])
        ]
        if balanced and not self._members:
            raise TalkfaceError(
                f"balanced: True, but no picture of {corpus.folder} has an emotion; use balanced: false"
            )
        self._epoch_order = lru_cache(2)(self._draw_order)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_epoch_order"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._epoch_order = lru_cache(2)(self._draw_order)

    def __len__(self) -> int:
        return len(self.pictures)

    def shard_of_items(self) -> np.ndarray | None:
        """(N,) the shard of every item; None when `balanced`, whose items are other pictures in every epoch."""
        return None if self.balanced else np.array([picture.clip.shard for picture in self.pictures])

    def use_latents(self, plain: LatentStore, mirrored: LatentStore | None) -> None:
        """Give latents from now on. `mirrored` is needed with `mirror`."""
        self.latents = (plain, mirrored)

    def _draw_order(self, epoch: int) -> np.ndarray:
        """(N,) which picture is item k of a balanced epoch: item k is of emotion k modulo their number."""
        chosen = np.empty(len(self), np.int64)
        for place, members in enumerate(self._members):
            slots = chosen[place :: len(self._members)]
            # turns go on where the last epoch stopped: every picture is seen before one is seen again
            turns = np.arange(epoch * len(slots), (epoch + 1) * len(slots))
            rounds, positions = np.divmod(turns, len(members))
            for number in np.unique(rounds):
                order = np.random.default_rng([self.seed, 0xBA1, place, number]).permutation(members)
                slots[rounds == number] = order[positions[rounds == number]]
        return chosen

    def __getitem__(self, key: int) -> dict[str, torch.Tensor]:
        epoch, index = divmod(key, len(self))
        rng = np.random.default_rng([self.seed, epoch, index])
        number = int(self._epoch_order(epoch)[index]) if self.balanced else index
        picture = self.pictures[number]
        flipped = self.mirror and rng.random() < 0.5
        told = {"label": torch.tensor(int(self.labels[number]))} | self._told(picture, flipped)
        told |= self._numbers(picture)
        shown = {"target" if self.latents is not None else "images": picture}
        if self.reference:
            others = [other for other in self._people[picture.clip.subject] if other != number] or [number]
            shown["reference"] = self.pictures[others[int(rng.integers(len(others)))]]
        if self.latents is not None:
            store = self.latents[1] if flipped else self.latents[0]
            assert store is not None
            return {
                f"{name}_latents": torch.from_numpy(store.read(one)) for name, one in shown.items()
            } | told
        images = {name: self.read(one, flipped, rng) for name, one in shown.items()}
        if self.photometric > 0:
            look = Photometry(rng, self.photometric)
            images = {name: look(image) for name, image in images.items()}
        return {name: to_tensor(image)[0] for name, image in images.items()} | told

    def _told(self, picture: Picture, flipped: bool) -> dict[str, torch.Tensor]:
        """The truth of one picture, as it looks in the mirror if `flipped`."""
        if not self.truth:
            return {}
        clip = picture.clip
        if clip.id not in self._truth:
            self._truth[clip.id] = self.corpus.read_truth(clip, self.truth)
        rows = {name: self._truth[clip.id][name][picture.frame].astype(np.float32) for name in self.truth}
        if flipped and "actions" in rows:
            rows["actions"] = rows["actions"][list(MIRRORED_ACTIONS)]
        return {name: torch.tensor(row) for name, row in rows.items()}

    def _numbers(self, picture: Picture) -> dict[str, torch.Tensor]:
        """What `meta` names, by its whole name."""
        if not self.meta:
            return {}
        about = self.corpus.read_meta(picture.clip)
        found = {}
        for name in self.meta:
            value: Any = about
            for part in name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if not isinstance(value, int | float):
                raise TalkfaceError(
                    f"meta: clip {picture.clip.id} of {self.corpus.folder} has no number '{name}'; it has "
                    f"{', '.join(sorted(about))}"
                )
            found[name] = torch.tensor(float(value))
        return found

    def read(
        self, picture: Picture, flipped: bool = False, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """A picture as uint8 (S, S, 3), perhaps mirrored; without `rng` the crop is not jittered."""
        image = self.corpus.read_frame(picture.clip, picture.frame)
        points = np.zeros((68, 2), np.float32)
        if self.alignment == "canonical":
            points = self._landmarks(picture.clip)[picture.frame]
        jitter = 0.0 if rng is None else self.jitter
        rng = rng or np.random.default_rng(0)
        image = align(image, points, self.image_size, self.alignment, rng, jitter)[0]
        return np.ascontiguousarray(image[:, ::-1]) if flipped else image


def spread(num_frames: int, count: int) -> list[int]:
    """At most `count` frames, evenly spread over a clip, each in the middle of its share."""
    count = min(count, num_frames)
    return [int((number + 0.5) * num_frames / count) for number in range(count)]
