"""How near a made film is to the true one in the eyes of frozen experts: a lip reader first, others by choice.

The reader's cosine distance is the thesis's (section 5.3.2). The others are from later work: a sync expert that looks
at 16 frames in pixels, a perceptual distance, and the consistency of what changes from frame to frame (Li et al.,
"LatentSync", 2024, arXiv 2412.09262, section 3).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.experts.mouth_crop import mouth_crops
from talkface.experts.registry import fingerprint, load_expert
from talkface.losses.expert import lip_reading_loss, sync_loss, temporal_loss

FEATURES = ("frames", "sequence")


class LipObjective:
    """Weighted terms of a film; nothing in it is trained, averaged or saved with a model.

    Args:
        reader: a `talkface.experts.lipreading.LipReader`, or the file of one that `scripts/train_expert.py` wrote;
            None: without.
        sync: a `talkface.experts.sync.SyncExpert`, or its file; None: without.
        perceptual: distance of pictures (N, 3, h, w) twice -> (N,); None: without.
        features: "frames": the reader's front end (the thesis); "sequence": its temporal encoder.
        reading, pixel, perceptual_weight, temporal, sync_weight: weights of the terms; 0 leaves one out.

    Raises:
        TalkfaceError: unknown features; a reader whose statistics are not those of grey pictures in [0, 1].
    """

    def __init__(
        self,
        reader: nn.Module | str | None,
        sync: nn.Module | str | None = None,
        perceptual: nn.Module | None = None,
        *,
        features: str = "frames",
        reading: float = 1.0,
        pixel: float = 0.0,
        perceptual_weight: float = 0.1,
        temporal: float = 0.0,
        sync_weight: float = 0.05,
    ) -> None:
        if features not in FEATURES:
            raise TalkfaceError(f"features: '{features}'; allowed: {', '.join(FEATURES)}")
        given = {"reader": reader, "sync": sync, "perceptual": perceptual}
        self.experts: dict[str, Any] = {
            name: (load_expert(one) if isinstance(one, str) else one).eval().requires_grad_(False)
            for name, one in given.items()
            if one is not None
        }
        if reader is not None:
            check_reader(self.experts["reader"])
        self.features = features
        self.weights = {
            "reading": 0.0 if reader is None else reading,
            "pixel": pixel,
            "perceptual": 0.0 if perceptual is None else perceptual_weight,
            "temporal": temporal,
            "sync": 0.0 if sync is None else sync_weight,
        }

    @property
    def guided_by(self) -> list[str]:
        """Fingerprints of the experts that tell what lips say and are listened to; a later judge must be another."""
        weights = {"reader": self.weights["reading"], "sync": self.weights["sync"]}
        return [fingerprint(self.experts[name]) for name, weight in weights.items() if weight]

    def check_rate(self, fps: float) -> None:
        """Raises: TalkfaceError: frames a second of the data that the reader was not trained at."""
        if "reader" in self.experts:
            check_reader(self.experts["reader"], fps)

    def terms(self, film: Tensor, shown: Tensor, true: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms that have a weight, unweighted, by name.

        Args:
            film: (B, T, 3, S, S) as made, in [-1, 1]. shown, true: (B, T, 3, h, w), its window and the true one.
            batch: `target` (B, T, 3, S, S), `points` (B, T, 68, 2); for a sync expert `sound` (B, n) at its rate,
                of which the middle is that of the frames.
        """
        for expert in self.experts.values():
            expert.to(film.device)
        terms: dict[str, Tensor] = {}
        if self.weights["reading"]:
            with torch.no_grad():
                wanted = self.read(batch["target"], batch["points"])
            terms["reading"] = lip_reading_loss(self.read(film, batch["points"]), wanted).mean()
        if self.weights["pixel"]:
            terms["pixel"] = (shown - true).abs().mean()
        if self.weights["perceptual"]:
            terms["perceptual"] = self.experts["perceptual"](shown.flatten(0, 1), true.flatten(0, 1)).mean()
        if self.weights["temporal"]:
            terms["temporal"] = temporal_loss(shown, true).mean()
        if self.weights["sync"]:
            terms["sync"] = self._sync(film, batch)
        return terms

    def read(self, film: Tensor, points: Tensor) -> Tensor:
        """The reader's features (B, T, D) of a film (B, T, 3, S, S) by its landmarks (B, T, 68, 2)."""
        mouths, reader = mouth_crops(film, points), self.experts["reader"]
        return reader.frame_features(mouths) if self.features == "frames" else reader.features(mouths)

    def _sync(self, film: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The windows in the middle of the sequences against the sound in the middle of theirs."""
        expert, length, sound = self.experts["sync"], film.shape[1], batch["sound"]
        count = expert.num_frames
        if length < count:
            raise TalkfaceError(
                f"sequence_length: {length}; allowed: {count} or more, what the sync expert looks at; raise it, or "
                "give a sync expert of 5 frames"
            )
        first = (length - count) // 2
        chosen = slice(first, first + count)
        faces = expert.embed_faces(expert.crops(film[:, chosen], batch["points"][:, chosen]))
        later = (first + 0.5 * (count - length)) / expert.fps
        rate = expert.sample_rate
        middle = torch.tensor([sound.shape[1] / 2.0 / rate + later])
        with torch.no_grad():
            heard = torch.cat([expert.sound_windows(samples, rate, middle) for samples in sound])
            voices = expert.embed_sound(heard)
        return sync_loss(expert.similarity(faces, voices)).mean()


def check_reader(reader: Any, fps: float | None = None) -> None:
    """That a lip reader wants grey pictures in [0, 1], and as many a second as the data has.

    Raises:
        TalkfaceError: its mean or deviation are not those of pictures in [0, 1], or the rates differ by over 5 %.
    """
    mean, std = float(reader.mean), float(reader.std)
    if not (math.isfinite(mean) and 0.0 < mean < 1.0 and 0.0 < std <= 0.5):
        raise TalkfaceError(
            f"reader: mean {mean:g} and deviation {std:g}; allowed: those of grey pictures in [0, 1] (the public "
            "readers: 0.421 and 0.165); give a reader with its own statistics"
        )
    wanted = float(reader.fps)
    if fps is not None and abs(fps / wanted - 1.0) > 0.05:
        raise TalkfaceError(
            f"fps of the data: {fps:g}; allowed: {wanted:g}, at which this reader was trained; prepare the corpus "
            f"with --fps {wanted:g}"
        )
