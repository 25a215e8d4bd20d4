"""Which features of sound tell what a mouth does? A linear probe, tested on speakers that it never saw.

From each kind of features, ridge regression to the lip gap of real films (judged by MediaPipe, standardised per
film), trained on all speakers but one and tested on that one; the correlation at the best lag within three frames,
mean over films. Beside it the bundled encoder's own lips with nothing fitted: the gap that its actions give the head.

    python scripts/evaluate_features.py --films FOLDER --task face_landmarker.task

Whisper's encoder is a row when the extra `teacher` is installed. Every film counts as a speaker of its own but those
that --same-speaker names.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from evaluate_grid import RealFilm, read_film
from measuring import FILMS, files_in
from speech_windows import Teacher
from torch import Tensor

from talkface.checkpoint import load_bundle
from talkface.errors import TalkfaceError
from talkface.experts.judges import MediaPipeJudge
from talkface.experts.speech import ArticulationEncoder, LogMelEncoder
from talkface.head.model import ACTIONS, HeadModel
from talkface.media import Audio, read_audio
from talkface.metrics.articulation import correlation, loudness

WINDOWS = (0, 2, 4, 8)  # frames on each side
RIDGES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
Array = np.ndarray


def at_frames(features: Tensor, rate: float, times: Array) -> Array:
    """Features (T, D) of `rate` per second, first at half a step, at times in seconds: (N, D), linear between."""
    place = np.clip(times * rate - 0.5, 0, len(features) - 1)
    low = np.minimum(place.astype(int), max(0, len(features) - 2))
    share = (place - low)[:, None]
    values = features.float().numpy()
    return (1 - share) * values[low] + share * values[np.minimum(low + 1, len(values) - 1)]


def widened(values: Array, reach: int) -> Array:
    """(N, D) -> (N, (2 reach + 1) D): each frame with its neighbours, the ends repeated."""
    rows = np.clip(np.arange(len(values))[:, None] + np.arange(-reach, reach + 1), 0, len(values) - 1)
    return values[rows].reshape(len(values), -1)


def ridge(inputs: Array, wanted: Array, strength: float) -> Array:
    """Weights of ridge regression in its dual form; inputs are standardised already."""
    gram = inputs @ inputs.T
    return inputs.T @ np.linalg.solve(gram + strength * np.eye(len(gram)), wanted)


def probe(features: list[Array], gaps: list[Array], speakers: list[str], reach: int) -> list[float]:
    """Correlation on each film of a probe trained on the others' speakers; the strength of the ridge is chosen inside
    of the training speakers."""
    wide = [widened(values, reach) for values in features]
    targets = [(gap - np.nanmean(gap)) / np.nanstd(gap) for gap in gaps]

    def scores(test: str, train: list[str], strength: float) -> list[float]:
        rows = [k for k, speaker in enumerate(speakers) if speaker in train]
        stacked, wanted = np.concatenate([wide[k] for k in rows]), np.concatenate([targets[k] for k in rows])
        usable = np.isfinite(wanted)
        mean, spread = stacked.mean(0), stacked.std(0) + 1e-6
        weights = ridge(((stacked - mean) / spread)[usable], wanted[usable], strength)
        return [
            correlation(gaps[k], (wide[k] - mean) / spread @ weights)[0]
            for k, speaker in enumerate(speakers)
            if speaker == test
        ]

    found: dict[str, list[float]] = {}
    for test in dict.fromkeys(speakers):
        rest = [speaker for speaker in dict.fromkeys(speakers) if speaker != test]
        strengths = [
            np.mean([np.mean(scores(held, [s for s in rest if s != held], strength)) for held in rest])
            for strength in RIDGES
        ]
        found[test] = scores(test, rest, RIDGES[int(np.argmax(strengths))])
    return [found[speaker].pop(0) for speaker in speakers]


@torch.no_grad()
def kinds(encoder: ArticulationEncoder, sounds: list[Audio]) -> dict[str, list[tuple[Tensor, float]]]:
    """Features (T, D) and their rate for every sound, by name."""
    waves = [torch.from_numpy(sound.samples)[None] for sound in sounds]
    mel = LogMelEncoder(40)
    named = {
        "log-mel, 40 bands": [(mel(wave)[0], mel.feature_rate) for wave in waves],
        "bundled encoder, its actions": [(encoder(wave)[0], encoder.feature_rate) for wave in waves],
        "bundled encoder, hidden layer": [(encoder.hidden(wave)[0], encoder.feature_rate) for wave in waves],
    }
    try:
        teacher = Teacher()
    except TalkfaceError as error:
        print(f"no row for the teacher: {error}", file=sys.stderr)
        return named
    heard = []
    for sound in sounds:
        padded = np.zeros(30 * 16000, np.float32)
        padded[: len(sound.samples)] = sound.samples[: len(padded)]
        count = encoder.num_features(len(sound.samples))
        heard.append((torch.from_numpy(teacher(padded)[:count]), 50.0))
    return {**named, "Whisper-tiny.en, encoder's last layer (the teacher)": heard}


@torch.no_grad()
def own_lips(encoder: ArticulationEncoder, sound: Audio, times: Array) -> Array:
    """The lip gap that the encoder's actions give the mean head, at times in seconds."""
    features = encoder(torch.from_numpy(sound.samples)[None])[0]
    actions = encoder.to_actions(torch.from_numpy(at_frames(features, encoder.feature_rate, times)), ACTIONS)
    head = HeadModel.load()
    lips = head.landmarks[[62, 66]]
    moved = (
        head.mean[lips, 1] + torch.einsum("na,akc->nkc", actions.to(head.mean), head.actions[:, lips])[..., 1]
    )
    return (moved[:, 0] - moved[:, 1]).clamp(min=0).double().numpy()


