"""Judge what a talking picture does besides speaking: blinks, brows, turns of the head, emotions.

MediaPipe reads every frame alone: 52 scores, the head's angles, the lip gap. Each row is one command against the same
picture at rest. Then films: speech with an emotion against the same speech without (their lip gaps are to agree), and
the speed of `--motion subtle` against `none`, in turns.

    python scripts/evaluate_motion.py --pictures a.png b.png --films FOLDER --task face_landmarker.task --sheet OUT.jpg
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from motion_studio import ExpressionJudge, Studio, actions

from talkface.head.emotions import EMOTIONS, emotion_actions
from talkface.head.model import ACTIONS
from talkface.media import Audio, open_video, read_audio, read_image, write_image
from talkface.pipelines.face_painter import NO_EMOTION
from talkface.pipelines.film_settings import listener
from talkface.pipelines.liveliness import Feeling
from talkface.pipelines.talking_face import TalkingFacePipeline

# what MediaPipe can be expected to read, of those of its scores that ever respond
SIGNS = {
    "happy": ("mouthSmileLeft", "mouthSmileRight", "eyeSquintLeft"),
    "sad": ("browInnerUp", "mouthFrownLeft", "mouthShrugLower"),
    "surprised": ("browInnerUp", "browOuterUpLeft", "eyeWideLeft", "jawOpen"),
    "fear": ("browInnerUp", "eyeWideLeft", "mouthStretchLeft"),
    "disgusted": ("mouthUpperUpLeft", "browDownLeft"),
    "angry": ("browDownLeft", "browDownRight", "mouthPressLeft"),
    "contempt": ("mouthSmileLeft", "mouthSmileRight"),
}
COMMANDS = ("eyeBlink", "eyeWide", "eyeSquint", "browInnerUp", "browOuterUp", "browDown")
TURNS = ((4.0, 0, 0), (-4.0, 0, 0), (0, 4.0, 0), (0, -4.0, 0), (0, 0, 4.0), (0, 0, -4.0))
VOWEL = actions(jawOpen=0.35, mouthLowerDown=0.3, mouthUpperUp=0.15)


def respond(studios: dict[str, Studio], judge: ExpressionJudge) -> None:
    """Print the table of commands; a face must be found in every frame."""
    rows: dict[str, list[float]] = {}
    lost = frames = 0

    def read(frame: np.ndarray) -> tuple[dict[str, float], np.ndarray, float] | None:
        nonlocal lost, frames
        frames += 1
        seen = judge(frame)
        lost += seen is None
        return seen

    for studio in studios.values():
        rest = read(studio())
        if rest is None:
            continue
        for name in COMMANDS:
            for value in (0.25, 0.5, 0.75, 1.0) if name == "eyeBlink" else (1.0,):
                seen = read(studio(actions=actions(**{name: value})))
                if seen is not None:
                    keys = [key for key in seen[0] if key.startswith(name)]
                    change = np.mean([seen[0][key] - rest[0][key] for key in keys])
                    rows.setdefault(f"{name} {value:g}", []).append(float(change))
        for turn in TURNS:
            seen = read(studio(rotation=turn))
            if seen is not None:
                axis = int(np.argmax(np.abs(turn)))
                share = (seen[1] - rest[1])[axis] / turn[axis]
                rows.setdefault(f"{('nod', 'turn', 'tilt')[axis]}, degrees read per degree", []).append(share)
        for emotion, keys_of in SIGNS.items():
            for intensity in (0.5, 1.0):
                for text, speech in (("", actions()), (", open vowel", VOWEL)):
                    base = rest if not text else read(studio(VOWEL))
                    seen = read(studio(speech, emotion, intensity))
                    if seen is None or base is None:
                        continue
                    for key in keys_of:
                        row = f"{emotion} {intensity:g}{text}: {key}"
                        rows.setdefault(row, []).append(seen[0][key] - base[0][key])
    print(f"faces found in {frames - lost} of {frames} frames, {len(studios)} pictures\n")
    print("| command | change of MediaPipe's score, mean | least | most |\n|---|---|---|---|")
    for row, values in rows.items():
        print(f"| {row} | {np.mean(values):+.2f} | {min(values):+.2f} | {max(values):+.2f} |")


def speech_of(
    pipeline: TalkingFacePipeline, sound: Audio, fps: float, emotion: str | None = None
) -> tuple[np.ndarray, bool]:
    """Facial actions (N, 52) of a sound, as the guide has them, and whether they are those of a mouth with `emotion` at
    intensity 1: where the encoder's branch knows it."""
    speech = pipeline.speech
    if emotion is not None:
        speech = listener(speech, Feeling(NO_EMOTION, emotion_actions(emotion, 1.0), 1.0, emotion), "warp")
    felt = speech is not pipeline.speech
    with torch.inference_mode():
        features = pipeline.hear(sound, speech)
        if felt:
            told = speech.expressive(features, torch.ones(len(features)), ACTIONS).numpy()
        else:
            told = speech.to_actions(features, ACTIONS).numpy()
    centres = (np.arange(int(sound.duration * fps)) + 0.5) / fps
    places = centres * pipeline.speech.feature_rate
    return told[np.clip(places.astype(int), 0, len(told) - 1)], felt


