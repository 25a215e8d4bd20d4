"""Encoders that read log-mel spectra: the spectra themselves, and the bundled articulation encoder.

The articulation encoder is not a recogniser: it tells what a mouth does, not what is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.experts.speech_base import SpeechEncoder
from talkface.experts.speech_emotion import EmotionBranch, smoothed
from talkface.experts.speech_level import LoudFrames, frame_power

__all__ = ["ArticulationEncoder", "LogMelEncoder", "mel_filters"]

_PRESS, _ROLL = "mouthPress", "mouthRollLower"
_HELD = {_PRESS: 0.30, _ROLL: 0.55}  # actions of closed lips, as p, b, m (f, v) have them
_ROLLED = 0.22  # of a full `_ROLL`, what lips that are pressed together have; the rest is a lip tucked under the teeth
_OPENING = ("jawOpen", "mouthLowerDown", "mouthUpperUp", "mouthFunnel")
_PARTS_TEETH = ("jawOpen", "mouthUpperUp")  # of these, what f and v show: the upper lip raised off the teeth
# of `_HELD` together: from where on lips are closed. What is told of a short closure is a mean over lips that are held
# together and lips that are not: a missed one is seen, one too many at d or n hardly. They close by degrees from 0
# on, since noise in the sound would make a threshold flutter.
_SURE = 0.45
# features on each side among which a closure has its middle: before and after it lips close as far as they are told,
# in parts of that, or every closure would take twice its time and the vowels beside it would go
_MIDDLE = 3
# An emotion opens the lips whatever is said, and a missed closure shows more.
_SURE_WITH_EMOTION, _LEFT_WITH_EMOTION = 0.15, 0.05  # and so much of an opening is left
_HOP, _WINDOW = 160, 400  # 10 ms and 25 ms


def mel_filters(bands: int = 80, bins: int = 201, sample_rate: int = 16000) -> Tensor:
    """(bands, bins) triangular filters, equally spaced on the mel scale of O'Shaughnessy (2595 log10(1 + f /
    700)), each of unit sum."""
    top = 2595.0 * torch.log10(torch.tensor(1.0 + sample_rate / 2 / 700.0))
    corners = 700.0 * (10.0 ** (torch.linspace(45.0, float(top), bands + 2) / 2595.0) - 1.0)
    frequency = torch.linspace(0.0, sample_rate / 2, bins)
    rise = (frequency[None] - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    fall = (corners[2:, None] - frequency[None]) / (corners[2:] - corners[1:-1])[:, None]
    filters = torch.minimum(rise, fall).clamp(min=0.0)
    return filters / filters.sum(1, keepdim=True).clamp(min=1e-6)


class _LogMel(nn.Module):
    """(B, samples) -> (B, bands, 2 * features): log10 mel power every 10 ms relative to the level of the
    speech.

    The level is the 95th percentile of the power of the 25 ms frames, so that the gain of a recording does
    not matter; below -50 dB (full scale) it is held, or the noise of a silent room would be raised to a
    voice.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.register_buffer("filters", mel_filters(bands), persistent=False)
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)

    def level(self, waveform: Tensor) -> Tensor:
        """(B, 1, 1) log10 of the power of loud frames."""
        if waveform.shape[1] < _HOP:
            return waveform.new_full((len(waveform), 1, 1), -5.0)
        power = frame_power(waveform, _HOP)
        rank = max(1, round(0.95 * power.shape[1]))
        return power.kthvalue(rank, dim=1).values.clamp(min=1e-5).log10()[:, None, None]

    def forward(self, waveform: Tensor, frames: int, level: Tensor) -> Tensor:
        """`frames` spectra whose windows are centred at (k + 0.5) * 10 ms."""
        margin = (_WINDOW - _HOP) // 2
        short = frames * _HOP + margin - waveform.shape[1]
        padded = F.pad(waveform, (margin, max(0, short)))[:, : frames * _HOP + 2 * margin]
        blocks = padded.unfold(1, _WINDOW, _HOP) * self.window
        power = torch.fft.rfft(blocks).abs().square() / (_WINDOW * _WINDOW / 8)
        mel = torch.einsum("btf,mf->bmt", power, self.filters)
        # 60 dB below the level is as good as nothing
        return ((mel.clamp(min=1e-12).log10() - level) / 2.0 + 2.0).clamp(min=-1.0)


