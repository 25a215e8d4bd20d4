"""A small network that places 68 landmarks in a roughly cropped face and says how sure it is.

Residual convolutions, one heat map per landmark read by a soft-argmax (Luvizon et al., "Human pose
regression by combining indirect part detection and contextual information", 2019, eq. 1) plus a directly
regressed residual, so that points outside the crop are possible, and a predicted scale per landmark (Laplace
likelihood, as LUVLi, Kumar et al., CVPR 2020, does with a full covariance). A confidence says whether the
crop holds a face at all. A second, tiny, fully convolutional network proposes where faces may be in a whole
picture. Both are trained on renders by `talkface.training.landmarks`;
`talkface.experts.faces.NetworkFaceFinder` searches pictures with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.experts.face_landmarks import NUM_LANDMARKS


@dataclass
class LandmarkPrediction:
    """Output for B crops.

    Attributes:
        points: (B, 68, 2) in units of the crop: (0, 0) its upper left corner, (1, 1) the lower right one;
            values outside lie outside the crop.
        log_scale: (B, 68) natural logarithm of the Laplace scale, in the same unit.
        logit: (B,) log-odds that the crop holds a face near its middle.
        maps: (B, 68, H, W) heat maps before the softmax, H = W = image_size / 8.
    """

    points: Tensor
    log_scale: Tensor
    logit: Tensor
    maps: Tensor


def soft_argmax(logits: Tensor) -> Tensor:
    """Expected position under the softmax of each map.

    Args:
        logits: (B, K, H, W).

    Returns:
        (B, K, 2), x then y, in units of the map: the centre of the first cell is (0.5 / W, 0.5 / H).
    """
    batch, maps, height, width = logits.shape
    weights = logits.float().reshape(batch, maps, -1).softmax(-1).reshape(batch, maps, height, width)
    xs = (torch.arange(width, device=logits.device) + 0.5) / width
    ys = (torch.arange(height, device=logits.device) + 0.5) / height
    return torch.stack([(weights.sum(2) * xs).sum(-1), (weights.sum(3) * ys).sum(-1)], dim=-1)


class ConvNorm(nn.Sequential):
    """Convolution without bias, then batch normalisation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
        )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Stage(nn.Sequential):
    """Halve the resolution, then `blocks` residual blocks."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__(
            ConvNorm(inputs, outputs, stride=2), nn.ReLU(), *(_Residual(outputs) for _ in range(blocks))
        )


class FaceProposals(nn.Module):
    """Where faces may be: a fully convolutional network with one output cell per 8 x 8 pixels.

    A cell answers for faces whose crop (see `LandmarkNetwork.mean_shape`) is about `face_size` pixels wide,
    so a picture is searched at several sizes.
    """

    stride = 8
    face_size = 40.0

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        a, b, c = channels
        self.body = nn.Sequential(
            ConvNorm(3, a, stride=2), nn.ReLU(), ConvNorm(a, b, stride=2), nn.ReLU(), ConvNorm(b, b),
            nn.ReLU(), ConvNorm(b, c, stride=2), nn.ReLU(), ConvNorm(c, c), nn.ReLU(), ConvNorm(c, c),
            nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Conv2d(c, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], sides divisible by 8 -> (B, 4, H / 8, W / 8): log-odds of a face centred
        in this cell, its offset x and y from the middle of the cell in units of `face_size`, and the natural
        logarithm of its size over `face_size`."""
        return self.head(self.body(images))


