"""How near is a dubbed mouth to the real one? Real films dubbed with their own sound.

Rows: the first frame's mouth on every frame (`still`), the network alone from sound (`inpainting`, the paper's way),
the animated picture (`warp`), the network over it (`refined`), the real face through encoder and decoder of the first
stage (`first stage`: the ceiling of any network without a guide), and further bundles as each is used by default.
Measured against the real film, frame by frame: the mouth (PSNR, SSIM, LPIPS), the lip gap by MediaPipe, the step of
colour across the mask's edge, what differs outside of it, and how restless the skin is that speech leaves alone. The
same for the first frame as a still picture with the film's sound. No codec comes between.

    python scripts/evaluate_dubbing.py --films FOLDER --task face_landmarker.task --lpips-backbone FILE
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from dubbed_films import GUIDES, Film, dub, read_film
from measuring import FILMS, files_in, judged, markdown, mean_cell, positive, run, save

from talkface.errors import TalkfaceError
from talkface.experts.judges import MediaPipeJudge
from talkface.experts.vision import LPIPS
from talkface.media import VideoWriter
from talkface.metrics.articulation import amplitude_ratio, correlation
from talkface.metrics.seams import border_step, frame_change, outside_difference
from talkface.pipelines.film_scores import cheeks, mouth_scores
from talkface.portrait.crop import AlignedCrop

ROWS = ("still", "inpainting", "warp", "refined", "first stage")
FOREHEAD = (0.3, 0.08, 0.7, 0.22)  # left, top, right, bottom of the canonical crop
Array = np.ndarray


def skin() -> dict[str, Array]:
    """bool (size, size) of crops of 128: painted skin that speech hardly moves, and skin that is not painted."""
    left, top, right, bottom = (round(128 * x) for x in FOREHEAD)
    forehead = np.zeros((128, 128), bool)
    forehead[top:bottom, left:right] = True
    return {"inside": cheeks(128)[0, 0].numpy() > 0, "outside": forehead}


def restlessness(frames: Array, crops: list[AlignedCrop]) -> dict[str, float]:
    """Mean change from frame to frame of the skin inside and outside of the mask, grey levels."""
    scale = 128 / crops[0].size
    pictures = [
        AlignedCrop.from_matrix(frame, crop.matrix * scale, 128).image
        for frame, crop in zip(frames, crops, strict=True)
    ]
    return {name: frame_change(np.stack(pictures), mask) for name, mask in skin().items()}


def measure(made: Array, film: Film, judge: MediaPipeJudge, perceptual: LPIPS | None) -> dict[str, Any]:
    """All numbers of one dubbed film."""
    curve = judge.curve(made)
    value, lag = correlation(film.curve.gap, curve.gap)
    pairs = list(zip(made, film.frames, film.weights, strict=True))
    result = {
        **mouth_scores(made, film.frames, film.squares, perceptual),
        "correlation": value,
        "lag": lag,
        "amplitude": amplitude_ratio(film.curve.gap, curve.gap),
        "border": float(np.mean([border_step(*pair) for pair in pairs])),
        "outside": max(outside_difference(*pair) for pair in pairs),
        "missing": len(curve.missing),
    }
    real, ours = restlessness(film.frames, film.crops), restlessness(made, film.crops)
    return result | {f"flicker {name}": ours[name] / real[name] for name in ours}


def measure_still(row: str, film: Film, pipeline: Any, seed: int) -> dict[str, Any]:
    """The first frame as a picture, with the film's sound."""
    call = pipeline(
        film.sound, image=film.frames[0], guide=GUIDES.get(row), motion="none", seed=seed, fps=film.fps
    )
    with call.frames() as frames:
        made = np.stack(list(frames))
    moves = restlessness(made, film.crops[:1] * len(made))
    steps = [border_step(frame, film.frames[0], film.weights[0]) for frame in made]
    outside = max(outside_difference(frame, film.frames[0], film.weights[0]) for frame in made)
    return {
        "still border": float(np.mean(steps)),
        "still outside": outside,
        **{f"still flicker {name}": value for name, value in moves.items()},
    }


