"""The result of the talking-face pipeline: frames that are painted and pasted when they are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from talkface.media import Audio
from talkface.pipelines.background import in_background
from talkface.pipelines.face_painter import FacePainter
from talkface.pipelines.liveliness import LivePicture
from talkface.pipelines.sources import FoundFace, Shot
from talkface.portrait.blend import ColourMatcher, PlaceOfCrop, blend_mask
from talkface.portrait.crop import AlignedCrop
from talkface.portrait.toning import toning_of


@dataclass
class TalkingFilm:
    """Iterate over it for uint8 (H, W, 3) RGB frames. Every iteration computes the same frames again.

    Attributes:
        fps: exact rate; the average one if `times` is set.
        num_frames: how many frames an iteration yields.
        times: seconds at which the frames appear, if they do not follow from `fps` (films of variable rate).
        pixel_aspect: width of a pixel over its height.
        notes: what the user should know, one sentence each.
        metadata: what the film was made with, to be written into the file.
        frames_without_face: frames of a film that were passed on unchanged, counted by the last iteration.
    """

    fps: Fraction
    num_frames: int
    times: np.ndarray | None
    pixel_aspect: Fraction
    notes: list[str]
    metadata: dict[str, Any]
    make_frames: Callable[[TalkingFilm], Iterator[np.ndarray]] = field(repr=False)
    frames_without_face: int = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        self.frames_without_face = 0
        return self.make_frames(self)

    def __len__(self) -> int:
        return self.num_frames

    def frames(self) -> contextlib.closing[Any]:
        """A context manager around one iteration that stops the work when the block is left early."""
        return contextlib.closing(iter(self))


def paste_frames(
    painter: FacePainter,
    shots: Callable[[], Iterator[Shot]],
    crop_only: bool,
    result: TalkingFilm,
    alive: LivePicture | None = None,
    ahead: bool = True,
) -> Iterator[np.ndarray]:
    """Paint in the background (`ahead`), or here when a frame is asked for; match the colours, paste and move the whole
    picture here."""
    first = painter.references.first
    mask = blend_mask(first.size)
    match, toning = ColourMatcher(), toning_of(first.image)
    square = first.image
    place: PlaceOfCrop | None = None
    if ahead:
        pairs = in_background(lambda keep_going: painter.paint(shots(), keep_going))
    else:
        pairs = painter.paint(shots(), lambda: None)
    for shot, painted in pairs:
        if painted is None or shot.crop is None:
            result.frames_without_face += 1
            yield square if crop_only else shot.picture
            continue
        matched = match(painted if toning is None else toning(painted), shot.crop.image)
        if crop_only and alive is None:
            square = paste_square(shot.crop.image, matched, mask)
            yield square
            continue
        if place is None or place.frame is not shot.picture or place.crop is not shot.crop:
            place = PlaceOfCrop(shot.picture, shot.crop, mask)  # of a still picture the same for all frames
        pasted = place(matched, flow=shot.flow)
        if alive is None:
            yield pasted
            continue
        moved = alive(pasted, shot.time)
        yield AlignedCrop.from_matrix(moved, shot.crop.matrix, first.size).image if crop_only else moved


def paste_square(original: np.ndarray, generated: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blend two aligned squares uint8 (S, S, 3) with mask (S, S): what `paste` does, before the way back."""
    weight = mask[:, :, None]
    return np.rint(original * (1.0 - weight) + generated * weight).astype(np.uint8)


def notes_on(
    sound: Audio | None, found: FoundFace, face: int | None, film_seconds: float | None
) -> list[str]:
    """What a user may want to know of the material, a line each.

    Args:
        sound: None while it is still coming. face: the face that was asked for.
        film_seconds: of the film to dub, None for a picture.
    """
    notes = []
    if sound is not None and sound.is_silent:
        notes.append("the sound is silent; the mouth will hardly move")
    if found.faces > 1 and face is None:
        notes.append(f"{found.faces} faces are found; the largest is taken (--face chooses another)")
    if found.index:
        notes.append(f"the first {found.index} frames of the film show no usable face and stay as they are")
    if film_seconds is not None and sound is not None and sound.duration - film_seconds > 0.5:
        notes.append(
            f"the sound is {sound.duration - film_seconds:.1f} s longer than the film, which then "
            "stands still at its last frame"
        )
    return notes
