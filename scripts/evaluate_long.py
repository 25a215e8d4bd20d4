"""Does a long film stay in memory, in step and in character? One picture speaks a sound of N minutes.

The picture is the first frame of the first film of a folder, the sound is the films' sounds one after the
other, again and again. Measured: peak memory of a run of 10 s and of the whole, each in its own process; the
lip gap by MediaPipe against that of the real films, minute by minute; the distance of made frames from the
picture by a face recogniser (extra `identity`) and by LPIPS, each where it is installed. The film is walked
through once. What is done is kept in --out: the same command goes on where it was stopped.

    python scripts/evaluate_long.py --films FOLDER --task face_landmarker.task --minutes 10 --out runs/long
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from evaluate_grid import read_film
from likeness import CROP, Likeness, likenesses, mean_distances
from long_film import (
    FPS,
    MINUTE,
    RATE,
    Sentence,
    fit_sound,
    minute_rows,
    probe_frames,
    repeated,
    slope_a_minute,
    table,
    write_wav,
)
from measuring import FILMS, files_in, judged
from peak_memory import peak_memory

from talkface.checkpoint import bundle_folder, load_bundle
from talkface.errors import TalkfaceError, require
from talkface.experts.faces import NetworkFaceFinder
from talkface.experts.judges import MediaPipeJudge, relative_gap
from talkface.media import open_video, read_audio, write_image
from talkface.media.output import replacing
from talkface.pipelines.sources import FoundFace, find_in_picture

SHORT_SECONDS = 10
WANTED_GROWTH = 200  # MB
Array = np.ndarray


class Stages:
    """Results of what is done, in one file, so that an interrupted run goes on.

    Raises:
        TalkfaceError: the file holds results of another plan.
    """

    def __init__(self, path: Path, plan: dict[str, Any]) -> None:
        self.path, self.plan = path, plan
        self.done: dict[str, Any] = {}
        if path.exists():
            kept = json.loads(path.read_text())
            if differing := [key for key in plan if kept["plan"].get(key) != plan[key]]:
                raise TalkfaceError(
                    f"--out: {path.parent} holds a run with another {', '.join(differing)}; "
                    "give another folder or remove that one"
                )
            self.done = kept["done"]

    def get(self, name: str, make: Callable[[], Any], product: Path | None = None) -> Any:
        """The result of a stage; made and kept if it, or the file it leaves, is not there."""
        if name not in self.done or (product is not None and not product.exists()):
            self.done[name] = make()
            with replacing(self.path) as temporary:
                temporary.write_text(json.dumps({"plan": self.plan, "done": self.done}))
        return self.done[name]


def read_sentence(path: Path, judge: MediaPipeJudge) -> tuple[Sentence, Array]:
    """A real film, judged, and its first frame."""
    film = read_film(path, judge)
    frames = round(len(film.times) / film.fps * FPS)
    gap = film.gap_at((np.arange(frames) + 0.5) / FPS)
    return Sentence(gap, fit_sound(read_audio(path, RATE).samples, frames)), film.first


def make_film(name: str, options: argparse.Namespace) -> float:
    """NAME.wav and still.png -> NAME.mp4, as a user makes it, in its own process; peak memory in MB."""
    out: Path = options.out
    print(f"making {out / name}.mp4", file=sys.stderr)
    files = ["--audio", str(out / f"{name}.wav"), "--id", str(out / "still.png")]
    files += ["--out", str(out / f"{name}.mp4")]
    method = ["--fps", str(FPS), "--mode", "windowed", "--seed", str(options.seed)]
    machine = ["--bundle", options.bundle, "--device", options.device, "--precision", options.precision]
    return peak_memory(["sample-video", *files, *method, *machine])


def walk(path: Path, still: FoundFace, judge: MediaPipeJudge, ways: dict[str, Likeness]) -> dict[str, Any]:
    """Judge every frame of the made film once.

    The head of a still picture does not move, so the picture's landmarks hold for every frame: what the
    distances then show is what was painted, not how well it was aligned.
    """
    reader = open_video(path)
    probes = probe_frames(reader.num_frames)
    start = {name: way.describe(still.picture, still.points) for name, way in ways.items()}
    distances: dict[str, list[float]] = {name: [] for name in ways}
    wanted, gaps = set(probes.tolist()), []
    for number, frame in enumerate(reader):
        points = judge.landmarks(frame)
        gaps.append(float("nan") if points is None else relative_gap(points))
        if number in wanted:
            for name, way in ways.items():
                distances[name].append(way.distance(start[name], way.describe(frame, still.points)))
        if (number + 1) % MINUTE == 0:
            print(f"judged: minute {(number + 1) // MINUTE}", file=sys.stderr)
    return {"gap": gaps, "probes": probes.tolist(), "distances": distances}


def draw(path: Path, rows: list[dict], probes: Array, distances: dict[str, Array]) -> None:
    """The minutes' correlations, and every measured distance, over time."""
    figure = require("matplotlib.figure", extra="eval").Figure(figsize=(8, 2.4 * (1 + len(distances))))
    axes = figure.subplots(1 + len(distances), 1, sharex=True, squeeze=False)[:, 0]
    ends = np.cumsum([row["seconds"] / 60 for row in rows])
    axes[0].stairs([row["correlation"] for row in rows], np.append(0, ends))
    axes[0].set(ylabel="lip-gap correlation", ylim=(0, 1))
    for axis, (name, values) in zip(axes[1:], distances.items(), strict=True):
        axis.plot((probes + 0.5) / MINUTE, values, ".", markersize=4)
        axis.set(ylabel=f"{name} distance", ylim=(0, 1.1 * float(np.max(values))))
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def findings(results: dict[str, Any]) -> str:
    """What was found, a line each."""
    short, long = results["peak_mb"]["short"], results["peak_mb"]["long"]
    rows = results["minutes"]
    verdict = "within" if long - short <= WANTED_GROWTH else "NOT within"
    lines = [
        f"Peak memory: {short:.0f} MB for {SHORT_SECONDS} s, {long:.0f} MB for the whole: "
        f"{long - short:+.0f} MB, {verdict} the {WANTED_GROWTH} MB wanted.",
        f"Lip-gap correlation: {rows[0]['correlation']:.3f} in the first minute, "
        f"{rows[-1]['correlation']:.3f} in the last.",
    ]
    for judge, (slope, half) in results["slope_a_minute"].items():
        lines.append(f"{judge} distance: {slope:+.5f} ± {half:.5f} a minute (95 %).")
    return "\n\n".join(lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--films", type=Path, required=True, help="folder of films with sound, one speaking face each")
    judged(parser)
    add("--minutes", type=float, default=10, help="length of the sound, 0.25 to 60 (default: 10)")
    add("--out", type=Path, default=Path("runs/long"), help="everything goes here")
    add("--lpips-backbone", type=Path, help="AlexNet weights; without it torchvision's cache")
    return parser.parse_args(argv)


def film_paths(options: argparse.Namespace) -> list[Path]:
    """The films of the folder. Raises: TalkfaceError for a length or a folder that cannot be used."""
    if not 0.25 <= options.minutes <= 60:
        raise TalkfaceError(f"--minutes: {options.minutes:g}; allowed are 0.25 to 60")
    return files_in(options.films, FILMS, "--films")


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    paths, out = film_paths(options), options.out
    description = (bundle_folder(options.bundle) / "bundle.json").read_bytes()
    plan = {
        **{key: getattr(options, key) for key in ("minutes", "seed", "device", "precision")},
        "films": [[path.name, path.stat().st_size] for path in paths],
        "bundle_sha256": hashlib.sha256(description).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    stages = Stages(out / "stages.json", plan)
    ways = likenesses(options.lpips_backbone)
    finder = NetworkFaceFinder(load_bundle(options.bundle, parts=["landmarks"]).part("landmarks"))
    frames = round(options.minutes * MINUTE)
    with MediaPipeJudge(options.task) as judge:
        # 1. the picture, the sounds, the real curve
        spoken, firsts = zip(*(read_sentence(path, judge) for path in paths), strict=True)
        still = find_in_picture(str(paths[0]), firsts[0], finder, 0, lambda points: CROP)
        write_image(out / "still.png", still.picture)
        for name, length in (("short", SHORT_SECONDS * FPS), ("long", frames)):
            write_wav(out / f"{name}.wav", repeated([s.samples for s in spoken], length * RATE // FPS))
        real = repeated([sentence.gap for sentence in spoken], frames)

        # 2. the films
        peaks = {
            name: stages.get(f"peak of {name}", partial(make_film, name, options), out / f"{name}.mp4")
            for name in ("short", "long")
        }

        # 3. every frame judged, once
        judges = ", ".join(["MediaPipe", *ways])
        judged = stages.get(f"walk with {judges}", partial(walk, out / "long.mp4", still, judge, ways))
    made, probes = np.array(judged["gap"]), np.array(judged["probes"])
    distances = {name: np.array(values) for name, values in judged["distances"].items()}
    others = [("its real film", frame) for frame in list(open_video(paths[0]))[5::5]]
    others += [("first frames of the other films", first) for first in firsts[1:]]
    results: dict[str, Any] = {
        "plan": plan,
        "peak_mb": peaks,
        "slope_a_minute": {name: slope_a_minute(probes, values) for name, values in distances.items()},
        "scale": mean_distances(still.picture, still.points, others, finder, ways),
        "minutes": minute_rows(real, made, probes, distances),
    }
    text = f"{table(results['minutes'], results['scale'])}\n\n{findings(results)}"
    print(text)
    for name, content in (("table.md", text + "\n"), ("results.json", json.dumps(results, indent=1))):
        with replacing(out / name) as temporary:
            temporary.write_text(content)
    draw(out / "curves.png", results["minutes"], probes, distances)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"evaluate_long: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("evaluate_long: stopped; the same command continues", file=sys.stderr)
        sys.exit(130)
