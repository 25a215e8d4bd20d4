"""How the latents of many frames are drawn: noise, guidance, groups, windows.

Same seed, same bytes: floating-point kernels choose another summation order for another batch size, so every
network call here holds exactly `group` frames (the last group is filled with copies), and the noise of a
frame is a function of seed and frame index alone. What a caller batches around it cannot change a byte.

Windows. A film can be cut into windows with a reference picture each; neighbours share `overlap` frames, and
in the overlap the predictions under both references are averaged at every denoising step with linearly fading
weights. Our network sees one frame at a time, so fused windows differ from single ones only where their
conditioning differs: with one reference for the whole film there is nothing to fuse, and nothing is computed
twice. It also means that fusing needs no look-ahead: a frame only needs the references of the one or two
windows it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkface.conditioning.base import ConditionerSet
from talkface.diffusion.guidance import ClassifierFreeGuidance
from talkface.diffusion.schedule import NoiseSchedule
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import uniform_timesteps


def frame_generator(seed: int, index: int, purpose: str = "start") -> torch.Generator:
    """A CPU generator that depends on seed, frame (-1: the film itself) and purpose only."""
    entropy = [seed, index + 1, *purpose.encode()]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def frame_noise(shape: Sequence[int], seed: int, indices: Sequence[int], independent: float) -> Tensor:
    """Starting noise (N, *shape), standard normal in every frame.

    noise_k = sqrt(1 - independent^2) * base + independent * own_k: frames share `base`, so that what the
    noise decides (skin, teeth, light) does not flicker (mixed noise, Ge et al. 2023, arXiv 2305.10474).
    `independent` = 0 is one noise for the whole film, 1 is fresh noise for every frame (the paper's choice).
    """
    if independent >= 1.0:
        return torch.stack([torch.randn(*shape, generator=frame_generator(seed, k)) for k in indices])
    base = torch.randn(*shape, generator=frame_generator(seed, -1))
    if independent <= 0.0:
        return base.expand(len(indices), *shape).clone()
    own = torch.stack([torch.randn(*shape, generator=frame_generator(seed, k)) for k in indices])
    return (1.0 - independent**2) ** 0.5 * base + independent * own


def window_weights(index: int, window: int, overlap: int) -> list[tuple[int, float]]:
    """The windows that frame `index` belongs to, as (window number, weight); weights sum to 1.

    Window n covers frames n * (window - overlap) ... + window - 1. At most two windows meet (2 * overlap <=
    window). Across the overlap the earlier window fades out and the later one in, by (i + 1) / (overlap + 1).
    """
    stride = window - overlap
    last, position = divmod(index, stride)
    if last == 0 or position >= overlap:
        return [(last, 1.0)]
    fade_in = (position + 1) / (overlap + 1)
    return [(last - 1, 1.0 - fade_in), (last, fade_in)]


@dataclass(frozen=True)
class LatentSampler:
    """Draws latents for a group of frames with DDIM and classifier-free guidance.

    Args:
        network: `(x, timesteps, conditioning) -> output`.
        conditioner: turns a batch into what the network is told.
        scales: guidance scale by conditioner name; 1 = none, and costs nothing.
        eta, final_alpha, spacing: see `DDIM` and `uniform_timesteps`.
    """

    network: torch.nn.Module
    conditioner: ConditionerSet
    schedule: NoiseSchedule
    prediction_type: str
    num_inference_steps: int
    scales: dict[str, float]
    eta: float = 0.0
    spacing: str = "leading"
    final_alpha: str = "first"

    def __call__(
        self,
        x: Tensor,
        batch: dict[str, Tensor],
        owners: Tensor | None = None,
        weights: Tensor | None = None,
        generator: list[torch.Generator] | None = None,
        keep_going: Callable[[], None] | None = None,
    ) -> Tensor:
        """Denoise x (N, C, H, W), where row r of `batch` (R rows) conditions frame owners[r] with weights[r].

        `owners=None` means one row per frame. Otherwise the predictions of a frame's rows are averaged with
        their weights (which sum to 1 for each frame) at every step. `generator`: one per frame, for `eta` >
        0. `keep_going` is called at every step and raises to stop.
        """
        guiding = [name for name, scale in self.scales.items() if scale != 1.0]
        conditioning, nulls = self.conditioner.with_nulls(batch, guiding)
        guided = ClassifierFreeGuidance(
            self.network, self.schedule, self.prediction_type, conditioning, nulls, self.scales
        )

        def predict_noise(latents: Tensor, timesteps: Tensor) -> Tensor:
            if keep_going is not None:
                keep_going()
            if owners is None or weights is None:
                return guided(latents, timesteps).float()
            predicted = guided(latents[owners], timesteps[owners]).float()
            fused = torch.zeros_like(latents)
            return fused.index_add_(0, owners, predicted * weights[:, None, None, None])

        timesteps = uniform_timesteps(
            self.num_inference_steps, self.schedule.num_train_timesteps, spacing=self.spacing
        )
        solver = DDIM(self.schedule, eta=self.eta, final_alpha=self.final_alpha)
        return solver.sample(predict_noise, x, timesteps, generator=generator)
