"""Training of the bundled sync experts: talking renders, degraded pictures, heard through rooms, noise and telephones.

The loss is contrastive in both directions (van den Oord et al., "Representation learning with contrastive predictive
coding", 2018, eq. 4): a window of lips must find its sound among those of the same clip shifted by up to half a
second, which are the hard ones, and among those of other people. Neighbours one frame away are nearly right, so they
get a small share of the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.experts.sync import SyncNetwork
from talkface.experts.sync_crops import crop_frames
from talkface.training.averaged import Budget, train_averaged
from talkface.training.landmarks import to_tensor
from talkface.training.picture_noise import degrade
from talkface.training.speech import augment_sound

STORED, ROOM = 88, 1.375
"""Side of the stored crops, and how much more than the expert's crop they show."""
WINDOWS, REACH = 8, 12
"""Windows of frames per clip and batch, and offsets on each side among which they must find their sound."""
NEIGHBOUR = 0.15


@dataclass
class TalkingMouth:
    """One clip: crops (T, 88, 88, 3) uint8, 25 a second; sound (n,) float32 at 16 kHz."""

    crops: np.ndarray
    sound: np.ndarray


@dataclass
class SyncBatch:
    """crops (B, WINDOWS + num_frames - 1, 64, 64, 3) uint8; heard (B, 2 (WINDOWS + 2 REACH + num_frames) ..., C)."""

    crops: np.ndarray
    heard: Tensor


