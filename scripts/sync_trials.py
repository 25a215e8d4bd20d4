"""Clips on which sync experts are tried, and what comes of it: offsets planted, found, and missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkface.data.base import ClipEntry, Corpus
from talkface.data.prepare.film_faces import follow
from talkface.experts.sync_offset import MAX_OFFSET, SyncReading, compare, read_offset
from talkface.experts.sync_shape import ShapeSync
from talkface.media import open_video, read_audio

PLANTED = range(-5, 6)
FPS = 25.0


@dataclass
class Clip:
    """frames (T, 3, S, S) in [-1, 1]; landmarks (T, 68, 2) px; sound (n,) float32 at 16 kHz."""

    name: str
    frames: Tensor
    landmarks: Tensor
    sound: Tensor
    seen: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Trial:
    """What one expert says of one clip.

    Attributes:
        own: of the clip as it is. planted: offset -> of the clip whose sound was moved by so many frames.
        windows: share of single windows whose nearest sound is within one frame; None where there are no windows.
        shuffled: of the clip with the next clip's sound.
    """

    clip: str
    own: SyncReading
    planted: dict[int, SyncReading] = field(default_factory=dict)
    windows: float | None = None
    shuffled: SyncReading | None = None


def rendered_clip(corpus: Corpus, entry: ClipEntry) -> Clip:
    """A clip of a corpus, its landmarks exact."""
    frames = np.stack([corpus.read_frame(entry, k) for k in range(entry.num_frames)])
    points = corpus.read_truth(entry, ("landmarks",))["landmarks"]
    return Clip(
        entry.id,
        as_tensor(frames),
        torch.from_numpy(points).float(),
        torch.from_numpy(corpus.read_audio(entry)),
    )


def film_clip(path: Path, finder: Any) -> Clip:
    """A film at its own size, its landmarks those of the finder, gaps bridged."""
    pictures = list(open_video(path))
    face = follow(iter(pictures), finder, 1.0, FPS)
    points, _ = face.filled(0, len(pictures))
    samples = read_audio(path).samples
    return Clip(
        path.stem,
        as_tensor(np.stack(pictures)),
        torch.from_numpy(points).float(),
        torch.from_numpy(np.asarray(samples, np.float32)),
    )


def as_tensor(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def late(sound: Tensor, frames: int) -> Tensor:
    """The sound so many frames later, as long as before; silence moves in."""
    count = round(abs(frames) * 16000 / FPS)
    if frames >= 0:
        return torch.cat([sound.new_zeros(count), sound])[: len(sound)]
    return torch.cat([sound[count:], sound.new_zeros(count)])


def tell(expert: Any, clip: Clip, sound: Tensor) -> tuple[SyncReading, Tensor | None]:
    """Its reading, and the distances of all windows where it has any."""
    if isinstance(expert, ShapeSync):
        return expert.read(clip.landmarks, sound, 16000, FPS), None
    if expert.name not in clip.seen:  # looked at once, whatever the sounds
        clip.seen[expert.name] = expert.embed_film(clip.frames, clip.landmarks)
    apart = compare(expert, clip.seen[expert.name], sound, 16000)
    return read_offset(apart), apart


def window_share(apart: Tensor) -> float:
    """Share of windows whose nearest sound is within one frame of the right one; only windows that have all sounds."""
    whole = apart[~apart.isnan().any(1)]
    if not len(whole):
        return float("nan")
    return float(((whole.argmin(1) - MAX_OFFSET).abs() <= 1).float().mean())


@torch.no_grad()
def trials(expert: Any, clips: Sequence[Clip], planted: Sequence[int] = PLANTED) -> list[Trial]:
    """Every clip as it is, with its sound moved, and with the next clip's sound."""
    made = []
    for number, clip in enumerate(clips):
        own, apart = tell(expert, clip, clip.sound)
        trial = Trial(clip.name, own, windows=None if apart is None else window_share(apart))
        for offset in planted:
            trial.planted[offset] = own if offset == 0 else tell(expert, clip, late(clip.sound, offset))[0]
        other = clips[(number + 1) % len(clips)].sound
        trial.shuffled = tell(expert, clip, other[: len(clip.sound)])[0]
        made.append(trial)
    return made
