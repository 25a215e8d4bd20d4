"""The face in every frame of a film, and the squares that are cut out around it.

Landmarks are kept in square pixels (columns times the pixel aspect), so that a face is as wide as it was before the
camera. Tracking starts anew at every cut; smoothing belongs to one clip and knows nothing of the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from talkface.data.finding import Finder
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.source import Rejected
from talkface.errors import TalkfaceError
from talkface.portrait.crop import transform
from talkface.portrait.smoothing import AlignmentSmoother
from talkface.portrait.tracking import FaceTracker, face_defect, face_size

SECOND_FACE = 0.5
"""Size of another face, in sizes of the first, from which a film shows two people."""
LOOK_AROUND = 5.0
"""Seconds between two looks for further faces."""
THESIS_MARGIN = 10 / 216
"""Of the height of the picture: 10 pixels of one that was scaled to 384 x 216."""
INNER = slice(17, 68)
MOST_OUTSIDE = 0.1
"""Share of a face's inner landmarks that may leave the fixed square, in any frame."""


@dataclass
class FacePath:
    """One face through a scene.

    Attributes:
        points: (T, 68, 2) float64 square pixels, NaN where there is no face.
        defects: why, for each frame; None where there is one.
        crowd: frame -> how many faces at least half as large as the largest were seen there, where it is more than one.
    """

    points: np.ndarray
    defects: list[str | None]
    crowd: dict[int, int] = field(default_factory=dict)

    def runs(self, most_missing: int) -> list[tuple[int, int]]:
        """[first, last) of every stretch in which no more than `most_missing` frames in a row lack the face."""
        seen = np.flatnonzero([defect is None for defect in self.defects])
        if len(seen) == 0:
            return []
        breaks = np.flatnonzero(np.diff(seen) > most_missing + 1)
        firsts = [int(seen[0]), *(int(seen[place + 1]) for place in breaks)]
        lasts = [*(int(seen[place]) + 1 for place in breaks), int(seen[-1]) + 1]
        # a face that comes or goes at the end of a scene may be held as long as one that is lost on the way
        if firsts[0] <= most_missing:
            firsts[0] = 0
        if len(self.defects) - lasts[-1] <= most_missing:
            lasts[-1] = len(self.defects)
        return list(zip(firsts, lasts, strict=True))

    def filled(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks (n, 68, 2) of [first, last), straight through frames without a face, and (n,) bool: seen."""
        points = self.points[first:last].reshape(last - first, -1)
        seen = np.isfinite(points[:, 0])
        frames, known = np.arange(last - first), np.flatnonzero(seen)
        columns = [np.interp(frames, known, points[known, column]) for column in range(points.shape[1])]
        return np.stack(columns, axis=1).reshape(-1, 68, 2), seen

    def common_defect(self, first: int, last: int) -> str:
        """The most frequent reason of the frames without a face in [first, last)."""
        reasons = Counter(defect for defect in self.defects[first:last] if defect is not None)
        return reasons.most_common(1)[0][0] if reasons else "no face is found"


def follow(pictures: Iterable[np.ndarray], finder: Finder, aspect: float, fps: float) -> FacePath:
    """Find one face in every picture of a scene.

    Args:
        pictures: uint8 (H, W, 3); a picture that repeats the one before, as the same object, is not looked at again.
        aspect: width of a pixel over its height.
        fps: their rate; how often other faces are looked for.
    """
    tracker = FaceTracker(finder)
    wide = np.array([aspect, 1.0])
    path = FacePath(np.zeros((0, 68, 2)), [])
    rows: list[np.ndarray] = []
    before: np.ndarray | None = None
    next_look = 0.0
    for number, picture in enumerate(pictures):
        if picture is before:
            rows.append(rows[-1])
            path.defects.append(path.defects[-1])
            continue
        before = picture
        found = tracker(picture)
        defect = "no face is found" if found is None else face_defect(picture, found)
        if found is not None and number >= next_look:
            next_look = number + LOOK_AROUND * fps
            sizes = [face_size(np.asarray(face.points)) for face in finder.find(picture)]
            alike = sum(size >= SECOND_FACE * max(sizes) for size in sizes)
            if alike > 1:
                path.crowd[number] = alike
        missing = found is None or defect is not None
        rows.append(np.full((68, 2), np.nan) if missing else np.asarray(found, np.float64) * wide)
        path.defects.append(defect)
    path.points = np.stack(rows) if rows else path.points
    return path


def squares(points: np.ndarray, recipe: FilmRecipe, height: int) -> np.ndarray:
    """(T, 2, 3) float64: square pixels of the film -> pixels of the clip.

    Args:
        points: (T, 68, 2) landmarks in every frame of the clip.
        height: of the film's pictures.

    Raises:
        Rejected: the landmarks make no square, or the face leaves the fixed one.
    """
    if recipe.box == "fixed":
        matrix = fixed_square(points[0], recipe, height)
        inside = transform(matrix, points[:, INNER])
        outside = ((inside < 0) | (inside > recipe.size)).any(axis=2).mean(axis=1)
        if outside.max() > MOST_OUTSIDE:
            frame = int(np.argmax(outside > MOST_OUTSIDE))
            raise Rejected(
                "box", f"the face leaves the square of the first frame in frame {frame}", float(frame)
            )
        return np.repeat(matrix[None], len(points), axis=0)
    assert not isinstance(recipe.margin, str)  # the recipe allows a name with fixed boxes only
    try:
        found = list(AlignmentSmoother(recipe.size)(points))
    except TalkfaceError as error:
        raise Rejected("box", str(error)) from error
    scale = 1 / (1 + 2 * recipe.margin)
    middle = 0.5 * recipe.size * (1 - scale)
    wider = [
        np.column_stack([scale * matrix[:, :2], scale * matrix[:, 2] + middle])
        for matrix in found
        if matrix is not None
    ]
    return np.stack(wider)


def fixed_square(points: np.ndarray, recipe: FilmRecipe, height: int) -> np.ndarray:
    """(2, 3): the landmarks' box (68, 2), widened by the margin and squared about its middle, onto the clip."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = (
        THESIS_MARGIN * height
        if isinstance(recipe.margin, str)
        else recipe.margin * float((high - low).max())
    )
    side = float((high - low).max()) + 2 * margin
    scale = recipe.size / side
    corner = (low + high) / 2 - side / 2
    return np.column_stack([np.eye(2) * scale, -scale * corner])
