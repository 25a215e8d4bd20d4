"""What a lip reader finetunes the default bundle on: sequences of consecutive frames with the guides of use.

Half of them are told the sound as the bundle's speech encoder hears it, and their guides are drawn from that: what the
network will meet; some in another voice, which the encoder hears less well than those of its training. The others are
told the exact articulation, as in its first training, so that a better encoder can still be put in.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle_spec import IMAGE_SIZE, WINDOW, WINDOW_RATE
from speech_windows import other_voice
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from talkface.conditioning.audio import audio_windows
from talkface.data.base import ClipEntry, Corpus
from talkface.data.guides import GuideMaker
from talkface.data.synthetic.visemes import SpeakingStyle, speech_actions
from talkface.data.talking import TalkingDataset
from talkface.head.expression import resting_actions, speak_over
from talkface.head.fit import FittedHead
from talkface.head.model import ACTIONS
from talkface.media import Audio
from talkface.portrait.blend import generation_mask

PICTURES = ("target", "guide", "reference")


class SpokenGuide(GuideMaker):
    """Guides as the pipeline draws them: what was heard, laid over the face at rest."""

    def _wanted(
        self,
        person: FittedHead,
        found: Tensor,
        target_points: np.ndarray,
        actions: np.ndarray | None,
        rng: np.random.Generator,
    ) -> Tensor:
        assert actions is not None
        rest = resting_actions(self._fitter, person, found).numpy()
        return torch.from_numpy(speak_over(np.asarray(actions, np.float32), rest))


class Told(TalkingDataset):
    """Sequences that are told the exact articulation, or, `heard`, what the pipeline hears in their sound, a share of
    them, `other_voices`, said from another throat."""

    def __init__(
        self, corpus: Corpus, pipeline: Any, heard: bool, other_voices: float = 0.0, **options: Any
    ) -> None:
        super().__init__(corpus, **options)
        self.pipeline, self.heard, self.other_voices = pipeline, heard, other_voices
        self._features: dict[str, Tensor] = {}
        if heard and self.guides is not None:
            self.guides = SpokenGuide(self.guides.error)

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        item = super().__getitem__(key)
        clip = self.corpus.clips[int(item["clip"])]
        times = torch.tensor([clip.frame_time(int(frame)) for frame in item["frame"]], dtype=torch.float64)
        return item | {"audio": self._told(clip, times)}

    def _told(self, clip: ClipEntry, times: Tensor) -> Tensor:
        """(T, 2 * WINDOW + 1, D) around each frame."""
        speech = self.pipeline.speech
        if self.heard:
            return audio_windows(self._hear(clip), speech.feature_rate, times, WINDOW, WINDOW_RATE)
        offsets = torch.arange(-WINDOW, WINDOW + 1) / WINDOW_RATE
        meta = self.corpus.read_meta(clip)
        style = SpeakingStyle.sample(meta["plan"]["person_seed"])
        actions = speech_actions(meta["phonemes"], (times[:, None] + offsets).flatten().numpy(), style)
        told = speech.from_actions(torch.from_numpy(np.asarray(actions)).float(), ACTIONS)
        return told.unflatten(0, (len(times), len(offsets)))

    def _hear(self, clip: ClipEntry) -> Tensor:
        if clip.id not in self._features:
            samples = self.corpus.read_audio(clip)
            random = np.random.default_rng([*clip.id.encode()])
            if random.random() < self.other_voices:
                samples = other_voice((samples * 32767).astype(np.int16), random).astype(np.float32) / 32767
            self._features[clip.id] = self.pipeline.hear(Audio(samples, self.corpus.sample_rate)).clone()
        return self._features[clip.id]

    def _actions(self, clip: ClipEntry, frames: range) -> np.ndarray | None:
        if not self.heard:
            return super()._actions(clip, frames)
        times = torch.tensor([clip.frame_time(frame) for frame in frames], dtype=torch.float64)
        speech = self.pipeline.speech
        now = audio_windows(self._hear(clip), speech.feature_rate, times, 0, WINDOW_RATE)[:, 0]
        return speech.to_actions(now, ACTIONS).numpy()


def draw_sequences(
    corpus: Corpus,
    pipeline: Any,
    folder: Path,
    length: int,
    rounds: int,
    seconds: float,
    seed: int,
    other_voices: float = 0.0,
) -> None:
    """Draw sequences into `folder`, every clip once a round; goes on where it stopped, until `seconds` are over."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "image_size": IMAGE_SIZE,
        "jitter": 0.4,
        "photometric": 0.5,
        "guide_error": 1.0,
        "with_sound": True,
        "sequence_length": length,
        "samples_per_clip": rounds,
        "seed": seed,
    }
    sets = [Told(corpus, pipeline, heard, other_voices, **options) for heard in (True, False)]
    count, size = len(sets[0]), IMAGE_SIZE
    shapes = {name: (count, length, 3, size, size) for name in PICTURES[:2]} | {
        "reference": (count, 3, size, size)
    }
    progress = folder / "progress.json"
    done = json.loads(progress.read_text())["done"] if progress.is_file() else 0
    drawn = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="r+" if done else "w+", dtype=np.uint8, shape=shape
        )
        for name, shape in shapes.items()
    }
    path = folder / "numbers.pt"
    numbers: list[dict[str, Tensor]] = torch.load(path, weights_only=True) if done else []
    end = time.monotonic() + seconds
    for number in tqdm(range(done, count), desc=folder.name, mininterval=20):
        item = sets[number % 2][number]
        for name, pictures in drawn.items():
            pictures[number] = ((item[name] + 1.0) * 127.5).round().byte().numpy()
        numbers.append({name: item[name] for name in ("audio", "points", "sound", "emotion", "clip")})
        over = time.monotonic() > end
        if over or number % 50 == 49 or number + 1 == count:
            for pictures in drawn.values():
                pictures.flush()
            torch.save(numbers, path)
            progress.write_text(json.dumps({"done": number + 1}))
        if over:
            break