class LogMelEncoder(SpeechEncoder):
    """Log-mel spectrogram at 50 Hz, two frames of 10 ms a feature, optionally with a learned projection.

    Args:
        bands: mel bands. dim: None = the 2 * bands values themselves (no weights), else a learned linear map
            to `dim`.
    """

    feature_rate = 50.0
    context_seconds = 0.04

    def __init__(self, bands: int = 40, dim: int | None = None) -> None:
        super().__init__()
        self.mel = _LogMel(bands)
        self.project = nn.Identity() if dim is None else nn.Linear(2 * bands, dim)
        self.feature_dim = 2 * bands if dim is None else dim

    def level(self, waveform: Tensor) -> Tensor:
        return self.mel.level(waveform)

    def running_level(self) -> LoudFrames:
        return LoudFrames(_HOP)

    def forward(self, waveform: Tensor, level: Tensor | None = None) -> Tensor:
        count = self.num_features(waveform.shape[1])
        mel = self.mel(waveform, 2 * count, self.level(waveform) if level is None else level)
        return self.project(mel.unflatten(2, (count, 2)).permute(0, 2, 3, 1).flatten(2))


class _Block(nn.Module):
    """x + conv(gelu(dilated conv(norm(x)))), norm over channels (Oord et al. 2016's dilations, without
    gates)."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.spread = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return x + self.mix(self.dropout(F.gelu(self.spread(y))))


def _highest(values: Tensor, reach: int) -> Tensor:
    """(..., T): the highest of each value of (..., T), at least 0, and `reach` beside it on both sides."""
    flat = F.max_pool1d(values.reshape(-1, 1, values.shape[-1]), 2 * reach + 1, stride=1, padding=reach)
    return flat.reshape(values.shape)


class ArticulationEncoder(SpeechEncoder):
    """The bundled encoder: log-mel -> strided convolution -> dilated residual convolutions -> mouth actions
    at 50 Hz.

    Trained by `scripts/train_speech.py` on synthesized speech with known articulation and, through a
    teacher, on recordings of people. It looks 0.8 s ahead and back, and is exact in chunks.

    Args:
        actions: names of the facial actions that it predicts; a name without Left or Right stands for both
            sides.
        channels, dilations: width of the blocks and the dilation of each.
        bands: mel bands.
        dropout: of channels, during training.
        branch: arguments of its `EmotionBranch` (emotions, actions, ...), so that it can speak with an emotion, see
            `speech_emotion.EmotionalSpeech`; None: without. What is told without an emotion is the same.
        weights: safetensors file with all of these, for example a bundle's `speech.safetensors`; None: untrained.

    Raises:
        TalkfaceError: the weights cannot be read or are those of another size.

    The feature is the actions, each scaled by the buffers `mean` and `std` to about zero mean and unit
    variance.
    """

    feature_rate = 50.0
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        actions: Sequence[str],
        channels: int = 192,
        dilations: Sequence[int] = (1, 2, 4, 8, 16, 1, 2, 4),
        bands: int = 80,
        dropout: float = 0.05,
        weights: str | None = None,
        branch: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.actions = tuple(actions)
        self.feature_dim = len(self.actions)
        self.reach = sum(dilations) + 2  # features on each side
        # what `amplified` looks beside itself is in it: the layers reach no farther than sum(dilations) + 1
        self.context_seconds = (self.reach + 2) / self.feature_rate
        self.mel = _LogMel(bands)
        self.stem = nn.Conv1d(bands, channels, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(_Block(channels, dilation, dropout) for dilation in dilations)
        self.norm = nn.LayerNorm(channels)
        self.mouth = nn.Linear(channels, self.feature_dim)
        self.branch = None if branch is None else EmotionBranch(channels, **branch)
        if branch is None:
            self.register_load_state_dict_pre_hook(_without_branch)
        self._silence: Tensor | None = None
        self.register_buffer("mean", torch.zeros(self.feature_dim))
        self.register_buffer("std", torch.ones(self.feature_dim))
        if weights is not None:
            try:
                self.load_state_dict(load_file(weights))
            except (OSError, RuntimeError, SafetensorError) as error:
                reason = " ".join(str(error).split())[:160]
                raise TalkfaceError(
                    f"speech encoder: the weights {weights} cannot be read ({reason}); give the safetensors file of an "
                    "ArticulationEncoder of this size"
                ) from error

    def level(self, waveform: Tensor) -> Tensor:
        return self.mel.level(waveform)

    def running_level(self) -> LoudFrames:
        return LoudFrames(_HOP)

    def hidden(self, waveform: Tensor, level: Tensor | None = None, margin: int | None = None) -> Tensor:
        """(B, T, channels), what the heads read.

        Args:
            level: see `SpeechEncoder.level`.
            margin: features of silence put before and after the sound, as far as the encoder looks by default: a
                sound begins and ends in silence, and is not cut out of speech that goes on.
        """
        count = self.num_features(waveform.shape[1])
        margin = self.reach if margin is None else margin
        x = self.below(waveform, len(self.blocks), level, margin)
        return self.norm(x[..., margin : margin + count].transpose(1, 2))

    def below(self, waveform: Tensor, cut: int, level: Tensor | None, margin: int) -> Tensor:
        """(B, channels, T + 2 * margin): what the blocks below number `cut` make of sounds; see `hidden`."""
        count = self.num_features(waveform.shape[1])
        level = self.level(waveform) if level is None else level
        padded = F.pad(waveform, (2 * _HOP * margin, 2 * _HOP * margin))
        x: Tensor = self.stem(self.mel(padded, 2 * (count + 2 * margin), level))
        for block in self.blocks[:cut]:
            x = block(x)
        return x

    def forward(self, waveform: Tensor, level: Tensor | None = None) -> Tensor:
        return self.told(self.hidden(waveform, level))

    def told(self, hidden: Tensor) -> Tensor:
        """The features (B, T, D) of hidden ones (B, T, channels)."""
        return (self.mouth(hidden) - self.mean) / self.std

    def amplified(self, features: Tensor, gain: float) -> Tensor:
        """Features (..., T, D) of a livelier mouth that rests in silence: the actions times `gain`, lips closed that
        are likely held together, and what is told of digital silence taken for nothing. A lower lip that is tucked for
        f and v closes against the teeth: jaw and upper lip stay as told. It looks 60 ms ahead and back.

        What is predicted from sound is a mean over ways to say it. It moves less than any of them; where the lips meet
        for p, b and m, or not quite, it leaves them half open; and so it does in pauses, where some breathe.
        """
        rest = self.silence()
        actions = (features * self.std + self.mean).clamp(0.0, 1.0)
        # near what silence gives nothing is left, from three times that on everything
        actions = actions - rest * (1.0 - 0.5 * (actions / rest.clamp(min=1e-6) - 1.0)).clamp(0.0, 1.0)
        actions = gain * actions.clamp(min=0.0)
        column = {name: number for number, name in enumerate(self.actions)}
        zero = torch.zeros_like(actions[..., 0])
        press, roll = (
            actions[..., column[name]] / full if name in column else zero for name, full in _HELD.items()
        )
        held = press + roll
        likely = (held / _SURE).clamp(0.0, 1.0)
        middle = held / _highest(held, _MIDDLE).clamp(min=1e-6)
        closed = likely * likely * (3.0 - 2.0 * likely) * middle
        pressed = 1.0 - (roll - _ROLLED * press).clamp(min=0.0) / held.clamp(min=1e-6)
        for name in set(_OPENING) & set(column):
            keep = 1.0 - closed * (pressed if name in _PARTS_TEETH else 1.0)
            actions[..., column[name]] = actions[..., column[name]] * keep
        return (actions - self.mean) / self.std

    def felt(self, hidden: Tensor, emotion: Tensor) -> Tensor:
        """What the branch tells (B, T, 2, A) of hidden features (B, T, channels) and numbers (B,) of emotions, with
        nothing left that would open lips held together, and smooth."""
        assert self.branch is not None
        told = self.branch(hidden, emotion)
        spoken = (self.amplified(self.told(hidden), 1.0) * self.std + self.mean).clamp(0.0, 1.0)
        keep = self._parted(spoken, _SURE_WITH_EMOTION, _LEFT_WITH_EMOTION)
        if keep is not None:
            names = (name.removesuffix("Left").removesuffix("Right") for name in self.branch.actions)
            opens = torch.tensor([name in _OPENING for name in names], device=told.device)
            opens = opens & (told.sum(2, keepdim=True) > 0.0)
            told = torch.where(opens, told * keep[..., None, None], told)
        return smoothed(told)

    def _parted(self, actions: Tensor, sure: float, left: float) -> Tensor | None:
        """(...) share of its opening that is left to a mouth with actions (..., D); None: no closures are told.

        Args:
            sure: of `_HELD`, from where on the lips are closed; `left` is then left.
        """
        column = {name: number for number, name in enumerate(self.actions)}
        held = sum(actions[..., column[name]] / full for name, full in _HELD.items() if name in column)
        if not isinstance(held, Tensor):
            return None
        likely = (held / sure).clamp(0.0, 1.0)
        return 1.0 - (1.0 - left) * likely * likely * (3.0 - 2.0 * likely)

    @torch.no_grad()
    def silence(self) -> Tensor:
        """(D,) the actions, in [0, 1], that it tells of digital silence."""
        if self._silence is None:
            features = self(torch.zeros(1, self.sample_rate, device=self.mean.device))[0]
            self._silence = (features[len(features) // 2] * self.std + self.mean).clamp(0.0, 1.0)
        return self._silence.to(self.mean.device)

    def to_actions(self, features: Tensor, names: Sequence[str]) -> Tensor:
        """Features (..., D) -> facial actions (..., len(names)) in [0, 1]; names it does not predict are
        0."""
        values = (features * self.std + self.mean).clamp(0.0, 1.0)
        zero = torch.zeros_like(values[..., 0])
        columns = []
        for name in names:
            base = name.removesuffix("Left").removesuffix("Right")
            found = next((n for n in (name, base) if n in self.actions), None)
            columns.append(zero if found is None else values[..., self.actions.index(found)])
        return torch.stack(columns, dim=-1)

    def from_actions(self, actions: Tensor, names: Sequence[str]) -> Tensor:
        """Facial actions (..., len(names)) in [0, 1] -> the features (..., D) that say them; inverse of `to_actions`.

        Both sides of an action are one here: the mean of those given. Actions that are not given are 0; given ones that
        it does not predict are left out.
        """
        columns = []
        for own in self.actions:
            numbers = [
                k
                for k, name in enumerate(names)
                if own in (name, name.removesuffix("Left").removesuffix("Right"))
            ]
            columns.append(actions[..., numbers].mean(-1) if numbers else torch.zeros_like(actions[..., 0]))
        return (torch.stack(columns, dim=-1) - self.mean) / self.std


def _without_branch(encoder: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights of an encoder with a branch serve one without, too."""
    for name in [name for name in state if name.startswith(f"{prefix}branch.")]:
        del state[name]
