"""Face finders that wrap other people's networks: MediaPipe and face-alignment.

`MediaPipeFaceFinder`: Google's FaceLandmarker (Kartynnik et al., "Real-time facial surface geometry from
monocular video on mobile GPUs", 2019; 478 points of a face mesh, of which 68 are taken).
`FaceAlignmentFinder`: the FAN of the reference paper (Bulat and Tzimiropoulos, "How far are we from solving
the 2D & 3D face alignment problem?", ICCV 2017). Both packages are optional (`pip install 'talkface[faces]'`)
and imported when a finder is made.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talkface.errors import TalkfaceError, require
from talkface.experts.face_landmarks import NUM_LANDMARKS, FaceFinder, FaceLandmarks, check_image
from talkface.experts.registry import find_weights

# Vertices of the MediaPipe face mesh nearest to the 68 iBUG points, chosen on the mesh's drawing.
MEDIAPIPE_TO_68: tuple[int, ...] = (
    127, 93, 132, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 361, 323, 356,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 98, 97, 2, 326, 327,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91,  # outer lips
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lips: 61, 63, 65, 67 stand under 50, 52 and over 56, 58
)  # fmt: skip


class MediaPipeFaceFinder(FaceFinder):
    """MediaPipe's FaceLandmarker.

    Args:
        task_path: the file `face_landmarker.task`, or its name in `registry.experts_folder()`.
        max_faces: most faces reported in one picture.

    MediaPipe gives no score per face: found faces have score 1 and scale 0.

    Raises:
        TalkfaceError: file or package is missing, or MediaPipe cannot start (on Debian and Ubuntu it needs
            the system library libportaudio2).
    """

    def __init__(self, task_path: str | Path, max_faces: int = 5) -> None:
        task_path = find_weights(task_path)
        if not task_path.is_file():
            raise TalkfaceError(
                f"MediaPipe model: {task_path} is not a file; allowed the path of face_landmarker.task; "
                "download it from MediaPipe's model page"
            )
        self._mediapipe = require("mediapipe", extra="faces")
        base = require("mediapipe.tasks.python", extra="faces")
        vision = require("mediapipe.tasks.python.vision", extra="faces")
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=base.BaseOptions(model_asset_path=str(task_path)), num_faces=max_faces
                )
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise TalkfaceError(
                f"MediaPipe cannot start with {task_path}: {error}; it needs an intact face_landmarker.task "
                "and, on Debian and Ubuntu, 'apt-get install libportaudio2'"
            ) from error

    def find(self, image: NDArray[np.uint8]) -> list[FaceLandmarks]:
        """See `FaceFinder.find`."""
        check_image(image)
        height, width = image.shape[:2]
        picture = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image)
        )
        faces = []
        for mesh in self._landmarker.detect(picture).face_landmarks:
            points = np.array([[mesh[i].x * width, mesh[i].y * height] for i in MEDIAPIPE_TO_68], np.float32)
            faces.append(FaceLandmarks.from_points(points))
        return sorted(faces, key=lambda face: -face.area)


class FaceAlignmentFinder(FaceFinder):
    """The FAN landmark network with its S3FD detector, from the `face-alignment` package.

    Args:
        device: where it runs.
        weights_folder: folder with its files `2DFAN4-11f355bf06.pth.tar` and `s3fd-619a316812.pth`; by
            default the cache of torch.hub, into which the package downloads them.
        score_threshold: lowest detector score of a face.

    Raises:
        TalkfaceError: the package is missing, or its weights are neither there nor to be downloaded.
    """

    files = ("2DFAN4-11f355bf06.pth.tar", "s3fd-619a316812.pth")

    def __init__(
        self, device: str = "cpu", weights_folder: str | Path | None = None, score_threshold: float = 0.8
    ) -> None:
        import torch

        if weights_folder is not None:
            missing = [name for name in self.files if not (Path(weights_folder) / name).is_file()]
            if missing:
                raise TalkfaceError(
                    f"face-alignment weights: {missing[0]} is not in {weights_folder}; "
                    f"allowed a folder with {' and '.join(self.files)}; "
                    "copy them there or leave the folder out"
                )
        library = require("face_alignment", extra="faces")
        hub = Path(torch.hub.get_dir())
        if weights_folder is not None:
            (hub / "checkpoints").mkdir(parents=True, exist_ok=True)
            for name in self.files:
                target = hub / "checkpoints" / name
                if not target.exists():
                    target.symlink_to((Path(weights_folder) / name).resolve())
        try:
            self._network = library.FaceAlignment(
                library.LandmarksType.TWO_D, device=device, flip_input=False, compile=False
            )
        except OSError as error:
            raise TalkfaceError(
                f"face-alignment weights cannot be loaded ({error}); allowed {' and '.join(self.files)} in "
                f"{hub / 'checkpoints'}; download them on a machine with network and copy them there"
            ) from error
        self.score_threshold = score_threshold

    def find(self, image: NDArray[np.uint8]) -> list[FaceLandmarks]:
        """See `FaceFinder.find`. The scale is a rough one, from the height of FAN's heat maps."""
        check_image(image)
        points, heights, boxes = self._network.get_landmarks_from_image(
            image, return_bboxes=True, return_landmark_score=True
        )
        faces = []
        for face, height, box in zip(points or [], heights or [], boxes or [], strict=True):
            if float(box[4]) < self.score_threshold:
                continue
            size = max(float(box[3] - box[1]), 1.0)
            scale = 0.02 * size / np.clip(np.asarray(height, np.float32).reshape(NUM_LANDMARKS), 0.1, 1.0)
            # FAN counts from pixel centres.
            faces.append(FaceLandmarks.from_points(np.asarray(face) + 0.5, scale, min(float(box[4]), 1.0)))
        return sorted(faces, key=lambda face: -face.area)
