"""How far two pictures of a face are apart, by the judges that are installed: a recogniser, LPIPS."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from talkface.errors import TalkfaceError
from talkface.experts.faces import FaceFinder
from talkface.experts.identity import DlibRecogniser
from talkface.experts.vision import LPIPS
from talkface.media import to_tensor
from talkface.portrait.crop import AlignedCrop

CROP = 128
Array = np.ndarray


@dataclass
class Likeness:
    """describe: uint8 (H, W, 3) and landmarks (68, 2) -> anything; distance: two of these -> a number."""

    describe: Callable[[Array, Array], Any]
    distance: Callable[[Any, Any], float]


def likenesses(backbone: Path | None) -> dict[str, Likeness]:
    """The judges that are installed; a line on stderr for each that is not.

    Args:
        backbone: AlexNet weights for LPIPS on the aligned square face; None = torchvision's cache.

    Raises:
        TalkfaceError: `backbone` cannot be used.
    """
    found = {}
    try:
        recogniser = DlibRecogniser()
        found["recogniser"] = Likeness(recogniser.describe, recogniser.distance)
    except TalkfaceError as error:
        print(f"identity is measured without a face recogniser: {error}", file=sys.stderr)
    try:
        perceptual = LPIPS("alex", backbone)
    except TalkfaceError as error:
        if backbone is not None:
            raise
        print(f"identity is measured without LPIPS: {error}", file=sys.stderr)
        return found

    def square(picture: Array, points: Array) -> torch.Tensor:
        return to_tensor(AlignedCrop.from_landmarks(picture, points, CROP).image[None])

    def distance(one: torch.Tensor, other: torch.Tensor) -> float:
        with torch.inference_mode():
            return float(perceptual(one, other))

    return found | {"LPIPS": Likeness(square, distance)}


def mean_distances(
    picture: Array,
    points: Array,
    others: Iterable[tuple[str, Array]],
    finder: FaceFinder,
    ways: dict[str, Likeness],
) -> dict[str, dict[str, float]]:
    """By judge and kind: the mean distance of the largest faces of `others` (kind, picture) from a face.

    Pictures in which no face is found are left out.
    """
    faces = [(kind, frame, found[0].points) for kind, frame in others if (found := finder.find(frame))]
    result: dict[str, dict[str, float]] = {}
    for name, way in ways.items():
        start = way.describe(picture, points)
        values: dict[str, list[float]] = {}
        for kind, frame, where in faces:
            values.setdefault(kind, []).append(way.distance(start, way.describe(frame, where)))
        result[name] = {kind: float(np.mean(listed)) for kind, listed in values.items()}
    return result
