"""Losses that ask an expert: CLIP for the expression, a recogniser for the person, a lip reader, a judge of sync.

They are handed what the experts said (features, similarities), not the experts; each gives one number for each sample,
so that samples can be weighed and logged on their own. Where a term compares with a source or with the truth, the
caller computes that side without gradients.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.errors import TalkfaceError

_TINY = 1e-7
_SMALLEST_CHANGE = 1e-3


def directional_loss(edited: Tensor, source: Tensor, direction: Tensor) -> Tensor:
    """-log((2 - L_dir) / 2), L_dir = 1 - cos(change of the picture, change of the text); (B,), 0 and more.

    The local direction of Gal et al. ("StyleGAN-NADA", 2021, eq. 2) in the form of Kim et al. ("DiffusionCLIP", 2022)
    that the thesis uses (eq. 4.21 and 4.23): 0 where the change points where the text does, log 2 where it is
    perpendicular. A change of exactly the other way would be infinite; it is held at about 16.

    Args:
        edited, source: (B, D), CLIP's vectors of the edited picture and of the one before, of unit length.
        direction: (D,) or (B, D), from the source's text to the target's, see `talkface.experts.prompts`.

    Raises:
        TalkfaceError: vectors of different length, as those of two different CLIPs are.
    """
    if direction.shape[-1] != edited.shape[-1]:
        raise TalkfaceError(
            f"direction of {direction.shape[-1]} numbers for pictures of {edited.shape[-1]}; allowed are texts and "
            "pictures encoded by the same CLIP; compute the texts again"
        )
    # the floor (the thesis adds 1e-7): a picture that has not changed yet has no direction, nor a gradient worth 1e7
    change = edited - source
    change = change / change.norm(dim=-1, keepdim=True).clamp_min(_SMALLEST_CHANGE)
    cosine = (change * F.normalize(direction, dim=-1)).sum(-1)
    return -((1.0 + cosine) / 2.0).clamp_min(_TINY).log()


def identity_loss(edited: Tensor, source: Tensor) -> Tensor:
    """1 - cosine of a face recogniser's vectors (B, D); (B,), 0 to 2 (thesis, section 4.5.2)."""
    return 1.0 - F.cosine_similarity(edited, source, dim=-1)


def pixel_loss(edited: Tensor, source: Tensor, power: int = 2) -> Tensor:
    """Mean over a sample of |difference|^power: 2 the thesis's, 1 DiffusionCLIP's; (B, ...) twice -> (B,).

    Raises:
        TalkfaceError: another power.
    """
    if power not in (1, 2):
        raise TalkfaceError(f"power: {power}; allowed are 1 (absolute) and 2 (squared differences)")
    difference = (edited - source).flatten(1)
    return difference.abs().mean(1) if power == 1 else difference.square().mean(1)


def lip_reading_loss(made: Tensor, true: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Mean over frames of 1 - cosine of a lip reader's features; (B,), 0 to 2 (thesis, section 5.1.3).

    Args:
        made, true: (B, T, D).
        lengths: (B,) frames that count of each sequence; None: all.
    """
    distance = 1.0 - F.cosine_similarity(made, true, dim=-1)
    if lengths is None:
        return distance.mean(1)
    counts = torch.arange(distance.shape[1], device=distance.device) < lengths.to(distance.device)[:, None]
    return (distance * counts).sum(1) / counts.sum(1).clamp_min(1)


def sync_loss(similarity: Tensor) -> Tensor:
    """-log((1 + s) / 2) of the cosine s of a film's and its sound's vectors, -1 to 1; same shape, 0 and more.

    Prajwal et al. ("Wav2Lip", 2020, eq. 3) take -log of the cosine itself, of vectors without negative numbers. Ours
    may be opposed, and are then pulled, too.
    """
    return -((1.0 + similarity) / 2.0).clamp_min(_TINY).log()


def temporal_loss(made: Tensor, true: Tensor) -> Tensor:
    """How differently two films move: mean |change from frame to frame of one - that of the other|; (B,).

    A constant difference between the films costs nothing: this asks for no flicker, not for the same picture.

    Args:
        made, true: (B, T, ...), pictures or latents of consecutive frames.

    Raises:
        TalkfaceError: films of one frame, which do not move.
    """
    if made.shape[1] < 2:
        raise TalkfaceError(
            f"frames: {made.shape[1]}; allowed are 2 or more, of which consistency in time is asked"
        )
    return (made.diff(dim=1) - true.diff(dim=1)).abs().flatten(1).mean(1)