def stored_crops(frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The mouths of a clip with room around: (T, H, W, 3) uint8, (T, 68, 2) -> (T, 88, 88, 3) uint8."""
    places = crop_frames(torch.from_numpy(landmarks)[None].float(), "mouth")[0].numpy()
    crops = np.empty((len(frames), STORED, STORED, 3), np.uint8)
    for crop, frame, (x, y, ax, ay, bx, by) in zip(crops, frames, places, strict=True):
        # crop -> frame, and continuous pixels to OpenCV's, which count from pixel centres
        turn = 2 * ROOM / STORED * np.array([[ax, bx], [ay, by]])
        shift = np.array([x, y]) - turn @ np.full(2, STORED / 2)
        matrix = np.column_stack([turn, shift + turn @ np.full(2, 0.5) - 0.5])
        cv2.warpAffine(
            frame, matrix, (STORED, STORED), dst=crop,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
    return crops


@torch.no_grad()
def heard_versions(
    network: SyncNetwork, mouths: Sequence[TalkingMouth], versions: int, generator: torch.Generator
) -> list[Tensor]:
    """What the speech encoder hears of each clip, (versions, T, C) float16: the first clean, the others augmented.

    Done once: the encoder stays as it is, and it hears a second around every moment, so pieces would not do.
    """
    features: list[list[Tensor]] = [[] for _ in mouths]
    longest = max(len(mouth.sound) for mouth in mouths)
    for start in range(0, len(mouths), 16):
        part = mouths[start : start + 16]
        clean = torch.stack([F.pad(torch.from_numpy(m.sound), (0, longest - len(m.sound))) for m in part])
        for version in range(versions):
            sound = clean
            if version:
                sound, silent = augment_sound(clean, generator)
                sound = torch.where(silent[:, None], clean, sound)
            hidden = network.speech.hidden(sound).half()
            for row, mouth in enumerate(part):
                features[start + row].append(hidden[row, : network.speech.num_features(len(mouth.sound))])
    return [torch.stack(rows) for rows in features]


class SyncSampler:
    """Draws training batches: clips that stay in step, framed a little wrong, mirrored, most of them degraded.

    Args:
        mouths: the clips; those too short for a batch are left out.
        heard: of `heard_versions`.
        num_frames, margin, size: of the network: window, features of sound around it, side of its crops.
        seed: the same seed gives the same batches.
    """

    def __init__(
        self,
        mouths: Sequence[TalkingMouth],
        heard: Sequence[Tensor],
        *,
        num_frames: int,
        margin: int = 4,
        size: int = 64,
        seed: int = 0,
    ) -> None:
        self.frames = WINDOWS + num_frames - 1
        long_enough = [number for number, mouth in enumerate(mouths) if len(mouth.crops) >= self.frames]
        self.mouths = [mouths[number] for number in long_enough]
        self.heard = [heard[number] for number in long_enough]
        self.num_frames, self.margin, self.size = num_frames, margin, size
        self.rng = np.random.default_rng(seed)

    def reseed(self, seed: int) -> None:
        """Other batches than before, after a run was resumed."""
        self.rng = np.random.default_rng([seed, 77])

    def batch(self, batch_size: int) -> SyncBatch:
        """A batch of different people."""
        rng = self.rng
        chosen = rng.choice(len(self.mouths), batch_size, replace=batch_size > len(self.mouths))
        crops = np.empty((batch_size, self.frames, self.size, self.size, 3), np.uint8)
        heard = []
        for row, number in enumerate(chosen):
            mouth, versions = self.mouths[number], self.heard[number]
            first = int(rng.integers(len(mouth.crops) - self.frames + 1))
            crops[row] = self._clip(mouth.crops[first : first + self.frames])
            begin = 2 * (first - REACH) - self.margin
            end = 2 * (first + REACH + self.frames) + self.margin
            places = np.arange(begin, end).clip(0, versions.shape[1] - 1)
            heard.append(versions[int(rng.integers(len(versions))), places])
        return SyncBatch(crops, torch.stack(heard).float())

    def _clip(self, frames: np.ndarray) -> np.ndarray:
        """Frames of one clip as one camera would have taken them, cut as a shaky finder would."""
        rng, size = self.rng, self.size
        angle, zoom = np.deg2rad(rng.normal(0, 4)), np.exp(rng.normal(0, 0.07)) * size * ROOM / STORED
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = size * (0.5 + rng.normal(0, 0.03, 2))
        shake = rng.normal(0, size * 0.006, (len(frames), 2))
        mirrored, degraded, seed = rng.random() < 0.5, rng.random() < 0.7, int(rng.integers(2**31))
        still = rng.random() < 0.5
        made = np.empty((len(frames), size, size, 3), np.uint8)
        for number, frame in enumerate(frames):
            matrix = np.column_stack([turn, middle + shake[number] - turn @ np.full(2, STORED / 2)])
            picture = np.asarray(
                cv2.warpAffine(frame, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE), np.uint8
            )
            if mirrored:
                picture = np.ascontiguousarray(picture[:, ::-1])
            if degraded:  # the same light, lens and codec in all frames; they draw the same numbers
                picture = degrade(np.random.default_rng(seed), picture)
            if not still:
                grain = rng.normal(0, 3, picture.shape)
                picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
            made[number] = picture
        return made


class SyncTraining(nn.Module):
    """Loss of a network on a batch.

    Args:
        network: its heads and the deeper stages of its lips learn. The first two stages, all normalisation and the
            speech encoder stay as they came: what is seen and heard of people should not be forgotten on renders.
        bfloat16: multiply the pictures in bfloat16.
    """

    def __init__(self, network: SyncNetwork, bfloat16: bool = False) -> None:
        super().__init__()
        self.network, self.reduced = network, bfloat16
        self.log_scale = nn.Parameter(torch.tensor(math.log(15.0)))

    def train(self, mode: bool = True) -> SyncTraining:
        super().train(mode)
        self.network.lips.eval()
        self.network.speech.eval()
        return self

    def forward(self, batch: SyncBatch) -> dict[str, Tensor]:
        """Returns `faces` and `sounds`, the cross-entropies of both directions."""
        network, count = self.network, len(batch.crops)
        pictures = to_tensor(batch.crops.reshape(-1, *batch.crops.shape[2:]))
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=self.reduced):
            seen = network.see(pictures).float().unflatten(0, (count, -1))
        windows = seen.unfold(1, network.num_frames, 1).transpose(2, 3)  # (B, WINDOWS, num_frames, C)
        faces = network.seen(windows.flatten(0, 1)).unflatten(0, (count, -1))
        pieces = batch.heard.unfold(1, network.heard_length, 2).transpose(2, 3)
        sounds = network.embed_sound(pieces.flatten(0, 1)).unflatten(0, (count, -1))
        logits = torch.einsum("bkd,cjd->bkcj", faces, sounds) * self.log_scale.exp().clamp(max=60)
        target = sync_target(count, faces.shape[1], sounds.shape[1]).to(logits)
        rows = logits.flatten(2).flatten(0, 1)
        from_faces = -(target * rows.log_softmax(1)).sum(1).mean()
        inside = slice(REACH, REACH + faces.shape[1])
        columns = logits[..., inside].flatten(2).flatten(0, 1).T
        back = sync_target(count, faces.shape[1], sounds.shape[1], inside).to(logits).T
        back = back / back.sum(1, keepdim=True)
        from_sounds = -(back * columns.log_softmax(1)).sum(1).mean()
        return {"faces": from_faces, "sounds": from_sounds}


def sync_target(clips: int, windows: int, sounds: int, inside: slice = slice(None)) -> Tensor:
    """Which sound belongs to which window, (clips * windows, clips * sounds), rows of sum 1 where all are inside."""
    late = torch.arange(sounds)[None] - torch.arange(windows)[:, None] - (sounds - windows) // 2
    share = torch.where(late == 0, 1.0, torch.where(late.abs() == 1, NEIGHBOUR, 0.0))
    share = (share / share.sum(1, keepdim=True))[:, inside]
    return torch.block_diag(*[share] * clips)


def train_sync(
    network: SyncNetwork,
    sampler: SyncSampler,
    *,
    batch_size: int = 20,
    learning_rate: float = 7e-4,
    bfloat16: bool = False,
    **budget: Unpack[Budget],
) -> None:
    """Train `network` in place; see `train_averaged` for budget and resuming."""
    training = SyncTraining(network, bfloat16)
    network.speech.requires_grad_(False)
    network.lips[:2].requires_grad_(False)
    train_averaged(
        training,
        lambda: training(sampler.batch(batch_size)),
        learning_rate=learning_rate,
        average_decay=0.995,
        clip=[(training.parameters(), 1.0)],
        resumed=sampler.reseed,
        **budget,
    )
    network.requires_grad_(False)
