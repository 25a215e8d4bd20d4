"""Readers of facial actions: what does a mouth say, told not by its pictures but by what it does?

A lip reader of the smallest kind, for sequences of actions instead of films: connectionist temporal classification over
characters and over visemes (Graves et al., ICML 2006). Actions can be had without end and without rendering, so that it
reads far better than a reader of pictures trained for as long, and says how much of a sentence a speech encoder lets
through before anything is drawn. As a loss it asks of an encoder what equation 5.4 of the thesis asks of a film: to be
read as the truth is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.experts.lipreading import collapse

__all__ = ["ActionReader"]


class _Block(nn.Module):
    """x + mix(gated dilated convolution of norm(x)), (B, C, T)."""

    def __init__(self, channels: int, dilation: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        reach = dilation * (kernel // 2)
        self.spread = nn.Conv1d(channels, 2 * channels, kernel, padding=reach, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return x + self.mix(self.dropout(F.glu(self.spread(y), dim=1)))


class ActionReader(nn.Module):
    """Reads sequences of actions.

    Args:
        actions: names of the actions that it reads, in order.
        vocabulary, visemes: units by id; the first of each is the blank.
        channels, dilations, kernel: width of the blocks, the dilation of each, their (odd) kernel.
        dropout: in training.

    Attributes:
        actions, vocabulary, visemes: as given.
        mean, scale: buffers (A,): of the actions it was trained on; what it reads is brought to standard units.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        actions: Sequence[str],
        vocabulary: Sequence[str],
        visemes: Sequence[str],
        channels: int = 112,
        dilations: Sequence[int] = (1, 2, 4, 1, 2, 4),
        kernel: int = 5,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.actions, self.vocabulary, self.visemes = tuple(actions), tuple(vocabulary), tuple(visemes)
        self.stem = nn.Conv1d(len(self.actions), channels, 6, stride=2, padding=2)
        self.blocks = nn.ModuleList(_Block(channels, dilation, kernel, dropout) for dilation in dilations)
        self.norm = nn.LayerNorm(channels)
        self.characters = nn.Linear(channels, len(self.vocabulary))
        self.classes = nn.Linear(channels, len(self.visemes))
        self.register_buffer("mean", torch.zeros(len(self.actions)))
        self.register_buffer("scale", torch.ones(len(self.actions)))

    def features(self, actions: Tensor) -> Tensor:
        """(B, T, A) actions in [0, 1] at 50 Hz, T >= 2 -> (B, T // 2, channels) at 25 Hz; differentiable.

        Raises:
            TalkfaceError: another shape.
        """
        if actions.dim() != 3 or actions.shape[2] != len(self.actions) or actions.shape[1] < 2:
            raise TalkfaceError(
                f"actions: shape {tuple(actions.shape)}; allowed (B, T, {len(self.actions)}) with T of 2 or more"
            )
        even = actions[:, : actions.shape[1] // 2 * 2]
        x = self.stem(((even - self.mean) / self.scale).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return self.norm(x.transpose(1, 2))

    def log_probabilities(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Of characters (B, T // 2, V) and of visemes (B, T // 2, W), natural logarithms."""
        seen = self.features(actions)
        return self.characters(seen).log_softmax(-1), self.classes(seen).log_softmax(-1)

    @torch.no_grad()
    def read(self, actions: Tensor) -> tuple[str, str]:
        """What one sequence (T, A) says: its text, and its visemes with spaces between them; greedy."""
        characters, visemes = (
            collapse(one[0].argmax(-1).tolist()) for one in self.log_probabilities(actions[None])
        )
        text = "".join(self.vocabulary[unit] for unit in characters).strip()
        return text, " ".join(self.visemes[unit] for unit in visemes)
