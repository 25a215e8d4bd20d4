"""What do more denoising steps buy? Quality of dubbed films against frames a second, as a table and a figure.

Real films are dubbed with their own sound at several numbers of steps: PSNR and LPIPS of the mouth and the lip-gap
correlation by MediaPipe. Timed is the same picture and sound at each number of steps, frames as they come, after one
film to warm up; the search for the face is part of it, loading and writing are not.

A bundle that was trained at the noise levels of its own sampler only (the default's are those of 4 steps, of which 1
and 2 are a part) is asked about levels that it never saw when the number does not divide that: 8 and 20 steps show what
happens then, not what a network trained for them could do.

    python scripts/quality_speed.py --films FOLDER --task face_landmarker.task --figure docs/quality_speed.svg
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from dubbed_films import Film, dub, read_film
from measuring import FILMS, cell, files_in, judged, markdown, mean_cell, positive, run, save

from talkface.errors import TalkfaceError, require
from talkface.experts.judges import MediaPipeJudge
from talkface.experts.vision import LPIPS
from talkface.media import check_output
from talkface.metrics.articulation import correlation
from talkface.pipelines.film_scores import mouth_scores

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
MEASURES = {
    "psnr": ("mouth PSNR (dB)", "{:.2f}"),
    "lpips": ("mouth LPIPS", "{:.4f}"),
    "correlation": ("lip-gap correlation", "{:.3f}"),
}


def frames_a_second(pipeline: Any, film: Film, steps: int, clock: str, rounds: int) -> float:
    """The median of a few films from one picture."""
    now, rates = CLOCKS[clock], []
    for _ in range(rounds):
        start = now()
        with pipeline(film.sound, image=film.frames[0], num_inference_steps=steps).frames() as frames:
            count = sum(1 for _ in frames)
        rates.append(count / (now() - start))
    return float(np.median(rates))


def draw(path: Path, rows: dict[int, dict[str, Any]], clock: str) -> None:
    """Each measure against frames a second, a point for each number of steps."""
    matplotlib = require("matplotlib", extra="eval")
    figure_class = require("matplotlib.figure", extra="eval").Figure
    shown = [key for key in MEASURES if not np.isnan(np.mean(rows[next(iter(rows))][key]))]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "talkface", "font.size": 9}):
        figure = figure_class(figsize=(3.3 * len(shown), 3.0), layout="constrained")
        for axis, key in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            speeds = [row["speed"] for row in rows.values()]
            values = [float(np.mean(row[key])) for row in rows.values()]
            axis.plot(speeds, values, "o-", markersize=4)
            for steps, x, y in zip(rows, speeds, values, strict=True):
                axis.annotate(str(steps), (x, y), textcoords="offset points", xytext=(4, 4))
            better = "lower is better" if key == "lpips" else "higher is better"
            axis.set(xlabel=f"frames/s ({clock} clock)", ylabel=f"{MEASURES[key][0]}, {better}")
            axis.margins(0.15)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--films", type=Path, required=True, help="folder of films with sound, one speaking face each")
    judged(parser)
    add("--steps", type=positive, nargs="+", default=[1, 2, 4, 8, 20])
    add("--clips", type=positive, default=3, help="only the first N films (default: 3)")
    add("--max-frames", type=positive, default=75)
    add("--rounds", type=positive, default=3, help="films timed for each number of steps (default: 3)")
    add(
        "--clock", choices=list(CLOCKS), default="wall", help="time that passes, or that the processor worked"
    )
    add("--lpips-backbone", type=Path, metavar="FILE", help="AlexNet weights; without it torchvision's cache")
    add("--no-lpips", action="store_true")
    add("--figure", type=Path, default=Path("docs/quality_speed.svg"), help=".svg or .png")
    add("--out", type=Path, default=Path("runs/quality_speed"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    from talkface import TalkingFacePipeline

    options = parse(argv)
    if options.figure.suffix not in (".svg", ".png"):
        raise TalkfaceError(f"--figure: {options.figure}; allowed are .svg and .png")
    check_output(options.figure)
    paths = files_in(options.films, FILMS, "--films")[: options.clips]
    pipeline = TalkingFacePipeline.from_pretrained(options.bundle, options.device, options.precision)
    perceptual = None if options.no_lpips else LPIPS("alex", options.lpips_backbone)
    rows: dict[int, dict[str, Any]] = {n: {key: [] for key in MEASURES} for n in sorted(options.steps)}
    with MediaPipeJudge(options.task) as judge:
        films = [read_film(path, judge, pipeline, options.max_frames) for path in paths]
        for steps, row in rows.items():
            for film in films:
                made = dub("", film, pipeline, options.seed, steps)
                numbers = mouth_scores(made, film.frames, film.squares, perceptual)
                numbers["correlation"] = correlation(film.curve.gap, judge.curve(made).gap)[0]
                for key in MEASURES:
                    row[key].append(numbers.get(key, float("nan")))
            print(f"{steps} steps: quality", file=sys.stderr)
    frames_a_second(pipeline, films[0], min(rows), options.clock, 1)
    for steps, row in rows.items():
        row["speed"] = frames_a_second(pipeline, films[0], steps, options.clock, options.rounds)
    lines = [
        [
            str(n),
            cell(row["speed"], "{:.1f}"),
            *(mean_cell(row[key], form) for key, (_, form) in MEASURES.items()),
        ]
        for n, row in rows.items()
    ]
    text = markdown(["steps", f"frames/s ({options.clock})", *(name for name, _ in MEASURES.values())], lines)
    settings = {"bundle": options.bundle, "clock": options.clock, "films": [path.name for path in paths]}
    save(options.out, "quality_speed", text, {**settings, "rows": {str(n): row for n, row in rows.items()}})
    draw(options.figure, rows, options.clock)
    return 0


if __name__ == "__main__":
    run("quality_speed", main)
