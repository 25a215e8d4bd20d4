"""Whose face is it? Recognisers whose vectors are close for pictures of one person.

All take this house's canonical crops (`talkface.portrait.AlignedCrop`): (B, 3, S, S) RGB in [-1, 1], any S. They warp
them themselves to the 112-pixel five-point template that public recognisers are trained on (Deng et al., "ArcFace:
Additive angular margin loss for deep face recognition", CVPR 2019). The cosine of two vectors is the likeness: 1 for
the same picture.

    ArcFaceRecogniser    IR-SE50 of the thesis, weights from your file, differentiable
    ONNXRecogniser       insightface's buffalo_l, CosFace r50 and r100 of Glint360K; from your file, to measure only
    FaceEmbedder         small, trained here on synthetic people; differentiable
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError, require
from talkface.experts.ir_se import IRSE50
from talkface.experts.landmark_network import ConvNorm, LandmarkNetwork, Stage
from talkface.experts.registry import find_weights

TEMPLATE_SIZE = 112
TEMPLATE = (
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041),
)  # fmt: skip
"""Eye centres, tip of the nose and corners of the mouth in the 112-pixel pictures of ArcFace, pixels from a pixel's
centre."""
CANONICAL = ((0.368, 0.359), (0.632, 0.359), (0.5, 0.522), (0.392, 0.658), (0.608, 0.658))
"""The same points in this house's canonical crop, sides from 0 to 1: the mean over 1,000 faces."""
FILE_OF_IR_SE = "model_ir_se50.pth"


