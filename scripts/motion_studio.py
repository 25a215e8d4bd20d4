"""A talking picture under command, for `evaluate_motion.py`: wanted speech, emotion, pose in, frames out; no sound.

The frames are those of `--guide warp`: the parts that the product uses, put together as the product does, but for the
network, which knows nothing of motion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from talkface.errors import require
from talkface.head.emotions import emotion_actions
from talkface.head.expressing import UPPER
from talkface.head.expression import calmed
from talkface.head.model import ACTIONS
from talkface.head.motion import Moments
from talkface.media import Audio
from talkface.pipelines.face_guide import CALMED, FaceGuide, crop_factor
from talkface.pipelines.face_painter import NO_EMOTION
from talkface.pipelines.liveliness import Feeling, Liveliness, LivePicture
from talkface.pipelines.sources import Shot, find_in_picture
from talkface.portrait.blend import blend_mask, match_colour, paste
from talkface.portrait.crop import alignment_matrix

INDEX = {name: number for number, name in enumerate(ACTIONS)}
STILL = np.zeros(len(ACTIONS), dtype=np.float32)
_MUTE = Audio(np.zeros(16000, dtype=np.float32), 16000)


class _Speaker:
    """Stands where the speech encoder stands, and tells what it is told."""

    mean = torch.zeros(1)
    said = STILL

    def to_actions(self, features: torch.Tensor, names: tuple[str, ...]) -> torch.Tensor:
        return torch.from_numpy(np.repeat(self.said[None], len(features), axis=0))


class _Life(Liveliness):
    """A life of one moment."""

    def __init__(self) -> None:
        super().__init__("none", Feeling(NO_EMOTION, STILL), _MUTE, 0)
        self.actions, self.rotation = STILL, np.zeros(3)

    def at(self, time: float) -> Moments:
        return Moments(self.actions[None], self.rotation[None], np.zeros((1, 2)), np.ones(1))


class Studio:
    """One picture uint8 (H, W, 3); `finder` as in the pipeline, `image_size` of the bundle."""

    def __init__(self, name: str, picture: np.ndarray, finder: Any, image_size: int) -> None:
        def size(points: np.ndarray) -> int:
            matrix = alignment_matrix(points, image_size)
            return image_size * crop_factor(float(1 / np.sqrt(np.linalg.det(matrix[:, :2]))))

        self.found = find_in_picture(name, picture, finder, 0, size)
        self.speaker, self.life = _Speaker(), _Life()
        self.guide = FaceGuide(
            self.found.crop,
            self.found.points,
            self.speaker,
            torch.zeros(2, 1),
            1.0,
            still=True,
            life=self.life,
            device=torch.device("cpu"),
        )
        self.rest = self.guide.rest
        self.alive = LivePicture(self.found, self.life)
        self.mask = blend_mask(self.found.crop.size)

    @torch.inference_mode()
    def __call__(
        self,
        speech: np.ndarray = STILL,
        emotion: str | None = None,
        intensity: float = 1.0,
        actions: np.ndarray = STILL,
        rotation: tuple[float, float, float] = (0.0, 0.0, 0.0),
        felt: bool = False,
    ) -> np.ndarray:
        """The picture with speech (52,), an emotion, further actions (52,) and the head turned (degrees).

        Args:
            felt: the speech has the emotion's mouth already, as an encoder's emotion branch tells it.
        """
        found = self.found
        self.guide.rest = calmed(self.rest, CALMED * intensity if emotion else 0.0)
        self.speaker.said = speech.astype(np.float32)
        shown = STILL if emotion is None else emotion_actions(emotion, intensity)
        self.life.actions = (np.where(UPPER, shown, 0.0) if felt else shown) + actions
        self.life.rotation = np.array(rotation, dtype=np.float64)
        guides = self.guide.draw([Shot(0, 0.0, found.picture, found.crop, found.points)])
        drawn, flow = guides.shown, None if guides.flow is None else guides.flow[0]
        painted = ((drawn[0].permute(1, 2, 0).numpy() + 1.0) * 127.5).clip(0, 255).round().astype(np.uint8)
        matched = match_colour(painted, found.crop.image)
        return self.alive(paste(found.picture, matched, found.crop, self.mask, flow=flow), 0.0)

    def portrait(self, frame: np.ndarray, side: int) -> np.ndarray:
        """The head out of a frame, (side, side, 3)."""
        points = self.found.points
        reach = 1.25 * float(np.linalg.norm(points[36] - points[45]))
        middle = points.mean(0) - (0.0, 0.15 * reach)
        zoom = side / (2 * reach)
        matrix = np.array([[zoom, 0, side / 2 - zoom * middle[0]], [0, zoom, side / 2 - zoom * middle[1]]])
        method = cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA
        return cv2.warpAffine(frame, matrix, (side, side), flags=method, borderMode=cv2.BORDER_REFLECT)


def actions(**values: float) -> np.ndarray:
    """(52,) from names; a name without a side moves both."""
    out = STILL.copy()
    for name, value in values.items():
        for side in (name, f"{name}Left", f"{name}Right"):
            if side in INDEX:
                out[INDEX[side]] = value
    return out


class ExpressionJudge:
    """MediaPipe's own reading of a face: 52 scores in [0, 1] by name, head angles in degrees, lip gap.

    Args:
        task: path of `face_landmarker.task`.
    """

    def __init__(self, task: Path, min_side: int = 400) -> None:
        self._mediapipe = require("mediapipe", extra="faces")
        vision = require("mediapipe.tasks.python.vision", extra="faces")
        base = require("mediapipe.tasks.python", extra="faces").BaseOptions(model_asset_path=str(task))
        self._landmarker = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=base,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
            )
        )
        self.min_side = min_side

    def __call__(self, frame: np.ndarray) -> tuple[dict[str, float], np.ndarray, float] | None:
        """Scores, angles (3,) about x, y, z, relative lip gap; None: no face."""
        zoom = self.min_side / min(frame.shape[:2])
        if zoom > 1:
            frame = cv2.resize(frame, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
        data = np.ascontiguousarray(frame)
        seen = self._landmarker.detect(
            self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=data)
        )
        if not seen.face_landmarks:
            return None
        scores = {item.category_name: float(item.score) for item in seen.face_blendshapes[0]}
        turn = seen.facial_transformation_matrixes[0][:3, :3]
        turn = turn / np.linalg.norm(turn, axis=0)
        angles = np.degrees(
            [
                np.arctan2(-turn[1, 2], turn[2, 2]),
                np.arcsin(np.clip(turn[0, 2], -1, 1)),
                np.arctan2(turn[1, 0], turn[0, 0]),
            ]
        )
        points = np.array(
            [(point.x * data.shape[1], point.y * data.shape[0]) for point in seen.face_landmarks[0]]
        )
        gap = np.linalg.norm(points[13] - points[14]) / np.linalg.norm(points[10] - points[152])
        return scores, angles, float(gap)
