"""The public sync networks, for which users bring the weights: SyncNet and the expert of Wav2Lip.

    SyncNet       Chung and Zisserman, "Out of time: automated lip sync in the wild", ACCV-W 2016;
                  syncnet_v2.model of joonson/syncnet_python: 5 frames of the face, 224 pixels; 13 MFCCs x 20; 1024-d
    Wav2LipSync   Prajwal et al., "A lip sync expert is all you need", ACM MM 2020; lipsync_expert.pth of
                  Rudrabha/Wav2Lip: 5 lower halves of the face, 48 x 96 pixels; 80 mel bands x 16; 512-d

`load_sync` reads either file (which one it is, its tensors say) and what `scripts/train_expert.py sync` wrote. Both
networks want BGR; here RGB comes in as everywhere else, and is turned inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.experts.registry import find_weights
from talkface.experts.sync import SyncExpert, feature_windows
from talkface.experts.sync_sound import MEL_RATE, MFCC_RATE, mfcc, wav2lip_mel

PUBLISHED = {
    "SyncNet": "syncnet_v2.model of https://github.com/joonson/syncnet_python",
    "Wav2LipSync": "lipsync_expert.pth of https://github.com/Rudrabha/Wav2Lip",
}


class _Reference(SyncExpert):
    """What both share: windows cut out of spectra, crops brought to their size."""

    def heard(self, samples: Tensor) -> Tensor:
        """(n,) at 16 kHz -> (T, bands)."""
        raise NotImplementedError

    def windows_of(self, spectra: Tensor, times: Tensor) -> Tensor:
        """(T, bands), middles (K,) -> (K, 1, bands, length)."""
        raise NotImplementedError

    def sound_windows(self, samples: Tensor, rate: int, times: Tensor) -> Tensor:
        if rate != self.sample_rate:
            import torchaudio

            samples = torchaudio.functional.resample(samples, rate, self.sample_rate)
        return self.windows_of(self.heard(samples), times)

    def sized(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) RGB -> (B, T, 3, *crop_size) BGR."""
        frames = self.check_frames(frames)
        if frames.shape[3:] != self.crop_size:
            flat = F.interpolate(
                frames.flatten(0, 1), self.crop_size, mode="bilinear", align_corners=False, antialias=True
            )
            frames = flat.unflatten(0, frames.shape[:2])
        return frames.flip(2)


def _conv(
    dims: int, inputs: int, outputs: int, kernel: Any, stride: Any = 1, padding: Any = 0
) -> list[nn.Module]:
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return [conv(inputs, outputs, kernel, stride, padding), norm(outputs), nn.ReLU()]


def _joined(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, dim))


