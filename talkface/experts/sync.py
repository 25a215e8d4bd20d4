"""Do these lips belong to this sound, and if so, by how many frames is it late? The interface and the bundled network.

An expert embeds a window of consecutive frames and a window of sound; what belongs together lies close together
(Chung and Zisserman, "Out of time: automated lip sync in the wild", ACCV-W 2016). The reference networks, for which
users bring weights, are in `sync_reference`; one that looks at landmarks instead of pixels is in `sync_shape`;
`sync_offset` finds the offset of a whole clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.experts.mouth_network import MouthNetwork
from talkface.experts.speech_articulation import ArticulationEncoder
from talkface.experts.sync_crops import crop_frames, cut_crops

FPS = 25.0
SIZES = (5, 16)


class SyncExpert(nn.Module):
    """The role. An implementation defines `embed_faces`, `embed_sound` and `sound_windows`.

    Attributes:
        name: what stands in the settings of a corpus.
        num_frames: consecutive frames in a window, at `fps` = 25 a second.
        sample_rate: of the sound that it hears; other rates are resampled.
        region, crop_size: what it looks at (see `sync_crops`), and height and width of that in pixels.
    """

    name: str = "sync"
    num_frames: int = 5
    fps: float = FPS
    sample_rate: int = 16000
    region: str = "mouth"
    crop_size: tuple[int, int] = (64, 64)

    def embed_faces(self, frames: Tensor) -> Tensor:
        """(B, num_frames, 3, H, W) crops in [-1, 1], RGB -> (B, D); differentiable."""
        raise NotImplementedError

    def embed_sound(self, windows: Tensor) -> Tensor:
        """Windows of `sound_windows` (B, ...) -> (B, D)."""
        raise NotImplementedError

    def sound_windows(self, samples: Tensor, rate: int, times: Tensor) -> Tensor:
        """The sound around some moments.

        Args:
            samples: (n,) mono in [-1, 1], the whole clip (its level is measured on all of it).
            rate: its sample rate.
            times: (K,) seconds, the middle of each window of frames: frame k of a film is from k / fps to
                (k + 1) / fps, so the window that begins with it has its middle at (k + num_frames / 2) / fps.

        Returns:
            (K, ...), what `embed_sound` takes. Beyond the ends the last of the sound is repeated.
        """
        raise NotImplementedError

    def crops(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        """(B, T, 3, H, W) and (B, T, 68, 2) pixels -> (B, T, 3, *crop_size); differentiable in the frames."""
        return cut_crops(frames, crop_frames(landmarks, self.region), self.crop_size)

    def embed_film(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        """Every window of a film, one frame apart.

        Args:
            frames: (T, 3, H, W) in [-1, 1], RGB, 25 a second.
            landmarks: (T, 68, 2) in pixels of them.

        Returns:
            (T - num_frames + 1, D).
        """
        crops = self.crops(frames[None], landmarks[None])[0]
        windows = crops.unfold(0, self.num_frames, 1).movedim(-1, 1)
        return torch.cat([self.embed_faces(part) for part in windows.split(16)])

    def similarity(self, faces: Tensor, sound: Tensor) -> Tensor:
        """Cosine of embeddings (B, D) and (B, D) -> (B,) in [-1, 1]."""
        return F.cosine_similarity(faces, sound, dim=-1)

    def check_frames(self, frames: Tensor) -> Tensor:
        """Raises: TalkfaceError: not (B, num_frames, 3, H, W)."""
        if frames.dim() != 5 or frames.shape[1:3] != (self.num_frames, 3):
            raise TalkfaceError(
                f"{self.name}: frames of shape {tuple(frames.shape)}; allowed (B, {self.num_frames}, 3, H, W), "
                "RGB in [-1, 1]"
            )
        return frames


class WindowHead(nn.Module):
    """A window (B, length, inputs) -> (B, dim) of unit length; each place in it has its own weights."""

    def __init__(self, inputs: int, length: int, width: int, dim: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(2))
        self.narrow = nn.Linear(width, 32)
        self.leave = nn.Sequential(nn.Linear(32 * length, 256), nn.GELU(), nn.Linear(256, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).transpose(1, 2)
        for conv in self.convs:
            x = x + F.gelu(conv(x))
        return F.normalize(self.leave(self.narrow(x.transpose(1, 2)).flatten(1)), dim=-1)


class SyncNetwork(SyncExpert):
    """The bundled expert: a mouth network's trunk and a speech encoder, both joined over the window.

    Lips are seen by the convolutions that `MouthNetwork` places lip points with, the sound is heard by the
    `ArticulationEncoder`, which learnt from recordings of people; `talkface.training.sync` teaches the deeper
    stages of the former, and what joins both over the window.

    Args:
        num_frames: 5 (0.2 s) or 16 (0.64 s).
        actions, speech_channels, dilations: of the speech encoder.
        dim: of the embeddings, which have unit length.
        width: of the layers that join.
        margin: features of sound (20 ms each) before and after those of the frames.
    """

    def __init__(
        self,
        num_frames: int = 5,
        *,
        actions: Sequence[str] = (),
        speech_channels: int = 256,
        dilations: Sequence[int] = (1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4),
        dim: int = 128,
        width: int = 128,
        margin: int = 4,
    ) -> None:
        super().__init__()
        if num_frames not in SIZES:
            raise TalkfaceError(f"num_frames: {num_frames}; allowed {', '.join(map(str, SIZES))}")
        self.num_frames, self.margin = num_frames, margin
        self.name = f"syncnet{num_frames}"
        eyes = MouthNetwork()
        self.crop_size = (eyes.image_size, eyes.image_size)
        self.lips = nn.Sequential(eyes.stem, eyes.quarter, eyes.eighth, eyes.sixteenth, eyes.squeeze)
        self.speech = ArticulationEncoder(actions, channels=speech_channels, dilations=dilations)
        self.heard_length = 2 * num_frames + 2 * margin
        self.seen = WindowHead(24 * 16, num_frames, width, dim)
        self.heard = WindowHead(speech_channels, self.heard_length, width, dim)

    def start_from(self, mouth: MouthNetwork, speech: ArticulationEncoder) -> None:
        """Take over a bundle's weights. Raises: RuntimeError: networks of other sizes."""
        stages = (mouth.stem, mouth.quarter, mouth.eighth, mouth.sixteenth, mouth.squeeze)
        for own, other in zip(self.lips, stages, strict=True):
            own.load_state_dict(other.state_dict())
        self.speech.load_state_dict(speech.state_dict())

    def see(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) crops in [-1, 1] -> (N, 384), frame by frame."""
        if frames.shape[2:] != self.crop_size:
            frames = F.interpolate(
                frames, self.crop_size, mode="bilinear", align_corners=False, antialias=True
            )
        return self.lips(frames)

    def embed_faces(self, frames: Tensor) -> Tensor:
        frames = self.check_frames(frames)
        return self.seen(self.see(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]))

    def embed_film(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        crops = self.crops(frames[None], landmarks[None])[0]
        features = torch.cat([self.see(part) for part in crops.split(32)])  # each frame is looked at once
        return self.seen(features.unfold(0, self.num_frames, 1).transpose(1, 2))

    def hear(self, samples: Tensor, rate: int) -> Tensor:
        """(n,) -> (T, channels), 50 a second; the articulation encoder's hidden layer."""
        if rate != self.sample_rate:
            import torchaudio

            samples = torchaudio.functional.resample(samples, rate, self.sample_rate)
        return self.speech.hidden(samples[None])[0]

    def sound_windows(self, samples: Tensor, rate: int, times: Tensor) -> Tensor:
        return feature_windows(self.hear(samples, rate), self.speech.feature_rate, times, self.heard_length)

    def embed_sound(self, windows: Tensor) -> Tensor:
        """(B, 2 * num_frames + 2 * margin, channels) -> (B, D)."""
        return self.heard(windows)


def feature_windows(features: Tensor, rate: float, times: Tensor, length: int) -> Tensor:
    """`length` features around each of some moments; the first and the last are repeated beyond the ends.

    Args:
        features: (T, D); feature i belongs to the time (i + 0.5) / rate.
        times: (K,) seconds. length: even.

    Returns:
        (K, length, D).
    """
    first = (times.to(features.device) * rate).round().long() - length // 2
    index = first[:, None] + torch.arange(length, device=features.device)
    return features[index.clamp(0, len(features) - 1)]
