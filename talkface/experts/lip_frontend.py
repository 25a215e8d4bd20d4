"""What looks at the mouth in lip readers: a convolution over space and time, then a residual network per frame.

The layout of Stafylakis & Tzimiropoulos, "Combining residual networks with LSTMs for lipreading" (Interspeech 2017), as
the public lip readers of Ma, Petridis & Pantic have it ("End-to-end audio-visual speech recognition with conformers",
ICASSP 2021; "Auto-AVSR", ICASSP 2023): parameters have the names and shapes of those checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "swish": lambda channels: nn.SiLU(),
    "prelu": nn.PReLU,
    "relu": lambda channels: nn.ReLU(),
}


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, (N, C, H, W) -> (N, C', H / stride, W / stride)."""

    def __init__(self, channels: int, out_channels: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = ACTIVATIONS[activation](out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = ACTIVATIONS[activation](out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(out + (x if self.downsample is None else self.downsample(x)))


class ResidualTrunk(nn.Module):
    """ResNet-18 without its first convolution: (N, C, H, W) -> (N, 8 C), averaged over the picture."""

    def __init__(self, channels: int, blocks: tuple[int, int, int, int], activation: str) -> None:
        super().__init__()
        width = channels
        for number, count in enumerate(blocks):
            out = channels * 2**number
            made = [ResidualBlock(width, out, 1 if number == 0 else 2, activation)]
            made += [ResidualBlock(out, out, 1, activation) for _ in range(count - 1)]
            setattr(self, f"layer{number + 1}", nn.Sequential(*made))
            width = out

    def forward(self, x: Tensor) -> Tensor:
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


class LipFrontEnd(nn.Module):
    """Grey mouths to one vector a frame: a 5 x 7 x 7 convolution, then a residual network.

    Args:
        channels: width after the first convolution; the vectors have 8 times as many. The public models: 64.
        blocks: residual blocks of the four stages; ResNet-18: 2 each.
        activation: "swish" (the public models), "prelu" or "relu" (older ones).

    Raises:
        TalkfaceError: another activation.
    """

    def __init__(
        self,
        channels: int = 64,
        blocks: tuple[int, int, int, int] = (2, 2, 2, 2),
        activation: str = "swish",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise TalkfaceError(f"activation: {activation!r}; allowed: {', '.join(ACTIVATIONS)}")
        self.dim = 8 * channels
        self.frontend3D = nn.Sequential(
            nn.Conv3d(1, channels, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False),
            nn.BatchNorm3d(channels),
            ACTIVATIONS[activation](channels),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.trunk = ResidualTrunk(channels, blocks, activation)

    def forward(self, mouths: Tensor) -> Tensor:
        """(B, T, 1, H, W), normalised -> (B, T, dim)."""
        seen = self.frontend3D(mouths.transpose(1, 2)).transpose(1, 2)
        return self.trunk(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])

    def glance(self, mouths: Tensor) -> Tensor:
        """(B, 5, 1, H, W), normalised -> (B, dim): what `forward` says of the middle frame, at the price of one."""
        first, *others = self.frontend3D.children()
        assert isinstance(first, nn.Conv3d)
        seen = F.conv3d(mouths.transpose(1, 2), first.weight, stride=first.stride, padding=(0, 3, 3))
        for layer in others:
            seen = layer(seen)
        return self.trunk(seen[:, :, 0])