class SyncNet(_Reference):
    """The network of joonson/syncnet_python; embeddings (B, 1024) are not normalised.

    Its preparation widens a detector's box (S3FD) by 40 %; here that box is estimated from landmarks.
    """

    name = "syncnet-chung"
    region = "face"
    crop_size = (224, 224)

    def __init__(self, dim: int = 1024) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv(2, 1, 64, 3, padding=1),
            nn.MaxPool2d(1, 1),
            *_conv(2, 64, 192, 3, padding=1),
            nn.MaxPool2d(3, (1, 2)),
            *_conv(2, 192, 384, 3, padding=1),
            *_conv(2, 384, 256, 3, padding=1),
            *_conv(2, 256, 256, 3, padding=1),
            nn.MaxPool2d(3, 2),
            *_conv(2, 256, 512, (5, 4)),
        )
        self.netfcaud = _joined(dim)
        self.netfclip = _joined(dim)
        self.netcnnlip = nn.Sequential(
            *_conv(3, 3, 96, (5, 7, 7), (1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv(3, 96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv(3, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_conv(3, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_conv(3, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv(3, 256, 512, (1, 6, 6)),
        )

    def embed_faces(self, frames: Tensor) -> Tensor:
        levels = (self.sized(frames) + 1) * 127.5  # 0..255
        return self.netfclip(self.netcnnlip(levels.transpose(1, 2)).flatten(1))

    def heard(self, samples: Tensor) -> Tensor:
        return mfcc(samples)

    def windows_of(self, spectra: Tensor, times: Tensor) -> Tensor:
        # window of frames k ... k + 4 belongs to MFCCs 4 k ... 4 k + 19
        return feature_windows(spectra, MFCC_RATE, times, 20).transpose(1, 2)[:, None]

    def embed_sound(self, windows: Tensor) -> Tensor:
        """(B, 1, 13, 20) -> (B, 1024)."""
        return self.netfcaud(self.netcnnaud(windows).flatten(1))


class _Block(nn.Module):
    """Convolution, normalisation, the input added where `residual`, ReLU; Wav2Lip's block under its names."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: Any = 1,
        padding: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs)
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv_block(x)
        return F.relu(made + x if self.residual else made)


def _stage(inputs: int, outputs: int, blocks: int, **first: Any) -> list[nn.Module]:
    return [
        _Block(inputs, outputs, **first),
        *(_Block(outputs, outputs, residual=True) for _ in range(blocks)),
    ]


class Wav2LipSync(_Reference):
    """The expert of Wav2Lip; embeddings (B, 512) have unit length."""

    name = "syncnet-wav2lip"
    region = "lower half"
    crop_size = (48, 96)

    def __init__(self) -> None:
        super().__init__()
        self.face_encoder = nn.Sequential(
            _Block(15, 32, kernel=7, padding=3),
            *_stage(32, 64, 2, kernel=5, stride=(1, 2)),
            *_stage(64, 128, 3, stride=2),
            *_stage(128, 256, 2, stride=2),
            *_stage(256, 512, 2, stride=2),
            _Block(512, 512, stride=2),
            _Block(512, 512, padding=0),
            _Block(512, 512, kernel=1, padding=0),
        )
        self.audio_encoder = nn.Sequential(
            *_stage(1, 32, 2),
            *_stage(32, 64, 2, stride=(3, 1)),
            *_stage(64, 128, 2, stride=3),
            *_stage(128, 256, 2, stride=(3, 2)),
            _Block(256, 512, padding=0),
            _Block(512, 512, kernel=1, padding=0),
        )

    def embed_faces(self, frames: Tensor) -> Tensor:
        levels = (self.sized(frames) + 1) / 2  # 0..1, frame after frame in the channels
        return F.normalize(self.face_encoder(levels.flatten(1, 2)).flatten(1), dim=-1)

    def heard(self, samples: Tensor) -> Tensor:
        return wav2lip_mel(samples)

    def windows_of(self, spectra: Tensor, times: Tensor) -> Tensor:
        # window of frames k ... k + 4 belongs to the spectra from int(80 k / 25) on
        first = ((times - self.num_frames / 2 / self.fps) * MEL_RATE + 1e-3).floor()
        return feature_windows(spectra, MEL_RATE, (first + 8) / MEL_RATE, 16).transpose(1, 2)[:, None]

    def embed_sound(self, windows: Tensor) -> Tensor:
        """(B, 1, 80, 16) -> (B, 512)."""
        return F.normalize(self.audio_encoder(windows).flatten(1), dim=-1)


def load_sync(path: str | Path, device: str = "cpu") -> SyncExpert:
    """A sync expert from a file, frozen: syncnet_v2.model, lipsync_expert.pth, or a .safetensors of ours.

    Raises:
        TalkfaceError: the file is absent, damaged, or lacks a tensor; the line names it, and where the public weights
            are published.
    """
    path = find_weights(path)
    if not path.is_file():
        where = "; ".join(PUBLISHED.values())
        raise TalkfaceError(
            f"sync expert: {path} does not exist; give the file of a sync network ({where}), or a .safetensors that "
            "scripts/train_expert.py sync wrote"
        )
    if path.suffix == ".safetensors":
        from talkface.experts.registry import load_expert

        made = load_expert(path, device)
        if not isinstance(made, SyncExpert):
            raise TalkfaceError(f"sync expert: {path} is a {type(made).__name__}; give a sync network")
        return made
    tensors = _read(path)
    network: SyncExpert
    if any(name.startswith("netcnnlip.") for name in tensors):
        dim = tensors["netfclip.3.bias"].numel() if "netfclip.3.bias" in tensors else 1024
        network = SyncNet(dim)
    elif any(name.startswith("face_encoder.") for name in tensors):
        network = Wav2LipSync()
    else:
        heads = ", ".join(sorted({name.split(".")[0] for name in tensors})[:4])
        raise TalkfaceError(
            f"sync expert: {path} holds {heads}...; allowed are netcnnlip, netcnnaud, netfclip, netfcaud "
            f"({PUBLISHED['SyncNet']}) or face_encoder, audio_encoder ({PUBLISHED['Wav2LipSync']})"
        )
    _fill(network, tensors, path)
    return network.to(device).eval().requires_grad_(False)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; of one with an optimizer, those of the network."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch have classes of their own for every kind of damage
        reason = " ".join(str(error).split())[:160]
        raise TalkfaceError(f"sync expert: {path} cannot be read as a checkpoint: {reason}") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise TalkfaceError(
            f"sync expert: {path} holds no tensors by name; give the state dict of a sync network"
        )
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _fill(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy the tensors into the network; all of them, and nothing else. Counters of old files may be absent."""
    own = network.state_dict()
    kind = type(network).__name__
    wrong = [
        f"{name} {tuple(value.shape)} where {tuple(own[name].shape) if name in own else 'nothing'} is expected"
        for name, value in tensors.items()
        if name not in own or own[name].shape != value.shape
    ]
    wrong += [f"{n} is missing" for n in own if n not in tensors and not n.endswith("num_batches_tracked")]
    if wrong:
        raise TalkfaceError(
            f"sync expert: {path} is not a {kind} that talkface knows: {'; '.join(wrong[:3])} ({len(wrong)} "
            f"differences); give {PUBLISHED[kind]}"
        )
    network.load_state_dict(own | tensors)