class FaceRecogniser(nn.Module):
    """The role.

    Attributes:
        differentiable: whether gradients reach the pictures.
        dim: length of its vectors.
    """

    differentiable: bool = True
    dim: int

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) canonical crops, RGB in [-1, 1] -> (B, dim) of unit length, float32."""
        raise NotImplementedError


def to_template(images: Tensor, landmarks: Tensor | None = None) -> Tensor:
    """Canonical crops as ArcFace's aligned pictures.

    Args:
        images: (B, 3, S, S) in [-1, 1], any S.
        landmarks: (B, 68, 2) pixels of `images`, to align every face by its own five points; without them all are
            warped alike, by the mean face of canonical crops.

    Returns:
        (B, 3, 112, 112) in [-1, 1], differentiable in `images`.
    """
    side = images.shape[-1]
    goal = (torch.tensor(TEMPLATE, dtype=torch.float32, device=images.device) + 0.5) / TEMPLATE_SIZE
    if landmarks is None:
        found = torch.tensor(CANONICAL, dtype=torch.float32, device=images.device).expand(len(images), 5, 2)
    else:
        found = five_points(landmarks.to(images.device)) / side
    backward = _similarity(goal.expand_as(found), found)
    scale = torch.linalg.det(backward[:, :, :2]).abs().sqrt().mean()  # crop sides per template side
    finest = round(float(TEMPLATE_SIZE / scale))
    if side > finest:  # the warp takes single points: a large picture is averaged down first
        images = F.interpolate(
            images, size=(finest, finest), mode="bilinear", align_corners=False, antialias=True
        )
    # places from 0 to 1 become -1 to 1 on both sides
    turn = backward[:, :, :2]
    shift = 2 * backward[:, :, 2:] + turn.sum(2, keepdim=True) - 1
    theta = torch.cat([turn, shift], dim=2).to(images.dtype)
    grid = F.affine_grid(theta, [len(images), 3, TEMPLATE_SIZE, TEMPLATE_SIZE], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def five_points(landmarks: Tensor) -> Tensor:
    """(B, 68, 2) -> (B, 5, 2): centres of the eyes, tip of the nose, corners of the mouth."""
    eyes = [landmarks[:, 36:42].mean(1), landmarks[:, 42:48].mean(1)]
    return torch.stack([*eyes, landmarks[:, 30], landmarks[:, 48], landmarks[:, 54]], dim=1)


def _similarity(source: Tensor, target: Tensor) -> Tensor:
    """(B, P, 2) twice -> (B, 2, 3): the least-squares similarity from source to target."""
    middle, goal = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    a, b = source - middle, target - goal
    spread = (a**2).sum((1, 2))
    real = (a * b).sum((1, 2)) / spread
    imaginary = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(1) / spread
    turn = torch.stack([torch.stack([real, -imaginary], 1), torch.stack([imaginary, real], 1)], dim=1)
    return torch.cat([turn, (goal - middle @ turn.transpose(1, 2)).transpose(1, 2)], dim=2)


class ArcFaceRecogniser(FaceRecogniser):
    """IR-SE50 of the public InsightFace_Pytorch repository (TreB1eN): what the thesis and DiffusionCLIP compare with.

    Args:
        weights: `model_ir_se50.pth` (a plain dictionary of tensors), or its name in `registry.experts_folder()`; None
            builds it with random weights.

    Raises:
        TalkfaceError: the file is missing, unreadable, or of another network.
    """

    dim = 512

    def __init__(self, weights: str | Path | None = FILE_OF_IR_SE) -> None:
        super().__init__()
        if weights is None:
            self.network = IRSE50()
        else:
            with torch.device("meta"):  # drawing 44 million numbers only to replace them takes seconds
                self.network = IRSE50()
            self.network.load_state_dict(read_ir_se(weights, self.network.state_dict()), assign=True)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """See `FaceRecogniser`; `landmarks` as in `to_template`."""
        return F.normalize(self.network(to_template(images.float(), landmarks)), dim=1)

    def train(self, mode: bool = True) -> ArcFaceRecogniser:
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)


def read_ir_se(path: str | Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `model_ir_se50.pth`, each with the name and shape that is expected.

    Raises:
        TalkfaceError: missing, unreadable, another network.
    """
    path = find_weights(path)
    if not path.is_file():
        raise TalkfaceError(
            f"ArcFace: {path} does not exist; give the path of {FILE_OF_IR_SE}, published with the repository "
            "TreB1eN/InsightFace_Pytorch (IR-SE50), or use the expert that scripts/train_expert.py identity makes"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = {
            name: value.float() if value.is_floating_point() else value
            for name, value in state.items()
            if isinstance(value, Tensor)
        }
    except Exception as error:  # torch raises pickle, zip, runtime and attribute errors here
        reason = " ".join(str(error).split())[:120]
        raise TalkfaceError(f"ArcFace: {path} cannot be read as a dictionary of tensors: {reason}") from error
    for name, value in expected.items():
        found = state.get(name)
        if found is None and name.endswith("num_batches_tracked"):  # absent in files of old versions of torch
            state[name] = torch.zeros((), dtype=torch.long)
        elif found is None or found.shape != value.shape:
            shown = "nothing" if found is None else tuple(found.shape)
            raise TalkfaceError(
                f"ArcFace: {path} holds another network: {name} should be {tuple(value.shape)}, found {shown}; "
                f"give {FILE_OF_IR_SE} (IR-SE50)"
            )
    unknown = sorted(set(state) - set(expected))
    if unknown:
        raise TalkfaceError(
            f"ArcFace: {path} holds another network: {unknown[0]} and {len(unknown) - 1} other tensors have no place "
            "in IR-SE50"
        )
    return state


class ONNXRecogniser(FaceRecogniser):
    """A public recogniser in ONNX form: insightface's `w600k_r50.onnx` (buffalo_l), CosFace r50 and r100 (Glint360K).

    Input (N, 3, 112, 112) RGB in [-1, 1], output (N, D). Not differentiable: it measures, it cannot guide. It runs on
    the processor.

    Args:
        weights: the `.onnx` file, or its name in `registry.experts_folder()`.

    Raises:
        TalkfaceError: the file is missing, unreadable or of another layout; `onnxruntime` is not installed.
    """

    differentiable = False

    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        weights = find_weights(weights)
        if not weights.is_file():
            raise TalkfaceError(
                f"face recogniser: {weights} does not exist; give the path of an .onnx file of insightface "
                "(w600k_r50.onnx of its buffalo_l package, or a Glint360K CosFace r50 or r100 of its model zoo)"
            )
        runtime = require("onnxruntime", extra="faces")
        try:
            self._session = runtime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a class of its own for every kind of damage
            reason = " ".join(str(error).split())[:160]
            raise TalkfaceError(f"face recogniser: {weights} cannot be read as ONNX: {reason}") from error
        given, answer = self._session.get_inputs()[0], self._session.get_outputs()[0]
        if list(given.shape[1:]) != [3, TEMPLATE_SIZE, TEMPLATE_SIZE] or not isinstance(
            answer.shape[-1], int
        ):
            raise TalkfaceError(
                f"face recogniser: {weights} takes {given.shape} and gives {answer.shape}; allowed is a network from "
                f"(N, 3, {TEMPLATE_SIZE}, {TEMPLATE_SIZE}) to (N, D)"
            )
        self.dim = int(answer.shape[-1])
        self.weights_path = weights
        self._input = given.name
        self._single = given.shape[0] == 1

    @torch.no_grad()
    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """See `FaceRecogniser`; `landmarks` as in `to_template`."""
        faces = to_template(images.float().cpu(), landmarks).clamp(-1, 1)
        parts = faces.split(1 if self._single else max(1, len(faces)))
        answers = [
            torch.from_numpy(self._session.run(None, {self._input: part.numpy()})[0]) for part in parts
        ]
        return F.normalize(torch.cat(answers).float(), dim=1).to(images.device)


class FaceEmbedder(FaceRecogniser):
    """A small recogniser, trained by `talkface.training.identity` on synthetic people.

    The first three stages are those of `LandmarkNetwork` and start from its weights.

    Args:
        channels: widths at 1/2, 1/4, 1/8 and 1/16 of the aligned picture.
        blocks: residual blocks at each of these resolutions.
        dim: length of its vectors.
    """

    def __init__(
        self,
        *,
        channels: tuple[int, int, int, int] = (20, 40, 80, 128),
        blocks: tuple[int, int, int, int] = (0, 1, 2, 2),
        dim: int = 128,
    ) -> None:
        super().__init__()
        self.dim = dim
        a, b, c, d = channels
        self.stem = Stage(3, a, blocks[0])
        self.quarter = Stage(a, b, blocks[1])
        self.eighth = Stage(b, c, blocks[2])
        self.sixteenth = Stage(c, d, blocks[3])
        # where something is tells faces apart: every place keeps its own weights
        self.output = nn.Sequential(
            ConvNorm(d, 32, kernel=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(32 * (TEMPLATE_SIZE // 16) ** 2, dim),
            nn.BatchNorm1d(dim),
        )

    def start_from(self, landmarks: LandmarkNetwork) -> None:
        """Take over the stages that both have; their widths must be equal."""
        for name in ("stem", "quarter", "eighth"):
            getattr(self, name).load_state_dict(getattr(landmarks, name).state_dict())

    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """See `FaceRecogniser`; `landmarks` as in `to_template`."""
        seen = self.stem(to_template(images, landmarks))
        return F.normalize(self.output(self.sixteenth(self.eighth(self.quarter(seen)))).float(), dim=1)