DUBBED = {
    "psnr": ("mouth PSNR (dB)", "{:.2f}"),
    "ssim": ("mouth SSIM", "{:.3f}"),
    "lpips": ("mouth LPIPS", "{:.4f}"),
    "correlation": ("lip-gap correlation", "{:.3f}"),
    "amplitude": ("amplitude ratio", "{:.2f}"),
}
SEAMS = {
    "border": ("dubbed: border step", "{:.2f}"),
    "outside": ("outside, largest", "{:.0f}"),
    "flicker inside": ("flicker of painted skin / real", "{:.2f}"),
    "flicker outside": ("of other skin / real", "{:.2f}"),
    "still border": ("picture: border step", "{:.2f}"),
    "still outside": ("outside, largest", "{:.0f}"),
    "still flicker inside": ("change of painted skin", "{:.2f}"),
    "still flicker outside": ("of other skin", "{:.2f}"),
}


def table(results: dict[str, list[dict[str, Any]]], columns: dict[str, tuple[str, str]]) -> str:
    """Markdown: a line per row, mean and interval over films; the largest of what is a maximum."""
    present = [key for key in columns if any(key in clip for clips in results.values() for clip in clips)]
    lines = []
    for row, clips in results.items():
        cells = []
        for key in present:
            values = [clip.get(key, float("nan")) for clip in clips]
            known = [x for x in values if not np.isnan(x)]
            cells.append(
                str(max(known))
                if "outside" in key and "flicker" not in key and known
                else mean_cell(values, columns[key][1])
            )
        lines.append([row, *cells])
    return markdown(["film", *(columns[key][0] for key in present)], lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--films", type=Path, required=True, help="folder of films with sound, one speaking face each")
    judged(parser)
    add("--also", nargs="+", default=[], metavar="NAME=PATH", help="more bundles, a row each")
    add("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    add("--lpips-backbone", type=Path, metavar="FILE", help="AlexNet weights; without it torchvision's cache")
    add("--no-lpips", action="store_true")
    add("--clips", type=positive, help="only the first N films")
    add("--max-frames", type=positive, default=1000)
    add(
        "--out",
        type=Path,
        default=Path("runs/dubbing"),
        help="tables, results.json and the films that were made",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    from talkface import TalkingFacePipeline

    options = parse(argv)
    paths = files_in(options.films, FILMS, "--films")[: options.clips]
    bad = [text for text in options.also if "=" not in text]
    if bad:
        raise TalkfaceError(f"--also: {bad[0]}; give NAME=PATH, the name of the row and a bundle's folder")
    bundles = {"": options.bundle, **dict(text.split("=", 1) for text in options.also)}
    pipelines = {
        name: TalkingFacePipeline.from_pretrained(path, options.device, options.precision)
        for name, path in bundles.items()
    }
    perceptual = None if options.no_lpips else LPIPS("alex", options.lpips_backbone)
    rows = {**dict.fromkeys(options.rows, ""), **{name: name for name in bundles if name}}
    results: dict[str, list[dict[str, Any]]] = {row: [] for row in rows}
    options.out.mkdir(parents=True, exist_ok=True)
    with MediaPipeJudge(options.task) as judge:
        for path in paths:
            film = read_film(path, judge, pipelines[""], options.max_frames)
            for row, name in rows.items():
                made = dub(row, film, pipelines[name], options.seed)
                numbers = measure(made, film, judge, perceptual)
                if row not in ("still", "first stage"):
                    numbers |= measure_still(row, film, pipelines[name], options.seed)
                results[row].append({"film": path.stem, **numbers})
                with VideoWriter(
                    options.out / f"{path.stem}_{row.replace(' ', '_')}.mp4", film.fps
                ) as writer:
                    for frame in made:
                        writer.write(frame)
                print(f"{path.stem}: {row}", file=sys.stderr)
    text = f"{table(results, DUBBED)}\n\n{table(results, SEAMS)}"
    save(options.out, "dubbing", text, {"bundles": bundles, "seed": options.seed, "rows": results})
    return 0


if __name__ == "__main__":
    run("evaluate_dubbing", main)
