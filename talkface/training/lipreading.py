"""Training of the bundled lip readers on rendered mouths: what is said as characters and as visemes, without alignment,
and, since renders know it, frame by frame.

The loss is CTC over characters and over viseme classes, cross-entropy of the viseme of every frame (from the encoder),
and the squared error of the facial actions that made the frame (from the front end). The last two teach the eyes of a
network that CTC alone would leave blind for long; their layers are thrown away afterwards. Crops are cut, mirrored,
relit, blurred, shrunk and made noisy as first stages and pasted mouths are, the same way for all frames of a clip;
clips are said faster and slower, and parts of them are hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.experts.lipreading import BLANK, LipReader
from talkface.head.model import ACTIONS, MIRRORED_ACTIONS
from talkface.training.averaged import train_averaged

CHARACTERS = (BLANK, " ", "'", *"abcdefghijklmnopqrstuvwxyz")
MARGIN = 4
"""Pixels that the stored crops are larger on every side than what the reader sees."""
MOUTH_ACTIONS = tuple(
    place for place, name in enumerate(ACTIONS) if name.startswith(("jaw", "mouth", "tongue"))
)
FRAME_WEIGHT, ACTIONS_WEIGHT = 1.0, 20.0


@dataclass
class SpokenClip:
    """A mouth that speaks.

    Attributes:
        mouths: (T, S, S) uint8 grey, S = crop size + 2 * MARGIN.
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
        frame_visemes: (B, T) int64, -100 in padding; actions: (B, T, A) float32 of MOUTH_ACTIONS.
    """

    mouths: Tensor
    lengths: Tensor
    characters: Tensor
    character_counts: Tensor
    visemes: Tensor
    viseme_counts: Tensor
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
        side = crop_size + 2 * MARGIN
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
        mouths, texts, visemes, frames, actions = (list(parts) for parts in zip(*drawn, strict=True))
        pad = nn.utils.rnn.pad_sequence
        return SpokenBatch(
            mouths=pad(mouths, batch_first=True)[:, :, None],
            lengths=torch.tensor([len(one) for one in mouths]),
            characters=torch.tensor([unit for text in texts for unit in text]),
            character_counts=torch.tensor([len(text) for text in texts]),
            visemes=torch.cat(visemes),
            viseme_counts=torch.tensor([len(one) for one in visemes]),
            frame_visemes=pad(frames, batch_first=True, padding_value=-100),
            actions=pad(actions, batch_first=True),
        )

    def _clip(self, clip: SpokenClip) -> tuple[Tensor, list[int], Tensor, Tensor, Tensor]:
        rng = self.rng
        # 1. Said faster or slower: other frames at the same rate.
        length = len(clip.mouths)
        when = np.arange(max(8, round(length / rng.uniform(0.85, 1.15))))
        order = np.minimum((when + 0.5) * length / len(when), length - 1).astype(int)
        mouths = torch.from_numpy(clip.mouths[order]).float() / 255
        actions = clip.actions[order]
        # 2. Framed a little wrong, mirrored.
        down, right = rng.integers(2 * MARGIN + 1, size=2)
        mouths = mouths[:, down : down + self.crop_size, right : right + self.crop_size]
        if rng.random() < 0.5:
            mouths, actions = mouths.flip(-1), actions[:, list(MIRRORED_ACTIONS)]
        mouths = self._degraded(mouths)
        # 3. Up to three parts of up to 0.3 s are hidden behind their mean.
        for _ in range(int(rng.integers(4)) if rng.random() < 0.7 else 0):
            start, count = int(rng.integers(len(mouths))), int(rng.integers(1, 8))
            mouths[start : start + count] = mouths.mean()
        return (
            mouths,
            to_characters(clip.text),
            torch.from_numpy(clip.visemes),
            torch.from_numpy(clip.frame_visemes[order]),
            torch.from_numpy(np.ascontiguousarray(actions[:, list(MOUTH_ACTIONS)])),
        )

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
        # classes with silence instead of the blank
        self.frame_visemes = nn.Linear(reader.dim, len(reader.visemes))
        self.actions = nn.Linear(reader.frontend.dim, len(MOUTH_ACTIONS))

    def losses(self, batch: SpokenBatch) -> dict[str, Tensor]:
        """The terms `characters`, `visemes`, `frames` and `actions`, scalars."""
        seen, features = self.reader.both_features(batch.mouths, batch.lengths)
        terms = {}
        for name, head, units, counts in (
            ("characters", "vocabulary", batch.characters, batch.character_counts),
            ("visemes", "visemes", batch.visemes, batch.viseme_counts),
        ):
            chances = self.reader.head(features, head).transpose(0, 1)
            terms[name] = F.ctc_loss(chances, units, batch.lengths, counts, zero_infinity=True)
        frames = self.frame_visemes(features).float().transpose(1, 2)
        terms["frames"] = FRAME_WEIGHT * F.cross_entropy(frames, batch.frame_visemes, label_smoothing=0.1)
        error = (self.actions(seen).float() - batch.actions).square().mean(-1)
        terms["actions"] = ACTIONS_WEIGHT * error[batch.frame_visemes >= 0].mean()
        return terms


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

    See `train_averaged` for the arguments and errors.
    """
    lessons = LipLessons(reader).to(device)

    def losses() -> dict[str, Tensor]:
        batch = sampler.batch(batch_size)
        moved = SpokenBatch(**{name: value.to(device) for name, value in vars(batch).items()})
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            return lessons.losses(moved)

    def resumed(step: int) -> None:
        sampler.seed([step, 1])

    train_averaged(
        lessons, losses, seconds=seconds, steps=steps, learning_rate=learning_rate, average_decay=average_decay,
        clip=[(lessons.parameters(), 5.0)], checkpoint=checkpoint, resumed=resumed, log=log,
    )  # fmt: skip
    return lessons.reader
