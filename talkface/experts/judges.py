"""An independent judge of the mouth: MediaPipe's FaceLandmarker on every frame.

Neither trained on our renders nor used by the generator, so its lip gap compares a generated film with a
real one fairly. Each frame is judged alone (no smoothing over time, which would lend one film the continuity
that it lacks). It needs the `mediapipe` package and the task file (Apache-2.0), given by path. It says
nothing of identity, picture quality or words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from talkface.errors import TalkfaceError, require

INNER_UPPER_LIP, INNER_LOWER_LIP, FOREHEAD, CHIN = 13, 14, 10, 152


@dataclass(frozen=True)
class JudgedFace:
    """points: (478, 2) pixels; scores: how strong each facial action looks, 0 to 1, by MediaPipe's (ARKit's) name."""

    points: np.ndarray
    scores: dict[str, float]


@dataclass
class LipCurve:
    """gap: (T,) inner lip distance over face height, nan where no face was found; missing: those frames."""

    gap: np.ndarray
    missing: list[int]


class MediaPipeJudge:
    """Lip gap of the largest face by MediaPipe, frame by frame; about 17 ms a picture on one core.

    Args:
        task: path of `face_landmarker.task`.
        min_side: smaller frames are enlarged to this many pixels on the shorter side first, since the
            detector of the task misses faces in thumbnails.

    Raises:
        TalkfaceError: the package or the file is missing or cannot be loaded.
    """

    def __init__(self, task: str | Path, min_side: int = 256) -> None:
        if not Path(task).is_file():
            raise TalkfaceError(
                f"MediaPipe task file: {task} does not exist; give the path of face_landmarker.task "
                "(from Google's MediaPipe model page)"
            )
        self._mediapipe = require("mediapipe", extra="faces")
        vision = require("mediapipe.tasks.python.vision", extra="faces")
        base = require("mediapipe.tasks.python", extra="faces").BaseOptions(model_asset_path=str(task))
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(base_options=base, num_faces=4, output_face_blendshapes=True)
            )
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TalkfaceError(f"MediaPipe task file: {task} cannot be loaded ({reason})") from error
        self.min_side = min_side

    def landmarks(self, frame: np.ndarray) -> np.ndarray | None:
        """uint8 (H, W, 3) RGB -> (478, 2) pixels of the largest face, or None without a face."""
        face = self.face(frame)
        return None if face is None else face.points

    def face(self, frame: np.ndarray) -> JudgedFace | None:
        """uint8 (H, W, 3) RGB -> the largest face, or None without a face."""
        height, width = frame.shape[:2]
        scale = self.min_side / min(height, width)
        picture = frame
        if scale > 1:
            size = (round(width * scale), round(height * scale))
            picture = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
        picture = np.ascontiguousarray(picture)
        image = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=picture)
        found = self._landmarker.detect(image)
        faces = [
            JudgedFace(
                np.array([(point.x * width, point.y * height) for point in points]),
                {score.category_name: float(score.score) for score in scores},
            )
            for points, scores in zip(found.face_landmarks, found.face_blendshapes, strict=True)
        ]
        return max(faces, key=lambda face: float(np.prod(np.ptp(face.points, axis=0))), default=None)

    def curve(self, frames: Iterable[np.ndarray]) -> LipCurve:
        """Lip gap of a film: distance of points 13 and 14 over that of 10 (forehead) and 152 (chin)."""
        found = [self.landmarks(frame) for frame in frames]
        gaps = [float("nan") if points is None else relative_gap(points) for points in found]
        return LipCurve(np.array(gaps, dtype=np.float64), [k for k, p in enumerate(found) if p is None])

    def close(self) -> None:
        """Free the landmarker; later calls fail."""
        self._landmarker.close()

    def __enter__(self) -> MediaPipeJudge:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def relative_gap(points: np.ndarray) -> float:
    """Inner lip distance over face height of MediaPipe's (478, 2) points, without unit."""
    gap = np.linalg.norm(points[INNER_LOWER_LIP] - points[INNER_UPPER_LIP])
    return float(gap / np.linalg.norm(points[CHIN] - points[FOREHEAD]))
