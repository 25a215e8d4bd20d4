"""The offset between the lips and the sound of a clip, from any sync expert.

Every window of frames is compared with the sound at every offset; the distances of all windows of the clip are
averaged for each offset, and the smallest mean tells the offset (Chung and Zisserman 2016, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from talkface.errors import TalkfaceError
from talkface.experts.sync import SyncExpert

MAX_OFFSET = 15


@dataclass(frozen=True)
class SyncReading:
    """What an expert says of a clip.

    Attributes:
        offset: frames (25 a second) by which the sound comes later than the lips.
        confidence: median of the curve minus its minimum; 0 = every offset fits as well (LSE-C).
        distance: minimum of the curve (LSE-D).
        curve: (2 M + 1,) mean distance at the offsets -M ... M; nan where too few windows have sound.
    """

    offset: int
    confidence: float
    distance: float
    curve: Tensor

    @property
    def gain(self) -> float:
        """By how much the minimum is less than the least distance within one frame of being in step."""
        middle = (len(self.curve) - 1) // 2
        near = self.curve[middle - 1 : middle + 2]
        near = near[~near.isnan()]
        return float(near.min()) - self.distance if len(near) else float("inf")


class LandmarkReader(Protocol):
    """An expert that needs no pictures; `talkface.experts.sync_shape.ShapeSync`."""

    def read(self, landmarks: Tensor, samples: Tensor, rate: int, fps: float) -> SyncReading: ...


def read_film(
    expert: SyncExpert | LandmarkReader,
    pictures: np.ndarray,
    landmarks: np.ndarray,
    sound: np.ndarray,
    rate: int,
    fps: float,
) -> SyncReading:
    """What any expert says of a film at any rate. Offsets are frames of 25 a second from a network, else of the film.

    Args:
        pictures: uint8 (T, H, W, 3) RGB; landmarks: (T, 68, 2) in their pixels, finite.
        sound: (n,) float in [-1, 1], of these frames; rate: its sample rate.

    Raises:
        TalkfaceError: see `distances`.
    """
    points, samples = torch.from_numpy(np.asarray(landmarks, np.float32)), torch.from_numpy(sound)
    if not isinstance(expert, SyncExpert):
        return expert.read(points, samples, rate, fps)
    # of other rates the frame that is shown at that time
    times = (np.arange(max(1, round(len(pictures) / fps * expert.fps))) + 0.5) / expert.fps
    places = np.minimum((times * fps).astype(int), len(pictures) - 1)
    frames = torch.from_numpy(pictures[places]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return read_offset(distances(expert, frames, points[torch.from_numpy(places)], samples, rate))


@torch.no_grad()
def distances(
    expert: SyncExpert,
    frames: Tensor,
    landmarks: Tensor,
    samples: Tensor,
    rate: int,
    max_offset: int = MAX_OFFSET,
) -> Tensor:
    """Distance of every window of a clip to its sound at every offset.

    Args:
        frames: (T, 3, H, W) in [-1, 1], RGB, 25 a second; landmarks: (T, 68, 2) in their pixels.
        samples: (n,) the sound of these frames; rate: its sample rate.
        max_offset: M, frames.

    Returns:
        (T - num_frames + 1, 2 M + 1) Euclidean distances of the embeddings; nan where the middle of the sound's
        window lies outside the sound.

    Raises:
        TalkfaceError: the clip is shorter than a window, or sizes do not fit.
    """
    if len(frames) < expert.num_frames:
        raise TalkfaceError(
            f"{expert.name}: a clip of {len(frames)} frames (25 a second); {expert.num_frames} or more are needed"
        )
    if len(frames) != len(landmarks):
        raise TalkfaceError(
            f"{expert.name}: {len(frames)} frames but {len(landmarks)} landmarks; give one each"
        )
    return compare(expert, expert.embed_film(frames, landmarks), samples, rate, max_offset)


@torch.no_grad()
def compare(
    expert: SyncExpert, seen: Tensor, samples: Tensor, rate: int, max_offset: int = MAX_OFFSET
) -> Tensor:
    """`distances` of a film that was embedded before: seen (K, D) of `embed_film` -> (K, 2 M + 1)."""
    count = len(seen)
    places = torch.arange(-max_offset, count + max_offset)
    times = (places + expert.num_frames / 2) / expert.fps
    heard = torch.cat([expert.embed_sound(w) for w in expert.sound_windows(samples, rate, times).split(64)])
    apart = torch.cdist(seen, heard.to(seen))
    outside = (times < 0) | (times > len(samples) / rate)
    apart[:, outside.to(apart.device)] = torch.nan
    rows = torch.arange(count)[:, None]
    return apart[rows, rows + torch.arange(2 * max_offset + 1)]


def read_offset(apart: Tensor, least: float = 0.5) -> SyncReading:
    """Distances (K, 2 M + 1) of `distances` -> offset, confidence and the mean curve.

    Args:
        least: share of the windows that must have sound at an offset for it to be considered.
    """
    known = (~apart.isnan()).float().mean(0)
    return read_curve(torch.where(known >= least, apart.nanmean(0), torch.nan))


def read_curve(curve: Tensor) -> SyncReading:
    """A curve (2 M + 1,) of distances, nan where nothing is known -> what it says.

    A curve without a value, or without a minimum (all the same), tells offset 0 with confidence 0.
    """
    known = curve[~curve.isnan()]
    if not len(known):
        return SyncReading(0, 0.0, float("nan"), curve)
    lowest, middle = float(known.min()), float(known.median())
    if float(known.max()) == lowest:
        return SyncReading(0, 0.0, lowest, curve)
    best = int(torch.where(curve.isnan(), torch.inf, curve).argmin())
    return SyncReading(best - (len(curve) - 1) // 2, middle - lowest, lowest, curve)
