"""The training loss of diffusion models.

Mean squared error between the network's output and its target (Ho et al. 2020, arXiv 2006.11239, eq. 14), for
networks that predict noise, velocity or clean data; optionally with min-SNR weights (Hang et al. 2023, arXiv
2303.09556, eq. 8), weights per sample, and weights per region of the picture. It corrupts nothing and draws
nothing: noise and timesteps are given.
"""

from __future__ import annotations

from torch import Tensor

from talkface.diffusion.schedule import NoiseSchedule, check_prediction_type
from talkface.errors import TalkfaceError


def min_snr_weights(schedule: NoiseSchedule, timesteps: Tensor, prediction_type: str, gamma: float) -> Tensor:
    """min(SNR, gamma), the weight of an error in clean data, converted to the units of the prediction.

    Args:
        timesteps: (B,).
        gamma: cap on the signal-to-noise ratio (the paper's 5).
    Returns:
        (B,) float32.
    Raises:
        TalkfaceError: unknown prediction type, or a gamma that is not positive.
    """
    check_prediction_type(prediction_type)
    if gamma <= 0:
        raise TalkfaceError(f"min_snr_gamma: {gamma}; allowed: above 0, or None for no such weight")
    snr = schedule.snr(timesteps)
    capped = snr.clamp(max=gamma)
    if prediction_type == "epsilon":
        return capped / snr
    return capped if prediction_type == "x0" else capped / (snr + 1.0)


def error_per_sample(
    output: Tensor, target: Tensor, norm: str = "l2", region_weights: Tensor | None = None
) -> Tensor:
    """Mean error of each sample.

    Args:
        output, target: (B, C, H, W).
        norm: "l2" (squared error) or "l1" (absolute error).
        region_weights: (B, 1, H, W), at least 0; only their ratios within a sample matter.
    Returns:
        (B,) float32.
    Raises:
        TalkfaceError: unknown norm.
    """
    if norm not in ("l1", "l2"):
        raise TalkfaceError(f"norm of the denoising loss: '{norm}'; allowed: 'l2', 'l1'")
    difference = output.float() - target.float()
    error = difference.abs() if norm == "l1" else difference.square()
    if region_weights is None:
        return error.flatten(1).mean(dim=1)
    weights = region_weights.to(error.dtype).expand_as(error).flatten(1)
    return (weights * error.flatten(1)).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-8)


def denoising_loss(
    output: Tensor,
    x0: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    prediction_type: str = "epsilon",
    *,
    min_snr_gamma: float | None = None,
    norm: str = "l2",
    sample_weights: Tensor | None = None,
    region_weights: Tensor | None = None,
    reduce: bool = True,
) -> Tensor:
    """What a diffusion network minimises.

    Args:
        output: (B, C, H, W), of the network on schedule.add_noise(x0, noise, timesteps).
        x0, noise: (B, C, H, W), the clean data and the noise added to it.
        timesteps: (B,).
        schedule: the noise levels.
        prediction_type: what the network outputs: "epsilon", "velocity" or "x0".
        min_snr_gamma: see `min_snr_weights`; None (the thesis): no weight.
        norm: "l2" or "l1".
        sample_weights: (B,), multiplies each sample's loss before the mean over the batch.
        region_weights: (B, 1, H, W), see `error_per_sample`.
        reduce: False: return the losses of the samples.
    Returns:
        A scalar, or (B,) without `reduce`; float32.
    """
    target = schedule.target(x0, noise, timesteps, prediction_type)
    losses = error_per_sample(output, target, norm, region_weights)
    if min_snr_gamma is not None:
        losses = losses * min_snr_weights(schedule, timesteps, prediction_type, min_snr_gamma)
    if sample_weights is not None:
        losses = losses * sample_weights
    return losses.mean() if reduce else losses
