"""Training pairs for the talking face: a target frame, a reference frame of the clip, the sound around it.

Thesis 5.2: the network sees the target with its mouth region masked, another frame of the same person
(identity) and a window of sound features centred on the target frame. Batch keys (S = image_size, L = 2 *
window + 1):

    target, reference, masked   (3, S, S) float in [-1, 1]; `masked` is the target with the mask region at -1
    mask                        (1, S, S) float, 1 = to generate
    audio                       (L, D) float, features at time + j / window_rate, j = -window .. window
    emotion                     () long, -1 when unknown
    landmarks                   (48, 2) float, the points outside the mouth, pixels of the target crop
    points                      (68, 2) float, all of them: only for losses, since they show the mouth
    clip, frame                 () long, which frame of which clip of the split
    guide                       (3, S, S), where asked for: the reference animated into the masked part of the target
    sound                       (N,) float, where asked for: the samples themselves, for experts that hear (see
                                `SOUND_MARGIN`); silence beyond the ends of the clip

With `sequence_length` n > 1, everything but `reference`, `emotion`, `clip` and `sound` has a leading n: consecutive
frames.
"""

from __future__ import annotations

import copy
import logging
from typing import Literal, get_args

import numpy as np
import torch
from torch.utils.data import Dataset

from talkface.conditioning.audio import audio_windows
from talkface.data.base import ClipEntry, Corpus
from talkface.data.features import FeatureStore
from talkface.data.guides import GuideMaker
from talkface.data.images import ALIGNMENTS, LandmarkCache, Photometry, align
from talkface.data.references import same_pose_other_mouth
from talkface.errors import TalkfaceError
from talkface.media import to_tensor
from talkface.portrait.blend import generation_mask

_log = logging.getLogger(__name__)
Reference = Literal["any", "pose", "thesis"]
SOUND_MARGIN = 0.5  # seconds of `sound` before the first frame and after the last


def usable_clips(corpus: Corpus, frames: int, with_sound: bool) -> Corpus:
    """`corpus` without clips of fewer frames and, `with_sound`, without silent ones; says how many those are.

    Raises:
        TalkfaceError: none is left.
    """
    long = [clip for clip in corpus if clip.num_frames >= frames]
    if not long:
        longest = max(clip.num_frames for clip in corpus)
        raise TalkfaceError(
            f"the longest clip of {corpus.folder} has {longest} frames; sequence_length {frames} needs "
            f"{frames}; prepare longer clips or lower sequence_length"
        )
    kept = [clip for clip in long if clip.has_audio or not with_sound]
    if not kept:
        raise TalkfaceError(
            f"no clip of {corpus.folder} has sound; prepare films with sound, or train without an encoder"
        )
    if len(kept) < len(corpus):
        silent = len(long) - len(kept)
        _log.warning(
            "%s: left out %d of %d clips: %d shorter than %d frames, %d without sound",
            *(corpus.folder, len(corpus) - len(kept), len(corpus), len(corpus) - len(long), frames, silent),
        )
    return corpus.subset(kept)


