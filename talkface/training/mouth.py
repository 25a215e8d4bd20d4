"""Training of the mouth stage: 20 lip points in close crops.

The loss is that of the landmark network (Laplace likelihood, plain L1, heat-map cross-entropy; see `landmarks`) and a
further L1 on the vectors between lips that meet: the opening is what heads are fitted by and speech is judged by,
and it is small, so that errors of both lips which are small for each may hide it.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from talkface.experts.mouth_network import MouthNetwork, MouthPrediction
from talkface.training.averaged import Budget, train_drawn
from talkface.training.landmarks import map_loss, to_tensor
from talkface.training.mouth_crops import MEETING, MouthBatch, MouthSampler

# Outer lips 48-59, inner lips 60-67.
WEIGHTS = (1.0,) * 12 + (1.5,) * 8


def mouth_loss(prediction: MouthPrediction, batch: MouthBatch) -> dict[str, Tensor]:
    """The terms `likelihood`, `distance`, `maps` and `opening`, all scalars."""
    device = prediction.points.device
    points = torch.from_numpy(batch.points).to(device)
    weight = torch.tensor(WEIGHTS, device=device)
    weight = weight / weight.sum() / len(points)
    error = (prediction.points - points).abs().sum(-1)
    likelihood = error * torch.exp(-prediction.log_scale) + 2 * prediction.log_scale
    upper, lower = zip(*MEETING, strict=True)
    opening = prediction.points[:, lower] - prediction.points[:, upper]
    opening = (opening - (points[:, lower] - points[:, upper])).abs().sum(-1)
    return {
        "likelihood": (likelihood * weight).sum(),
        "distance": 20.0 * (error * weight).sum(),
        "maps": 2.0 * (map_loss(prediction.maps, points) * weight).sum(),
        "opening": 20.0 * opening.mean(),
    }


def train_mouth(
    network: MouthNetwork,
    sampler: MouthSampler,
    *,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    average_decay: float = 0.998,
    device: str = "cpu",
    bfloat16: bool = False,
    **budget: Unpack[Budget],
) -> MouthNetwork:
    """Train `network` in place and return it, in evaluation mode, with averaged weights.

    See `train_averaged` for the arguments, those of the budget too, and errors.
    """
    network.to(device)

    def losses() -> dict[str, Tensor]:
        batch = sampler.crops(batch_size)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            prediction = network(to_tensor(batch.images, device))
        return mouth_loss(prediction, batch)

    train_drawn(
        network,
        losses,
        sampler,
        learning_rate=learning_rate,
        average_decay=average_decay,
        largest_norm=20.0,
        **budget,
    )
    return network
