"""Where do a bundle's landmarks stand, against MediaPipe's? Films (every frame, tracked) and single pictures.

The judge's 478 points become 68 by `MEDIAPIPE_TO_68`. Lengths are in % of the judge's outer-eye distance, directions in
the face's own frame: right along the eyes, down across them. Inner lips are judged point to point, and as outlines
(mean distance of a bundle's point to the judge's closed line); the lip gap is the distance of points 62 and 66.
Where definitions differ (the jaw's outline, say), an error says little; its part that is not one constant offset a
point says more, and stands in brackets.

    python scripts/evaluate_landmarks.py astronaut FILE... --task face_landmarker.task --out runs/landmarks
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measuring import FILMS, cell, markdown, read_face, run, save

from talkface.data.finding import make_finder
from talkface.errors import TalkfaceError
from talkface.experts.face_landmarks import FaceFinder, FaceLandmarks
from talkface.experts.faces import MediaPipeFaceFinder, NetworkFaceFinder
from talkface.media import open_video, write_image
from talkface.metrics.articulation import lip_gap
from talkface.pipelines.device import choose_device

GROUPS = {
    "all": range(68),
    "eyes": range(36, 48),
    "nose": range(27, 36),
    "outer lips": range(48, 60),
    "inner lips": range(60, 68),
    "jaw": range(17),
}
LIPS = range(48, 68)
# Lip gaps of the judge between which a mouth counts as closed, half open, open.
OPENNESS = {"closed": (0.0, 0.03), "half open": (0.03, 0.10), "open": (0.10, np.inf)}
TILE = 320
Array = np.ndarray


def follow(finder: FaceFinder, frames: list[Array]) -> Array:
    """(T, 68, 2) landmarks of the largest face of frames that follow each other; nan where none is found."""
    result, face = np.full((len(frames), 68, 2), np.nan), None
    for row, frame in zip(result, frames, strict=True):
        face = finder.track(frame, face) if face is not None else None
        if face is None:
            face = next(iter(finder.find(frame)), None)
        if face is not None:
            row[:] = face.points
    return result


def each(finder: FaceFinder, frames: list[Array]) -> Array:
    """As `follow`, every frame by itself."""
    faces: list[FaceLandmarks | None] = [next(iter(finder.find(frame)), None) for frame in frames]
    return np.stack([np.full((68, 2), np.nan) if face is None else face.points for face in faces])


def eye_distance(points: Array) -> Array:
    """(T, 68, 2) -> (T,) of the outer corners."""
    return np.linalg.norm(points[:, 45] - points[:, 36], axis=-1)


def offsets(points: Array, judge: Array) -> Array:
    """(T, 68, 2): right and down, in % of the judge's eye distance, how far `points` stand from the judge's."""
    along = judge[:, 45] - judge[:, 36]
    scale = 100 / (along**2).sum(-1)[:, None]
    moved = points - judge
    right = (moved * along[:, None]).sum(-1) * scale
    down = (moved[..., 1] * along[:, None, 0] - moved[..., 0] * along[:, None, 1]) * scale
    return np.stack([right, down], axis=-1)


def to_outline(points: Array, judge: Array) -> Array:
    """(T,) mean distance of the inner lip points to the judge's inner outline, in % of its eye distance."""
    start = judge[:, None, 60:]
    side = np.roll(judge[:, 60:], -1, axis=1)[:, None] - start
    away = points[:, 60:, None] - start
    share = (away * side).sum(-1) / np.maximum((side**2).sum(-1), 1e-9)
    nearest = np.linalg.norm(away - share.clip(0, 1)[..., None] * side, axis=-1).min(-1)
    return 100 * nearest.mean(-1) / eye_distance(judge)


