"""Whose face is it? dlib's face recogniser, for evaluation only.

A ResNet of 29 layers that takes an aligned face of 150 pixels to 128 numbers (King, "Dlib-ml: A Machine
Learning Toolkit", JMLR 2009; dlib 19.3). Its weights are CC0 and come with the package
`face-recognition-models`; the landmark predictors of that package are not used, our own landmarks align the
face. Not a loss: it is not differentiable here.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from talkface.errors import TalkfaceError, require

WEIGHTS = "models/dlib_face_recognition_resnet_model_v1.dat"


class DlibRecogniser:
    """Descriptors of faces; two of one person are nearer than about 0.6.

    Raises:
        TalkfaceError: `dlib` cannot be imported, or the package with the weights is absent.
    """

    def __init__(self) -> None:
        self._dlib = require("dlib", extra="identity")
        # importing the package of the weights would need `pkg_resources`, which newer setuptools lack
        package = importlib.util.find_spec("face_recognition_models")
        folders = [] if package is None else list(package.submodule_search_locations or [])
        weights = next(
            (Path(folder) / WEIGHTS for folder in folders if (Path(folder) / WEIGHTS).is_file()), None
        )
        if weights is None:
            raise TalkfaceError(
                f"face recogniser: {WEIGHTS} of the package 'face-recognition-models' is absent; "
                "install it with: pip install 'talkface[identity]'"
            )
        self._network = self._dlib.face_recognition_model_v1(str(weights))

    def describe(self, picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) RGB and its landmarks (68, 2) in pixels -> descriptor (128,), length about 1.

        dlib aligns by whole pixels and by points of the upper lip too: to compare pictures of a head that
        does not move, give the same landmarks for all of them.
        """
        whole = [self._dlib.point(int(x), int(y)) for x, y in np.rint(np.asarray(points) - 0.5)]
        low, high = np.min(points, axis=0), np.max(points, axis=0)
        box = self._dlib.rectangle(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        face = self._dlib.full_object_detection(box, whole)
        return np.array(self._network.compute_face_descriptor(np.ascontiguousarray(picture), face))

    @staticmethod
    def distance(one: np.ndarray, other: np.ndarray) -> float:
        """Euclidean distance of two descriptors: 0 for the same picture, above about 0.6 for two people."""
        return float(np.linalg.norm(one - other))
