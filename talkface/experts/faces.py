"""Finding faces with the bundled landmark network: no separate detector.

A picture is searched in three steps, each of which asks the same weights:

1. proposals: a tiny fully convolutional network runs over an image pyramid and ranks places and sizes;
2. verdict: the landmark network looks at the best places, predicts 68 points and a confidence;
3. refinement: the crop is made again around the predicted points, upright and at the size of an average face
   (so that a rolled or badly framed face works), and the network looks once more.

A second network, if there is one, then looks at the mouth from close by and places the lips anew.

Faces that stay confident and do not overlap a better one are reported. `track` needs step 3 alone. The other
finders (`MediaPipeFaceFinder`, `FaceAlignmentFinder`, `KnownLandmarks`) have the same interface.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkface.experts.face_backends import FaceAlignmentFinder, MediaPipeFaceFinder
from talkface.experts.face_landmarks import (
    FaceFinder,
    FaceLandmarks,
    FloatArray,
    KnownLandmarks,
    apply_similarity,
    check_image,
    fit_similarity,
    invert_similarity,
    suppress_overlaps,
)
from talkface.experts.landmark_network import FaceProposals, LandmarkNetwork, LandmarkPrediction
from talkface.experts.mouth_network import LIPS, MouthNetwork, mouth_matrix

__all__ = [
    "FaceAlignmentFinder",
    "FaceFinder",
    "FaceLandmarks",
    "KnownLandmarks",
    "LandmarkNetwork",
    "MediaPipeFaceFinder",
    "MouthNetwork",
    "NetworkFaceFinder",
]


@dataclass
class _Candidate:
    """A prediction for one crop, in pixels of the picture."""

    points: FloatArray
    scale: FloatArray
    score: float

    @property
    def box(self) -> FloatArray:
        return np.concatenate([self.points.min(0), self.points.max(0)])


class NetworkFaceFinder(FaceFinder):
    """Finds and tracks faces with a `LandmarkNetwork`.

    Args:
        network: trained weights; set to evaluation mode here, and used where its parameters are.
        threshold: lowest confidence of a face, 0 to 1.
        smallest_face: faces whose crop is smaller than this many pixels, or than `smallest_share` of the
            picture's short side, are not looked for.
        max_candidates: crops looked at closely in one picture; bounds the time.
        mouth: a `MouthNetwork` that looks at the mouth of every face again; None keeps the first network's lips.
    """

    def __init__(
        self,
        network: LandmarkNetwork,
        *,
        threshold: float = 0.5,
        smallest_face: float = 28.0,
        smallest_share: float = 1 / 14,
        max_candidates: int = 32,
        mouth: MouthNetwork | None = None,
    ) -> None:
        self.network = network.eval()
        self.mouth = None if mouth is None else mouth.eval()
        self.threshold = threshold
        self.smallest_face = smallest_face
        self.smallest_share = smallest_share
        self.max_candidates = max_candidates
        self.mean_shape = network.mean_shape.detach().cpu().double().numpy()

    def find(self, image: NDArray[np.uint8]) -> list[FaceLandmarks]:
        """The faces, at most 8, largest first; from about 20 pixels (brows to chin) to more than the picture,
        rolled up to 45 degrees, yaw up to about 60.

        Raises:
            TalkfaceError: `image` is not (H, W, 3) uint8.
        """
        check_image(image)
        found = self._look(image, self._propose(image))
        # A badly framed face scores low: at first only the order counts.
        found = _best(found, limit=0.5, lowest=0.0)
        for lowest in (0.1 * self.threshold, self.threshold):
            if not found:
                return []
            found = _best(self._look(image, [self._crop_matrix(face.points) for face in found]), 0.4, lowest)
        faces = [self._finished(image, face) for face in found if _inside(face.points, image.shape)]
        return sorted(faces, key=lambda face: -face.area)

    def track(self, image: NDArray[np.uint8], previous: FaceLandmarks) -> FaceLandmarks | None:
        """Follow a face from one frame of a film to the next: one pass of the network, two after a large
        move.

        Returns None when the confidence falls under half of the threshold: then `find` again.
        """
        check_image(image)
        face = self._look(image, [self._crop_matrix(previous.points)])[0]
        size = max(float(np.ptp(previous.points[:, 1])), 1.0)
        if np.abs(face.points - previous.points).mean() > 0.05 * size:
            face = self._look(image, [self._crop_matrix(face.points)])[0]
        if face.score < 0.5 * self.threshold or not _inside(face.points, image.shape):
            return None
        return self._finished(image, face)

    @torch.no_grad()
    def _finished(self, image: NDArray[np.uint8], face: _Candidate) -> FaceLandmarks:
        """The face, its lips by whichever network is surer of them."""
        points, scale = face.points.copy(), face.scale.copy()
        if self.mouth is not None:
            size = self.mouth.image_size
            matrix = mouth_matrix(points, size)
            prediction = self.mouth(_to_tensor(warp_crops(image, [matrix], size), self.mouth))
            lips = apply_similarity(
                invert_similarity(matrix), prediction.points[0].double().cpu().numpy() * size
            )
            zoom = float(np.hypot(matrix[0, 0], matrix[1, 0]))
            closer = prediction.log_scale[0].exp().double().cpu().numpy() * 2**0.5 * size / zoom
            # One share for all lip points, or the outline would have steps; steep, so that one network decides.
            doubt = (closer.mean() / max(float(scale[LIPS].mean()), 1e-6)) ** 10
            share = 1 / (1 + doubt)
            points[LIPS] += share * (lips - points[LIPS])
            scale[LIPS] += share * (closer - scale[LIPS])
        return FaceLandmarks.from_points(points, scale, face.score)

    def _crop_matrix(self, points: FloatArray) -> NDArray[np.float64]:
        """Picture -> crop pixels, upright, the face at its average size and place."""
        return fit_similarity(points, self.mean_shape * self.network.image_size)

    def _square_matrix(self, centre: FloatArray, side: float) -> NDArray[np.float64]:
        zoom = self.network.image_size / side
        shift = self.network.image_size / 2 - zoom * np.asarray(centre, np.float64)
        return np.concatenate([np.eye(2) * zoom, shift[:, None]], axis=1)

    def _propose(self, image: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
        """Step 1: the crops worth a closer look."""
        height, width = image.shape[:2]
        short = min(height, width)
        side = 2.0 * short
        squares: list[tuple[float, FloatArray, float]] = []
        while side >= max(self.smallest_face, self.smallest_share * short):
            squares += self._propose_at(image, FaceProposals.face_size / side)
            side /= 2**0.5
        boxes = [np.concatenate([centre - size / 2, centre + size / 2]) for _, centre, size in squares]
        # Crops of one face differ in place and size, and the proposal network ranks them only roughly.
        kept = suppress_overlaps(boxes, [score for score, _, _ in squares], limit=0.45, contained=1.1)
        chosen = [self._square_matrix(squares[i][1], squares[i][2]) for i in kept[: self.max_candidates]]
        middle = np.array([width / 2, height / 2])
        return chosen + [self._square_matrix(middle, short * share) for share in (0.8, 1.2, 1.7)]

    @torch.no_grad()
    def _propose_at(self, image: NDArray[np.uint8], zoom: float) -> list[tuple[float, FloatArray, float]]:
        """Proposals (log-odds, centre, side) of one level of the pyramid."""
        margin = 24  # pixels around the level: faces that touch the border keep their surroundings
        stride = FaceProposals.stride
        height, width = (max(1, round(length * zoom)) for length in image.shape[:2])
        level = _resize(image, width, height)
        right, bottom = (-(length + 2 * margin) % stride + margin for length in (width, height))
        padded = cv2.copyMakeBorder(level, margin, bottom, margin, right, cv2.BORDER_REPLICATE)
        output = (
            self.network.proposals(_to_tensor(np.asarray(padded, np.uint8)[None], self.network))[0]
            .float()
            .cpu()
            .numpy()
        )
        rows, columns = np.unravel_index(np.argsort(-output[0], axis=None)[:24], output[0].shape)
        result: list[tuple[float, FloatArray, float]] = []
        for row, column in zip(rows, columns, strict=True):
            score, x, y, log_size = output[:, row, column]
            offset = np.array([x, y]) * FaceProposals.face_size
            centre = (np.array([column + 0.5, row + 0.5]) * stride + offset - margin) / zoom
            size = FaceProposals.face_size * float(np.exp(np.clip(log_size, -0.7, 0.7))) / zoom
            result.append((float(score), centre, size))
        return result

    @torch.no_grad()
    def _look(self, image: NDArray[np.uint8], matrices: list[NDArray[np.float64]]) -> list[_Candidate]:
        """Steps 2 and 3: the landmark network on the crop of each matrix."""
        crops = warp_crops(image, matrices, self.network.image_size)
        faces = []
        for start in range(0, len(matrices), 16):
            prediction = self.network(_to_tensor(crops[start : start + 16], self.network))
            points = prediction.points.double().cpu().numpy() * self.network.image_size
            deviation = (prediction.log_scale.exp() * 2**0.5 * self.network.image_size).cpu().numpy()
            scores = face_score(prediction).cpu().numpy()
            for offset, matrix in enumerate(matrices[start : start + 16]):
                zoom = float(np.hypot(matrix[0, 0], matrix[1, 0]))
                in_picture = apply_similarity(invert_similarity(matrix), points[offset]).astype(np.float32)
                faces.append(_Candidate(in_picture, deviation[offset] / zoom, float(scores[offset])))
        return faces


def _to_tensor(images: NDArray[np.uint8], network: torch.nn.Module) -> Tensor:
    parameter = next(network.parameters())
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(parameter.device)
    return tensor.permute(0, 3, 1, 2).to(parameter.dtype) / 127.5 - 1


def _best(faces: list[_Candidate], limit: float, lowest: float, count: int = 8) -> list[_Candidate]:
    """The `count` best faces that score at least `lowest`, do not overlap and are not tiny."""
    faces = [face for face in faces if face.score >= lowest and np.ptp(face.points, axis=0).min() > 4]
    kept = suppress_overlaps([face.box for face in faces], [face.score for face in faces], limit)
    return [faces[index] for index in kept[:count]]


def face_score(prediction: LandmarkPrediction) -> Tensor:
    """(B,) score 0 to 1: the confidence, lowered where the network is unsure of its own points.

    Both tell faces from what resembles them; together they do it better. The constants were set by looking at
    photographs: 0.5 where the log-odds exceed 100 times the mean predicted scale (in crop units) by 1.2.
    """
    unsure = prediction.log_scale.exp().mean(1)
    return torch.sigmoid(1.5 * (prediction.logit - 100 * unsure - 1.2))


def warp_crops(image: NDArray[np.uint8], matrices: list[NDArray[np.float64]], size: int) -> NDArray[np.uint8]:
    """Cut crops out of a picture.

    Args:
        image: (H, W, 3) uint8.
        matrices: (2, 3) similarities, picture -> crop, continuous pixels.
        size: side of the crops.

    Returns:
        (N, size, size, 3) uint8; what lies outside the picture repeats its border. The picture is shrunk by
        area first where a crop is much smaller than what it shows, so that nothing aliases.
    """
    crops = np.empty((len(matrices), size, size, 3), np.uint8)
    shrunk: dict[int, NDArray[np.uint8]] = {0: image}
    for crop, matrix in zip(crops, matrices, strict=True):
        zoom = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        octave = max(0, int(np.floor(-np.log2(max(zoom, 1e-6)) + 0.25)))
        if octave not in shrunk:
            height, width = (max(1, round(length / 2**octave)) for length in image.shape[:2])
            shrunk[octave] = _resize(image, width, height)
        source = shrunk[octave]
        ratio = np.array([source.shape[1] / image.shape[1], source.shape[0] / image.shape[0]])
        linear = matrix[:, :2] / ratio
        # OpenCV counts from pixel centres, we count from pixel corners.
        shift = matrix[:, 2] + linear @ np.array([0.5, 0.5]) - 0.5
        affine = np.concatenate([linear, shift[:, None]], axis=1)
        cv2.warpAffine(
            source, affine, (size, size), dst=crop, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return crops


def _resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    shrinks = width < image.shape[1]
    resized = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return np.asarray(resized, np.uint8)


def _inside(points: FloatArray, shape: tuple[int, ...]) -> bool:
    """Whether at least half of the points lie in the picture."""
    height, width = shape[:2]
    return float(np.mean((points >= 0).all(1) & (points[:, 0] <= width) & (points[:, 1] <= height))) >= 0.5
