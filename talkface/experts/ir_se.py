"""IR-SE50: the residual network with squeeze-and-excitation that ArcFace's public PyTorch weights are made for.

Deng et al., "ArcFace", CVPR 2019, section 3.1 (a ResNet with BN-Conv-BN-PReLU-Conv-BN units and no early reduction),
with Hu et al., "Squeeze-and-excitation networks", CVPR 2018. Names and shapes of the tensors are those of
`model_ir_se50.pth` of the repository TreB1eN/InsightFace_Pytorch: `input_layer`, 24 units of `body` with
`shortcut_layer` and `res_layer`, `output_layer`.
"""

from __future__ import annotations

from torch import Tensor, nn

STAGES = ((64, 64, 3), (64, 128, 4), (128, 256, 14), (256, 512, 3))
"""(channels in, channels out, units): the first unit of a stage halves the resolution."""


class SqueezeExcitation(nn.Module):
    """Weighs channels by what all places say together; one sixteenth of the channels in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Unit(nn.Module):
    """One residual unit; `stride` 2 halves the resolution, in the second convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module
        if inputs == outputs:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcitation(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        out: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


class IRSE50(nn.Module):
    """(B, 3, 112, 112) aligned RGB in [-1, 1] -> (B, 512), not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512),
        )
        self.body = nn.Sequential(
            *(
                Unit(inputs if place == 0 else outputs, outputs, 2 if place == 0 else 1)
                for inputs, outputs, count in STAGES
                for place in range(count)
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.output_layer(self.body(self.input_layer(images)))
        return out