class TalkingDataset(Dataset[dict[str, torch.Tensor]]):
    """Random (target, reference) pairs, `samples_per_clip` per clip and epoch.

    Args:
        corpus: clips with landmarks. Clips that are shorter than `sequence_length` (or 2), or silent where there are
            `features`, are left out and counted in a notice.
        features: cached sound features; None leaves `audio` out.
        window: sound tokens on each side of the frame.
        window_rate: tokens per second of that window; None = the clip's own frame rate (the paper).
        image_size: side of the pictures.
        mask_kind: lower_face, thesis or nose (see `portrait.blend.generation_mask`).
        alignment: `canonical` (the crop of inference) or `none` (frames are already cropped by a fixed box).
        reference: `any` frame of the clip but the target; `pose`, one in the same pose with another mouth (see
            `references`); or `thesis`, uniform in [0, target + 60), which may be the target itself, as the thesis'
            code draws it.
        reference_distance: with `any` and `pose`, prefer frames at least this many frames away when the clip has such.
        jitter: strength of the random change of both crops (see `images.align`).
        independent_jitter: draw it separately for target and reference (False = the same change).
        photometric: strength of one common change of exposure, colour and sharpness of the pair.
        sequence_length: consecutive target frames per item.
        guide_error: how wrong the guides are, see `guides.GuideMaker`; None: no guides.
        with_sound: give the samples of the sound too.
        samples_per_clip: items per clip and epoch (1 = the paper).
        seed: items depend on (seed, epoch, index) only.

    Raises:
        TalkfaceError: no clip is long enough or has sound, or a choice is unknown.
    """

    def __init__(
        self,
        corpus: Corpus,
        features: FeatureStore | None = None,
        *,
        window: int = 4,
        window_rate: float | None = None,
        image_size: int = 128,
        mask_kind: str = "lower_face",
        alignment: str = "canonical",
        reference: Reference = "any",
        reference_distance: int = 0,
        jitter: float = 0.0,
        independent_jitter: bool = True,
        photometric: float = 0.0,
        guide_error: float | None = None,
        with_sound: bool = False,
        sequence_length: int = 1,
        samples_per_clip: int = 1,
        seed: int = 0,
    ) -> None:
        if reference not in get_args(Reference):
            raise TalkfaceError(f"reference: {reference!r}; allowed {', '.join(get_args(Reference))}")
        if alignment not in ALIGNMENTS:
            raise TalkfaceError(f"alignment: {alignment!r}; allowed {', '.join(ALIGNMENTS)}")
        generation_mask(image_size, "lower_face" if mask_kind == "thesis" else mask_kind)
        self.corpus = usable_clips(corpus, max(sequence_length, 2), with_sound or features is not None)
        self.features = features
        self.window = window
        self.window_rate = window_rate
        self.image_size = image_size
        self.mask_kind = mask_kind
        self.alignment = alignment
        self.reference = reference
        self.reference_distance = reference_distance
        self.jitter = jitter
        self.independent_jitter = independent_jitter
        self.photometric = photometric
        self.guides = None if guide_error is None else GuideMaker(guide_error)
        self.with_sound = with_sound
        self.sequence_length = sequence_length
        self.samples_per_clip = samples_per_clip
        self.seed = seed
        self._landmarks = LandmarkCache(self.corpus)

    def __len__(self) -> int:
        return len(self.corpus) * self.samples_per_clip

    def shard_of_items(self) -> np.ndarray:
        """(N,) the shard of every item."""
        return np.tile(np.array([clip.shard for clip in self.corpus]), self.samples_per_clip)

    def as_sequences(self, num_frames: int) -> TalkingDataset:
        """The same data as runs of (at most) `num_frames` consecutive frames."""
        other = copy.copy(self)
        other.sequence_length = min(num_frames, *(clip.num_frames for clip in self.corpus))
        return other

    def __getitem__(self, key: int) -> dict[str, torch.Tensor]:
        epoch, index = divmod(key, len(self))
        rng = np.random.default_rng([self.seed, epoch, index])
        clip_number = index % len(self.corpus)
        clip = self.corpus.clips[clip_number]
        first = int(rng.integers(clip.num_frames - self.sequence_length + 1))
        frames = range(first, first + self.sequence_length)
        reference = self._draw_reference(clip, frames, rng)
        jitter_seeds = rng.integers(2**31, size=2)
        if not self.independent_jitter:
            jitter_seeds[1] = jitter_seeds[0]
        photometry = Photometry(rng, self.photometric) if self.photometric > 0 else None

        targets = [self._crop(clip, frame, int(jitter_seeds[0]), photometry) for frame in frames]
        reference_image, reference_points = self._crop(clip, reference, int(jitter_seeds[1]), photometry)
        target = to_tensor(np.stack([image for image, _ in targets]))
        all_points = np.stack([points for _, points in targets])
        masks = [generation_mask(self.image_size, self.mask_kind, points) for points in all_points]
        mask = torch.from_numpy(np.stack(masks))[:, None]
        item = {
            "target": target,
            "mask": mask,
            "masked": target * (1 - mask) - mask,
            "landmarks": torch.from_numpy(all_points[:, :48]).float(),
            "points": torch.from_numpy(all_points).float(),
            "frame": torch.tensor(list(frames)),
        }
        if self.features is not None:
            item["audio"] = self._audio(clip, frames)
        if self.guides is not None:
            item["guide"] = self.guides(
                to_tensor(reference_image)[0],
                reference_points,
                target,
                all_points,
                mask,
                self._actions(clip, frames),
                rng,
            )
        if self.sequence_length == 1:
            item = {name: value[0] for name, value in item.items()}
        if self.with_sound:
            item["sound"] = self._sound(clip, frames)
        return item | {
            "reference": to_tensor(reference_image)[0],
            "emotion": torch.tensor(clip.emotion),
            "clip": torch.tensor(clip_number),
        }

    def _draw_reference(self, clip: ClipEntry, frames: range, rng: np.random.Generator) -> int:
        if self.reference == "thesis":
            return int(rng.integers(min(clip.num_frames, frames[-1] + 60)))
        numbers = np.arange(clip.num_frames)
        distance = np.maximum(frames[0] - numbers, numbers - frames[-1])
        allowed = numbers[distance >= max(1, self.reference_distance)]
        if len(allowed) == 0:
            allowed = numbers[distance == distance.max()]
        if self.reference == "pose":
            middle = frames[len(frames) // 2]
            allowed = same_pose_other_mouth(self._landmarks(clip), middle, allowed)
        return int(rng.choice(allowed))

    def _crop(
        self, clip: ClipEntry, frame: int, jitter_seed: int, photometry: Photometry | None
    ) -> tuple[np.ndarray, np.ndarray]:
        found = self._landmarks(clip)
        if frame >= len(found) or not np.isfinite(found[frame]).all():
            raise TalkfaceError(
                f"clip {clip.id} in {self.corpus.folder} has no landmarks in frame {frame}; allowed: finite ones in "
                "every frame; prepare the corpus again, which leaves such clips out"
            )
        image, points = align(
            self.corpus.read_frame(clip, frame),
            found[frame],
            self.image_size,
            self.alignment,
            np.random.default_rng(jitter_seed),
            self.jitter,
        )
        return (photometry(image) if photometry else image), points

    def _actions(self, clip: ClipEntry, frames: range) -> np.ndarray | None:
        """Exact facial actions (n, 52), where the corpus knows them."""
        truth = self.corpus.read_truth(clip)
        return truth["actions"][frames.start : frames.stop] if "actions" in truth else None

    def _audio(self, clip: ClipEntry, frames: range) -> torch.Tensor:
        assert self.features is not None
        return audio_windows(
            torch.from_numpy(self.features.read(clip)),
            self.features.feature_rate,
            torch.tensor([clip.frame_time(frame) for frame in frames]),
            self.window,
            self.window_rate or clip.fps,
        )

    def _sound(self, clip: ClipEntry, frames: range) -> torch.Tensor:
        rate = self.corpus.sample_rate
        count = round((len(frames) / clip.fps + 2 * SOUND_MARGIN) * rate)
        first = round((frames.start / clip.fps - SOUND_MARGIN) * rate)
        samples = self.corpus.read_audio(clip)
        places = np.arange(first, first + count)
        inside = (places >= 0) & (places < len(samples))
        return torch.from_numpy(
            np.where(inside, samples[places.clip(0, len(samples) - 1)], 0.0).astype(np.float32)
        )
