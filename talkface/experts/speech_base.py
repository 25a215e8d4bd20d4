"""The interface of speech encoders."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from talkface.experts.speech_level import RecentLevel, RunningLevel

__all__ = ["SpeechEncoder"]


class SpeechEncoder(nn.Module):
    """Interface of all encoders.

    Attributes:
        sample_rate: 16000.
        feature_rate: features per second.
        feature_dim: D, size of a feature.
    """

    sample_rate: int = 16000
    feature_rate: float
    feature_dim: int
    chunk_seconds: float = 20.0
    """Sound that `encode_long` encodes at once, besides the context on both sides."""
    context_seconds: float = 1.0
    """Sound on each side of a chunk that can change its features."""

    @abstractmethod
    def forward(self, waveform: Tensor) -> Tensor:
        """(B, samples) -> (B, num_features(samples), D)."""

    def num_features(self, samples: int) -> int:
        """Features of a sound of `samples` samples: duration times rate, halves rounded up, at least 1."""
        return max(1, int(samples / self.sample_rate * self.feature_rate + 0.5))

    def level(self, waveform: Tensor) -> Tensor | None:
        """What `forward` measures on the whole sound (B, ...), so that chunks agree on it; None when
        nothing."""
        return None

    def running_level(self) -> RunningLevel:
        """Estimates `level` while the sound is still coming."""
        return RecentLevel(self)

    @torch.no_grad()
    def encode_long(self, waveform: Tensor) -> Tensor:
        """Encodes a sound of any length in chunks of constant memory.

        Args:
            waveform: (samples,).

        Returns:
            (T, D); the same as `forward` on the whole sound, as far as the encoder's reach is finite.
        """
        step = round(self.chunk_seconds * self.feature_rate)
        reach = round(self.context_seconds * self.feature_rate)
        hop = self.sample_rate / self.feature_rate
        total = self.num_features(len(waveform))
        options = {} if (level := self.level(waveform[None])) is None else {"level": level}
        parts = []
        for start in range(0, total, step):
            first, end = max(0, start - reach), min(total, start + step)
            last = min(total, end + reach)
            stop = len(waveform) if last == total else round(last * hop)
            features = self(waveform[None, round(first * hop) : stop], **options)[0]
            parts.append(features[start - first : end - first])
        return torch.cat(parts)
