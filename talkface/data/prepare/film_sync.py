"""Whether lips and sound belong together, and by how much the sound is late: the step, not the expert.

The expert (something that knows lips and speech; `film_judges` makes those of talkface) is handed in; without one the
step is off and no clip carries an offset. With one, offset and confidence are stored with every clip, the sound is
shifted by the offset (real samples of the film move in, not silence), the shifted clip is judged again, and what is not
in step even then is left out. An offset within the expert's own error is none: shifting by it would do harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from talkface.data.prepare.film_reading import TimedFilm
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.source import Rejected

RESIDUAL = 1.0
"""Frames that may be left after the shift."""


@dataclass(frozen=True)
class SyncMeasure:
    """What an expert says about one clip.

    Attributes:
        offset: frames by which the sound comes later than the lips; negative when it comes earlier.
        confidence: how sure the expert is that they belong together; its own unit, higher is surer.
    """

    offset: float
    confidence: float


class SyncExpert(Protocol):
    """Judges lips against sound. Picklable, and the same clip always gets the same answer."""

    @property
    def name(self) -> str:
        """Which expert, with which weights; stored in the settings of the corpus."""
        ...

    @property
    def error(self) -> float:
        """Frames by which it may err on a clip that is in step; offsets up to that are left alone."""
        ...

    def measure(
        self, pictures: np.ndarray, landmarks: np.ndarray, sound: np.ndarray, fps: float, sample_rate: int
    ) -> SyncMeasure | None:
        """Judge a clip; None = it is too short to say anything.

        Args:
            pictures: uint8 (T, S, S, 3) RGB, as stored.
            landmarks: (T, 68, 2) float32, pixels of them.
            sound: (n,) float32 in [-1, 1], as long as the pictures.
        """
        ...


def in_step(
    film: TimedFilm,
    first: int,
    last: int,
    pictures: np.ndarray,
    landmarks: np.ndarray,
    expert: SyncExpert,
    recipe: FilmRecipe,
) -> tuple[np.ndarray, dict[str, float]]:
    """The sound of frames [first, last) shifted into step, and {offset, confidence, residual}; {} = not judged.

    Raises:
        Rejected: the expert is not sure enough, the offset is too large, or the shifted clip is not in step.
    """
    fps = float(film.fps)
    sound = film.cut_sound(first, last)
    assert film.sound is not None and sound is not None  # the caller asks for clips with sound only
    found = expert.measure(pictures, landmarks, sound, fps, film.sound.sample_rate)
    if found is None:
        return sound, {}
    if found.confidence < recipe.least_confidence:
        reason = f"lips and sound do not fit: confidence {found.confidence:.2f}, {recipe.least_confidence:g} is needed"
        raise Rejected("sync", reason, found.confidence)
    if abs(found.offset) > recipe.most_offset:
        reason = f"the sound is {found.offset:+.1f} frames late; {recipe.most_offset:g} are allowed"
        raise Rejected("sync", reason, found.offset)
    residual = 0.0
    if abs(found.offset) > expert.error:
        moved = film.cut_sound(first, last, late=found.offset)
        assert moved is not None
        sound = moved
        again = expert.measure(pictures, landmarks, sound, fps, film.sound.sample_rate)
        residual = 0.0 if again is None else again.offset
        if abs(residual) > max(RESIDUAL, expert.error):
            reason = f"shifted by {-found.offset:+.1f} frames the sound is still {residual:+.1f} late"
            raise Rejected("sync", reason, residual)
    measured = {"offset": found.offset, "confidence": found.confidence, "residual": residual}
    return sound, {name: round(float(value), 4) for name, value in measured.items()}
