"""A photograph told facial actions: its head is fitted and drawn in its own pose, before its own background.

The guide of expression editing. Commands take the place of the expression that the photograph shows (see
`expression.commanded`); what they mean for its skin, wrinkles and shadows is beyond a mesh, and left to a network.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from talkface.head.expression import commanded, resting_actions
from talkface.head.fit import HeadFitter
from talkface.head.guide import Guide
from talkface.head.model import HeadModel


class Expresser:
    """Draws faces with other expressions.

    Args:
        device: where to draw.
        supersample: see `Guide`.
    """

    def __init__(self, device: torch.device | str = "cpu", supersample: int = 2) -> None:
        head = HeadModel.load()
        self._fitter = HeadFitter(head)
        self._guide = Guide(head.to(device), supersample=supersample)
        self._device = torch.device(device)

    def __call__(self, image: Tensor, points: np.ndarray, actions: np.ndarray) -> Tensor:
        """One face with T expressions.

        Args:
            image: (3, S, S) in [-1, 1]; points: its landmarks (68, 2), pixels.
            actions: (T, 52), 0 to 1 as ARKit means them (`talkface.head.ACTIONS`).

        Returns:
            (T, 3, S, S) in [-1, 1].
        """
        places = torch.from_numpy(np.asarray(points, np.float64))[None]
        fitted = self._fitter(places)
        person = fitted.with_pose(self._fitter.pose(places, fitted))
        wanted = commanded(
            np.asarray(actions, np.float32), resting_actions(self._fitter, person, places).numpy()
        )
        picture, person = image[None].to(self._device), person.to(self._device)
        source = self._guide.source(picture, person, places.to(self._device))
        canvas = picture.expand(len(wanted), -1, -1, -1)
        return self._guide(source, torch.from_numpy(wanted).to(self._device), person, canvas).pictures
