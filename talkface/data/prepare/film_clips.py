"""One film into clips: the steps in their order, each with its reason for leaving something out.

    read, length, sound    `film_reading`: exact times; exists, has sound, has the length of its sound
    scenes                 `film_scenes`: cuts (switched off: the film is one scene)
    landmarks, faces       `film_faces`: one face in every frame; gaps of a few frames are bridged
    length                 pieces that are neither too short nor too long
    box, size              the square that is stored
    quality                `film_quality`
    sync                   `film_sync`: an expert's offset (switched off without an expert)

The film is decoded once for its landmarks and once for its pictures (and once more for cuts), so memory holds
compressed faces only, never decoded frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkface.data.base import Clip
from talkface.data.finding import Finder
from talkface.data.prepare.film_faces import FacePath, follow, squares
from talkface.data.prepare.film_quality import picture_quality
from talkface.data.prepare.film_reading import TimedFilm, open_film
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.film_scenes import find_cuts, pieces_of, scenes_of
from talkface.data.prepare.film_sync import SyncExpert, in_step
from talkface.data.prepare.source import RawItem, Rejected
from talkface.data.writer import encode_jpeg
from talkface.portrait.crop import AlignedCrop, transform
from talkface.portrait.tracking import face_size

JUDGED_FRAMES = 9
"""Frames of a clip whose quality is measured."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Frames [first, last) of the film that become one clip.

    Attributes:
        points: (T, 68, 2) float64 square pixels of the film.
        seen: (T,) bool, False where the landmarks are interpolated.
        matrices: (T, 2, 3) float64, square pixels of the film -> pixels of the clip.
    """

    first: int
    last: int
    points: np.ndarray
    seen: np.ndarray
    matrices: np.ndarray

    @property
    def landmarks(self) -> np.ndarray:
        """(T, 68, 2) float32 pixels of the clip."""
        pairs = zip(self.matrices, self.points, strict=True)
        return np.stack([transform(matrix, points) for matrix, points in pairs]).astype(np.float32)

    @property
    def scale(self) -> float:
        """Pixels of the film per pixel of the clip."""
        return float(np.median(1 / np.sqrt(np.abs(np.linalg.det(self.matrices[:, :, :2])))))


@dataclass(frozen=True)
class FilmMaker:
    """Turns films into clips.

    Args:
        recipe: every choice.
        finder: finds faces.
        sample_rate: of the corpus.
        sync: judges lips against sound; None switches the step off.
    """

    recipe: FilmRecipe
    finder: Finder
    sample_rate: int = 16000
    sync: SyncExpert | None = None

    def make(self, item: RawItem, path: Path, sound: Path | None = None) -> list[Clip | Rejected]:
        """The clips of one film, and why parts of it are not among them.

        Args:
            item: what is known of the film.
            path, sound: the film, and the file of its sound (None = its own track).

        Raises:
            Rejected: nothing of the film can be used.
        """
        film = open_film(path, sound, self.recipe, self.sample_rate)
        made = list(self._clips(item, film, self._plan(film)))
        clips = [part for part in made if isinstance(part, Clip)]
        if not clips:
            raise next(part for part in made if isinstance(part, Rejected))
        if len(clips) == 1 and len(clips[0].frames) == film.num_frames:
            return [replace(clips[0], id=item.id, transcript=item.transcript)]
        return made

    def _plan(self, film: TimedFilm) -> list[Piece | Rejected]:
        """What of the film becomes clips; one pass over its pictures (two, where cuts are looked for)."""
        scenes = [(0, film.num_frames)]
        if self.recipe.scenes:
            cuts = find_cuts(film.reader, film.reader.fps, self.recipe.scene_threshold)
            scenes = scenes_of(film.shown, cuts)
        pictures = film.pictures()
        parts: list[Piece | Rejected] = []
        for first, last in scenes:
            face = follow(islice(pictures, last - first), self.finder, film.aspect, float(film.fps))
            parts += self._pieces(film, first, face)
        return parts

    def _pieces(self, film: TimedFilm, start: int, face: FacePath) -> list[Piece | Rejected]:
        """Pieces and rejections of the scene that begins with frame `start` of the film."""
        recipe, fps = self.recipe, float(film.fps)
        runs = face.runs(recipe.most_missing)
        parts: list[Piece | Rejected] = []
        for first, last in _gaps(runs, len(face.defects)):
            reason = face.common_defect(first, last)
            parts.append(Rejected("landmarks", f"{reason} in {_span(start + first, start + last, fps)}"))
        if parts and recipe.most_seconds is None:
            return parts[:1]  # the film is one clip or none
        for run_first, run_last in runs:
            pieces = pieces_of(run_first, run_last, fps, recipe)
            if not pieces:
                seconds = (run_last - run_first) / fps
                where = _span(start + run_first, start + run_last, fps)
                parts.append(Rejected("length", f"only {seconds:.2f} s show a face: {where}", seconds))
            for first, last in pieces:
                try:
                    parts.append(self._piece(film, start, face, first, last))
                except Rejected as why:
                    parts.append(_at(why, film, start + first, start + last))
        return parts

    def _piece(self, film: TimedFilm, start: int, face: FacePath, first: int, last: int) -> Piece:
        """Frames [first, last) of the scene that begins with frame `start`."""
        recipe = self.recipe
        if recipe.one_face:
            for frame, count in sorted(face.crowd.items()):
                if first <= frame < last:
                    reason = f"{count} faces of similar size in frame {start + frame}"
                    raise Rejected("faces", reason, float(count))
        points, seen = face.filled(first, last)
        size = float(np.median([face_size(points_of_frame) for points_of_frame in points]))
        if size < recipe.least_face:
            reason = f"the face is {size:.0f} pixels large; at least {recipe.least_face:g} are needed"
            raise Rejected("size", reason, size)
        matrices = squares(points, recipe, film.reader.size[0])
        return Piece(start + first, start + last, points, seen, matrices)

    def _clips(
        self, item: RawItem, film: TimedFilm, parts: list[Piece | Rejected]
    ) -> Iterator[Clip | Rejected]:
        """Cut the pieces out, in one pass over the film."""
        pictures = film.pictures() if any(isinstance(part, Piece) for part in parts) else iter(())
        place = number = 0
        for part in parts:
            if isinstance(part, Rejected):
                yield part
                continue
            frames, judged = self._frames(
                islice(pictures, part.first - place, part.last - place), part, film.aspect
            )
            place = part.last
            try:
                yield self._clip(item, film, part, frames, judged, piece_id(item.id, number))
            except Rejected as why:
                yield _at(why, film, part.first, part.last)
            number += 1

    def _frames(
        self, pictures: Iterator[np.ndarray], piece: Piece, aspect: float
    ) -> tuple[list[bytes], dict[int, np.ndarray]]:
        """The frames of a piece as JPEG, and some of them, by number, to be judged."""
        judge = np.linspace(0, len(piece.points) - 1, JUDGED_FRAMES).round().astype(int).tolist()
        frames: list[bytes] = []
        judged: dict[int, np.ndarray] = {}
        for number, (picture, matrix) in enumerate(zip(pictures, piece.matrices, strict=True)):
            squeezed = matrix.copy()
            squeezed[:, 0] *= aspect  # from the film's own pixels
            face = AlignedCrop.from_matrix(picture, squeezed, self.recipe.size).image
            frames.append(encode_jpeg(face, self.recipe.quality))
            if number in judge:
                judged[number] = face
        return frames, judged

    def _clip(
        self,
        item: RawItem,
        film: TimedFilm,
        piece: Piece,
        frames: list[bytes],
        judged: dict[int, np.ndarray],
        name: str,
    ) -> Clip:
        """A piece with its sound, if its pictures are good enough and in step with it."""
        landmarks = piece.landmarks
        quality = picture_quality(list(judged.values()), landmarks[list(judged)], piece.scale)
        if quality.score < self.recipe.least_quality:
            reason = (
                f"quality {quality.score:.2f}, {self.recipe.least_quality:g} is needed: {quality.weakest}"
            )
            raise Rejected("quality", reason, quality.score)
        meta = self._about(item, film, piece.first) | {"quality": quality.as_meta()}
        sound = film.cut_sound(piece.first, piece.last)
        if self.sync is not None and sound is not None:
            pictures = np.stack([decode(frame) for frame in frames])
            sound, measured = in_step(
                film, piece.first, piece.last, pictures, landmarks, self.sync, self.recipe
            )
            if measured:
                meta["sync"] = measured
        return Clip(
            id=name,
            split=item.split,
            subject=item.subject,
            frames=frames,
            audio=sound,
            truth={
                "landmarks": landmarks,
                "seen": piece.seen,
                "crop_matrix": piece.matrices.astype(np.float32),
            },
            emotion=item.emotion,
            intensity=item.intensity,
            fps=float(film.fps),
            meta=meta,
        )

    def _about(self, item: RawItem, film: TimedFilm, first: int) -> dict[str, Any]:
        """What the `.json` of a clip says of the film it comes from."""
        about = dict(item.meta) | {
            "file": item.file,
            "start": round(first / float(film.fps), 6),
            "film_fps": round(film.reader.fps, 6),
            "film_seconds": round(film.reader.duration, 4),
            "film_size": list(film.reader.size),
        }
        if film.reader.is_variable:
            about["variable_rate"] = True
        if film.sound is not None:
            about["sound_seconds"] = round(film.sound.duration, 4)
        return about


def decode(frame: bytes) -> np.ndarray:
    """JPEG -> uint8 (H, W, 3) RGB, as a reader of the corpus sees it."""
    picture = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None  # this file has just encoded it
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def piece_id(item: str, number: int) -> str:
    """The id of a piece of a film, at most 80 letters."""
    if len(item) > 74:
        item = f"{item[:61]}-{hashlib.sha256(item.encode()).hexdigest()[:12]}"
    return f"{item}_{number:04d}"


def _gaps(runs: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """[first, last) between the runs, before the first and after the last."""
    borders = [0, *(border for run in runs for border in run), length]
    pairs = zip(borders[::2], borders[1::2], strict=True)
    return [(first, last) for first, last in pairs if last > first]


def _at(why: Rejected, film: TimedFilm, first: int, last: int) -> Rejected:
    """The rejection of a part says which part."""
    if last - first == film.num_frames:
        return why
    return Rejected(why.step, f"{why.reason} ({_span(first, last, float(film.fps))})", why.score)


def _span(first: int, last: int, fps: float) -> str:
    return f"frames {first} to {last - 1}, {first / fps:.2f}-{last / fps:.2f} s"