class LandmarkNetwork(nn.Module):
    """128-pixel crops to 68 landmarks, their scales and a confidence.

    Args:
        channels: widths at 1/2, 1/4, 1/8 and 1/16 of the crop.
        blocks: residual blocks at each of these resolutions.
        image_size: side of the crops in pixels, divisible by 16.
        proposal_channels: widths of the proposal network.

    `mean_shape` (68, 2), in units of the crop, is where the landmarks of an average face lie in the crop
    that the network likes best; training sets it. A face is cropped by aligning its landmarks to it.
    """

    mean_shape: Tensor

    def __init__(
        self,
        *,
        channels: tuple[int, int, int, int] = (20, 40, 80, 144),
        blocks: tuple[int, int, int, int] = (0, 1, 2, 2),
        image_size: int = 128,
        proposal_channels: tuple[int, int, int] = (16, 32, 64),
    ) -> None:
        super().__init__()
        self.image_size = image_size
        a, b, c, d = channels
        self.stem = Stage(3, a, blocks[0])
        self.quarter = Stage(a, b, blocks[1])
        self.eighth = Stage(b, c, blocks[2])
        self.sixteenth = Stage(c, d, blocks[3])
        self.fine = nn.Sequential(ConvNorm(c, c, kernel=1), nn.ReLU())
        self.coarse = nn.Sequential(ConvNorm(d, c, kernel=1), nn.ReLU())
        self.merge = nn.Sequential(ConvNorm(c, c), nn.ReLU())
        self.maps = nn.Conv2d(c, NUM_LANDMARKS, 1)
        self.squeeze = nn.Sequential(
            ConvNorm(d, 32, kernel=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
        )
        self.hidden = nn.Sequential(nn.Linear(32 * 16, 192), nn.ReLU())
        self.residual = nn.Linear(192, NUM_LANDMARKS * 2)
        self.log_scale = nn.Linear(192, NUM_LANDMARKS)
        self.confidence = nn.Linear(192, 1)
        self.proposals = FaceProposals(proposal_channels)
        self.register_buffer("mean_shape", _oval_face())
        for head in (self.residual, self.log_scale, self.confidence):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        nn.init.constant_(self.log_scale.bias, -2.5)

    def forward(self, crops: Tensor) -> LandmarkPrediction:
        """(B, 3, image_size, image_size) in [-1, 1] -> LandmarkPrediction in float32."""
        eighth = self.eighth(self.quarter(self.stem(crops)))
        deep = self.sixteenth(eighth)
        up = F.interpolate(self.coarse(deep), scale_factor=2, mode="nearest")
        maps = self.maps(self.merge(self.fine(eighth) + up))
        hidden = self.hidden(self.squeeze(deep))
        residual = self.residual(hidden).float().unflatten(1, (NUM_LANDMARKS, 2))
        return LandmarkPrediction(
            points=soft_argmax(maps) + residual,
            log_scale=self.log_scale(hidden).float().clamp(-7.0, 1.0),
            logit=self.confidence(hidden).float().squeeze(1),
            maps=maps,
        )


def _oval_face() -> Tensor:
    """A plain frontal face, (68, 2) in crop units: only a start, training replaces it by the true average."""

    def arc(
        count: int, centre: tuple[float, float], radii: tuple[float, float], start: float, stop: float
    ) -> Tensor:
        angles = torch.linspace(start, stop, count) * torch.pi / 180
        return torch.stack([centre[0] + radii[0] * angles.cos(), centre[1] + radii[1] * angles.sin()], dim=1)

    def ring(count: int, centre: tuple[float, float], radii: tuple[float, float]) -> Tensor:
        return arc(count + 1, centre, radii, 180, 540)[:-1]

    return torch.cat(
        [
            arc(17, (0.5, 0.45), (0.27, 0.38), 180, 0),
            arc(5, (0.385, 0.36), (0.085, 0.03), 200, 340),
            arc(5, (0.615, 0.36), (0.085, 0.03), 200, 340),
            torch.stack([torch.full((4,), 0.5), torch.linspace(0.42, 0.54, 4)], dim=1),
            arc(5, (0.5, 0.56), (0.055, 0.02), 180, 0),
            ring(6, (0.39, 0.42), (0.05, 0.018)),
            ring(6, (0.61, 0.42), (0.05, 0.018)),
            ring(12, (0.5, 0.68), (0.1, 0.04)),
            ring(8, (0.5, 0.68), (0.07, 0.015)),
        ]
    )