def table(rows: dict[str, list[float]]) -> str:
    lines = ["| feature | " + " | ".join(f"window ±{reach}" for reach in WINDOWS) + " |", "|---" * 5 + "|"]
    for name, cells in rows.items():
        best = max(cells)
        marked = [f"**{cell:.3f}**" if cell == best and len(cells) > 1 else f"{cell:.3f}" for cell in cells]
        lines.append(f"| {name} | " + " | ".join(marked + ["–"] * (len(WINDOWS) - len(cells))) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--films", type=Path, required=True, help="folder of films with sound")
    parser.add_argument("--task", type=Path, required=True, help="MediaPipe's face_landmarker.task")
    parser.add_argument("--bundle", default="default")
    parser.add_argument(
        "--same-speaker",
        nargs="*",
        default=[],
        metavar="NAME",
        help="films (stems) of one and the same speaker",
    )
    options = parser.parse_args(argv)
    paths = files_in(options.films, FILMS, "--films", least=3)
    together = options.same_speaker
    if unknown := set(together) - {path.stem for path in paths}:
        raise TalkfaceError(
            f"--same-speaker: {', '.join(sorted(unknown))}; allowed are the films of {options.films}"
        )
    speakers = [together[0] if path.stem in together else path.stem for path in paths]
    if len(set(speakers)) < 3:
        raise TalkfaceError(
            f"--films: {len(set(speakers))} speakers in {options.films}; at least 3 are needed"
        )
    encoder = load_bundle(options.bundle, "cpu").part("speech")
    if not isinstance(encoder, ArticulationEncoder):
        raise TalkfaceError(f"--bundle: {options.bundle} has no ArticulationEncoder; choose another")
    with MediaPipeJudge(options.task) as judge:
        films: list[RealFilm] = [read_film(path, judge) for path in paths]
    sounds = [read_audio(path) for path in paths]
    gaps = [film.curve.gap for film in films]
    rows = {}
    for name, features in kinds(encoder, sounds).items():
        placed = [at_frames(f, rate, film.times) for (f, rate), film in zip(features, films, strict=True)]
        rows[name] = [float(np.mean(probe(placed, gaps, speakers, reach))) for reach in WINDOWS]
    pairs = list(zip(films, sounds, strict=True))
    loud = [correlation(f.curve.gap, loudness(s.samples, s.sample_rate, f.times))[0] for f, s in pairs]
    lips = [correlation(f.curve.gap, own_lips(encoder, s, f.times))[0] for f, s in pairs]
    rows["bundled encoder's own lips, nothing fitted"] = [float(np.mean(lips))]
    rows["loudness, nothing fitted"] = [float(np.mean(loud))]
    print(table(rows))
    print("\nown lips by film: " + ", ".join(f"{p.stem} {c:.2f}" for p, c in zip(paths, lips, strict=True)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
