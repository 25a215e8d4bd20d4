"""What `evaluate-video` measures on one film, given the real film and its exact landmarks.

The mouth region is a square around the lips of the real frame: its centre is that of the box of landmarks
48-67 of that frame, its side is 1.5 times the largest lip box of the clip, so it moves with the head and has
one size. Pictures are compared at the frame's own pixels. SSIM and LPIPS are means over frames; PSNR is that
of the error of the whole clip, since a mean over frames is infinite as soon as one frame is equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkface.media import to_tensor
from talkface.metrics.articulation import (
    amplitude_ratio,
    bilabial_closure,
    closed_level,
    correlation,
    lip_gap,
)
from talkface.metrics.paired import flicker, psnr, region_lpips, ssim
from talkface.portrait.blend import blend_mask
from talkface.portrait.crop import AlignedCrop

Array = np.ndarray
Perceptual = Callable[[Tensor, Tensor], Tensor]
MOUTH_MARGIN = 1.5
CHUNK = 32


@dataclass(frozen=True, eq=False)
class RealClip:
    """A clip of a corpus, with the truth that it is measured against.

    Attributes:
        frames: uint8 (T, H, W, 3) RGB.
        landmarks: (T, 68, 2) pixels, exact.
        samples, sample_rate: mono sound.
        bilabials: start and end in seconds of each /p/, /b/, /m/; empty where phonemes are unknown.
    """

    name: str
    frames: Array
    landmarks: Array
    samples: Array
    sample_rate: int
    fps: float
    emotion: int = -1
    bilabials: tuple[tuple[float, float], ...] = ()


def mouth_squares(landmarks: Array, height: int, width: int) -> Array:
    """(T, 68, 2) -> (T, 4) int left, top, right, bottom; all squares of one size, inside the picture."""
    lips = landmarks[:, 48:68]
    low, high = lips.min(axis=1), lips.max(axis=1)
    side = min(int(np.ceil(MOUTH_MARGIN * (high - low).max())), height, width)
    start = np.rint((low + high) / 2 - side / 2).astype(np.int64)
    start = np.clip(start, 0, np.array([width - side, height - side]))
    return np.concatenate([start, start + side], axis=1)


def cut(frames: Array, squares: Array) -> Tensor:
    """uint8 (T, H, W, 3) and (T, 4) -> float (T, 3, side, side) in [-1, 1]."""
    pieces = [
        frame[top:bottom, left:right]
        for frame, (left, top, right, bottom) in zip(frames, squares, strict=True)
    ]
    return to_tensor(np.stack(pieces))


def cheeks(size: int) -> Tensor:
    """(1, 1, size, size): skin of the canonical crop that is generated but hardly moved by speech, 1 or 0."""
    centres = (torch.arange(size) + 0.5) / size
    beside = (centres - 0.5).abs()[None, :] >= 0.2
    above = centres[:, None] <= 0.72
    shown = torch.from_numpy(blend_mask(size)) > 0.5
    return (shown & beside & above).float()[None, None]


def aligned(frames: Array, landmarks: Array, size: int) -> Tensor:
    """The canonical crops of a film by exact landmarks, float (T, 3, size, size)."""
    crops = [AlignedCrop.from_landmarks(f, p, size).image for f, p in zip(frames, landmarks, strict=True)]
    return to_tensor(np.stack(crops))


def score_film(
    made: Array, clip: RealClip, tracked: Array, perceptual: Perceptual | None, crop_size: int
) -> dict[str, float]:
    """Every number of one made film.

    Args:
        made: uint8 (T, H, W, 3), frame by frame the version of `clip.frames`.
        tracked: (T, 68, 2) landmarks that a finder found in `made`; nan where it found none.
        perceptual: the LPIPS expert, or None to leave that number out.
        crop_size: side of the aligned crop in which flicker is measured.
    """
    squares = mouth_squares(clip.landmarks, *clip.frames.shape[1:3])
    real_gap, made_gap = lip_gap(clip.landmarks), lip_gap(tracked)
    value, lag = correlation(real_gap, made_gap)
    scores = {
        **mouth_scores(made, clip.frames, squares, perceptual),
        "correlation": value,
        "lag": float(lag),
        "amplitude": amplitude_ratio(real_gap, made_gap),
        "flicker": flicker(aligned(made, clip.landmarks, crop_size), cheeks(crop_size)),
    }
    if clip.bilabials:
        # The level is that of the exact landmarks; what the finder misses shows in the row of the real film.
        closed, counted = bilabial_closure(made_gap, clip.bilabials, clip.fps, closed_level(real_gap))
        scores["closed"] = closed / counted if counted else float("nan")
    return scores


def mouth_scores(made: Array, real: Array, squares: Array, perceptual: Perceptual | None) -> dict[str, float]:
    """PSNR, SSIM and, with an expert, LPIPS of the squares (T, 4) of two films uint8 (T, H, W, 3)."""
    a, b = cut(made, squares), cut(real, squares)
    scores = {"psnr": float(psnr(_one_picture(a), _one_picture(b))), "ssim": float(ssim(a, b).mean())}
    if perceptual is not None:
        with torch.inference_mode():
            parts = [
                region_lpips(perceptual, x, y) for x, y in zip(a.split(CHUNK), b.split(CHUNK), strict=True)
            ]
        scores["lpips"] = float(torch.cat(parts).mean())
    return scores


def sync_scores(
    judge: Any, made: Array, tracked: Array, sound: Array, sample_rate: int, fps: float
) -> dict[str, float]:
    """LSE-D, LSE-C and the offset of a film uint8 (T, H, W, 3) and the sound it was made for; nothing where a frame has
    no face. `judge` is an expert of `talkface.experts.sync_offset.read_film`."""
    if not np.isfinite(tracked).all():
        return {}
    from talkface.experts.sync_offset import read_film

    found = read_film(judge, made, tracked, np.asarray(sound, np.float32), sample_rate, fps)
    return {"lse_d": found.distance, "lse_c": found.confidence, "offset": float(found.offset)}


def _one_picture(frames: Tensor) -> Tensor:
    """(T, 3, H, W) -> (1, 3, T * H, W)."""
    return frames.transpose(0, 1).flatten(1, 2)[None]


def track_landmarks(frames: Array, tracker: Callable[[Array], Any]) -> Array:
    """(T, 68, 2) landmarks by a `FaceTracker`; nan where it sees no face."""
    found = [tracker(frame) for frame in frames]
    return np.stack([np.full((68, 2), np.nan) if points is None else points for points in found])
