"""Judge the bundle on real films: does the made mouth move as the real one did?

For each film of a folder, its first frame and its own sound go through the pipeline; MediaPipe's
FaceLandmarker judges both films frame by frame (`talkface.experts.judges`); their lip gaps are compared at
the best lag within a few frames. The same picture with silence shows how still the mouth rests. The judge
takes a little of the head's motion for the mouth's: so it is made once more without any, and the untouched
photograph, moved in the same way with nothing painted, tells how much of it is the judge's. Floors, each
against the real film: the film made from the next clip's sound, the real mouths of the other clips (mean), a
mouth that follows the loudness.

    python scripts/evaluate_grid.py --films FOLDER --task face_landmarker.task
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import FILMS, files_in, judged, run

from talkface.experts.judges import LipCurve, MediaPipeJudge
from talkface.media import VideoWriter, exact_rate, open_video, read_audio, read_image, write_image
from talkface.metrics.articulation import amplitude_ratio, correlation, loudness, silence_ratio
from talkface.metrics.interval import bootstrap_interval
from talkface.pipelines.liveliness import Liveliness, LivePicture, choose_emotion, choose_motion
from talkface.pipelines.sources import find_in_picture, fixed_timeline

Array = np.ndarray


@dataclass
class RealFilm:
    """A film, the time of each frame's centre (its sound begins at 0), the judged curve, the first frame."""

    path: Path
    fps: float
    times: Array
    curve: LipCurve
    first: Array

    def gap_at(self, times: Array) -> Array:
        """The real lip gap at other times: linear between frames, nan beyond the film."""
        known, wanted = np.round(self.times, 6), np.round(times, 6)  # 0.06 is to equal 0.06 at both ends
        return np.interp(wanted, known, self.curve.gap, left=np.nan, right=np.nan)


def read_film(path: Path, judge: MediaPipeJudge) -> RealFilm:
    """Read and judge a film."""
    reader = open_video(path)
    first = next(iter(reader))
    return RealFilm(path, reader.fps, reader.frame_centres, judge.curve(reader), first)


def write_silence(path: Path, seconds: float) -> None:
    """Zeros at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.zeros(round(seconds * 16000), dtype=np.int16).tobytes())


def make_film(pipeline, sound: Path, still: Path, out: Path, fps: float, settings: dict) -> None:
    """One picture and one sound -> the film as a user gets it."""
    result = pipeline(sound, image=still, fps=fps, **settings)
    with (
        result.frames() as frames,
        VideoWriter(out, result.fps, audio_path=sound, times=result.times) as writer,
    ):
        for frame in frames:
            writer.write(frame)


def move_photograph(pipeline, sound: Path, still: Path, out: Path, fps: float, settings: dict) -> None:
    """The film of `make_film` with the same motion of the head, but with the photograph's own mouth."""
    audio = read_audio(sound, pipeline.speech.sample_rate)
    found = find_in_picture(str(still), read_image(still), pipeline.finder, 0, lambda points: 256)
    feeling = choose_emotion(None, 0.0, [], True, pipeline.bundle.folder.name)
    motion = choose_motion(settings["motion"], is_film=False)
    alive = LivePicture(found, Liveliness(motion, feeling, audio, settings["seed"]))
    with VideoWriter(out, fps, audio_path=sound) as writer:
        for time in fixed_timeline(audio.duration, exact_rate(fps)).centres:
            writer.write(alive(found.picture, float(time)))


def judge_film(path: Path, judge: MediaPipeJudge) -> tuple[LipCurve, Array]:
    """Curve of a written film, and the times of its frames' centres."""
    reader = open_video(path)
    return judge.curve(reader), reader.frame_centres


