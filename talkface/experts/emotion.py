"""Which emotion does a face show? The interface, a small bundled network, and HSEmotion as the reference.

All take aligned crops (`talkface.portrait.AlignedCrop`): (B, 3, S, S) RGB in [-1, 1], any S; each resizes to the size
it wants. All answer (B, 8) probabilities in AffectNet's order: 0 neutral, 1 happy, 2 sad, 3 surprised, 4 fear,
5 disgusted, 6 angry, 7 contempt.

The bundled network is trained by `talkface.training.emotion` on renders that show the expressions of
`talkface.head.emotions`. It judges pictures of that kind; what it says of photographs is in docs/results/experts.md.
HSEmotion (Savchenko, "Facial expression and attributes recognition based on multi-task learning of lightweight neural
networks", SISY 2021) was trained on AffectNet; its weights are read from a file of yours.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError, require
from talkface.experts.landmark_network import ConvNorm, LandmarkNetwork, Stage
from talkface.experts.registry import find_weights

NUM_EMOTIONS, NUM_ACTIONS = 8, 52


class EmotionClassifier(nn.Module):
    """The role; what fills it, `EmotionNetwork` or HSEmotion below, defines `forward`.

    Attributes:
        image_size: side in pixels of what it looks at; other sizes are resized to it.
    """

    image_size: int = 128

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) RGB in [-1, 1] -> (B, 8) probabilities, float32."""
        raise NotImplementedError

    def resized(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 3, image_size, image_size)."""
        size = (self.image_size, self.image_size)
        if images.shape[2:] == size:
            return images
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


class EmotionReading(NamedTuple):
    """logits (B, 8); actions (B, 52), estimated facial actions, about 0..1; features (B, F) before both."""

    logits: Tensor
    actions: Tensor
    features: Tensor


class EmotionNetwork(EmotionClassifier):
    """The bundled classifier: a residual network that also estimates the facial actions.

    The actions are there for training: a label says one thing of a picture, its actions 52. They are not accurate
    enough to drive a face (`talkface.head.fit` is made for that). The first three stages are those of `LandmarkNetwork`
    and start from its weights: it has learnt already where brows, lids and lips are.

    Args:
        channels: widths at 1/2, 1/4, 1/8 and 1/16 of the crop.
        blocks: residual blocks at each of these resolutions.
        features: width of the layer before the answers.
        image_size: side of the crops in pixels, divisible by 16.
    """

    def __init__(
        self,
        *,
        channels: tuple[int, int, int, int] = (20, 40, 80, 96),
        blocks: tuple[int, int, int, int] = (0, 1, 2, 1),
        features: int = 96,
        image_size: int = 128,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        a, b, c, d = channels
        self.stem = Stage(3, a, blocks[0])
        self.quarter = Stage(a, b, blocks[1])
        self.eighth = Stage(b, c, blocks[2])
        self.sixteenth = Stage(c, d, blocks[3])
        # where in the face something is matters: pooled to 4 x 4, not to one place
        self.squeeze = nn.Sequential(
            ConvNorm(d, 24, kernel=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
        )
        self.hidden = nn.Sequential(nn.Dropout(0.3), nn.Linear(24 * 16, features), nn.ReLU())
        self.emotion = nn.Linear(features, NUM_EMOTIONS)
        self.actions = nn.Linear(features, NUM_ACTIONS)

    def start_from(self, landmarks: LandmarkNetwork) -> None:
        """Take over the stages that both have; their widths must be equal."""
        for name in ("stem", "quarter", "eighth"):
            getattr(self, name).load_state_dict(getattr(landmarks, name).state_dict())

    def read(self, images: Tensor) -> EmotionReading:
        """Everything it says of (B, 3, S, S) in [-1, 1]."""
        seen = self.eighth(self.quarter(self.stem(self.resized(images))))
        features = self.hidden(self.squeeze(self.sixteenth(seen)))
        return EmotionReading(self.emotion(features), self.actions(features), features)

    def forward(self, images: Tensor) -> Tensor:
        return self.read(images).logits.float().softmax(dim=1)


# HSEmotion's orders of classes, as places in ours
_EIGHT = (6, 7, 5, 4, 1, 0, 2, 3)  # anger, contempt, disgust, fear, happiness, neutral, sadness, surprise
_SEVEN = (6, 5, 4, 1, 0, 2, 3)  # the same without contempt
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class HSEmotionClassifier(EmotionClassifier):
    """HSEmotion's EfficientNet in ONNX form (`enet_b0_8_best_vgaf.onnx`, `enet_b2_7.onnx`, ...).

    Models of seven classes know no contempt: its probability is 0. Of the multi-task models (`..._mtl.onnx`) valence
    and arousal are left out. Not differentiable; it runs on the processor.

    Args:
        weights: the `.onnx` file, or its name in `registry.experts_folder()`.
        image_size: side of its pictures; None: what the file says, or 224.

    Raises:
        TalkfaceError: the file is absent, unreadable, or not of 7 or 8 classes; `onnxruntime` is not installed.
    """

    def __init__(self, weights: str | Path, image_size: int | None = None) -> None:
        super().__init__()
        weights = find_weights(weights)
        if not weights.is_file():
            raise TalkfaceError(
                f"HSEmotion: {weights} does not exist; give the path of an .onnx file of HSEmotion "
                "(enet_b0_8_best_vgaf.onnx of its repository), or use the bundled classifier"
            )
        runtime = require("onnxruntime", extra="faces")
        try:
            self._session = runtime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a class of its own for every kind of damage
            reason = " ".join(str(error).split())[:160]
            raise TalkfaceError(f"HSEmotion: {weights} cannot be read as ONNX: {reason}") from error
        given, answer = self._session.get_inputs()[0], self._session.get_outputs()[0]
        side = given.shape[-1] if isinstance(given.shape[-1], int) else 224
        self.image_size = side if image_size is None else image_size
        self._input = given.name
        self.weights_path = weights
        classes = answer.shape[-1]
        if classes not in (7, 8, 9, 10):
            raise TalkfaceError(
                f"HSEmotion: {weights} answers {classes} numbers; allowed are 7 or 8 classes, perhaps with valence and "
                "arousal behind them"
            )
        self._order = _SEVEN if classes in (7, 9) else _EIGHT

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        pictures = ((self.resized(images.float().cpu()).clamp(-1, 1) + 1) / 2 - mean) / std
        # one by one: some of the published files have a fixed batch of one
        out = torch.zeros(len(pictures), NUM_EMOTIONS)
        for row, picture in enumerate(pictures):
            answer = torch.from_numpy(self._session.run(None, {self._input: picture[None].numpy()})[0])
            out[row, list(self._order)] = answer[0, : len(self._order)].float().softmax(dim=0)
        return out.to(images.device)
