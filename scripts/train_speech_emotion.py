"""Trains the emotion branch of an articulation encoder: sound, emotion, intensity -> mouth actions.

    python scripts/train_speech_emotion.py --start talkface/weights/default/speech.safetensors --cache DIR \
        --out speech.safetensors

The encoder stays as it is and the branch learns, on what its heads read, the mouth of the synthetic corpus's emotional
speech (`data.synthetic.motion.emotional_speech`: effort of jaw and lips, the expression, closed lips). Sentences are
synthesized (training voices only) and heard clean and through rooms and noise, once; of each piece an emotion and an
intensity are drawn anew every time. A few minutes of one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import run
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from speech_windows import FRAMES, frame_times, spoken_windows
from torch import Tensor, nn
from train_speech import untrained_encoder

from talkface.data.synthetic.motion import EFFORT
from talkface.data.synthetic.visemes import MOUTH_ACTIONS, SpeakingStyle, speech_actions
from talkface.errors import TalkfaceError
from talkface.experts.speech import ArticulationEncoder
from talkface.head.emotions import EMOTIONS, emotion_actions
from talkface.head.expression import combine, while_speaking
from talkface.head.model import ACTIONS
from talkface.training.speech import augment_sound
from talkface.training.speech_emotion import EmotionTraining

LOUDER = 1.5
"""Effort of the second of the two performances that are kept; those between and beyond lie on a line through both."""
LENGTH, BATCH = 100, 64  # features of a piece, pieces of a step
PEAK_RATE = 3e-3


@dataclass
class Heard:
    """Sentences as the frozen encoder hears them.

    Attributes:
        hidden: float16 (N, T, channels).
        speech, louder: float32 (N, T, 52), what the mouth does without an emotion, and with `LOUDER` effort.
    """

    hidden: Tensor
    speech: np.ndarray
    louder: np.ndarray

    def draw(
        self, emotions: tuple[str, ...], columns: list[int], random: np.random.Generator
    ) -> tuple[Tensor, ...]:
        """A batch for `EmotionTraining`: `BATCH` pieces, each with an emotion and an intensity."""
        rows = random.integers(0, len(self.hidden), BATCH)
        starts = random.integers(0, FRAMES - LENGTH, BATCH)
        kinds, strengths = random.integers(0, len(emotions), BATCH), random.uniform(0.0, 1.0, BATCH)
        hidden, wanted = [], []
        for row, start, kind, strength in zip(rows, starts, kinds, strengths, strict=True):
            part = slice(start, start + LENGTH)
            hidden.append(self.hidden[row, part])
            played = with_emotion(
                self.speech[row, part], self.louder[row, part], emotions[kind], float(strength)
            )
            wanted.append(torch.from_numpy(played[:, columns]))
        return (
            torch.stack(hidden).float(),
            torch.from_numpy(kinds),
            torch.from_numpy(strengths).float(),
            torch.stack(wanted),
        )


def with_emotion(speech: np.ndarray, louder: np.ndarray, emotion: str, intensity: float) -> np.ndarray:
    """`emotional_speech` (T, 52) out of speech without an emotion and with `LOUDER` effort: a line, until it clips."""
    effort = intensity * (EFFORT.get(emotion, 1.0) - 1.0) / (LOUDER - 1.0)
    spoken = np.clip(speech + effort * (louder - speech), 0.0, 1.0)
    return combine(spoken, while_speaking(emotion_actions(emotion, intensity)[None]))


def both_efforts(phonemes: list[tuple[str, float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """`speech` and `louder` (T, 52) of one window."""
    times = frame_times(FRAMES)
    style = SpeakingStyle(amplitude=LOUDER, lips=LOUDER)
    return speech_actions(phonemes, times), speech_actions(phonemes, times, style)


@torch.no_grad()
def listen(encoder: ArticulationEncoder, cache: Path, count: int, seed: int) -> Heard:
    """`count` windows of 30 s, clean and through rooms and noise; kept in `cache` under a name of the weights."""
    own = b"".join(value.numpy().tobytes() for value in encoder.state_dict().values())
    path = cache / f"heard-{hashlib.sha256(own).hexdigest()[:12]}-{count}-{seed}.safetensors"
    if not path.exists():
        generator = torch.Generator().manual_seed(seed)
        hidden, speech, louder = [], [], []
        for sound, phonemes in spoken_windows(count, "train", seed):
            clean = torch.from_numpy(sound.astype(np.float32) / 32767)[None]
            plain, loud = both_efforts(phonemes)
            noisy, silent = augment_sound(clean.view(5, -1), generator, hard_noise=True)
            said = 1.0 - np.repeat(silent.numpy(), FRAMES // 5).astype(np.float32)[:, None]
            for heard, share in ((clean, 1.0), (noisy.reshape(1, -1), said)):
                hidden.append(encoder.hidden(heard)[0].half())
                speech.append(torch.from_numpy(plain * share))
                louder.append(torch.from_numpy(loud * share))
        cache.mkdir(parents=True, exist_ok=True)
        parts = {"hidden": hidden, "speech": speech, "louder": louder}
        save_file({name: torch.stack(rows).half() for name, rows in parts.items()}, path)
    kept = load_file(path)
    return Heard(kept["hidden"], kept["speech"].float().numpy(), kept["louder"].float().numpy())


def moving_actions(heard: Heard) -> tuple[list[str], Tensor]:
    """The mouth actions that emotional speech changes, and the spread of each, at least 0.03."""
    changed = np.zeros(len(ACTIONS))
    spread = np.zeros(len(ACTIONS))
    speech, louder = heard.speech[::10, ::5], heard.louder[::10, ::5]
    speech, louder = (part.reshape(-1, len(ACTIONS)) for part in (speech, louder))
    for emotion in EMOTIONS[1:]:
        played = with_emotion(speech, louder, emotion, 1.0)
        changed = np.maximum(changed, np.abs(played - speech).max(0))
        spread = np.maximum(spread, played.std(0))
    names = [name for name in MOUTH_ACTIONS if changed[ACTIONS.index(name)] > 0.01]
    return names, torch.tensor([max(0.03, spread[ACTIONS.index(name)]) for name in names]).float()


def encoder_with_branch(start: Path, names: list[str]) -> tuple[dict[str, Any], ArticulationEncoder]:
    """The arguments of an encoder with the weights `start` and an untrained branch, and the encoder."""
    init, plain = untrained_encoder()
    init = init | {"branch": {"emotions": list(EMOTIONS[1:]), "actions": names}}
    load_weights(plain, start)
    encoder = ArticulationEncoder(**init)
    encoder.load_state_dict(plain.state_dict(), strict=False)
    return init, encoder.eval()


def load_weights(encoder: ArticulationEncoder, path: Path) -> None:
    """Raises: TalkfaceError: they cannot be read."""
    try:
        encoder.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise TalkfaceError(
            f"--start: {path} cannot be read ({reason}); give a bundle's speech.safetensors"
        ) from error


def train(start: Path, cache: Path, out: Path, steps: int = 1900, count: int = 150, seed: int = 0) -> Path:
    """Trains the branch for `steps` steps on `count` windows; writes the encoder with it to `out`, and its class and
    arguments beside it. Everything but the branch is written as it was read."""
    torch.manual_seed(seed)
    _, plain = untrained_encoder()
    load_weights(plain, start)
    heard = listen(plain.eval(), cache, count, seed)
    names, scale = moving_actions(heard)
    init, encoder = encoder_with_branch(start, names)
    learner = EmotionTraining(encoder, scale)
    columns = [ACTIONS.index(name) for name in names]
    optimizer = torch.optim.AdamW(learner.branch.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    average = torch.optim.swa_utils.AveragedModel(
        learner.branch, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
    )
    random, began = np.random.default_rng([seed, 0xFEE1]), time.process_time()
    for step in range(steps):
        rate = (
            PEAK_RATE
            * min(1.0, (step + 1) / 50)
            * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * step / steps)))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = learner(*heard.draw(tuple(EMOTIONS[1:]), columns, random))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learner.branch.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(learner.branch)
        if step % 100 == 99:
            print(f"step {step + 1} loss {loss.item():.4f} {time.process_time() - began:.0f} s", flush=True)
    weights = {f"branch.{name}": value.half() for name, value in average.module.state_dict().items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    own = {name: value for name, value in load_file(start).items() if not name.startswith("branch.")}
    save_file(own | weights, out, metadata={"format": "pt", "part": "speech"})
    specification = {"class_path": "talkface.experts.speech.ArticulationEncoder", "init_args": init}
    out.with_suffix(".json").write_text(json.dumps(specification, indent=1))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--start", type=Path, required=True, help="weights of an ArticulationEncoder")
    parser.add_argument("--cache", type=Path, required=True, help="folder for what it heard")
    parser.add_argument("--out", type=Path, default=Path("speech.safetensors"))
    parser.add_argument("--windows", type=int, default=150, help="synthesized windows of 30 s")
    parser.add_argument("--steps", type=int, default=1900)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.start, options.cache, options.out, options.steps, options.windows, options.seed)
    return 0


if __name__ == "__main__":
    run("train_speech_emotion", main)
