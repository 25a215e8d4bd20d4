"""Does a photograph do what it is told? Commanded facial actions, judged by MediaPipe.

Each picture is driven by given actions instead of a sound: the jaw in 9 steps, smile and pucker in 5, funnel in 3,
pressed lips. The network is told them as the features that its sound encoder would give, the guide as commands
(`talkface.head.expression.commanded`). Features are held to the range that speech reaches, since a full smile is never
heard. One frame is made of each command. Judged are lip gap and MediaPipe's action scores, sharpness and
teeth; beside the judged lip gap stand that of the drawn mesh, which is exact, and that of the bundle's own landmarks,
a second witness who was not taught by the judge. Made are contact sheets.

    python scripts/evaluate_actions.py astronaut FILE... --task face_landmarker.task --out runs/actions
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measuring import cell, dictated, judged, markdown, read_face, run, save

from talkface.errors import TalkfaceError
from talkface.experts.face_backends import MEDIAPIPE_TO_68
from talkface.experts.judges import JudgedFace, MediaPipeJudge, relative_gap
from talkface.head.expression import lip_distance
from talkface.head.model import ACTIONS
from talkface.media import Audio, write_image
from talkface.metrics.commands import response, sharpness, tooth_share
from talkface.pipelines.film_scores import mouth_squares

RATE = 2.0  # commands a second: each is held longer than the network's window of sound
STEPS = {"jawOpen": 9, "mouthSmile": 5, "mouthPucker": 5, "mouthFunnel": 3}
JAW_STEPS = STEPS["jawOpen"]  # its frames come first
CLOSED = 0.3  # mouthPress of p, b, m
CHEEKS = (50, 280, 205, 425)  # MediaPipe's points
OUTER_LIPS = slice(48, 60)  # of 68
TILE = 176
SHOWN = {"jaw 0": ("jawOpen", 0.0), "jaw .5": ("jawOpen", 0.5), "jaw 1": ("jawOpen", 1.0)}
SHOWN |= {"pucker": ("mouthPucker", 1.0), "smile": ("mouthSmile", 1.0)}
Command = tuple[str, float]
Array = np.ndarray


def commands() -> list[Command]:
    """Every command in the order of the frames: (action, amount)."""
    ramps = [(name, float(x)) for name, steps in STEPS.items() for x in np.linspace(0, 1, steps)]
    return [*ramps, ("mouthPress", CLOSED)]


def as_actions(told: list[Command]) -> Array:
    """(N, 52); an action without a side is of both."""
    result = np.zeros((len(told), len(ACTIONS)), np.float32)
    for row, (name, amount) in zip(result, told, strict=True):
        row[
            [
                k
                for k, action in enumerate(ACTIONS)
                if action.removesuffix("Left").removesuffix("Right") == name
            ]
        ] = amount
    return result


def obey(
    pipeline: Any, picture: Array, guide: str, options: argparse.Namespace
) -> tuple[list[Array], list[float]]:
    """One frame for each command, and the lip gaps that the guide drew (none without a guide)."""
    told = as_actions(commands())
    rate = pipeline.speech.sample_rate
    silence = Audio(np.zeros(round(len(told) / RATE * rate), np.float32), rate)
    with (
        dictated(pipeline, told, RATE, options.limit) as drawn,
        pipeline(
            silence, image=picture, guide=guide, motion="none", seed=options.seed, fps=RATE
        ).frames() as frames,
    ):
        return list(frames), drawn


def score(face: JudgedFace | None, action: str) -> float:
    """MediaPipe's score, mean of both sides; nan without a face."""
    if face is None:
        return float("nan")
    values = [x for name, x in face.scores.items() if name in (action, f"{action}Left", f"{action}Right")]
    return float(np.mean(values))


def teeth(picture: Array, face: JudgedFace | None) -> float:
    """Share of tooth-like pixels between the lips; nan without a face."""
    if face is None:
        return float("nan")
    return tooth_share(picture, face.points[list(MEDIAPIPE_TO_68)][OUTER_LIPS], face.points[list(CHEEKS)])


def second_look(finder: Any, picture: Array, frames: list[Array]) -> Array:
    """(N,) lip gaps by the landmarks of a `NetworkFaceFinder`, over the distance of the eyes' outer corners.

    The head stands still: the face of the photograph is looked for anew where it was. nan where it is not found.
    """
    faces = finder.find(picture)
    found = [finder.track(frame, faces[0]) if faces else None for frame in frames]
    points = np.stack([np.full((68, 2), np.nan) if face is None else face.points for face in found])
    return lip_distance(torch.from_numpy(points)).numpy()


def judge_frames(
    picture: Array, before: JudgedFace, frames: list[Array], judge: MediaPipeJudge
) -> dict[str, Any]:
    """All numbers of one picture. `before`: what the judge sees in the photograph."""
    told = commands()
    seen = [judge.face(frame) for frame in frames]
    gaps = np.array([np.nan if face is None else relative_gap(face.points) for face in seen])
    result: dict[str, Any] = {"found": sum(face is not None for face in seen), "frames": len(seen)}
    for action in STEPS:
        rows = [k for k, (name, _) in enumerate(told) if name == action]
        values = np.array([score(seen[k], action) for k in rows])
        amounts = np.array([told[k][1] for k in rows])
        result[f"{action} correlation"], result[f"{action} change"] = response(amounts, values)
        if action == "jawOpen":
            result["gap correlation"], result["gap change"] = response(amounts, gaps[rows])
        result[f"{action} scores"] = values
    box = mouth_squares(before.points[list(MEDIAPIPE_TO_68)][None], *picture.shape[:2])[0]
    result["sharpness"] = float(
        np.mean([sharpness(frame, box) for frame in frames]) / sharpness(picture, box)
    )
    result["gaps"] = gaps
    closed = told.index(("mouthPress", CLOSED))
    result["teeth of the photograph"] = teeth(picture, before)
    result["teeth at rest"] = teeth(frames[0], seen[0])
    result["teeth of closed lips"] = teeth(frames[closed], seen[closed])
    return result


