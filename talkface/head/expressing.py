"""A photograph told facial actions: its head is fitted and drawn in its own pose, before its own background.

The guide of expression editing. The mouth is drawn by `guide`, brows, nose and cheeks move as in `living`, lids as in
`eyelids`. Commands take the place of the expression that the photograph shows (see `expression.commanded`); what they
mean for its wrinkles and shadows is beyond a mesh, and left to a network.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from talkface.head.expression import commanded, resting_actions
from talkface.head.eyelids import Eyelids
from talkface.head.fit import FittedHead, HeadFitter
from talkface.head.guide import Guide
from talkface.head.living import LivingPhotograph
from talkface.head.model import ACTIONS, HeadModel

UPPER = np.array([name.startswith(("brow", "eye", "cheekSquint", "noseSneer")) for name in ACTIONS])
"""(52,) which actions are not of the mouth: lids, brows, cheeks, nose."""

# A fit of landmarks finds half of what brows and lips do, and some of what it finds is how a face is built. Chosen on
# the validation people of the synthetic faces, by how often a drawn face is judged to show what it was told.
_BUILD, _FOUND = 0.15, 2.0  # above the nose: actions beyond the build are this many times as large
_MOUTH_BUILD, _MISSED = 0.2, 0.5  # of the mouth: this share more is taken back
_STILL = np.zeros(3), np.zeros(2)
_WIDE, _BLINK, _SQUINT = (
    [n for n, name in enumerate(ACTIONS) if name.startswith(part)]
    for part in ("eyeWide", "eyeBlink", "eyeSquint")
)
_BACK = 0.4  # of widened eyes is a blink that brings them back to rest; squints the other way


class Expresser:
    """Draws faces with other expressions.

    Args:
        device: where the mouth is drawn.
        supersample: see `Guide`.
    """

    def __init__(self, device: torch.device | str = "cpu", supersample: int = 2) -> None:
        self._head, self._device = HeadModel.load(), torch.device(device)
        self._fitter = HeadFitter(self._head)
        self._guide = Guide(HeadModel.load().to(device), supersample=supersample)

    def __call__(self, image: Tensor, points: np.ndarray, actions: np.ndarray) -> Tensor:
        """One face with T expressions.

        Args:
            image: (3, S, S) in [-1, 1]; points: its landmarks (68, 2), pixels.
            actions: (T, 52), 0 to 1 as ARKit means them (`talkface.head.ACTIONS`).

        Returns:
            (T, 3, S, S) in [-1, 1], on the CPU.
        """
        places = torch.from_numpy(np.asarray(points, np.float64))[None]
        fitted = self._fitter(places)
        person = fitted.with_pose(self._fitter.pose(places, fitted))
        rest = resting_actions(self._fitter, person, places).numpy()
        told = np.asarray(actions, np.float32)
        hidden = _MISSED * np.clip(rest - _MOUTH_BUILD, 0.0, None)
        mouth = np.where(UPPER, rest, commanded(told, rest) - hidden).astype(np.float32)
        seen = person.to(self._device)
        source = self._guide.source(image[None].to(self._device), seen, places.to(self._device))
        canvas = image[None].to(self._device).expand(len(told), -1, -1, -1)
        drawn = self._guide(source, torch.from_numpy(mouth).to(self._device), seen, canvas).pictures
        change = told - np.clip(_FOUND * (rest - _BUILD), 0.0, 1.0)
        return self._above(image, fitted, np.asarray(points), drawn.cpu(), change)

    def _above(
        self, image: Tensor, fitted: FittedHead, points: np.ndarray, drawn: Tensor, change: np.ndarray
    ) -> Tensor:
        """Pictures (T, 3, S, S) with the upper face moved by `change` (T, 52)."""
        size = image.shape[-1]
        living = LivingPhotograph(self._head, fitted, size, size, border=0.0)
        lids = Eyelids(_bytes(image), points)
        result = []
        for picture, moved in zip(drawn, np.where(UPPER, change, 0.0), strict=True):
            eyes = moved.copy()
            eyes[_BLINK] += _BACK * np.clip(-moved[_WIDE], 0.0, None)
            eyes[_WIDE] += _BACK * np.clip(-moved[_SQUINT], 0.0, None)
            one = living(lids(_bytes(picture), eyes), *_STILL, moved.astype(np.float32))
            result.append(torch.from_numpy(one).permute(2, 0, 1).float() / 127.5 - 1.0)
        return torch.stack(result)


def _bytes(image: Tensor) -> np.ndarray:
    """(3, S, S) in [-1, 1] -> uint8 (S, S, 3)."""
    scaled = ((image.clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(1, 2, 0).cpu().numpy())
