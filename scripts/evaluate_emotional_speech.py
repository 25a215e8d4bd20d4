"""Is the mouth of a speaking emotional face better told by the speech encoder's branch than by rules?

    python scripts/evaluate_emotional_speech.py --bundle default --out runs/emotional_speech

Sentences in the voice that no training heard, their exact emotional performance (`emotional_speech`) and what is told
of their sound: without the emotion, with it laid over by rules (`speak_over`, for bundles without a branch), by the
same rules after moving jaw and lips with the emotion's effort, and by the branch. Errors of the mouth's actions and of
the lips of the average head; lip gaps at p, b, m and at open vowels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import cell, markdown, positive, run, save
from speech_windows import WINDOW, spoken_windows

from talkface.conditioning.audio import interpolate_features
from talkface.data.synthetic.motion import EFFORT, emotional_speech
from talkface.data.synthetic.visemes import MOUTH_ACTIONS
from talkface.errors import TalkfaceError
from talkface.experts.speech_emotion import EmotionalSpeech
from talkface.head.emotions import EMOTIONS, emotion_actions
from talkface.head.expression import speak_over
from talkface.head.fit import HeadFitter
from talkface.head.model import ACTIONS, HeadModel
from talkface.metrics.articulation import closure_ratio, phone_gaps

MOUTH = [ACTIONS.index(name) for name in MOUTH_ACTIONS]
OPENING = [
    n for n, name in enumerate(ACTIONS) if name.startswith(("jawOpen", "mouthLowerDown", "mouthUpperUp"))
]
ROWS = ("exact", "neutral", "rules", "rules and effort", "branch")
LIPS = slice(48, 68)
FPS = 25.0
TIMES = (np.arange(WINDOW * FPS) + 0.5) / FPS  # centres of a film's frames
REST = np.zeros((1, len(ACTIONS)), np.float32)
Array = np.ndarray


class Mouths:
    """The ways to tell a mouth from one sound: `tell(emotion, intensity)` gives each row's actions (T, 52)."""

    def __init__(
        self, encoder: Any, gain: float, sound: Array, phonemes: list[tuple[str, float, float]]
    ) -> None:
        self.encoder, self.gain, self.phonemes = encoder, gain, phonemes
        self.sound = torch.from_numpy(sound.astype(np.float32) / 32767)
        features = encoder.amplified(encoder.encode_long(self.sound), gain)
        self.neutral = encoder.to_actions(self._at_frames(features), ACTIONS).numpy()
        self.felt: dict[str, torch.Tensor] = {}

    def tell(self, emotion: str, intensity: float) -> dict[str, Array]:
        exact = emotional_speech(self.phonemes, TIMES, emotion, intensity)
        expression = emotion_actions(emotion, intensity)[None]
        louder = self.neutral.copy()
        louder[:, OPENING] *= 1.0 + intensity * (EFFORT.get(emotion, 1.0) - 1.0)
        speech = EmotionalSpeech(self.encoder, emotion)
        if emotion not in self.felt:
            features = speech.amplified(speech.encode_long(self.sound), self.gain)
            self.felt[emotion] = self._at_frames(features)
        told = speech.expressive(self.felt[emotion], torch.full((len(TIMES),), intensity), ACTIONS).numpy()
        mouths = {
            "exact": exact,
            "neutral": self.neutral,
            "rules": speak_over(self.neutral, REST, expression),
            "rules and effort": speak_over(louder, REST, expression),
            "branch": told,
        }
        return {name: _mouth_only(actions) for name, actions in mouths.items()}

    def _at_frames(self, features: torch.Tensor) -> torch.Tensor:
        return interpolate_features(features, self.encoder.feature_rate, torch.from_numpy(TIMES))


def _mouth_only(actions: Array) -> Array:
    out = np.zeros_like(actions)
    out[:, MOUTH] = actions[:, MOUTH]
    return out


def lips_of(fitter: HeadFitter, actions: Array) -> Array:
    """(T, 68, 3) landmarks of the average head, millimetres."""
    wanted = torch.from_numpy(actions).double()
    nobody = torch.zeros(len(actions), fitter.identity.shape[0], dtype=torch.float64)
    return 1000.0 * fitter.shape(nobody, wanted).numpy()


