"""The default bundle's decoder of changes: taught by the first stage on the pairs that the network was trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bundle_data import masked_window
from torch import Tensor
from tqdm import tqdm

from talkface.checkpoint import instantiate
from talkface.networks.change_decoder import ChangeDecoder
from talkface.training.averaged import train_averaged
from talkface.training.change_decoder import change_losses, taught_change
from talkface.training.diffusion import DiffusionModule
from talkface.training.window import Window

BATCH = 16
HELD = 320  # pairs at the end, a fifth at most, that are only measured


@torch.inference_mode()
def repainted(
    pairs: dict[str, Tensor], module: DiffusionModule, window: Window, device: str
) -> dict[str, Tensor]:
    """What the network makes of every pair's guide in one step, float16: `latents`, and the `change` of pixels."""
    generator = torch.Generator().manual_seed(0)
    stored: dict[str, list[Tensor]] = {"latents": [], "change": []}
    for start in tqdm(range(0, len(pairs["emotion"]), BATCH), desc="repaint"):
        batch = {name: values[start : start + BATCH].to(device) for name, values in pairs.items()}
        batch = {name: one.float() if one.is_floating_point() else one for name, one in batch.items()}
        with torch.autocast(device, torch.bfloat16):
            latents = module.denoise(batch, generator, False).clean
            change = taught_change(module.first_stage, window, latents, batch["guide_latents"])
        for name, values in (("latents", latents), ("change", change)):
            stored[name].append(values.half().cpu())
    return {name: torch.cat(values) for name, values in stored.items()}


def train_change_decoder(
    pairs: dict[str, Tensor],
    module: DiffusionModule,
    spec: dict[str, Any],
    seconds: float,
    device: str,
    log: Callable[[str], None],
) -> ChangeDecoder:
    """
    Args:
        pairs: what the network was trained on, see `bundle_data.spoken_pairs`.
        module: the trained network, with its sampler's only noise level.
        spec: class path and arguments of the decoder.
        seconds: of training, without repainting.
        log: receives lines.
    """
    window = Window(module.first_stage, masked_window())
    stored = repainted(pairs, module, window, device) | {"before": pairs["guide_latents"]}
    decoder: Any = instantiate(spec).to(device)
    count = len(stored["change"])
    trained, rng = count - min(HELD, count // 5), np.random.default_rng(0)

    def losses(rows: np.ndarray) -> dict[str, Tensor]:
        latents, before, change = (
            stored[name][rows].float().to(device) for name in ("latents", "before", "change")
        )
        with torch.autocast(device, torch.bfloat16):
            return change_losses(decoder, window, latents, before, change)

    train_averaged(
        decoder,
        lambda: losses(rng.integers(trained, size=BATCH)),
        seconds=seconds,
        average_decay=0.995,
        clip=[(decoder.parameters(), 2.0)],
        log=log,
    )
    with torch.inference_mode():
        missed = float(losses(np.arange(trained, count))["change"])
    log(
        f"held-out pairs: {missed:.4f} of {float(stored['change'][trained:].float().abs().mean()):.4f} is missed"
    )
    return decoder
