"""Which sync expert judges the clips of a preparation, by name.

    shape   the gap of the lips that landmarks show against the one that the default bundle's sound encoder tells;
            nothing to download
    FILE    a sync network: syncnet_v2.model, lipsync_expert.pth, or what scripts/train_expert.py sync wrote

The experts live in `talkface.experts`; they are imported when one is made, and again in every process that works.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from talkface.data.prepare.film_sync import SyncExpert, SyncMeasure
from talkface.errors import TalkfaceError

NONE, SHAPE = "none", "shape"
ERROR = 1.0
"""Frames (25 a second) by which offsets of clips of two seconds err; see docs/results/experts.md."""
LEAST_SECONDS = 2.0
"""Shorter clips are not judged: what fits at one place fits at another by chance."""
LEAST_GAIN = 0.05
"""An offset is believed where it raises the correlation by more than this over being in step. Of 38 renders of two
seconds and more none that was in step gained more than 0.03; moved by 3 to 5 frames, 95 of 100 gained 0.1 and more."""


@dataclass(frozen=True)
class ShapeJudge:
    """Landmarks against the sound encoder of a bundle, at the film's own rate.

    Attributes:
        bundle: name or folder.
    """

    bundle: str
    name: str
    error: float = ERROR

    def measure(
        self, pictures: np.ndarray, landmarks: np.ndarray, sound: np.ndarray, fps: float, sample_rate: int
    ) -> SyncMeasure | None:
        if len(landmarks) < LEAST_SECONDS * fps:
            return None
        from talkface.experts.sync_offset import read_film

        found = read_film(_shape(self.bundle), pictures, landmarks, sound, sample_rate, fps)
        return SyncMeasure(found.offset if found.gain > LEAST_GAIN else 0.0, found.confidence)


@dataclass(frozen=True)
class NetworkJudge:
    """A sync network, which wants 25 frames a second: of other rates the frame that is shown at that time is taken.

    Attributes:
        path: of its weights.
    """

    path: str
    name: str
    error: float = ERROR

    def measure(
        self, pictures: np.ndarray, landmarks: np.ndarray, sound: np.ndarray, fps: float, sample_rate: int
    ) -> SyncMeasure | None:
        if len(pictures) < LEAST_SECONDS * fps:
            return None
        from talkface.experts.sync_offset import read_film

        expert = _network(self.path)
        found = read_film(expert, pictures, landmarks, sound, sample_rate, fps)
        return SyncMeasure(found.offset * fps / expert.fps, found.confidence)


def load_reader(choice: str, bundle: str = "default") -> Any:
    """The expert itself, as `talkface.experts.sync_offset.read_film` takes it: "shape" or the path of a network."""
    return _shape(bundle) if choice == SHAPE else _network(choice)


def make_sync(choice: str = NONE, bundle: str = "default") -> SyncExpert | None:
    """The judge of that name, loaded once so that what is wrong with it is said before the work begins.

    Args:
        choice: "none", "shape", or the path of a sync network's weights.
        bundle: whose sound encoder "shape" uses.

    Raises:
        TalkfaceError: an unknown choice, or weights that cannot be read.
    """
    if choice == NONE:
        return None
    from talkface.experts.registry import fingerprint

    if choice == SHAPE:
        return ShapeJudge(bundle, f"shape {fingerprint(_shape(bundle).speech)}")
    if "." not in choice and "/" not in choice:
        raise TalkfaceError(f"--sync: {choice!r}; allowed: {NONE}, {SHAPE}, or the file of a sync network")
    network = _network(choice)
    return NetworkJudge(choice, f"{network.name} {fingerprint(network)}")


# kept by each process, so that the judges themselves are small and can be sent to another one
@lru_cache(maxsize=1)
def _shape(bundle: str) -> Any:
    from talkface.checkpoint import load_bundle
    from talkface.experts.sync_shape import ShapeSync

    return ShapeSync(load_bundle(bundle, parts=["speech"]).part("speech"))


@lru_cache(maxsize=1)
def _network(path: str) -> Any:
    from talkface.experts.sync_reference import load_sync

    return load_sync(path)
