"""Training of the bundled articulation encoder: augmentation, losses, one step.

The encoder learns mouth actions and, through a second head that is thrown away, the features of a strong
speech recogniser (feature distillation, smooth L1 plus cosine as in Chang et al., "DistilHuBERT", 2022, eq.
1). The sound is augmented, the targets are not, so that rooms, noise, telephones and microphones stop to
matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.experts.speech import ArticulationEncoder
from talkface.training.speech_noise import coloured, draw_noise

__all__ = [
    "ArticulationBatch",
    "ArticulationTraining",
    "TeacherHead",
    "augment_sound",
    "consistency",
    "motion_loss",
    "stretch",
]

_EDGE = 12  # features; half a second is left out of the loss at the end, where a breath for a next phrase may begin


@dataclass
class ArticulationBatch:
    """Crops for training.

    Attributes:
        sound: (B, samples) clean, 16 kHz.
        actions: (B, T, A) mouth actions at 50 Hz.
        teacher: (B, T, D) features of the teacher, standardised.
        original: (B, samples) like `sound`, as it was recorded, where `sound` says it in another voice.
    """

    sound: Tensor
    actions: Tensor
    teacher: Tensor
    original: Tensor | None = None


class TeacherHead(nn.Module):
    """Teacher's features (B, T, D) -> mouth actions (B, T, A); about 0.3 s of context on both sides."""

    def __init__(self, teacher_dim: int, num_actions: int, channels: int = 96) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Dropout1d(0.15),
            nn.Conv1d(teacher_dim, channels, 1),
            nn.GELU(),
            nn.Conv1d(channels, channels, 9, padding=4),
            nn.GELU(),
            nn.Dropout1d(0.1),
            nn.Conv1d(channels, channels, 9, padding=8, dilation=2),
            nn.GELU(),
            nn.Conv1d(channels, num_actions, 9, padding=4),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.net(features.transpose(1, 2)).transpose(1, 2)


def motion_loss(predicted: Tensor, actions: Tensor) -> Tensor:
    """Squared error of the actions (..., T, A), in standard units, and of their change over 20 ms.

    The second term asks for the speed of the lips, without which closures come out slow and shallow.
    """
    error = predicted - actions
    return error.square().mean() + 2.0 * error.diff(dim=-2).square().mean()


