"""Real films made ready to be dubbed, and dubbed: frames, sound, what the judge sees, where the face is painted."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkface.errors import TalkfaceError
from talkface.experts.face_backends import MEDIAPIPE_TO_68
from talkface.experts.judges import LipCurve, MediaPipeJudge, relative_gap
from talkface.media import Audio, exact_rate, open_video, read_audio
from talkface.pipelines.film_rows import without_sampling, write_lossless
from talkface.pipelines.film_scores import mouth_squares
from talkface.portrait.blend import blend_mask
from talkface.portrait.crop import AlignedCrop, invert, warp
from talkface.portrait.tracking import follow_face

GUIDES = {"inpainting": "none", "warp": "warp", "refined": "refined"}
Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Film:
    """A real film with its sound, what the judge sees in it, and where its face is.

    Attributes:
        frames: uint8 (T, H, W, 3); squares: (T, 4) around the lips by the judge.
        crops: of the bundle's own finder, steady, at the size that it paints.
        weights: (T, H, W) in [0, 1], where each frame is painted.
    """

    path: Path
    fps: float
    frames: Array
    sound: Audio
    curve: LipCurve
    squares: Array
    crops: list[AlignedCrop]
    weights: Array


def read_film(path: Path, judge: MediaPipeJudge, pipeline: Any, max_frames: int) -> Film:
    """Raises: TalkfaceError: judge or finder miss the face in some frame."""
    reader = open_video(path)
    sound = read_audio(path)
    count = min(max_frames, round(sound.duration * reader.fps), reader.num_frames)
    frames = np.stack([frame for _, frame in zip(range(count), reader, strict=False)])
    samples = sound.samples[: round(len(frames) / reader.fps * sound.sample_rate)]
    seen = [judge.landmarks(frame) for frame in frames]
    found = list(follow_face(frames, pipeline.finder, 0, pipeline.image_size))
    crops = [crop for _, _, crop in found if crop is not None]
    if any(points is None for points in seen) or len(crops) < len(frames):
        raise TalkfaceError(
            f"{path}: the face is not seen in every frame; give films of a face from the front"
        )
    points = np.stack([x for x in seen if x is not None])
    return Film(
        path,
        reader.fps,
        frames,
        Audio(samples, sound.sample_rate),
        LipCurve(np.array([relative_gap(x) for x in points]), []),
        mouth_squares(points[:, list(MEDIAPIPE_TO_68)], *frames.shape[1:3]),
        crops,
        np.stack([in_frame(blend_mask(crop.size), crop) for crop in crops]),
    )


def in_frame(mask: Array, crop: AlignedCrop) -> Array:
    """A mask of the crop in the pixels of the picture that it was cut from."""
    back = invert(crop.matrix)
    matrix = np.column_stack([back[:, :2] * (crop.size / mask.shape[0]), back[:, 2]])
    return np.clip(warp(mask, matrix, *crop.source_size, cv2.BORDER_CONSTANT), 0, 1)


def dub(row: str, film: Film, pipeline: Any, seed: int, steps: int | None = None) -> Array:
    """The film of a row, uint8 like `film.frames`."""
    if row in ("still", "first stage"):
        made = without_sampling(row.replace(" ", "_"), film.frames, film.crops, pipeline)
        return np.stack(list(made))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mkv"
        write_lossless(path, film.frames, exact_rate(film.fps))
        settings = {"guide": GUIDES.get(row), "seed": seed, "num_inference_steps": steps}
        with pipeline(film.sound, film=path, **settings).frames() as frames:
            return np.stack(list(frames))[: len(film.frames)]