def emotional_speech(
    pipeline: TalkingFacePipeline, films: list[Path], judge: ExpressionJudge, fps: float
) -> None:
    """Print how far the lips of emotional speech agree with those of plain speech."""
    print(
        "\n| emotion, intensity 1 | correlation of the lip gap with plain speech, mean | least | amplitude |"
    )
    print("|---|---|---|---|")
    found: dict[str, list[tuple[float, float]]] = {}
    closed: dict[str, list[float]] = {}
    for path in films:
        studio = Studio(path.name, next(iter(open_video(path))), pipeline.finder, pipeline.image_size)
        sound = read_audio(path, 16000)
        said, _ = speech_of(pipeline, sound, fps)
        held = said[:, [ACTIONS.index("mouthPressLeft"), ACTIONS.index("mouthRollLower")]].sum(1)
        shut = np.argsort(held)[-max(3, len(held) // 12) :]
        plain = np.array([_gap(judge(studio(one))) for one in said])
        wide = np.nanquantile(plain, 0.9)
        closed.setdefault("plain", []).append(float(np.nanmean(plain[shut]) / wide))
        for emotion in EMOTIONS[1:]:
            mouths, felt = speech_of(pipeline, sound, fps, emotion)
            gaps = np.array([_gap(judge(studio(one, emotion, felt=felt))) for one in mouths])
            both = np.isfinite(gaps) & np.isfinite(plain)
            correlation = float(np.corrcoef(gaps[both], plain[both])[0, 1])
            found.setdefault(emotion, []).append((correlation, float(gaps[both].std() / plain[both].std())))
            closed.setdefault(emotion, []).append(float(np.nanmean(gaps[shut]) / wide))
    for emotion, pairs in found.items():
        values = np.array(pairs)
        print(
            f"| {emotion} | {values[:, 0].mean():.2f} | {values[:, 0].min():.2f} | {values[:, 1].mean():.2f} |"
        )
    print("\nlip gap where the sound asks for closed lips, over the wide gap (90 %) of plain speech:")
    print(", ".join(f"{name} {np.mean(values):.2f}" for name, values in closed.items()))


def _gap(seen: tuple[dict[str, float], np.ndarray, float] | None) -> float:
    return float("nan") if seen is None else seen[2]


def speed(pipeline: TalkingFacePipeline, picture: np.ndarray, sound: Audio, rounds: int) -> None:
    """Print frames a second of motion none and subtle, taken in turns."""
    seconds: dict[str, list[float]] = {"none": [], "subtle": []}
    work: dict[str, list[float]] = {"none": [], "subtle": []}
    for _ in range(rounds):
        for motion in seconds:
            film = pipeline(sound, picture, motion=motion)
            start, used = time.perf_counter(), time.process_time()
            count = sum(1 for _ in film)
            seconds[motion].append((time.perf_counter() - start) / count)
            work[motion].append((time.process_time() - used) / count)
    print(f"\nspeed, {picture.shape[1]} x {picture.shape[0]} pixels, best of {rounds} taken in turns:")
    for motion in seconds:
        rate, used = 1 / min(seconds[motion]), 1000 * min(work[motion])
        print(f"  {motion}: {rate:.1f} frames/s, {used:.1f} ms of processor a frame")


def sheet(studio: Studio, side: int = 132) -> np.ndarray:
    """Contact sheet: blinks and turns; emotions at 0.5 and 1, silent and on an open vowel."""

    def row(frames: Iterator[np.ndarray]) -> np.ndarray:
        return np.hstack([studio.portrait(frame, side) for frame in frames])

    blinks = [studio(actions=actions(eyeBlink=value)) for value in (0, 0.25, 0.5, 0.75, 1)]
    turns = [studio(rotation=turn) for turn in ((6, 0, 0), (-6, 0, 0), (0, 6, 0), (0, -6, 0), (0, 0, 6))]
    single = [studio(actions=actions(**{name: 1.0})) for name in COMMANDS[1:]]
    rows = [row(iter(blinks + turns[:3])), row(iter(turns[3:] + single + [studio(VOWEL)]))]
    for speech in (actions(), VOWEL):
        for intensity in (0.5, 1.0):
            rows.append(row(studio(speech, emotion, intensity) for emotion in EMOTIONS))
    return np.vstack(rows)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pictures", type=Path, nargs="*", default=[], help="besides the astronaut of scikit-image"
    )
    parser.add_argument(
        "--films", type=Path, nargs="*", default=[], help="films whose first frames speak their sound"
    )
    parser.add_argument("--task", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--sheet", type=Path, help="write the astronaut's contact sheet")
    parser.add_argument("--sheets", type=Path, help="folder for the sheets of all pictures")
    parser.add_argument(
        "--fps", type=float, default=12.5, help="of the films of emotional speech (default: 12.5)"
    )
    parser.add_argument("--speed-sound", type=Path, help="measure the speed with this sound")
    parser.add_argument("--rounds", type=int, default=3, help="of the measurement of speed (default: 3)")
    parser.add_argument("--only", choices=("commands", "speech", "speed"), help="one part of it")
    options = parser.parse_args()
    from skimage.data import astronaut

    pipeline = TalkingFacePipeline.from_pretrained("default", "cpu")
    pictures = {"astronaut": astronaut()}
    pictures |= {path.stem: read_image(path) for path in options.pictures}
    pictures |= {path.stem: next(iter(open_video(path))) for path in options.films}
    studios = {
        name: Studio(name, picture, pipeline.finder, pipeline.image_size)
        for name, picture in pictures.items()
    }
    if options.sheet:
        data = cv2.imencode(".jpg", sheet(studios["astronaut"])[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        options.sheet.write_bytes(data.tobytes())
    if options.sheets:
        options.sheets.mkdir(exist_ok=True)
        for name, studio in studios.items():
            write_image(options.sheets / f"{name}.png", sheet(studio, 220))
    judge = ExpressionJudge(options.task)
    if options.only in (None, "commands"):
        respond(studios, judge)
    if options.films and options.only in (None, "speech"):
        emotional_speech(pipeline, options.films, judge, options.fps)
    if options.speed_sound and options.only in (None, "speed"):
        speed(pipeline, pictures["astronaut"], read_audio(options.speed_sound, 16000), options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
