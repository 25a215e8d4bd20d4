"""How loud a voice is, while the sound is still coming.

Encoders that do not mind the gain of a recording measure its level first (`SpeechEncoder.level`), which needs the
whole sound. These estimate the same from what has been heard so far, in memory that does not grow.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LoudFrames", "RecentLevel", "RunningLevel", "frame_power"]

_LOWEST, _STEP, _BINS = -9.0, 0.02, 550  # log10 of power, down to -90 dB and up to +20 dB
_VOICE = 3.0  # what is more than 30 dB below the loudest is a pause
_USUAL, _USUAL_FRAMES = -2.0, 3.0  # a voice on an ordinary recording, worth as many frames heard
_HALF_LIFE = 60.0  # seconds after which a frame counts half: speakers change


class RunningLevel(Protocol):
    """Call `update` with every piece of the sound, in order."""

    def update(self, samples: Tensor) -> Tensor | None:
        """Samples (N,) -> what `SpeechEncoder.level` would return for the sound, as far as can be told."""


class LevelledEncoder(Protocol):
    """What `RecentLevel` needs of an encoder."""

    sample_rate: int

    def level(self, waveform: Tensor) -> Tensor | None: ...


class RecentLevel:
    """The level of the last `seconds`: for any encoder."""

    def __init__(self, encoder: LevelledEncoder, seconds: float = 10.0) -> None:
        self._encoder, self._kept = encoder, round(seconds * encoder.sample_rate)
        self._recent = torch.empty(0)

    def update(self, samples: Tensor) -> Tensor | None:
        """See `RunningLevel`."""
        self._recent = torch.cat([self._recent.to(samples), samples])[-self._kept :]
        return self._encoder.level(self._recent[None])


class LoudFrames:
    """Running form of a level that is the 95th percentile of the frames' log10 power, for `_LogMel.level`.

    A histogram of the frames, whose old entries fade. Pauses do not count, or the noise of a long one would be raised
    to a voice; before the first word the level is that of an ordinary recording.

    Args:
        hop: samples of a frame, 10 ms of them.
    """

    def __init__(self, hop: int) -> None:
        self._hop = hop
        self._counts = torch.zeros(_BINS, dtype=torch.float64)
        self._usual = torch.zeros(_BINS, dtype=torch.float64)
        self._usual[round((_USUAL - _LOWEST) / _STEP)] = _USUAL_FRAMES
        self._rest = torch.empty(0)

    def update(self, samples: Tensor) -> Tensor:
        """See `RunningLevel`; (1, 1, 1)."""
        rest = torch.cat([self._rest.to(samples), samples])
        frames = len(rest) // self._hop
        if frames:
            power = frame_power(rest[None], self._hop)[0].clamp(min=10.0**_LOWEST).log10().double().cpu()
            bins = ((power - _LOWEST) / _STEP).long().clamp(max=_BINS - 1)
            self._counts *= 0.5 ** (0.01 * frames / _HALF_LIFE)
            self._counts += torch.bincount(bins, minlength=_BINS)
        self._rest = rest[frames * self._hop :].clone()
        counts = self._counts + self._usual
        loudest = int((counts >= 0.5).nonzero().max())
        quietest = max(0, loudest - round(_VOICE / _STEP))
        heard = counts[quietest : loudest + 1].cumsum(0)
        place = quietest + int(torch.searchsorted(heard, 0.95 * heard[-1]))
        level = _LOWEST + _STEP * (place + 0.5)
        return samples.new_full((1, 1, 1), max(level, -5.0))


def frame_power(waveform: Tensor, hop: int) -> Tensor:
    """(B, samples) -> (B, samples // hop): mean square of each frame and its two neighbours."""
    usable = waveform.shape[1] // hop * hop
    power = waveform[:, :usable].reshape(len(waveform), -1, hop).square().mean(-1)
    return F.avg_pool1d(power[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