class ArticulationTraining(nn.Module):
    """Loss of the encoder on a batch.

    The heads learn in standard units, where a step of the optimizer moves every action alike; `export_to`
    writes the mouth's back in the units of the actions.

    Args:
        encoder: the encoder to train; its own head is not used.
        mean, scale: (A,) mean and spread of each action over the training set.
        teacher_dim: size of the teacher's features.
        teacher_weight: weight of the distillation.
        bfloat16: multiply in bfloat16.
        hard_noise: noise of many kinds, often as loud as the speech (`augment_sound`).
        consistency_weight: weight of `consistency`, which `forward` adds when it is given a `reference`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        encoder: ArticulationEncoder,
        mean: Tensor,
        scale: Tensor,
        teacher_dim: int,
        teacher_weight: float = 0.5,
        bfloat16: bool = False,
        hard_noise: bool = False,
        consistency_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        channels = encoder.mouth.in_features
        self.mouth = nn.Linear(channels, encoder.feature_dim)
        self.teacher = nn.Linear(channels, teacher_dim)
        self.teacher_weight, self.reduced = teacher_weight, bfloat16
        self.hard_noise, self.consistency_weight = hard_noise, consistency_weight
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(
        self,
        batch: ArticulationBatch,
        generator: torch.Generator,
        reference: ArticulationTraining | None = None,
    ) -> dict[str, Tensor]:
        """Loss of a batch, heard through augmentation.

        Args:
            reference: hears the same crops clean and in their original voice; its outputs are targets, too. Weights
                averaged over the run, as in Tarvainen & Valpola, "Mean teachers are better role models", 2017.

        Returns:
            `loss` and its parts, `motion` (1 for a mouth that stays at its mean), `teacher` and, with a reference,
            `consistency`.
        """
        sound, silent = augment_sound(batch.sound, generator, self.hard_noise)
        # in one step of three the crop is a whole sound with silence around it
        whole = bool(torch.rand((), generator=generator) < 0.33)
        hidden, predicted, given = self._hear(sound, whole)
        actions = (batch.actions.masked_fill(silent[:, None, None], 0.0) - self.mean) / self.scale
        # what the mouth does at the edges depends on speech that was cut off, if there was any
        count = predicted.shape[1]
        inside = torch.zeros(len(sound), count, 1, dtype=torch.bool)
        inside[:, _EDGE : count - 2 * _EDGE] = True
        inside |= silent[:, None, None]
        motion = motion_loss(torch.where(inside, predicted, actions), actions)
        wanted = batch.teacher[~silent]
        cosine = 1.0 - F.cosine_similarity(given[~silent], wanted, dim=-1).mean()
        teacher = F.smooth_l1_loss(given[~silent], wanted) + 0.5 * cosine
        parts = {"motion": motion, "teacher": teacher}
        loss = motion + self.teacher_weight * teacher
        if reference is not None:
            with torch.no_grad():
                clean = batch.sound if batch.original is None else batch.original
                clean_hidden, clean_actions, _ = reference._hear(clean, whole)
            heard = ~silent
            parts["consistency"] = consistency(
                hidden[heard], predicted[heard], clean_hidden[heard], clean_actions[heard]
            )
            loss = loss + self.consistency_weight * parts["consistency"]
        return {"loss": loss, **parts}

    def _hear(self, sound: Tensor, whole: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden features (B, T, channels), actions in standard units (B, T, A), the teacher's features (B, T, D)."""
        with torch.autocast(sound.device.type, torch.bfloat16, enabled=self.reduced):
            hidden = self.encoder.hidden(sound, margin=None if whole else 0)
            return hidden.float(), self.mouth(hidden).float(), self.teacher(hidden).float()

    @torch.no_grad()
    def import_from(self, encoder: ArticulationEncoder) -> None:
        """Starts from `encoder`, as `export_to` leaves one; the teacher's head stays as it is."""
        self.encoder.load_state_dict(encoder.state_dict())
        self.mouth.weight.copy_(encoder.mouth.weight / self.scale[:, None])
        self.mouth.bias.copy_((encoder.mouth.bias - self.mean) / self.scale)

    @torch.no_grad()
    def export_to(self, encoder: ArticulationEncoder) -> None:
        """Copies what was learned into `encoder`, whose features are then the actions in standard units."""
        encoder.load_state_dict(self.encoder.state_dict())
        encoder.mouth.weight.copy_(self.mouth.weight * self.scale[:, None])
        encoder.mouth.bias.copy_(self.mouth.bias * self.scale + self.mean)
        encoder.mean, encoder.std = self.mean.clone(), self.scale.clone()


def consistency(hidden: Tensor, actions: Tensor, clean_hidden: Tensor, clean_actions: Tensor) -> Tensor:
    """How far what was told of a noisy sound is from what was told of the clean one.

    Args:
        hidden, clean_hidden: (B, T, channels). actions, clean_actions: (B, T, A) in standard units.

    Returns:
        Loss of the actions, as `motion_loss`, and half the squared distance of the hidden features.
    """
    return motion_loss(actions, clean_actions) + 0.5 * F.mse_loss(hidden, clean_hidden)


def stretch(batch: ArticulationBatch, factor: float, length: int) -> ArticulationBatch:
    """Plays the batch `factor` times as fast (pitch and formants move too: another throat), then cuts all of
    it to `length` features."""
    samples, hop = (
        length * batch.sound.shape[1] // batch.actions.shape[1],
        batch.sound.shape[1] / batch.actions.shape[1],
    )
    position = torch.arange(samples) * factor
    left = position.long().clamp(max=batch.sound.shape[1] - 2)
    part = (position - left).to(batch.sound.dtype)

    def played(sound: Tensor) -> Tensor:
        return torch.lerp(sound[:, left], sound[:, left + 1], part)

    frame = ((torch.arange(length) + 0.5) * samples / length * factor / hop - 0.5).clamp(
        0, batch.actions.shape[1] - 1.001
    )
    low, blend = frame.long(), (frame - frame.long())[None, :, None]
    return ArticulationBatch(
        played(batch.sound),
        torch.lerp(batch.actions[:, low], batch.actions[:, low + 1], blend),
        torch.lerp(batch.teacher[:, low], batch.teacher[:, low + 1], blend),
        None if batch.original is None else played(batch.original),
    )


