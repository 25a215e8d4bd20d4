"""The offset between the lips and the sound of a clip, from any sync expert.

Every window of frames is compared with the sound at every offset; the distances of all windows of the clip are
averaged for each offset, and the smallest mean tells the offset (Chung and Zisserman 2016, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

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
    seen = expert.embed_film(frames, landmarks)
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
