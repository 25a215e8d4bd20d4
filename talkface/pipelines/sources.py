"""Where the pictures of a talking film come from: one still picture, or the frames of another film.

Both give a stream of `Shot`s, one for each frame of the result, in order and in step with the sound: frame k
of a film without a face is a Shot without a crop, never a missing one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from talkface.errors import TalkfaceError
from talkface.media import VideoReader
from talkface.portrait.crop import AlignedCrop
from talkface.portrait.tracking import FaceTracker, face_defect, follow_face


@dataclass(frozen=True)
class Shot:
    """Frame `index` of the result: picture uint8 (H, W, 3), time in the sound (s), the face or None; once painted,
    where the picture's fine detail goes (see `portrait.blend.paste`)."""

    index: int
    time: float
    picture: np.ndarray
    crop: AlignedCrop | None
    points: np.ndarray | None
    flow: np.ndarray | None = None


@dataclass(frozen=True)
class FoundFace:
    """The face that will speak: where it was found, and how many there were."""

    picture: np.ndarray
    points: np.ndarray
    crop: AlignedCrop
    faces: int
    index: int = 0


@dataclass(frozen=True)
class Timeline:
    """When the frames of the result are shown.

    Attributes:
        fps: exact rate; the average one of a film with variable rate.
        starts, centres: seconds (N,) at which each frame appears, and the middle of its time.
        variable: whether `starts` must be written, as they do not follow from `fps`.
    """

    fps: Fraction
    starts: np.ndarray
    centres: np.ndarray
    variable: bool = False

    @property
    def num_frames(self) -> int:
        """Frames of the result."""
        return len(self.starts)


def fixed_timeline(duration: float, fps: Fraction) -> Timeline:
    """round(duration * fps) frames at k / fps. Raises: TalkfaceError when that is none."""
    count = frame_count(duration, fps)
    starts = np.arange(count) * float(1 / fps)
    return Timeline(fps, starts, starts + 0.5 * float(1 / fps))


def frame_count(duration: float, fps: Fraction) -> int:
    """round(duration * fps), halves up. Raises: TalkfaceError when that is none."""
    count = math.floor(duration * fps + 0.5)
    if count < 1:
        raise TalkfaceError(
            f"sound: {duration:.3f} s is less than half a frame at {float(fps):g} fps; give a longer sound"
        )
    return count


def film_timeline(reader: VideoReader, duration: float, fps: Fraction | None) -> Timeline:
    """The film's own frame times up to the end of the sound (then on at its mean rate), or `fps` if given."""
    if fps is not None or not reader.is_variable:
        return fixed_timeline(duration, fps or reader.rate)
    step = float(1 / reader.rate)
    starts, ends = reader.frame_times, reader.frame_ends
    missing = max(0, math.floor((duration - ends[-1]) / step + 0.5))
    starts = np.concatenate([starts, ends[-1] + step * np.arange(missing)])
    centres = (starts + np.append(starts[1:], starts[-1] + step)) / 2
    kept = max(1, int(np.searchsorted(centres, duration)))
    return Timeline(reader.rate, starts[:kept], centres[:kept], variable=True)


def still_shots(face: FoundFace, line: Timeline) -> Iterator[Shot]:
    """The same picture for every frame."""
    for index, time in enumerate(line.centres):
        yield Shot(index, float(time), face.picture, face.crop, face.points)


def film_shots(reader: VideoReader, finder: Any, rank: int, size: int, line: Timeline) -> Iterator[Shot]:
    """The film's frame that is shown at each time, its last one when the sound goes on; `size` of a crop."""
    found = follow_face(reader, finder, rank, size)
    picture, points, crop = next(found)
    current, ends = 0, reader.frame_ends
    for index, time in enumerate(line.centres):
        # where a moment falls on the border of two frames, rounding must not choose between them
        while current + 1 < len(ends) and time >= ends[current] - 1e-6:
            picture, points, crop = next(found)
            current += 1
        yield Shot(index, float(time), picture, crop, points)


def find_in_picture(
    name: str, picture: np.ndarray, finder: Any, rank: int, size: Callable[[np.ndarray], int]
) -> FoundFace:
    """The face of a still picture; `name` is for errors, `size` tells the side of the crop from its landmarks.

    Raises:
        TalkfaceError: no face, fewer than `rank` + 1, or one that is too small or cut by the border.
    """
    height, width = picture.shape[:2]
    faces = finder.find(picture)
    if not faces:
        raise TalkfaceError(
            f"no face is found in {name} ({width} x {height} pixels); give a picture with a face "
            "seen from the front, sharp and upright"
        )
    if rank >= len(faces):
        raise TalkfaceError(f"face: {rank + 1}; allowed are 1 to {len(faces)}, the faces found in {name}")
    points = np.asarray(faces[rank].points, dtype=np.float32)
    if defect := face_defect(picture, points):
        raise TalkfaceError(f"{name}: {defect}; give a larger picture of the whole face")
    crop = AlignedCrop.from_landmarks(picture, points, size=size(points))
    return FoundFace(picture, points, crop, len(faces))


def find_in_film(reader: VideoReader, finder: Any, rank: int, size: Callable[[np.ndarray], int]) -> FoundFace:
    """The first frame of a film whose face is usable; `size` as in `find_in_picture`.

    Raises:
        TalkfaceError: there is none.
    """
    tracker = FaceTracker(finder, rank)
    defect = (
        "no face is found in any frame" if rank == 0 else f"no frame shows {rank + 1} faces at first sight"
    )
    for index, picture in enumerate(reader):
        points = tracker(picture)
        if points is None:
            continue
        reason = face_defect(picture, points)
        if reason is None:
            crop = AlignedCrop.from_landmarks(picture, points, size=size(points))
            return FoundFace(picture, points, crop, tracker.faces_at_start, index)
        defect = reason
    raise TalkfaceError(f"{reader.path}: {defect}; give a film that shows a large face from the front")
