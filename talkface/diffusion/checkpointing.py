"""Memory of a differentiated sampler: activations of every network call are computed again in the backward pass.

A chain of S solver steps that is differentiated keeps the activations of S network calls. With
`torch.utils.checkpoint` (Chen et al., "Training deep nets with sublinear memory cost", 2016, arXiv 1604.06174) around
each call only its input and output are kept, which are latents, and the activations of a single call: peak memory
hardly grows with S, for one more forward pass of each call.
"""

from __future__ import annotations

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from talkface.diffusion.base import NoisePredictor


def checkpointed(predict: NoisePredictor) -> NoisePredictor:
    """The same noise predictor, with activations that are not kept but computed again when gradients are.

    Values and gradients are those of `predict`, which must give the same result when called again: what it draws from
    torch's global generator is drawn again alike, what it draws from a `torch.Generator` of its own is not. Where no
    gradient is asked for it is called as it is.

    Args:
        predict: (x (B, ...), timesteps (B,)) -> eps (B, ...); parameters that it closes over receive gradients even if
            `x` needs none.
    """

    def recomputed(x: Tensor, timesteps: Tensor) -> Tensor:
        return checkpoint(predict, x, timesteps, use_reentrant=False)

    return recomputed
