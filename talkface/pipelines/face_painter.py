"""The engine of the talking face: a stream of shots in, the same stream with painted lower faces out.

For every group of frames: masked, reference and guide pictures -> latents, sound around each frame -> conditioning,
shared noise -> DDIM with guidance -> decoded square faces. Crops may be a whole number of times larger than what
the network paints: it then paints a smaller copy. With a guide, what the network changed about it is laid over the
large guide, so that neither the first stage nor the small size costs the photograph's own detail. Knows nothing of
files, faces in pictures, or pasting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.conditioning.audio import Features, audio_windows
from talkface.media import to_tensor, to_uint8
from talkface.pipelines.background import in_order
from talkface.pipelines.device import autocast
from talkface.pipelines.face_guide import FaceGuide, Guides
from talkface.pipelines.sampling import LatentSampler, frame_generator, frame_noise, window_weights
from talkface.pipelines.sources import Shot
from talkface.portrait.blend import blend_mask, generation_mask
from talkface.portrait.crop import AlignedCrop

UPPER_LANDMARKS = 48  # the points that are not the mouth
NO_EMOTION = -1
_MARGIN = 1  # latents decoded around what is shown
_LEAST_HUE = 0.3  # share of a change of hue that is taken where the photograph has its own colours
_BRIGHT_TO_DARK = (0.0, -0.4)  # mean of the colours, from teeth to the dark between them

Painted = tuple[Shot, np.ndarray | None]


@dataclass(frozen=True)
class References:
    """Which picture shows the network the person.

    Args:
        first: used for every frame, unless `window` is set.
        window, overlap: frames; each window takes its own first face, fused where windows meet.
    """

    first: AlignedCrop
    window: int | None = None
    overlap: int = 0


@dataclass(frozen=True)
class Sound:
    """Features (T, D) at `feature_rate` Hz; a frame sees 2 * window + 1 of them, `window_rate` Hz apart, and of each
    the first `columns` (None: all)."""

    features: Features
    feature_rate: float
    window: int
    window_rate: float
    columns: int | None = None


@dataclass(frozen=True)
class FacePainter:
    """Paints the lower faces of a stream of shots.

    Args:
        image_size: side of what the network paints; crops are a whole number of times as large.
        guide: draws the guide pictures; None: the network is told that there is none.
        refined: False: the guides are the result, and no network is used.
        group: frames in every network call (short groups are filled with copies, see `sampling`).
        batch_size: frames that are collected and passed on together, rounded up to whole groups.
        still: all shots show the same picture, which is then encoded once.
        emotion: id, or NO_EMOTION.
        autoregressive: the reference of a frame is the latents generated for the frame before.
        change_decoder: (latents, guides' latents) -> change of pixels; None: the first stage decodes both.
        workers: groups that are painted at the same time, each by its share of the processor's threads. Frames then
            come `workers` groups later. 1 where autoregressive.
    """

    first_stage: Any
    sampler: LatentSampler
    sound: Sound
    references: References
    image_size: int
    mask_kind: str
    seed: int
    independent_noise: float
    group: int
    batch_size: int
    device: torch.device
    dtype: torch.dtype
    emotion: int = NO_EMOTION
    still: bool = False
    autoregressive: bool = False
    guide: FaceGuide | None = None
    refined: bool = True
    workers: int = 1
    change_decoder: Any = None

    @torch.inference_mode()
    def paint(self, shots: Iterator[Shot], keep_going: Callable[[], None]) -> Iterator[Painted]:
        """Yield every shot, in order, with its painted crop uint8 (S, S, 3), or None where it has no face."""
        state = _State(self.encode(self.references.first.image[None]) if self.refined else torch.empty(0))
        tasks = (self._task(batch, state, keep_going) for batch in self._batches(shots))
        for painted in in_order(tasks, self.workers):
            yield from painted

    def _batches(self, shots: Iterator[Shot]) -> Iterator[list[Shot]]:
        pending: list[Shot] = []
        faces = 0
        batch = -(-self.batch_size // self.group) * self.group
        for shot in shots:
            pending.append(shot)
            faces += shot.crop is not None
            # a long stretch without a face must not be held back until a batch is full
            if faces == batch or len(pending) >= 4 * batch or faces == 0:
                yield pending
                pending, faces = [], 0
        yield pending

    def encode(self, images: np.ndarray) -> Tensor:
        """uint8 crops (N, S, S, 3) -> float32 latents (N, C, h, w)."""
        return self._encode(to_tensor(images))

    def _shrink(self, images: Tensor) -> Tensor:
        """Crops (N, 3, S, S) at the size that the network paints."""
        factor = images.shape[-1] // self.image_size
        return F.avg_pool2d(images, factor) if factor > 1 else images

    def _encode(self, images: Tensor) -> Tensor:
        with autocast(self.device, self.dtype):
            return self.first_stage.encode(self._shrink(images.to(self.device))).float()

    def _task(
        self, shots: list[Shot], state: _State, keep_going: Callable[[], None]
    ) -> Callable[[], list[Painted]]:
        """What paints these shots. What depends on the shots before is done here, the rest when it is called."""
        with_face = [shot for shot in shots if shot.crop is not None]
        groups = [with_face[start : start + self.group] for start in range(0, len(with_face), self.group)]
        prepared: Iterable[_Group] = (self._prepare(group, state) for group in groups)
        if self.workers > 1:
            prepared = list(prepared)

        @torch.inference_mode()
        def task() -> list[Painted]:
            painted: dict[int, Painted] = {}
            for group in prepared:
                images = self._paint_group(group, state, keep_going)
                painted.update(
                    (shot.index, (shot, image)) for shot, image in zip(group.shots, images, strict=True)
                )
            return [painted.get(shot.index, (shot, None)) for shot in shots]

        return task

    def _prepare(self, shots: list[Shot], state: _State) -> _Group:
        guides = None if self.guide is None else self.guide.draw(shots)
        if guides is not None and guides.flow is not None:
            shots = [replace(shot, flow=flow) for shot, flow in zip(shots, guides.flow, strict=True)]
        if not self.refined:
            return _Group(shots, guides, [], [], [])
        padded = shots + shots[-1:] * (self.group - len(shots))
        if self.still and state.masked is None:
            state.masked = self._encode(self._masked_images(padded[:1])).expand(self.group, -1, -1, -1)
        return _Group(shots, guides, *self._references(padded, state))

    def _paint_group(self, group: _Group, state: _State, keep_going: Callable[[], None]) -> np.ndarray:
        guides, count = group.guides, len(group.shots)
        if not self.refined:
            assert guides is not None
            keep_going()
            return to_uint8(guides.shown)
        shots = group.shots + group.shots[-1:] * (self.group - count)
        # 1. which references guide which frame: (row -> frame, weight of the row)
        owners, weights, references = group.owners, group.weights, group.references
        # 2. what the network is told about each frame, then one row for each of its references
        frames = torch.tensor(owners, device=self.device)
        batch = {name: value[frames] for name, value in self._describe(shots, state).items()}
        batch["reference_latents"] = torch.cat(references)
        guided = torch.zeros_like(batch["reference_latents"][: len(shots)])
        if guides is not None:
            told = torch.cat([guides.told, guides.told[-1:].expand(len(shots) - count, -1, -1, -1)])
            guided = self._encode(told)
        batch["guide_latents"] = guided[frames]
        # 3. sample
        noise = frame_noise(
            references[0].shape[1:], self.seed, [shot.index for shot in shots], self.independent_noise
        ).to(self.device)
        fused = len(owners) > len(shots)
        with autocast(self.device, self.dtype):
            latents = self.sampler(
                noise,
                batch,
                owners=frames if fused else None,
                weights=torch.tensor(weights, device=self.device) if fused else None,
                generator=[frame_generator(self.seed, shot.index, "steps") for shot in shots],
                keep_going=keep_going,
            )
            state.previous = latents[count - 1 : count]
            # 4. pictures
            if guides is None:
                return to_uint8(self.first_stage.decode(latents).float())[:count]
            change, top, left = self._change(latents[:count], guided[:count])
        factor = guides.shown.shape[-1] // self.image_size
        change = F.interpolate(change, scale_factor=float(factor), mode="bicubic", align_corners=False)
        rows = slice(factor * top, factor * top + change.shape[2])
        columns = slice(factor * left, factor * left + change.shape[3])
        share, mouth, under = (
            part[:, :, rows, columns] for part in (guides.share, guides.mouth, guides.shown)
        )
        result = guides.shown.clone()
        result[:, :, rows, columns] += share * keep_colours(change, mouth * is_dark(under))
        return to_uint8(result)

    def _change(self, latents: Tensor, guided: Tensor) -> tuple[Tensor, int, int]:
        """What the network changed about the guide, without what the first stage loses.

        Decodes the part that is shown only, with a margin: (N, 3, h, w), and its first row and column.
        """
        factor = self.image_size // latents.shape[-1]
        places = [at // factor for at in np.nonzero(blend_mask(self.image_size))]
        low = [max(0, int(at.min()) - _MARGIN) for at in places]
        high = [min(latents.shape[-1], int(at.max()) + 1 + _MARGIN) for at in places]
        made, before = (part[:, :, low[0] : high[0], low[1] : high[1]] for part in (latents, guided))
        if self.change_decoder is not None:
            change = self.change_decoder(made, before).float()
        else:
            shown, unchanged = (
                self.first_stage.decode(torch.cat([made, before])).float().clamp(-1, 1).chunk(2)
            )
            change = shown - unchanged
        return change, low[0] * factor, low[1] * factor

    def _describe(self, shots: list[Shot], state: _State) -> dict[str, Tensor]:
        """The batch for the conditioners, all but the reference, one row per frame."""
        times = torch.tensor([shot.time for shot in shots], dtype=torch.float64)
        sound = self.sound
        audio = audio_windows(sound.features, sound.feature_rate, times, sound.window, sound.window_rate)
        points = np.stack([self._crop_points(shot)[:UPPER_LANDMARKS] for shot in shots])
        masked = self._encode(self._masked_images(shots)) if state.masked is None else state.masked
        return {
            "audio": audio[..., : sound.columns].to(self.device),
            "emotion": torch.full((len(shots),), self.emotion, dtype=torch.long, device=self.device),
            "landmarks": torch.from_numpy(points).float().to(self.device),
            "masked_latents": masked,
        }

    def _masked_images(self, shots: list[Shot]) -> Tensor:
        crops = [self._crop(shot) for shot in shots]
        masks = [
            generation_mask(crop.size, self.mask_kind, landmarks=self._crop_points(shot))
            for crop, shot in zip(crops, shots, strict=True)
        ]
        hidden = torch.from_numpy(np.stack(masks))[:, None]
        images = to_tensor(np.stack([crop.image for crop in crops]))
        return images * (1.0 - hidden) - hidden

    def _references(self, shots: list[Shot], state: _State) -> tuple[list[int], list[float], list[Tensor]]:
        """Row by row: number of the frame in the group, weight, reference latents (1, C, h, w)."""
        if self.autoregressive and state.previous is not None:
            return [0], [1.0], [state.previous]
        if self.references.window is None:
            return list(range(len(shots))), [1.0] * len(shots), [state.reference] * len(shots)
        owners, weights, latents = [], [], []
        for number, shot in enumerate(shots):
            parts = window_weights(shot.index, self.references.window, self.references.overlap)
            for window, weight in parts:
                if window not in state.windows:
                    state.windows[window] = self.encode(self._crop(shot).image[None])
                owners.append(number)
                weights.append(weight)
                latents.append(state.windows[window])
            for old in [window for window in state.windows if window < parts[0][0]]:
                del state.windows[old]
        return owners, weights, latents

    @staticmethod
    def _crop(shot: Shot) -> AlignedCrop:
        assert shot.crop is not None  # only shots with a face are painted
        return shot.crop

    def _crop_points(self, shot: Shot) -> np.ndarray:
        assert shot.points is not None
        return self._crop(shot).to_crop(shot.points)


def keep_colours(change: Tensor, free: Tensor) -> Tensor:
    """Changes (N, 3, S, S) of a picture, with less change of hue where `free` (N, 1, S, S) is below 1.

    Skin and lips of the guide have the photograph's own colours; what the network knows of colours comes from other
    people. Their light and shade it may change.
    """
    grey = change.mean(1, keepdim=True)
    return grey + (_LEAST_HUE + (1.0 - _LEAST_HUE) * free) * (change - grey)


def is_dark(pictures: Tensor) -> Tensor:
    """(N, 1, S, S) in [0, 1] of pictures (N, 3, S, S) in [-1, 1]: 1 in a mouth's dark, 0 on its teeth, whose colour the
    guide has from the photograph's light."""
    bright, dark = _BRIGHT_TO_DARK
    return ((bright - pictures.mean(1, keepdim=True)) / (bright - dark)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class _Group:
    """Up to `group` shots, ready to be painted; the rest as `FacePainter._references` gives it."""

    shots: list[Shot]
    guides: Guides | None
    owners: list[int]
    weights: list[float]
    references: list[Tensor]


class _State:
    """What one pass over the shots remembers: always a fixed amount."""

    def __init__(self, reference: Tensor):
        self.reference = reference
        self.masked: Tensor | None = None
        self.previous: Tensor | None = None
        self.windows: dict[int, Tensor] = {}