def evaluate_clip(
    film: RealFilm, others: list[RealFilm], pipeline, judge, folder: Path, settings: dict, max_lag: int
):
    """All numbers of one clip; the first of `others` lends the wrong sound."""
    name = film.path.stem
    sound = read_audio(film.path)
    ours_at = (np.arange(round(sound.duration * film.fps)) + 0.5) / film.fps
    real = film.gap_at(ours_at)
    loud = loudness(sound.samples, sound.sample_rate, ours_at)
    row: dict[str, Any] = {
        "clip": name,
        "missing_real": film.curve.missing,
        "floor_loudness": correlation(real, loud, max_lag)[0],
        "floor_other_mouth": float(
            np.mean([correlation(real, o.gap_at(ours_at), max_lag)[0] for o in others])
        ),
    }
    if pipeline is None:
        return row
    still, silent = folder / f"{name}.png", folder / f"{name}_silence.wav"
    write_image(still, film.first)
    write_silence(silent, sound.duration)
    curves = {}
    kinds = {
        "speech": (film.path, settings),
        "silence": (silent, settings),
        "silent_mouth": (silent, settings | {"motion": "none"}),
        "shuffled": (others[0].path, settings),
    }
    for kind, (path, chosen) in kinds.items():
        out = folder / f"{name}_{kind}.mp4"
        make_film(pipeline, path, still, out, film.fps, chosen)
        curves[kind], times = judge_film(out, judge)
        if kind == "speech":
            real = film.gap_at(times)
    out = folder / f"{name}_photograph.mp4"
    move_photograph(pipeline, silent, still, out, film.fps, settings)
    curves["photograph"], _ = judge_film(out, judge)
    made = curves["speech"].gap
    row["correlation"], row["lag"] = correlation(real, made, max_lag)
    row["amplitude"] = amplitude_ratio(real, made)
    row["silence"] = silence_ratio(made, curves["silence"].gap)
    row["silent_mouth"] = silence_ratio(made, curves["silent_mouth"].gap)
    row["photograph"] = silence_ratio(made, curves["photograph"].gap)
    row["floor_shuffled"] = correlation(real, curves["shuffled"].gap, max_lag)[0]
    row["missing"] = curves["speech"].missing
    kept = {"real": real, **{kind: curve.gap for kind, curve in curves.items()}}
    row["curves"] = {
        kind: [round(x, 5) if np.isfinite(x) else None for x in gap] for kind, gap in kept.items()
    }
    return row


COLUMNS = {
    "correlation": "correlation",
    "lag": "lag (frames)",
    "amplitude": "amplitude ratio",
    "silence": "silence ratio",
    "photograph": "the same, nothing painted",
    "silent_mouth": "silence, still head",
    "floor_shuffled": "floor: other sound",
    "floor_other_mouth": "floor: other real mouths",
    "floor_loudness": "floor: loudness",
}


def table(rows: list[dict]) -> str:
    """Markdown: a row per clip, then mean and 95 % interval over clips."""
    columns = [key for key in COLUMNS if key in rows[0]]
    lines = [
        "| clip | " + " | ".join(COLUMNS[key] for key in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in rows:
        cells = [f"{row[key]:+d}" if key == "lag" else f"{row[key]:.3f}" for key in columns]
        lines.append(f"| {row['clip']} | " + " | ".join(cells) + " |")
    means = [f"**{np.mean([row[key] for row in rows]):.3f}**" for key in columns]
    lines.append("| **mean** | " + " | ".join(means) + " |")
    bounds = [bootstrap_interval([row[key] for row in rows]) for key in columns]
    lines.append("| 95 % interval | " + " | ".join(f"{low:.3f} to {high:.3f}" for low, high in bounds) + " |")
    unseen = sum(len(row["missing_real"]) + len(row.get("missing", [])) for row in rows)
    return "\n".join([*lines, "", f"Frames in which the judge found no face: {unseen}."])


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--films", type=Path, required=True, help="folder of films with sound, one speaking face each")
    judged(parser)
    add("--out", type=Path, default=Path("runs/grid"), help="films, table.md and results.json go here")
    add("--mode", default="windowed", choices=["windowed", "autoregressive"])
    add("--motion", choices=["none", "subtle", "lively"], help="default: the pipeline's")
    add("--guide", choices=["none", "warp", "refined"], help="default: the bundle's")
    add("--num-inference-steps", type=int, help="default: the bundle's")
    add("--guidance-scale", type=float, help="default: the bundle's")
    add("--batch-size", type=int, help="default: the pipeline's")
    add("--max-lag", type=int, default=3, help="frames (default: 3)")
    add("--floors-only", action="store_true", help="only judge the real films; needs no bundle")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    paths = files_in(options.films, FILMS, "--films", least=2)
    options.out.mkdir(parents=True, exist_ok=True)
    pipeline = None
    if not options.floors_only:
        from talkface import TalkingFacePipeline

        pipeline = TalkingFacePipeline.from_pretrained(options.bundle, options.device, options.precision)
    settings = {
        "mode": options.mode,
        "guide": options.guide,
        "motion": options.motion,
        "num_inference_steps": options.num_inference_steps,
        "guidance_scale": options.guidance_scale,
        "batch_size": options.batch_size,
        "seed": options.seed,
    }
    rows = []
    with MediaPipeJudge(options.task) as judge:
        films = [read_film(path, judge) for path in paths]
        for k, film in enumerate(films):
            others = films[k + 1 :] + films[:k]
            rows.append(evaluate_clip(film, others, pipeline, judge, options.out, settings, options.max_lag))
            print(f"{k + 1}/{len(films)} {film.path.name}", file=sys.stderr)
    text = table(rows)
    print(text)
    (options.out / "table.md").write_text(text + "\n")
    document = {
        "bundle": str(options.bundle),
        "settings": settings,
        "max_lag": options.max_lag,
        "clips": rows,
    }
    (options.out / "results.json").write_text(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    run("evaluate_grid", main)