@torch.no_grad()
def encoded(folder: Path, first_stage: Any, most: int) -> dict[str, Tensor]:
    """Latents by name, float16, (N, T, C, h, w), of the references (N, C, h, w); goes on where it stopped."""
    path = folder / "latents.pt"
    count = min(most, json.loads((folder / "progress.json").read_text())["done"])
    kept: list[dict[str, Tensor]] = torch.load(path, weights_only=True) if path.is_file() else []
    pictures = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in PICTURES}
    hidden = torch.from_numpy(generation_mask(IMAGE_SIZE))
    for number in tqdm(range(len(kept), count), desc="encode", mininterval=20):
        images = {
            name: torch.from_numpy(values[number].copy()).float() / 127.5 - 1.0
            for name, values in pictures.items()
        }
        images["masked"] = images["target"] * (1.0 - hidden) - hidden
        images["reference"] = images["reference"][None]
        with torch.autocast("cpu", torch.bfloat16):
            latents = first_stage.encode(torch.cat(list(images.values()))).half()
        parts = dict(zip(images, latents.split([len(image) for image in images.values()]), strict=True))
        parts["reference"] = parts["reference"][0]
        kept.append({f"{name}_latents": values.clone() for name, values in parts.items()})
        if number % 25 == 24 or number + 1 == count:
            torch.save(kept, path)
    return {name: torch.stack([one[name] for one in kept[:count]]) for name in kept[0]}


class Sequences(Dataset[dict[str, Tensor]]):
    """What `draw_sequences` and `encoded` made, at `most` so many, ready for `LipFinetuneModule`."""

    def __init__(self, folder: Path, first_stage: Any, most: int = 10**6) -> None:
        self.latents = encoded(folder, first_stage, most)
        self.pictures = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("target", "guide")}
        self.numbers: list[dict[str, Tensor]] = torch.load(folder / "numbers.pt", weights_only=True)

    def __len__(self) -> int:
        return len(self.latents["target_latents"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = {name: values[index].float() for name, values in self.latents.items()}
        for name, values in self.pictures.items():
            item[name] = torch.from_numpy(values[index].copy()).float() / 127.5 - 1.0
        return item | self.numbers[index]
