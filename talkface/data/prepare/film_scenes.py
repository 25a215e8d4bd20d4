"""Where a film is cut, and the pieces it gives.

Cuts are found by PySceneDetect's adaptive detector (extra `films`), which sees the difference of neighbouring frames
against those around them; it is imported when cuts are asked for. Frames of the film are counted, not those of the
corpus, so that a change of rate cannot move a cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import cv2
import numpy as np

from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.errors import require

WIDTH = 256
"""Pixels that the detector looks at."""
SHORTEST_SCENE = 5  # frames: a photographer's flash is not a scene


def find_cuts(pictures: Iterable[np.ndarray], fps: float, threshold: float) -> list[int]:
    """Numbers of the frames that begin a new scene, ascending, without 0.

    Args:
        pictures: uint8 (H, W, 3) RGB, all frames of the film.
        fps: their rate; only names times, the cuts are numbers of frames.
        threshold: how many times a difference must exceed those around it.

    Raises:
        TalkfaceError: PySceneDetect is not installed.
    """
    detectors = require("scenedetect.detectors", extra="films")
    timecode = require("scenedetect", extra="films").FrameTimecode
    detector = detectors.AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=SHORTEST_SCENE)
    cuts: list[int] = []
    for number, picture in enumerate(pictures):
        shrink = WIDTH / max(picture.shape[1], WIDTH)
        small = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        found = detector.process_frame(timecode(number, float(fps)), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        cuts += [int(time.frame_num) for time in found]
    return cuts


def scenes_of(shown: np.ndarray, cuts: Iterable[int]) -> list[tuple[int, int]]:
    """[first, last) of every scene in frames of the corpus.

    Args:
        shown: (N,) frame of the film for each frame of the corpus.
        cuts: frames of the film that begin a scene.
    """
    starts = sorted({0, *(int(place) for place in np.searchsorted(shown, list(cuts), side="left"))})
    starts = [start for start in starts if start < len(shown)]
    return list(pairwise([*starts, len(shown)]))


def pieces_of(first: int, last: int, fps: float, recipe: FilmRecipe) -> list[tuple[int, int]]:
    """A run of frames in even pieces that are no longer than a clip may be; none when it is too short."""
    count = last - first
    if count < max(2, round(recipe.least_seconds * fps)):
        return []
    longest = count if recipe.most_seconds is None else max(2, int(recipe.most_seconds * fps + 1e-6))
    parts = -(-count // longest)
    borders = [first + round(part * count / parts) for part in range(parts + 1)]
    return list(pairwise(borders))
