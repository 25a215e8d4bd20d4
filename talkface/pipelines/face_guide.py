"""The guide of a talking film: the reference photograph, animated by its fitted head to what the sound says.

Sound features -> facial actions (the speech encoder's own), laid over the expression in which the photograph rests;
pose -> that of each frame; both -> `talkface.head.guide`. Knows nothing of networks that paint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from talkface.conditioning.audio import Features, interpolate_features
from talkface.errors import TalkfaceError
from talkface.head.expression import calmed, lips_together, resting_actions, speak_over
from talkface.head.fit import STEADY, HeadFitter
from talkface.head.guide import Guide
from talkface.head.model import ACTIONS, HeadModel
from talkface.head.windows import window_max, window_mean
from talkface.media import to_tensor
from talkface.pipelines.sources import Shot
from talkface.portrait.blend import generation_mask
from talkface.portrait.crop import AlignedCrop

if TYPE_CHECKING:
    from talkface.pipelines.liveliness import Liveliness

LEVELS = ("none", "warp", "refined")
LARGEST_FACTOR = 3
CALMED = 0.8  # of the photograph's expression that a full emotion takes back: the rest is the person
_DETAILED = (
    1.15  # pixels of the photograph per pixel of the crop from which on its finer detail is carried along
)
_TREMBLE = 0.004  # of the crop's side: landmarks that moved by less are mostly noise of the finder


def crop_factor(scale: float) -> int:
    """How many times the network's size a crop is cut, so that the photograph's own detail is kept.

    Args:
        scale: pixels of the source per pixel of a crop of the network's size (`AlignedCrop.scale`).
    """
    return int(np.clip(round(scale + 0.2), 2, LARGEST_FACTOR))


@dataclass(frozen=True)
class Guides:
    """What is drawn for N frames; pictures (N, 3, S, S) in [-1, 1].

    Attributes:
        told: for the network: behind the head the reference, as in its training.
        shown: what the result is laid over: behind the head each frame's own picture.
        share: (N, 1, S, S) in [0, 1], how much of the network's changes is taken: what the mesh covers; of a still
            picture only what moved, since elsewhere there is nothing to mend.
        mouth: (N, 1, S, S) in [0, 1]: around the inside of the mouth, where the network may change the hue of what is
            dark.
        flow: (N, S, S, 3) float32 on the CPU, of a still picture that has more detail than its crop: where that
            detail goes, see `portrait.blend.paste`; None otherwise.
    """

    told: Tensor
    shown: Tensor
    share: Tensor
    mouth: Tensor
    flow: np.ndarray | None = None


class FaceGuide:
    """Animates one person.

    Args:
        crop, points: the reference photograph and its landmarks (68, 2) in pixels of the source.
        speech: an encoder that can tell facial actions from its features (`to_actions`), and perhaps those of a face
            with the emotion of `life` (`expressive`).
        features, feature_rate: the sound, see `face_painter.Sound`.
        still: every frame shows the reference in its own pose.
        life: its emotion takes the place of the mouth's expression in the photograph.
        device: where to draw.

    Raises:
        TalkfaceError: the encoder cannot tell actions.
    """

    def __init__(
        self,
        crop: AlignedCrop,
        points: np.ndarray,
        speech: Any,
        features: Features,
        feature_rate: float,
        *,
        still: bool,
        life: Liveliness | None = None,
        device: torch.device,
    ) -> None:
        if not hasattr(speech, "to_actions"):
            raise TalkfaceError(
                f"guide: the sound encoder of this bundle ({type(speech).__name__}) does not tell facial actions; "
                "use --guide none, or a bundle with an ArticulationEncoder"
            )
        self._speech, self._features, self._rate = speech, features, feature_rate
        self._still, self._life = still, life
        self.size = crop.size
        head = HeadModel.load()
        self._fitter = HeadFitter(head)
        places = torch.from_numpy(crop.to_crop(points))[None]
        fitted = lips_together(self._fitter, self._fitter(places), places)
        # its pose is judged as those of the frames will be, so that what this judgement gets wrong cancels
        self.person = fitted.with_pose(self._fitter.pose(places, fitted))
        self.rest = resting_actions(self._fitter, self.person, places).numpy()
        if life is not None:
            self.rest = calmed(self.rest, CALMED * life.strength)
        self._drawer = Guide(head.to(device), supersample=2 if crop.size < 256 else 1)
        self._reference = to_tensor(crop.image[None]).to(device)
        self._source = self._drawer.source(self._reference, self.person.to(device), places.to(device))
        self._mask = torch.from_numpy(generation_mask(crop.size)).to(device) > 0.5
        self._has_detail = crop.scale > _DETAILED
        self._steady: np.ndarray | None = None
        self._device = device

    def actions(self, times: Sequence[float]) -> Tensor:
        """Facial actions (N, 52) at times in seconds."""
        wanted = interpolate_features(self._features, self._rate, torch.tensor(times, dtype=torch.float64))
        wanted = wanted.to(self._speech.mean.device)
        if self._life is not None and hasattr(self._speech, "expressive"):
            intensity = torch.from_numpy(self._life.intensity(times)).to(wanted)
            told = self._speech.expressive(wanted, intensity, ACTIONS)
            return torch.from_numpy(speak_over(told.cpu().numpy(), self.rest))
        speech = self._speech.to_actions(wanted, ACTIONS).cpu().numpy()
        emotion = None if self._life is None else self._life.mouth(times)
        return torch.from_numpy(speak_over(speech, self.rest, emotion))

    def draw(self, shots: Sequence[Shot]) -> Guides:
        """Guides of shots that follow each other; their faces are cut at `size`."""
        actions = self.actions([shot.time for shot in shots]).to(self._device)
        if self._still:
            pictures = self._reference.expand(len(shots), -1, -1, -1)
            drawn = self._drawer(self._source, actions, self.person.to(self._device), pictures)
            shown = torch.where(self._mask, drawn.pictures, pictures)
            flow = None
            if self._has_detail:
                skin = drawn.covered * (1.0 - around(drawn.inside))
                flow = torch.cat([drawn.flow, skin], dim=1).permute(0, 2, 3, 1).float().cpu().numpy()
            return Guides(shown, shown, moved(shown, self._reference), around(drawn.inside), flow)
        pictures = to_tensor(np.stack([_crop(shot).image for shot in shots])).to(self._device)
        pose = self._fitter.pose(torch.from_numpy(self._steadied(shots)), self.person)
        drawn = self._drawer(self._source, actions, pose.to(self._device), self._reference)
        own = drawn.pictures + (pictures - self._reference) * (1.0 - drawn.covered)
        told, shown = (torch.where(self._mask, picture, pictures) for picture in (drawn.pictures, own))
        return Guides(told, shown, drawn.covered * self._mask, around(drawn.inside))

    def _steadied(self, shots: Sequence[Shot]) -> np.ndarray:
        """Landmarks (N, 68, 2) in pixels of the crops: small steps are damped, large ones followed at once."""
        result = []
        for shot in shots:
            assert shot.points is not None
            points = _crop(shot).to_crop(shot.points)
            if self._steady is not None:
                step = np.linalg.norm((points - self._steady)[list(STEADY)], axis=1).mean()
                points = self._steady + step / (step + _TREMBLE * self.size) * (points - self._steady)
            self._steady = points
            result.append(points)
        return np.stack(result)


def moved(guides: Tensor, photograph: Tensor) -> Tensor:
    """(N, 1, S, S) in [0, 1]: where guides (N, 3, S, S) differ from the photograph (1, 3, S, S), and around it.

    Differences of a few levels are resampling; what is reached is wider than the difference by 4 % of the side.
    """
    reach = max(1, round(0.02 * guides.shape[-1]))
    difference = (guides - photograph).abs().amax(1, keepdim=True)
    wide = window_mean(window_max(difference, reach), reach)
    return ((wide - 0.04) / 0.12).clamp(0.0, 1.0)


def around(inside: Tensor) -> Tensor:
    """(N, 1, S, S) in [0, 1]: masks (N, 1, S, S) grown by 2 % of the side, with a soft edge as wide."""
    reach = max(1, round(0.02 * inside.shape[-1]))
    return window_mean(window_max(inside, reach), reach)


def _crop(shot: Shot) -> AlignedCrop:
    assert shot.crop is not None  # only shots with a face are guided
    return shot.crop
