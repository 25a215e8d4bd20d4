"""Training of the landmark network and of its proposals, for some seconds or steps, resumable.

Loss of a crop: Laplace negative log-likelihood of its 68 points, sum |error| / b + 2 log b with the predicted
scale b; a plain L1 term, which keeps hard landmarks from being given up; a cross-entropy of the heat maps,
which makes them learn early; binary cross-entropy of the confidence. Loss of a scene: cross-entropy of the
cells with the hardest negatives only (as in Liu et al., "SSD", ECCV 2016, section 2.2), and L1 of place and
size. The loop is `averaged.train_averaged`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.experts.landmark_network import FaceProposals, LandmarkNetwork, LandmarkPrediction
from talkface.training.averaged import train_averaged
from talkface.training.landmark_crops import CropBatch, CropSampler, SceneBatch

# Eyes, nose base and lips steer alignment and animation; the jaw line is vague even for people.
LANDMARK_WEIGHTS = np.repeat([0.7, 0.8, 1.0, 1.5, 1.8, 1.5], [17, 10, 4, 5, 12, 20]).astype(np.float32)


def map_loss(maps: Tensor, points: Tensor) -> Tensor:
    """Cross-entropy of each heat map with its point, spread bilinearly over the four nearest cells.

    The soft-argmax of that target is the point itself, so this pulls the same way as the other terms, but its
    gradient does not vanish while a map is still flat.

    Args:
        maps: (B, 68, H, W) before the softmax.
        points: (B, 68, 2) in crop units.

    Returns:
        (B, 68); 0 for points that lie outside the outermost cell centres.
    """
    height, width = maps.shape[2:]
    log_share = maps.float().flatten(2).log_softmax(-1)
    place = points * torch.tensor([width, height], device=points.device) - 0.5
    inside = (place >= 0).all(-1) & (place[..., 0] <= width - 1) & (place[..., 1] <= height - 1)
    x = place[..., 0].clamp(0, width - 1)
    y = place[..., 1].clamp(0, height - 1)
    left, top = x.floor().clamp_max(width - 2), y.floor().clamp_max(height - 2)
    loss = torch.zeros_like(x)
    for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
        for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
            cell = (row * width + column).long()
            loss = loss - share_x * share_y * log_share.gather(2, cell[..., None]).squeeze(-1)
    return torch.where(inside, loss, torch.zeros_like(loss))


def landmark_loss(
    prediction: LandmarkPrediction, batch: CropBatch, l1_weight: float = 20.0
) -> dict[str, Tensor]:
    """The terms `likelihood`, `distance` (weighted L1, crop units), `maps` and `confidence`, all scalars."""
    device = prediction.points.device
    points = torch.from_numpy(batch.points).to(device)
    error = (prediction.points - points).abs().sum(-1)
    weight = (
        torch.from_numpy(LANDMARK_WEIGHTS).to(device) * torch.from_numpy(batch.has_points).to(device)[:, None]
    )
    total = weight.sum().clamp_min(1.0)
    likelihood = error * torch.exp(-prediction.log_scale) + 2 * prediction.log_scale
    label = torch.from_numpy(batch.label).to(device)
    decided = label >= 0
    confidence = (
        F.binary_cross_entropy_with_logits(prediction.logit[decided], label[decided])
        if bool(decided.any())
        else prediction.logit.sum() * 0
    )
    return {
        "likelihood": (likelihood * weight).sum() / total,
        "distance": l1_weight * (error * weight).sum() / total,
        "maps": 2.0 * (map_loss(prediction.maps, points) * weight).sum() / total,
        "confidence": 4.0 * confidence,
    }


def proposal_loss(output: Tensor, batch: SceneBatch, negatives_per_face: int = 6) -> Tensor:
    """Cross-entropy and place of the proposals.

    Args:
        output: (B, 4, H, W) of `FaceProposals`.
        batch: the scenes it looked at.
    """
    size, stride = FaceProposals.face_size, FaceProposals.stride
    height, width = output.shape[2:]
    centres = torch.from_numpy(batch.centres).to(output.device) / size
    sizes = torch.from_numpy(batch.sizes).to(output.device) / size
    xs = (torch.arange(width, device=output.device) + 0.5) * stride / size
    ys = (torch.arange(height, device=output.device) + 0.5) * stride / size
    dx = centres[:, 0, None, None] - xs[None, None, :]
    dy = centres[:, 1, None, None] - ys[None, :, None]
    distance = torch.maximum(dx.abs().expand(-1, height, -1), dy.abs().expand(-1, -1, width))
    relative = sizes[:, None, None].clamp_min(1e-3)
    right_size = (relative > 0.72) & (relative < 1.4)
    positive = right_size & (distance < 0.16 * relative)
    near = (relative > 0.5) & (relative < 2.0) & (distance < 0.4 * relative)
    logits = output[:, 0].float()
    cost = F.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")
    count = int(positive.sum())
    hard = torch.where(near, torch.zeros_like(cost), cost).flatten()
    hard = hard.topk(min(hard.numel(), negatives_per_face * max(count, len(output)))).values
    loss = hard.sum() / max(count, len(output))
    if count:
        place = torch.stack(
            [dx.expand_as(logits), dy.expand_as(logits), relative.log().expand_as(logits)], dim=-1
        )
        error = (output[:, 1:].permute(0, 2, 3, 1).float() - place).abs().sum(-1)
        loss = loss + (cost[positive].sum() + 2.0 * error[positive].sum()) / count
    return loss


def train_landmarks(
    network: LandmarkNetwork,
    sampler: CropSampler,
    *,
    seconds: float = math.inf,
    steps: int | None = None,
    batch_size: int = 32,
    scene_batch_size: int = 24,
    learning_rate: float = 2e-3,
    average_decay: float = 0.998,
    device: str = "cpu",
    bfloat16: bool = False,
    checkpoint: Path | None = None,
    save_every: float = 60.0,
    log: Callable[[str], None] | None = None,
) -> LandmarkNetwork:
    """Train `network` in place and return it, in evaluation mode, with averaged weights.

    Args:
        seconds: time budget, summed over interrupted runs; the learning rate follows a cosine over it.
        steps: instead of, or besides, the time budget: a number of steps; the first limit reached ends it.
        checkpoint: state is written here every `save_every` seconds and read from here when it exists.
        log: receives one line every 100 steps.

    Raises:
        ValueError: neither `seconds` nor `steps` limits the run.
    """
    network.to(device)
    network.mean_shape.copy_(torch.from_numpy(sampler.mean_shape))

    def losses() -> dict[str, Tensor]:
        crops, scenes = sampler.crops(batch_size), sampler.scenes(scene_batch_size)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            prediction = network(to_tensor(crops.images, device))
            proposals = network.proposals(to_tensor(scenes.images, device))
        terms = landmark_loss(prediction, crops)
        for row in torch.nonzero(prediction.logit.detach().cpu() > -1.0).flatten().tolist():
            if crops.faceless[row]:
                sampler.remember(crops.images[row], prediction.points[row].detach().cpu().numpy())
        terms["proposals"] = proposal_loss(proposals, scenes)
        return terms

    def resumed(step: int) -> None:
        sampler.rng = np.random.default_rng([step, 1])

    # Apart, because the likelihood's gradient is large and would scale the proposals' to nothing.
    proposer = set(network.proposals.parameters())
    others = [parameter for parameter in network.parameters() if parameter not in proposer]
    train_averaged(
        network, losses, seconds=seconds, steps=steps, learning_rate=learning_rate, average_decay=average_decay,
        clip=[(others, 20.0), (proposer, 5.0)], checkpoint=checkpoint, save_every=save_every, resumed=resumed,
        log=log,
    )  # fmt: skip
    return network


def to_tensor(images: np.ndarray, device: str = "cpu") -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float in [-1, 1]."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