def numbers_of(points: Array, judge: Array) -> dict[str, Any]:
    """Everything about one film or picture, (T, 68, 2) each; frames where one of both finds no face are left out."""
    found = np.isfinite(points).all((1, 2))
    seen = np.isfinite(judge).all((1, 2))
    both = found & seen
    if not both.any():
        return {"frames": len(points), "found": int(found.sum()), "judged": int(seen.sum())}
    ours, theirs = points[both], judge[both]
    offset = offsets(ours, theirs)
    gap, judged_gap = (
        100 * np.linalg.norm(x[:, 66] - x[:, 62], axis=-1) / eye_distance(theirs) for x in (ours, theirs)
    )
    result: dict[str, Any] = {"frames": len(points), "found": int(found.sum()), "judged": int(seen.sum())}
    result |= {"offsets": offset, "gap": gap, "judge's gap": judged_gap}
    result |= {"gap, mean": gap.mean(), "judge's gap, mean": judged_gap.mean()}
    if np.ptp(judged_gap) > 1 and len(gap) > 2:
        result["correlation"] = float(np.corrcoef(judged_gap, gap)[0, 1])
        result["slope"] = float(np.polyfit(judged_gap, gap, 1)[0])
    result["outline"] = to_outline(ours, theirs).mean()
    for group, rows in GROUPS.items():
        part = offset[:, list(rows)]
        result[group] = np.linalg.norm(part, axis=-1).mean()
        result[f"{group}, own offset removed"] = np.linalg.norm(part - part.mean(0), axis=-1).mean()
    return result


def clips_table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: one row a film or picture, then the mean of the films and that of the pictures."""
    keys = ["correlation", "slope", "gap, mean", "judge's gap, mean", "inner lips", "outline"]
    keys += ["inner lips, own offset removed"]
    forms = ["{:.3f}", "{:.2f}"] + ["{:.1f}"] * 5
    heads = ["lip gap: correlation", "slope", "lip gap", "judge's", "inner lips", "to the outline"]
    rows = []
    for name, numbers in results.items():
        found = f"{numbers['found']}/{numbers['frames']}"
        rows.append(
            [name, found, *(cell(numbers.get(key), form) for key, form in zip(keys, forms, strict=True))]
        )
    for what, chosen in kinds(results).items():
        means = [np.mean([numbers[key] for numbers in chosen if key in numbers] or [np.nan]) for key in keys]
        cells = [cell(float(mean), form) for mean, form in zip(means, forms, strict=True)]
        rows.append([f"**{what}**", "", *(f"**{text}**" for text in cells)])
    return markdown(["", "found", *heads, "its own mean offset removed"], rows)


def kinds(results: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The films, and the pictures, in which both found a face."""
    known = [numbers for numbers in results.values() if "offsets" in numbers]
    chosen = {
        "films, mean": [numbers for numbers in known if numbers["frames"] > 1],
        "pictures, mean": [numbers for numbers in known if numbers["frames"] == 1],
    }
    return {what: numbers for what, numbers in chosen.items() if numbers}


def groups_table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: the error of groups of points; in brackets without one offset a point, the same for all of a kind."""
    rows = []
    for what, chosen in kinds(results).items():
        offset = np.concatenate([numbers["offsets"] for numbers in chosen])
        rest = offset - offset.mean(0)
        cells = []
        for group in GROUPS.values():
            error, left = (np.linalg.norm(x[:, list(group)], axis=-1).mean() for x in (offset, rest))
            cells.append(f"{error:.1f} ({left:.1f})")
        rows.append([what, *cells])
    return markdown(["", *GROUPS], rows)


def points_table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: mean offset (right, down) of each lip point in the films, by how far the judge sees the lips part."""
    films = kinds(results).get("films, mean")
    if not films:
        return ""
    offset = np.concatenate([numbers["offsets"] for numbers in films])
    gap = np.concatenate([numbers["judge's gap"] for numbers in films]) / 100
    shares = {name: (gap >= low) & (gap < high) for name, (low, high) in OPENNESS.items()}
    shares = {name: rows for name, rows in shares.items() if rows.any()} | {"all": np.ones(len(gap), bool)}
    heads = [f"{name} ({int(rows.sum())} frames)" for name, rows in shares.items()]
    lines = []
    for point in LIPS:
        means = [offset[rows, point].mean(0) for rows in shares.values()]
        lines.append([str(point), *(f"{right:+.1f}, {down:+.1f}" for right, down in means)])
    return markdown(["point", *heads], lines)