def augment_sound(
    sound: Tensor, generator: torch.Generator, hard_noise: bool = False
) -> tuple[Tensor, Tensor]:
    """Puts each sound of a batch through a random room, microphone and noise.

    Args:
        sound: (B, samples) at 16 kHz.
        hard_noise: noise of many kinds (`speech_noise`), for four sounds in five 0 to 20 dB below the speech; without
            it one of steady spectrum or another talker, 6 to 50 dB below.

    Returns:
        (B, samples), and (B,) bool: True where the speech was taken out and noise alone is left.
    """
    count, samples = sound.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, generator=generator)

    size = 2 ** math.ceil(math.log2(samples + 8000))
    frequency = torch.linspace(0.0, 8000.0, size // 2 + 1)[None]
    # room: exponentially decaying noise after the direct sound, in one case of two
    time = torch.arange(8000)[None] / 16000.0
    tail = torch.randn(count, 8000, generator=generator) * torch.exp(-6.9 * time / uniform(0.08, 0.5))
    tail[:, :32] = 0.0
    strength = uniform(0.0, 0.6) * (uniform(0.0, 1.0) < 0.5)
    room = F.pad(strength * tail / tail.square().sum(1, keepdim=True).sqrt(), (0, size - 8000))
    room[:, 0] = 1.0
    # microphone: a smooth random curve of +-6 dB, and for some a telephone band
    knots = torch.randn(count, 1, 8, generator=generator) * 3.0
    curve = F.interpolate(knots, size=frequency.shape[1], mode="linear", align_corners=True)[:, 0]
    # for some a band is missing, so that no single formant is relied on (Park et al., "SpecAugment", 2019)
    centre, width = uniform(200.0, 5000.0), uniform(100.0, 600.0) * (uniform(0.0, 1.0) < 0.4)
    missing = ((frequency - centre).abs() < width).float()
    telephone = uniform(0.0, 1.0) < 0.15
    low, high = uniform(150.0, 350.0), uniform(3200.0, 7000.0)
    band = torch.sigmoid((frequency - low) / 30.0) * torch.sigmoid((high - frequency) / 100.0)
    response = 10.0 ** (curve / 20.0) * torch.where(telephone, band.clamp(min=1e-3), torch.ones(()))
    response = response * (1.0 - 0.97 * missing)
    heard = torch.fft.irfft(torch.fft.rfft(sound, size) * torch.fft.rfft(room) * response, size)[:, :samples]
    chance = uniform(0.0, 1.0)
    silent = (chance < 0.06)[:, 0]
    power = heard.square().mean(1, keepdim=True).clamp(min=1e-6)
    heard = heard * ~silent[:, None]
    if hard_noise:
        noise, below = draw_noise(sound, generator), uniform(0.0, 20.0)
        quiet = uniform(0.0, 1.0) < 0.2
        below = torch.where(quiet, uniform(20.0, 50.0), below)
        # alone, babble would be the speech
        noise = torch.where(silent[:, None], coloured(count, samples, generator), noise)
    else:
        noise, below = _plain_noise(sound, silent, uniform, frequency, generator), uniform(6.0, 50.0)
    ratio = 10.0 ** (-below / 20.0) * (chance > 0.03)  # half of the silences are digital
    heard = heard + noise * power.sqrt() * ratio
    return heard * 10.0 ** (uniform(-25.0, 5.0) / 20.0), silent


def _plain_noise(
    sound: Tensor,
    silent: Tensor,
    uniform: Callable[[float, float], Tensor],
    frequency: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """(B, samples) noise with a spectrum between white and brown, for some another talker."""
    count, samples = sound.shape
    size = 2 * (frequency.shape[1] - 1)
    noise = torch.fft.rfft(torch.randn(count, size, generator=generator))
    noise = torch.fft.irfft(noise * (frequency + 50.0) ** -uniform(0.0, 1.0), size)[:, :samples]
    noise = noise / noise.square().mean(1, keepdim=True).sqrt()
    other = sound.roll(1, 0) / sound.roll(1, 0).square().mean(1, keepdim=True).clamp(min=1e-6).sqrt()
    babble = (uniform(0.0, 1.0) < 0.2) & ~silent[:, None]  # alone it would be the speech
    return torch.where(babble, 0.5 * other + 0.3 * noise, noise)
