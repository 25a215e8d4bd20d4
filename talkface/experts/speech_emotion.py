"""Speech of a face that feels something: what an emotion adds to the mouth actions of the articulation encoder.

`EmotionBranch` is a part of the encoder, `EmotionalSpeech` the encoder as a film with an emotion uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.experts.speech_base import SpeechEncoder
from talkface.experts.speech_level import RunningLevel

if TYPE_CHECKING:
    from talkface.experts.speech_articulation import ArticulationEncoder

__all__ = ["EmotionBranch", "EmotionalSpeech", "smoothed"]

_SMOOTH = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class EmotionBranch(nn.Module):
    """What an emotion adds to mouth actions, from what the encoder's heads read.

    Two layers, modulated by the emotion (FiLM, Perez et al. 2018, arXiv 1709.07871), one feature at a time: the layers
    below have heard 0.8 s on both sides. For each action they tell two numbers, c1 and c2; at intensity s it changes by
    s c1 + s² c2, nothing at 0 whatever the weights.

    Args:
        inputs: channels of the hidden features.
        emotions: names; without neutral, which adds nothing.
        actions: facial actions that change, each side by itself.
        channels: width.
    """

    def __init__(
        self, inputs: int, emotions: Sequence[str], actions: Sequence[str], channels: int = 64
    ) -> None:
        super().__init__()
        self.emotions, self.actions = tuple(emotions), tuple(actions)
        self.read = nn.Linear(inputs, channels)
        self.mix = nn.Linear(channels, channels)
        self.tell = nn.Linear(channels, 2 * len(self.actions))
        self.feel = nn.Embedding(len(self.emotions), 4 * channels)
        self.pose = nn.Embedding(len(self.emotions), 2 * len(self.actions))  # whatever is said
        for layer in (self.tell, self.feel, self.pose):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.tell.bias)

    def forward(self, hidden: Tensor, emotion: Tensor) -> Tensor:
        """Hidden features (B, T, inputs), numbers (B,) of emotions -> c1 and c2 (B, T, 2, actions)."""
        first, second = self.feel(emotion)[:, None].chunk(2, dim=-1)
        x = F.gelu(_modulated(self.read(hidden), first))
        x = x + F.gelu(_modulated(self.mix(x), second))
        told = self.tell(x) + self.pose(emotion)[:, None]
        return told.unflatten(-1, (2, len(self.actions)))

    @staticmethod
    def change(told: Tensor, intensity: Tensor) -> Tensor:
        """What `forward` told (..., 2, A) at intensities (...) in [0, 1] -> the change of the actions (..., A)."""
        s = intensity[..., None]
        return s * told[..., 0, :] + s * s * told[..., 1, :]


def smoothed(told: Tensor) -> Tensor:
    """(B, T, 2, A) as a weighted mean over 0.1 s: what is told of one feature after the other trembles with noise.

    It reaches two features farther than the encoder, which is what `context_seconds` leaves.
    """
    rows = told.flatten(2).transpose(1, 2)
    padded = F.pad(rows, (2, 2), mode="replicate")
    count = rows.shape[2]
    parts = [weight * padded[..., k : k + count] for k, weight in enumerate(_SMOOTH)]
    return torch.stack(parts).sum(0).transpose(1, 2).unflatten(2, told.shape[2:])


def _modulated(x: Tensor, scale_and_shift: Tensor) -> Tensor:
    scale, shift = scale_and_shift.chunk(2, dim=-1)
    return x * (1.0 + scale) + shift


class EmotionalSpeech(SpeechEncoder):
    """An articulation encoder that listens for a face in one emotion.

    Its features are the encoder's own, bit by bit, followed by what its branch tells of the emotion. They hold for
    every intensity, which may therefore change from frame to frame.

    Args:
        encoder: with a branch that knows the emotion.
        emotion: name.
    """

    def __init__(self, encoder: ArticulationEncoder, emotion: str) -> None:
        super().__init__()
        assert encoder.branch is not None
        self.encoder, self.emotion = encoder, emotion
        self._number = encoder.branch.emotions.index(emotion)
        self.own_dim = encoder.feature_dim
        self.feature_dim = encoder.feature_dim + 2 * len(encoder.branch.actions)
        self.feature_rate, self.context_seconds = encoder.feature_rate, encoder.context_seconds
        self.chunk_seconds = encoder.chunk_seconds

    @property
    def mean(self) -> Tensor:
        """The encoder's; where it is, it computes."""
        return self.encoder.mean

    def level(self, waveform: Tensor) -> Tensor:
        return self.encoder.level(waveform)

    def running_level(self) -> RunningLevel:
        return self.encoder.running_level()

    def forward(self, waveform: Tensor, level: Tensor | None = None) -> Tensor:
        hidden = self.encoder.hidden(waveform, level)
        number = torch.full((len(hidden),), self._number, device=hidden.device)
        return torch.cat([self.encoder.told(hidden), self.encoder.felt(hidden, number).flatten(2)], dim=-1)

    def amplified(self, features: Tensor, gain: float) -> Tensor:
        """As `ArticulationEncoder.amplified`; what the emotion adds stays as it is."""
        own = self.encoder.amplified(features[..., : self.own_dim], gain)
        return torch.cat([own, features[..., self.own_dim :]], dim=-1)

    def to_actions(self, features: Tensor, names: Sequence[str]) -> Tensor:
        """Facial actions (..., len(names)) in [0, 1] without the emotion, as `ArticulationEncoder.to_actions`."""
        return self.encoder.to_actions(features[..., : self.own_dim], names)

    def expressive(self, features: Tensor, intensity: Tensor, names: Sequence[str]) -> Tensor:
        """Features (..., D) -> facial actions (..., len(names)) in [0, 1] of the speaking face with its emotion.

        Args:
            intensity: (...) 0, which gives `to_actions`, to 1.
        """
        branch = self.encoder.branch
        assert branch is not None
        told = features[..., self.own_dim :].unflatten(-1, (2, len(branch.actions)))
        change = branch.change(told, intensity)
        actions = self.to_actions(features, names).clone()
        kept = [k for k, name in enumerate(branch.actions) if name in names]
        places = [list(names).index(branch.actions[k]) for k in kept]
        actions[..., places] = (actions[..., places] + change[..., kept]).clamp(0.0, 1.0)
        return actions