def tile(picture: Array, points: Array, judge: Array) -> Array:
    """The mouth, enlarged: the judge's points in yellow, the bundle's in green."""
    side = 1.2 * float(eye_distance(judge[None])[0])
    zoom, middle = TILE / side, judge[48:].mean(0)
    matrix = np.array([[zoom, 0, TILE / 2 - zoom * middle[0]], [0, zoom, TILE / 2 - zoom * middle[1]]])
    # OpenCV counts from pixel centres
    place = matrix + [[0, 0, 0.5 * zoom - 0.5]] * 2
    result = cv2.warpAffine(picture, place, (TILE, TILE), flags=cv2.INTER_CUBIC)
    for face, colour in ((judge, (255, 220, 0)), (points, (0, 255, 60))):
        for x, y in face[48:] @ matrix[:, :2].T + matrix[:, 2]:
            cv2.circle(result, (round(16 * x), round(16 * y)), 36, colour, -1, cv2.LINE_AA, 4)
    return np.asarray(result)


def sheet(tiles: list[Array], columns: int = 4) -> Array:
    """Tiles in rows."""
    blank = np.full_like(tiles[0], 255)
    filled = tiles + [blank] * (-len(tiles) % columns)
    return np.vstack([np.hstack(filled[k : k + columns]) for k in range(0, len(filled), columns)])


def shown(name: str, frames: list[Array], points: Array, judge: Array) -> list[Array]:
    """Tiles of a picture, or of a film's most closed and its widest mouth."""
    both = np.flatnonzero(np.isfinite(points + judge).all((1, 2)))
    if not len(both):
        return []
    gaps = lip_gap(judge[both])
    chosen = both[np.unique([gaps.argmin(), gaps.argmax()])]
    return [tile(frames[k], points[k], judge[k]) for k in chosen]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("faces", nargs="+", help="films, picture files, or the word astronaut")
    add("--task", type=Path, required=True, help="MediaPipe's face_landmarker.task")
    add("--bundle", default="default", help="bundle name or folder (default: default)")
    add("--device", default="auto")
    add("--without-mouth", action="store_true", help="the landmark network alone, without the second look")
    add("--out", type=Path, default=Path("runs/landmarks"), help="tables, JSON, enlarged mouths")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    finder = make_finder("bundled", options.bundle, str(choose_device(options.device)))
    if not isinstance(finder, NetworkFaceFinder):
        raise TalkfaceError(f"--bundle: {options.bundle} finds no faces by itself; give one with landmarks")
    if options.without_mouth:
        finder.mouth = None
    judge = MediaPipeFaceFinder(options.task)
    results: dict[str, dict[str, Any]] = {}
    tiles: list[Array] = []
    for given in options.faces:
        is_film = Path(given).suffix.lower() in FILMS
        name, frames = (Path(given).stem, list(open_video(Path(given)))) if is_film else _single(given)
        points, theirs = follow(finder, frames), each(judge, frames)
        results[name] = numbers_of(points, theirs)
        tiles += shown(name, frames, points, theirs)
        print(f"{name}: {len(frames)} frames", file=sys.stderr)
    text = "\n\n".join(filter(None, [table(results) for table in (clips_table, groups_table, points_table)]))
    save(options.out, "landmarks", text, {"bundle": options.bundle, "faces": results})
    if tiles:
        write_image(options.out / "landmarks.png", sheet(tiles))
    return 0


def _single(given: str) -> tuple[str, list[Array]]:
    name, picture = read_face(given)
    return name, [picture]


if __name__ == "__main__":
    run("evaluate_landmarks", main)
