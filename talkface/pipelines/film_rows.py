"""The films that `evaluate-video` compares: clips of a corpus, and the versions of each that make up a table.

Corpora are handed in opened (`talkface.data.base.Corpus`), pipelines built.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from talkface.errors import TalkfaceError
from talkface.media import Audio, exact_rate, to_tensor, to_uint8
from talkface.pipelines.film_scores import RealClip
from talkface.portrait.blend import blend_mask, paste
from talkface.portrait.crop import AlignedCrop

ROWS = ("real", "first_stage", "windowed", "autoregressive", "still", "shuffled", "silence")
GUIDE_ROWS = {"warp": "warp", "unguided": "none"}  # more ways to make the film, by their level of guide
BILABIALS = {"p", "b", "m"}


def choose_clips(corpus: Any, count: int, seed: int) -> list[Any]:
    """`count` clips with sound, drawn by seed (0 = all), in the order of the corpus.

    Raises:
        TalkfaceError: fewer than two have sound.
    """
    spoken = [clip for clip in corpus if clip.has_audio and clip.num_frames >= 3]
    if len(spoken) < 2:
        raise TalkfaceError(
            f"corpus {corpus.folder}: {len(spoken)} clips with sound in this split; 2 are needed"
        )
    if 0 < count < len(spoken):
        chosen = np.random.default_rng(seed).choice(len(spoken), size=max(count, 2), replace=False)
        return [spoken[k] for k in sorted(chosen)]
    return spoken


def read_clip(corpus: Any, entry: Any, max_frames: int) -> RealClip:
    """The first `max_frames` frames of a clip of a corpus, with sound and truth."""
    count = min(entry.num_frames, max_frames)
    spans = corpus.read_meta(entry).get("phonemes", [])
    bilabials = tuple((start, end) for symbol, start, end in spans if symbol.lower() in BILABIALS)
    samples = corpus.read_audio(entry)[: round(count / entry.fps * corpus.sample_rate)]
    return RealClip(
        name=entry.id,
        frames=np.stack([corpus.read_frame(entry, k) for k in range(count)]),
        landmarks=corpus.read_truth(entry, ["landmarks"])["landmarks"][:count].astype(np.float64),
        samples=samples,
        sample_rate=corpus.sample_rate,
        fps=entry.fps,
        emotion=entry.emotion,
        bilabials=bilabials,
    )


def make_row(
    row: str, clip: RealClip, other_sound: np.ndarray, pipeline: Any, calls: dict[str, Any]
) -> np.ndarray:
    """The film of one row of the table, uint8 like `clip.frames`."""
    if row == "real":
        return clip.frames
    if row in ("first_stage", "still"):
        size = pipeline.image_size
        crops = [
            AlignedCrop.from_landmarks(frame, points, size)
            for frame, points in zip(clip.frames, clip.landmarks, strict=True)
        ]
        return np.stack(list(without_sampling(row, clip.frames, crops, pipeline)))
    length = round(len(clip.frames) / clip.fps * clip.sample_rate)
    samples = {"shuffled": other_sound, "silence": np.zeros(length, np.float32)}.get(row, clip.samples)
    # as long as the film, or the pipeline would make another number of frames
    samples = np.resize(samples, length) if row == "shuffled" else np.pad(samples, (0, length - len(samples)))
    mode = "autoregressive" if row == "autoregressive" else "windowed"
    if row in GUIDE_ROWS:
        calls = {**calls, "guide": GUIDE_ROWS[row]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mkv"
        write_lossless(path, clip.frames, exact_rate(clip.fps))
        result = pipeline(Audio(samples, clip.sample_rate), film=path, mode=mode, **calls)
        with result.frames() as frames:
            return np.stack(list(frames))


def without_sampling(
    row: str, frames: Iterable[np.ndarray], crops: Sequence[AlignedCrop], pipeline: Any
) -> Iterator[np.ndarray]:
    """Lower faces from the autoencoder, or from the first frame, pasted as the pipeline pastes.

    Args:
        row: "first_stage" or "still".
        frames: uint8 (H, W, 3), and what was cut from each at the size that the bundle paints.
    """
    mask = blend_mask(pipeline.image_size)
    for frame, crop in zip(frames, crops, strict=True):
        face = crops[0].image
        if row == "first_stage":
            with torch.inference_mode():
                stage = pipeline.first_stage
                images = to_tensor(crop.image[None]).to(pipeline.device)
                face = to_uint8(stage.decode(stage.encode(images)).float())[0]
        yield paste(frame, face, crop, mask)


def write_lossless(path: Path, frames: np.ndarray, rate: Fraction) -> None:
    """RGB kept to the bit (FFV1), so that the codec does not count as an error of the model."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