def gap_of(lips: Array) -> Array:
    """(T,) how far the inner lips are apart, over the eyes' distance; 0 where they are pressed into each other."""
    eyes = np.linalg.norm(lips[:, 36] - lips[:, 45], axis=1)
    return np.maximum(lips[:, 62, 1] - lips[:, 66, 1], 0.0) / eyes


def measure(bundle: Any, count: int, seed: int, intensities: tuple[float, ...]) -> dict[str, Any]:
    """Figures by emotion, intensity and row: errors of every window, gaps of every phone."""
    encoder, gain = bundle.part("speech"), float(bundle.meta.get("articulation_gain", 1.0))
    fitter = HeadFitter(HeadModel.load())
    results: dict[str, Any] = {}
    for sound, phonemes in spoken_windows(count, "test", seed):
        mouths = Mouths(encoder, gain, sound, phonemes)
        for emotion in EMOTIONS[1:]:
            for intensity in intensities:
                told = mouths.tell(emotion, intensity)
                places = {name: lips_of(fitter, actions) for name, actions in told.items()}
                for name in ROWS:
                    row = results.setdefault(f"{emotion} {intensity:g}", {}).setdefault(
                        name, {"actions": [], "lips": [], "closed": [], "opened": []}
                    )
                    wrong = (told[name] - told["exact"])[:, MOUTH]
                    away = (places[name] - places["exact"])[:, LIPS]
                    row["actions"].append(float(np.sqrt(np.square(wrong).mean())))
                    row["lips"].append(float(np.linalg.norm(away, axis=2).mean()))
                    closed, opened = phone_gaps(gap_of(places[name]), phonemes, FPS)
                    row["closed"] += closed
                    row["opened"] += opened
        print(f"{len(row['actions'])} of {count} windows", file=sys.stderr)
    return results


def table(results: dict[str, Any]) -> str:
    """Markdown: errors, then gaps, a line for each emotion and intensity."""
    shown = ROWS[1:]
    errors = []
    for kind, rows in results.items():
        actions = [float(np.mean(rows[name]["actions"])) for name in shown]
        lips = [float(np.mean(rows[name]["lips"])) for name in shown]
        better = np.mean(np.array(rows["branch"]["lips"]) < np.array(rows["rules"]["lips"]))
        errors.append([kind, *(cell(x, "{:.4f}") for x in actions), *(cell(x, "{:.2f}") for x in lips),
                       f"{1 - lips[-1] / lips[1]:+.0%}", f"{better:.0%}"])  # fmt: skip
    means = np.mean([[float(x) for x in line[1:9]] for line in errors], axis=0)
    errors.append(["mean", *(f"{x:.4f}" for x in means[:4]), *(f"{x:.2f}" for x in means[4:]),
                   f"{1 - means[7] / means[5]:+.0%}", ""])  # fmt: skip
    heads = [f"{what}, {name}" for what in ("actions", "lips, mm") for name in shown]
    first = markdown(["emotion", *heads, "branch against rules", "windows where better"], errors)
    gaps = []
    for kind, rows in results.items():
        line = [kind]
        for name in ROWS:
            closed, opened = rows[name]["closed"], rows[name]["opened"]
            line.append(
                f"{1000 * np.mean(closed):.0f} / {1000 * np.mean(opened):.0f} "
                f"({cell(closure_ratio(closed, opened), '{:.1f}')})"
            )
        gaps.append(line)
    second = markdown(["lip gap, ‰ of the eyes' distance: p b m / open vowels (ratio)",
                       *ROWS], gaps)  # fmt: skip
    return f"{first}\n\n{second}"


def main(argv: list[str] | None = None) -> int:
    from talkface.checkpoint import load_bundle

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", default="default", help="bundle name or folder (default: default)")
    parser.add_argument("--windows", type=positive, default=8, help="of 30 s (default: 8)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/emotional_speech"))
    options = parser.parse_args(argv)
    bundle = load_bundle(options.bundle, parts=["speech"])
    if getattr(bundle.part("speech"), "branch", None) is None:
        raise TalkfaceError(
            f"--bundle: the sound encoder of {options.bundle} has no emotion branch; choose another"
        )
    with torch.inference_mode():
        results = measure(bundle, options.windows, options.seed, (0.5, 1.0))
    save(options.out, "emotional_speech", table(results), {"bundle": options.bundle, "rows": results})
    return 0


if __name__ == "__main__":
    run("evaluate_emotional_speech", main)
