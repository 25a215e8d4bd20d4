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
import torch

from talkface.data.prepare.film_sync import SyncExpert, SyncMeasure
from talkface.errors import TalkfaceError

NONE, SHAPE = "none", "shape"
ERROR = 1.0
"""Frames (25 a second) by which offsets of short clips err; see docs/results/experts.md."""


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
    ) -> SyncMeasure:
        found = _shape(self.bundle).read(
            torch.from_numpy(np.ascontiguousarray(landmarks)), torch.from_numpy(sound), sample_rate, fps
        )
        return SyncMeasure(found.offset, found.confidence)


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
    ) -> SyncMeasure:
        from talkface.experts.sync_offset import distances, read_offset

        expert = _network(self.path)
        times = (np.arange(max(1, round(len(pictures) / fps * expert.fps))) + 0.5) / expert.fps
        places = np.minimum((times * fps).astype(int), len(pictures) - 1)
        if len(places) < expert.num_frames:
            return SyncMeasure(0.0, 0.0)  # too short to say anything
        frames = torch.from_numpy(pictures[places]).permute(0, 3, 1, 2).float() / 127.5 - 1
        points = torch.from_numpy(landmarks[places]).float()
        found = read_offset(distances(expert, frames, points, torch.from_numpy(sound), sample_rate))
        return SyncMeasure(found.offset * fps / expert.fps, found.confidence)


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

    return ShapeSync(load_bundle(bundle, parts=["speech"]).part("speech"))  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _network(path: str) -> Any:
    from talkface.experts.sync_reference import load_sync

    return load_sync(path)