def witnesses(drawn: list[float], second: Array) -> dict[str, Any]:
    """How lip gaps follow the commanded jaw: as drawn (no number without a guide), and by the second look (no number
    when it loses the face on the way, as where a chin leaves the picture)."""
    told = np.array([amount for _, amount in commands()[:JAW_STEPS]])
    exact = np.array(drawn[:JAW_STEPS] if drawn else [np.nan] * JAW_STEPS)
    return {
        "drawn correlation": response(told, exact)[0],
        "second correlation": response(told, second)[0] if np.isfinite(second).all() else float("nan"),
        "drawn gaps": exact,
        "second gaps": second,
    }


COLUMNS = {
    "gap correlation": "jaw: lip gap corr.",
    "drawn correlation": "as drawn",
    "second correlation": "own landmarks",
    "jawOpen correlation": "jaw: score corr.",
    "jawOpen change": "jaw range",
    "mouthPucker change": "pucker change",
    "mouthSmile change": "smile change",
    "mouthFunnel change": "funnel change",
    "sharpness": "sharpness",
    "teeth of the photograph": "teeth, photograph",
    "teeth at rest": "teeth, rest",
    "teeth of closed lips": "teeth, closed",
}


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Markdown: level and picture; then the means."""
    rows = []
    for level, pictures in results.items():
        for name, numbers in pictures.items():
            found = f"{numbers['found']}/{numbers['frames']}"
            rows.append([level, name, *(cell(numbers[key]) for key in COLUMNS), found])
        columns = np.array([[numbers[key] for key in COLUMNS] for numbers in pictures.values()]).T
        means = [cell(np.mean(x[np.isfinite(x)]) if np.isfinite(x).any() else None) for x in columns]
        counts = [sum(numbers[key] for numbers in pictures.values()) for key in ("found", "frames")]
        rows.append([f"**{level}**", "**mean**", *(f"**{x}**" for x in means), f"{counts[0]}/{counts[1]}"])
    return markdown(["guide", "picture", *COLUMNS.values(), "face found"], rows)


def face_tile(picture: Array, points: Array) -> Array:
    """The face as a square of TILE pixels, by the landmarks of the photograph."""
    low, high = points.min(0), points.max(0)
    side = 1.15 * float((high - low).max())
    left, top = (low + high) / 2 - side / 2
    scale = TILE / side
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    white = (255, 255, 255)
    return cv2.warpAffine(
        picture, matrix, (TILE, TILE), flags=way, borderMode=cv2.BORDER_CONSTANT, borderValue=white
    )


def sheet_row(picture: Array, points: Array, frames: list[Array]) -> Array:
    """The photograph and the frames of `SHOWN`."""
    told = commands()
    return np.hstack(
        [face_tile(x, points) for x in (picture, *(frames[told.index(c)] for c in SHOWN.values()))]
    )


def captions(width: int) -> Array:
    """A line with the names of the columns."""
    line = np.full((22, width, 3), 255, np.uint8)
    for k, name in enumerate(["photograph", *SHOWN]):
        cv2.putText(line, name, (k * TILE + 6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return line


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("faces", nargs="+", help="picture files, films (their first frame), or the word astronaut")
    judged(parser)
    add("--guide", nargs="+", default=["warp", "refined"], choices=["none", "warp", "refined"])
    add(
        "--limit",
        type=float,
        default=6.0,
        help="largest feature told to the network, in standard deviations; 0 = none",
    )
    add("--sheet", nargs="+", metavar="NAME", help="pictures of the contact sheets (default: all)")
    add("--out", type=Path, default=Path("runs/actions"), help="tables, JSON and contact sheets")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    from talkface import TalkingFacePipeline

    options = parse(argv)
    faces = dict(read_face(name) for name in options.faces)
    if unknown := set(options.sheet or ()) - set(faces):
        raise TalkfaceError(f"--sheet: {', '.join(sorted(unknown))}; allowed are {', '.join(faces)}")
    pipeline = TalkingFacePipeline.from_pretrained(options.bundle, options.device, options.precision)
    results: dict[str, dict[str, Any]] = {level: {} for level in options.guide}
    sheets: dict[str, list[Array]] = {level: [] for level in options.guide}
    with MediaPipeJudge(options.task) as judge:
        for name, picture in faces.items():
            before = judge.face(picture)
            if before is None:
                raise TalkfaceError(f"{name}: MediaPipe finds no face in this photograph; give another")
            for level in options.guide:
                frames, drawn = obey(pipeline, picture, level, options)
                numbers = judge_frames(picture, before, frames, judge)
                second = second_look(pipeline.finder, picture, frames[:JAW_STEPS])
                results[level][name] = numbers | witnesses(drawn, second)
                print(f"{name}: {level}", file=sys.stderr)
                if name in (options.sheet or faces):
                    sheets[level].append(sheet_row(picture, before.points, frames))
    save(
        options.out,
        "actions",
        table(results),
        {"bundle": options.bundle, "limit": options.limit, "levels": results},
    )
    for level, rows in sheets.items():
        sheet = np.vstack([captions(rows[0].shape[1]), *rows])
        write_image(options.out / f"actions_{level}.jpg", sheet, quality=85)
    return 0


if __name__ == "__main__":
    run("evaluate_actions", main)
