"""Frozen networks that look at pictures: the perceptual distance LPIPS.

LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018,
eq. 1), version 0.1. The learned weights of its linear layers come with the `lpips` package; its ImageNet
backbone is read from a file or from torchvision's cache. `net="alex"` is the metric of the papers,
`net="vgg"` the usual training loss. Not a metric of identity or of lip sync.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from talkface.errors import TalkfaceError, require

BACKBONES = {"alex": "alexnet", "vgg": "vgg16"}


class LPIPS(nn.Module):
    """Perceptual distance of two pictures; differentiable in both, its own weights are frozen.

    Args:
        net: "alex" (evaluation) or "vgg" (training loss).
        backbone: file with torchvision's weights of that network (`.safetensors`, or a `.pth` state dict;
            keys `features.N.weight`, `features.N.bias`, any float type; others are ignored). Without it
            torchvision's own cache is used, and filled by a download where there is a network.

    Raises:
        TalkfaceError: unknown `net`; the backbone's file is absent, unreadable or of another network.
    """

    def __init__(self, net: str = "alex", backbone: str | Path | None = None) -> None:
        super().__init__()
        if net not in BACKBONES:
            raise TalkfaceError(f"LPIPS network: {net!r}; allowed 'alex', 'vgg'")
        lpips = require("lpips", extra="eval")
        with warnings.catch_warnings():  # lpips still calls torchvision by its old argument names
            warnings.simplefilter("ignore", UserWarning)
            distance = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        load_backbone(distance.net, read_backbone(net, backbone))
        self.scaling, self.features = distance.scaling_layer, distance.net
        self.linear = nn.ModuleList(distance.lins)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """(B, 3, H, W) twice, RGB in [-1, 1], 32 or more pixels a side -> distances (B,), 0 if equal."""
        pairs = zip(self.features(self.scaling(images)), self.features(self.scaling(others)), strict=True)
        distance = images.new_zeros(images.shape[0])
        for layer, (a, b) in zip(self.linear, pairs, strict=True):
            distance = distance + layer((_unit(a) - _unit(b)) ** 2).mean(dim=(1, 2, 3))
        return distance

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, D) whose squared Euclidean distances are those of `forward`."""
        parts = []
        for layer, features in zip(self.linear, self.features(self.scaling(images)), strict=True):
            weights = next(layer.parameters()).view(1, -1, 1, 1).clamp_min(0.0)
            places = features.shape[2] * features.shape[3]
            parts.append((_unit(features) * (weights / places).sqrt()).flatten(1))
        return torch.cat(parts, dim=1)

    def train(self, mode: bool = True) -> LPIPS:
        """Stays in evaluation mode: its dropout belongs to the training of LPIPS itself."""
        return super().train(False)


def _unit(features: Tensor) -> Tensor:
    # The clamp keeps the gradient finite where every channel is zero; the `lpips` package gives NaN there.
    norm = (features**2).sum(dim=1, keepdim=True).clamp_min(1e-20).sqrt()
    return features / (norm + 1e-10)


def read_backbone(net: str, path: str | Path | None) -> dict[str, Tensor]:
    """The convolution weights of an ImageNet backbone: {"features.N.weight": float32, ...}.

    Raises:
        TalkfaceError: no such file, or it cannot be read, or nothing could be downloaded.
    """
    name = BACKBONES[net]
    try:
        if path is None:
            import torchvision

            weights = torchvision.models.get_model_weights(name).DEFAULT
            state = weights.get_state_dict(progress=False, check_hash=True)
        elif Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        where = path if path is not None else "torchvision's cache"
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise TalkfaceError(
            f"LPIPS backbone {name}: cannot read {where} ({reason}); "
            f"give a file with torchvision's {name} weights"
        ) from error
    return {key: value.float() for key, value in state.items() if key.startswith("features.")}


def load_backbone(features: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy torchvision's `features.N.*` into the slices that `lpips` cuts the same layers into.

    Raises:
        TalkfaceError: a layer is missing or has another shape.
    """
    own = features.state_dict()
    for key, value in own.items():
        source = "features." + key.split(".", 1)[1]
        if source not in state or state[source].shape != value.shape:
            found = tuple(state[source].shape) if source in state else "nothing"
            raise TalkfaceError(
                f"LPIPS backbone: {source} should be {tuple(value.shape)}, found {found}; "
                "is the file that of the other network?"
            )
        own[key] = state[source]
    features.load_state_dict(own)
