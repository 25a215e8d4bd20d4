"""Training of the bundled lip readers on rendered mouths: what is said as characters and as visemes, without alignment,
and, since renders know it, frame by frame.

First the front end learns to see: from moments of many clips it tells viseme and facial actions of the middle frame, by
layers that are thrown away (CTC alone would leave it blind for long). Then the reader learns to read: CTC over
characters and over viseme classes, and cross-entropy of the viseme of every frame by the same head: neighbours differ,
so that the classes of the frames, blank where nothing is said, are one path of CTC.

Crops are cut, mirrored, relit, blurred, shrunk and made noisy as first stages and pasted mouths are, the same way for
all frames of a clip; clips are said faster and slower, and parts of them are hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.experts.lipreading import BLANK, LipReader
from talkface.head.model import ACTIONS, MIRRORED_ACTIONS
from talkface.training.averaged import train_averaged

CHARACTERS = (BLANK, " ", "'", *"abcdefghijklmnopqrstuvwxyz")
MOUTH_ACTIONS = tuple(
    place for place, name in enumerate(ACTIONS) if name.startswith(("jaw", "mouth", "tongue"))
)
VISEMES_WEIGHT, FRAMES_WEIGHT, ACTIONS_WEIGHT = 0.5, 1.0, 20.0
GLANCE = 5
"""Frames of a glance: what the first convolution sees."""
LOOKING_SHARE, GLANCES_PER_CLIP = 0.4, 12
"""Of the time, the front end learns to see before anything is read; a glance costs a fraction of a clip."""


def margin_of(crop_size: int) -> int:
    """Pixels that stored crops are larger on every side than what the reader sees: 4 of 88, as in the public recipe."""
    return max(1, crop_size // 22)


@dataclass
class SpokenClip:
    """A mouth that speaks.

    Attributes:
        mouths: (T, S, S) uint8 grey, S = crop size + 2 * margin_of(crop size).
        text: what is said.
        visemes: (V,) int64 ids of the classes in order, neighbours differ; 0 is silence and left out.
        frame_visemes: (T,) int64 ids of the classes, with silence.
        actions: (T, 52) float32 facial actions.
    """

    mouths: np.ndarray
    text: str
    visemes: np.ndarray
    frame_visemes: np.ndarray
    actions: np.ndarray


@dataclass
class SpokenBatch:
    """B clips, padded to the longest.

    Attributes:
        mouths: (B, T, 1, S, S) float32 in [0, 1]; lengths: (B,) int64.
        characters, visemes: int64 units of all clips one after the other; character_counts, viseme_counts: (B,).
        frame_visemes: (B, T) int64, -100 in padding.
    """

    mouths: Tensor
    lengths: Tensor
    characters: Tensor
    character_counts: Tensor
    visemes: Tensor
    viseme_counts: Tensor
    frame_visemes: Tensor


@dataclass
class Glances:
    """Moments of B clips: many people for the price of few, for the front end alone.

    Attributes:
        mouths: (B, GLANCE, 1, S, S) float32 in [0, 1].
        frame_visemes: (B, GLANCE) int64; actions: (B, GLANCE, A) float32 of MOUTH_ACTIONS.
    """

    mouths: Tensor
    frame_visemes: Tensor
    actions: Tensor


def to_characters(text: str) -> list[int]:
    """Ids of the letters, apostrophes and spaces of a text, small letters; anything else is passed over."""
    places = {character: place for place, character in enumerate(CHARACTERS)}
    return [places[character] for character in " ".join(text.lower().split()) if character in places]


class SpeechSampler:
    """Draws training batches.

    Args:
        clips: to draw from.
        crop_size: what the reader sees.
        seed: the same seed gives the same batches.

    Raises:
        TalkfaceError: there is no clip, or its mouths have another size.
    """

    def __init__(self, clips: Sequence[SpokenClip], crop_size: int = 88, seed: int = 0) -> None:
        side = crop_size + 2 * margin_of(crop_size)
        if not clips:
            raise TalkfaceError("clips: none; allowed: one or more; prepare a corpus with speech")
        if any(clip.mouths.shape[1:] != (side, side) for clip in clips):
            raise TalkfaceError(
                f"mouths: {clips[0].mouths.shape[1:]} pixels; allowed {side} x {side}, cut larger than seen"
            )
        self.clips, self.crop_size = clips, crop_size
        self.seed(seed)

    def seed(self, seed: int | Sequence[int]) -> None:
        """Start the randomness anew."""
        self.rng = np.random.default_rng(seed)
        self.noise = torch.Generator().manual_seed(int(self.rng.integers(2**62)))

    def batch(self, size: int) -> SpokenBatch:
        """`size` clips at random."""
        drawn = [self._clip(self.clips[int(self.rng.integers(len(self.clips)))]) for _ in range(size)]
        mouths, texts, visemes, frames = (list(parts) for parts in zip(*drawn, strict=True))
        pad = nn.utils.rnn.pad_sequence
        return SpokenBatch(
            mouths=pad(mouths, batch_first=True)[:, :, None],
            lengths=torch.tensor([len(one) for one in mouths]),
            characters=torch.tensor([unit for text in texts for unit in text]),
            character_counts=torch.tensor([len(text) for text in texts]),
            visemes=torch.cat(visemes),
            viseme_counts=torch.tensor([len(one) for one in visemes]),
            frame_visemes=pad(frames, batch_first=True, padding_value=-100),
        )

    def glances(self, size: int) -> Glances:
        """GLANCE consecutive frames each of `size` clips."""
        films, classes, actions = [], [], []
        for _ in range(size):
            clip = self.clips[int(self.rng.integers(len(self.clips)))]
            start = int(self.rng.integers(max(1, len(clip.mouths) - GLANCE + 1)))
            order = np.minimum(np.arange(start, start + GLANCE), len(clip.mouths) - 1)
            film, shown = self._film(clip, order)
            films.append(film)
            classes.append(torch.from_numpy(clip.frame_visemes[order]))
            actions.append(shown)
        return Glances(torch.stack(films)[:, :, None], torch.stack(classes), torch.stack(actions))

    def _clip(self, clip: SpokenClip) -> tuple[Tensor, list[int], Tensor, Tensor]:
        rng = self.rng
        # 1. Said faster or slower: other frames at the same rate.
        length = len(clip.mouths)
        when = np.arange(max(8, round(length / rng.uniform(0.85, 1.15))))
        order = np.minimum((when + 0.5) * length / len(when), length - 1).astype(int)
        # 2. As another camera might see it.
        mouths, _ = self._film(clip, order)
        # 3. Up to three parts of up to 0.3 s are hidden behind their mean.
        for _ in range(int(rng.integers(4)) if rng.random() < 0.7 else 0):
            start, count = int(rng.integers(len(mouths))), int(rng.integers(1, 8))
            mouths[start : start + count] = mouths.mean()
        frames = torch.from_numpy(clip.frame_visemes[order])
        return mouths, to_characters(clip.text), torch.from_numpy(clip.visemes), frames

    def _film(self, clip: SpokenClip, order: np.ndarray) -> tuple[Tensor, Tensor]:
        """Frames of a clip framed a little wrong, mirrored and degraded, (T, S, S); their actions (T, A)."""
        rng = self.rng
        mouths, actions = torch.from_numpy(clip.mouths[order]).float() / 255, clip.actions[order]
        down, right = rng.integers(2 * margin_of(self.crop_size) + 1, size=2)
        mouths = mouths[:, down : down + self.crop_size, right : right + self.crop_size]
        if rng.random() < 0.5:
            mouths, actions = mouths.flip(-1), actions[:, list(MIRRORED_ACTIONS)]
        chosen = torch.from_numpy(np.ascontiguousarray(actions[:, list(MOUTH_ACTIONS)]))
        return self._degraded(mouths), chosen

    def _degraded(self, mouths: Tensor) -> Tensor:
        """Light, resolution, blur and noise of other cameras and of first stages; (T, S, S) in [0, 1]."""
        rng = self.rng
        mouths = mouths.clamp(min=1e-3) ** float(np.exp(rng.normal(0, 0.25)))
        mouths = (mouths - 0.5) * float(np.exp(rng.normal(0, 0.2))) + 0.5 + float(rng.normal(0, 0.08))
        picture = mouths[:, None]
        side = picture.shape[-1]
        if rng.random() < 0.5:
            small = int(side * rng.uniform(0.3, 0.8))
            picture = F.interpolate(picture, size=(small, small), mode="bilinear", antialias=True)
            picture = F.interpolate(picture, size=(side, side), mode="bilinear")
        if rng.random() < 0.3:
            picture = F.avg_pool2d(picture, 3, 1, 1, count_include_pad=False)
        if rng.random() < 0.5:
            noise = torch.randn(picture.shape, generator=self.noise)
            picture = picture + noise * float(rng.uniform(0.005, 0.05))
        return picture[:, 0].clamp(0, 1)


class LipLessons(nn.Module):
    """A reader and the layers that only its training needs.

    Args:
        reader: to be trained; it must have a head of visemes.
    """

    def __init__(self, reader: LipReader) -> None:
        super().__init__()
        self.reader = reader
        self.actions = nn.Linear(reader.frontend.dim, len(MOUTH_ACTIONS))
        self.classes = nn.Linear(reader.frontend.dim, len(reader.visemes))

    def glance_losses(self, batch: Glances) -> dict[str, Tensor]:
        """The terms `classes` and `actions`, scalars: what the front end says of the middle frames."""
        middle = GLANCE // 2
        seen = self.reader.glance(batch.mouths)
        classes = F.cross_entropy(
            self.classes(seen).float(), batch.frame_visemes[:, middle], label_smoothing=0.1
        )
        error = self.actions(seen).float() - batch.actions[:, middle]
        return {"classes": classes, "actions": ACTIONS_WEIGHT * error.square().mean()}

    def losses(self, batch: SpokenBatch) -> dict[str, Tensor]:
        """The terms `characters`, `visemes` and `frames` of whole clips, scalars."""
        features = self.reader.features(batch.mouths, batch.lengths)
        said = self.reader.head(features, "vocabulary").transpose(0, 1)
        shown = self.reader.head(features, "visemes")
        lengths = batch.lengths
        characters = F.ctc_loss(said, batch.characters, lengths, batch.character_counts, zero_infinity=True)
        visemes = F.ctc_loss(
            shown.transpose(0, 1), batch.visemes, lengths, batch.viseme_counts, zero_infinity=True
        )
        frames = F.cross_entropy(shown.transpose(1, 2), batch.frame_visemes, label_smoothing=0.1)
        return {
            "characters": characters,
            "visemes": VISEMES_WEIGHT * visemes,
            "frames": FRAMES_WEIGHT * frames,
        }


def train_lip_reader(
    reader: LipReader,
    sampler: SpeechSampler,
    *,
    seconds: float = math.inf,
    steps: int | None = None,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    average_decay: float = 0.995,
    device: str = "cpu",
    bfloat16: bool = False,
    checkpoint: Path | None = None,
    log: Callable[[str], None] | None = None,
) -> LipReader:
    """Train `reader` in place and return it, in evaluation mode, with averaged weights.

    First it looks (glances teach the front end), then it reads; see `train_averaged` for the arguments and errors.
    """
    lessons = LipLessons(reader).to(device)

    def to_device(batch: Any) -> Any:
        return type(batch)(**{name: value.to(device) for name, value in vars(batch).items()})

    def look() -> dict[str, Tensor]:
        return lessons.glance_losses(to_device(sampler.glances(GLANCES_PER_CLIP * batch_size)))

    def read() -> dict[str, Tensor]:
        return lessons.losses(to_device(sampler.batch(batch_size)))

    state = {name: checkpoint and checkpoint.with_suffix(f".{name}.pt") for name in ("look", "read")}
    for name, stage, share in (("look", look, LOOKING_SHARE), ("read", read, 1 - LOOKING_SHARE)):
        if name == "look" and state["read"] and state["read"].exists():
            continue  # resumed while it read

        def losses(stage: Callable[[], dict[str, Tensor]] = stage) -> dict[str, Tensor]:
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
                return stage()

        train_averaged(
            lessons,
            losses,
            seconds=share * seconds,
            steps=None if steps is None else max(1, round(share * steps)),
            learning_rate=learning_rate,
            average_decay=average_decay,
            clip=[(lessons.parameters(), 5.0)],
            checkpoint=state[name],
            resumed=lambda step: sampler.seed([step, 1]),
            log=log,
        )
    return lessons.reader
