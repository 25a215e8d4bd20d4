"""Which face finder prepares a corpus, by name.

The finders live in `talkface.experts`, the bundle's weights behind `talkface.checkpoint`; both are imported when
one is made, so that reading a prepared corpus needs neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import nn

from talkface.data.features import encoder_key
from talkface.errors import TalkfaceError

FINDERS = ("bundled", "face-alignment", "mediapipe")


class Finder(Protocol):
    """What a preparation asks of a finder; see `talkface.experts.face_landmarks.FaceFinder`."""

    def find(self, image: np.ndarray) -> Sequence[Any]:
        """Faces of a uint8 (H, W, 3) picture, each with `points` (68, 2), `box` (4,) and `score`."""
        ...


def make_finder(name: str = "bundled", weights: str | None = None, device: str = "cpu") -> Finder:
    """A face finder.

    Args:
        name: "bundled" (the landmark network of a bundle), "face-alignment" (FAN, the reference) or "mediapipe".
        weights: bundle name or folder (bundled; None = default), folder of FAN's files (None = torch.hub's
            cache), or MediaPipe's `face_landmarker.task`.
        device: where it runs.

    Raises:
        TalkfaceError: unknown name, missing package or weights.
    """
    from talkface.experts import faces

    if name == "bundled":
        from talkface.checkpoint import bundle_folder, load_bundle, read_description

        source = weights or "default"
        known = read_description(bundle_folder(source))["parts"]
        parts = load_bundle(source, device, parts=[p for p in ("landmarks", "mouth") if p in known])
        # to mypy a part is a Module; the bundle's `landmarks` and `mouth` are these networks
        return faces.NetworkFaceFinder(parts.part("landmarks"), mouth=parts.parts.get("mouth"))  # type: ignore[arg-type]
    if name == "face-alignment":
        return faces.FaceAlignmentFinder(device, weights)
    if name == "mediapipe":
        return faces.MediaPipeFaceFinder(weights or "face_landmarker.task")
    raise TalkfaceError(f"finder: {name!r}; allowed {', '.join(FINDERS)}")


def finder_key(finder: Finder) -> str:
    """What identifies a finder in the settings of a corpus: its class and a hash of its networks."""
    networks = [
        encoder_key(value) for _, value in sorted(vars(finder).items()) if isinstance(value, nn.Module)
    ]
    return " ".join([type(finder).__name__, *networks])
