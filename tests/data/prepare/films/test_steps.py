"""The steps of a film on their own: cuts, pieces, gaps, squares, quality, sync."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from talkface.data.base import Clip
from talkface.data.prepare.film_clips import FilmMaker, decode, piece_id
from talkface.data.prepare.film_faces import FacePath, fixed_square, squares
from talkface.data.prepare.film_quality import face_sharpness, head_angles, picture_quality
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.film_scenes import find_cuts, pieces_of, scenes_of
from talkface.data.prepare.source import RawItem, Rejected
from talkface.errors import TalkfaceError
from talkface.portrait.crop import ANCHORS, anchor_points, transform

FPS = 25
ITEM = RawItem("film", "train", "somebody", "film.mp4", transcript="A WORD")


def path_of(seen: list[bool]) -> FacePath:
    """A face that moves one pixel to the right per frame, where it is seen."""
    points = np.random.default_rng(0).uniform(20, 80, (1, 68, 2)) + np.arange(len(seen))[:, None, None] * [
        1,
        0,
    ]
    points[~np.array(seen)] = np.nan
    return FacePath(points, [None if face else "no face is found" for face in seen])


def test_gaps_are_bridged_or_divide() -> None:
    seen = [False, True, True, False, False, True, True, False, False, False, True, False]
    path = path_of(seen)
    assert path.runs(2) == [(0, 7), (10, 12)]
    assert path.runs(3) == [(0, 12)]
    assert path.runs(0) == [(1, 3), (5, 7), (10, 11)]
    assert path_of([False] * 5).runs(10) == []
    points, found = path.filled(0, 7)
    assert found.tolist() == seen[:7]
    truth = path_of([True] * 7).points
    assert np.abs(points[1:] - truth[1:]).max() < 1e-9  # a straight line is met exactly
    assert (points[0] == points[1]).all()


def test_scenes_follow_the_frames_of_the_film() -> None:
    shown = np.repeat(np.arange(50), 2)[:90]  # twice the rate
    assert scenes_of(shown, [10, 30]) == [(0, 20), (20, 60), (60, 90)]
    assert scenes_of(shown, []) == [(0, 90)]
    assert scenes_of(shown, [48]) == [(0, 90)]  # after the last frame that is taken


def test_pieces_are_even_and_whole() -> None:
    recipe = FilmRecipe(least_seconds=1, most_seconds=5)
    assert pieces_of(10, 10 + 24, FPS, recipe) == []
    assert pieces_of(10, 10 + 125, FPS, recipe) == [(10, 135)]
    pieces = pieces_of(10, 10 + 301, FPS, recipe)
    assert [last - first for first, last in pieces] == [100, 101, 100] and pieces[-1][1] == 311
    assert pieces_of(0, 1000, FPS, replace(recipe, most_seconds=None)) == [(0, 1000)]


def test_cuts_are_found() -> None:
    pytest.importorskip("scenedetect")
    rng = np.random.default_rng(0)
    scenes = [cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (160, 120)) for _ in range(3)]
    pictures = [np.roll(scene, number, axis=1) for scene in scenes for number in range(20)]
    assert find_cuts(pictures, FPS, 3.0) == [20, 40]
    assert find_cuts(pictures[:20], FPS, 3.0) == []


def test_a_cut_ends_a_clip(
    raw_films: SimpleNamespace, drawn_face_finder, short_recipe: FilmRecipe, tmp_path: Path
) -> None:
    """Two rooms with one face: no clip reaches across, and tracking starts anew behind the cut."""
    pytest.importorskip("scenedetect")
    other = raw_films.portrait[:, ::-1].copy()
    other[:, :20], other[:, -20:] = (200, 40, 30), (30, 200, 40)
    pictures = [raw_films.portrait] * 15 + [255 - other] * 12 + [other] * 15
    film = raw_films.write(tmp_path / "film.mp4", pictures, sound=raw_films.speech(42 / FPS, 44100))
    recipe = replace(short_recipe, scenes=True, most_seconds=1.0)
    made = FilmMaker(recipe, drawn_face_finder).make(ITEM, film)
    clips = [part for part in made if isinstance(part, Clip)]
    assert [(clip.id, clip.meta["start"], len(clip.frames)) for clip in clips] == [
        ("film_0000", 0.0, 15),
        ("film_0001", 27 / FPS, 15),
    ]
    assert {clip.transcript for clip in clips} == {""}  # the text is that of the whole film
    reasons = [(part.step, part.reason) for part in made if isinstance(part, Rejected)]
    assert reasons == [("landmarks", "no face is found in frames 15 to 26, 0.60-1.08 s")]
    with pytest.raises(Rejected, match="no face is found"):
        FilmMaker(replace(recipe, most_seconds=None, scenes=False), drawn_face_finder).make(ITEM, film)


def test_fixed_square_is_the_thesis_s(draw_face_points: Callable[[float], np.ndarray]) -> None:
    points = draw_face_points(100) + 200.0
    matrix = fixed_square(points, FilmRecipe(box="fixed", margin="thesis"), height=432)
    low, high = points.min(axis=0), points.max(axis=0)
    side = (high - low).max() + 2 * 20
    corners = transform(matrix, np.stack([(low + high) / 2 - side / 2, (low + high) / 2 + side / 2]))
    assert np.allclose(corners, [[0, 0], [128, 128]], atol=1e-3)
    moving = points + np.linspace(0, 90, 10)[:, None, None] * [1, 0]
    with pytest.raises(Rejected, match="leaves the square of the first frame in frame"):
        squares(moving, FilmRecipe(box="fixed", margin=0.1), 432)


def test_tracked_square_follows(draw_face_points: Callable[[float], np.ndarray]) -> None:
    """Steady motion is kept exactly, trembling is smoothed, and room is left around the canonical crop."""
    recipe = FilmRecipe(box="tracked", margin=0.25)
    truth = draw_face_points(100) + np.arange(30)[:, None, None] * np.array([2.0, 0.5])
    noise = np.random.default_rng(0).normal(0, 0.4, (30, 1, 2))
    matrices = squares(truth + noise, recipe, 400)
    places = np.stack([transform(*pair) for pair in zip(matrices, truth, strict=True)])
    assert places.std(axis=0).max() < 0.75 * (noise.std() * 128 / 1.5 / 100)
    expected = (ANCHORS / 1.5 + 0.5 * (1 - 1 / 1.5)) * 128
    assert np.abs(anchor_points(places.mean(axis=0)) - expected).max() < 3


def test_quality_tells_good_from_bad(
    raw_films: SimpleNamespace, draw_face_points: Callable[[float], np.ndarray]
) -> None:
    points = draw_face_points(96) + np.float32([28, 14])
    blurred = cv2.GaussianBlur(raw_films.portrait, (0, 0), 3)
    assert face_sharpness(raw_films.portrait, points) > 5 * face_sharpness(blurred, points)
    good = picture_quality([raw_films.portrait], points[None], 1.5)
    assert 0 < picture_quality([blurred], points[None], 1.5).score < 0.5 * good.score < 1
    small = picture_quality([raw_films.portrait], points[None], 0.25)
    assert small.score == pytest.approx(good.score / 4) and "enlarged 4.0 times" in small.weakest


def test_angles_of_a_known_head() -> None:
    import torch

    from talkface.head import HeadModel

    head = HeadModel.load()
    shape = head.mean[head.landmarks].double()
    for yaw, pitch in ((0, 0), (25, 0), (-40, 0), (0, 20)):
        y, p = np.deg2rad([yaw, pitch])
        turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        nod = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
        seen = shape @ torch.from_numpy(turn @ nod).T
        points = np.stack([300 + 800 * seen[:, 0].numpy(), 300 - 800 * seen[:, 1].numpy()], axis=1)
        assert head_angles(points[None])[0] == pytest.approx([yaw, pitch], abs=6)


@pytest.mark.parametrize("late", [-5, 0, 3, 5])
def test_planted_offsets_are_found_and_undone(
    late: int,
    raw_films: SimpleNamespace,
    drawn_face_finder,
    sync_expert,
    short_recipe: FilmRecipe,
    tmp_path: Path,
) -> None:
    film = raw_films.late(tmp_path / "film.mp4", late)
    expert = sync_expert
    (clip,) = FilmMaker(replace(short_recipe, size=96), drawn_face_finder, sync=expert).make(ITEM, film)
    assert isinstance(clip, Clip) and clip.transcript == "A WORD" and clip.audio is not None
    assert clip.meta["sync"]["offset"] == pytest.approx(late, abs=1)
    assert abs(clip.meta["sync"]["residual"]) <= 1 and clip.meta["sync"]["confidence"] > 0.6
    pictures = np.stack([decode(frame) for frame in clip.frames])
    again = expert.measure(pictures, clip.truth["landmarks"], clip.audio, FPS, 16000)
    assert abs(again.offset) <= 1 and len(clip.audio) == round(40 / FPS * 16000)
    if late:
        strict = replace(short_recipe, size=96, most_offset=0.5)
        with pytest.raises(Rejected, match="frames late") as why:
            FilmMaker(strict, drawn_face_finder, sync=expert).make(ITEM, film)
        assert why.value.step == "sync" and why.value.score == pytest.approx(late, abs=1)


def test_lips_of_another_speech_are_left_out(
    raw_films: SimpleNamespace, drawn_face_finder, sync_expert, short_recipe: FilmRecipe, tmp_path: Path
) -> None:
    film = raw_films.talking(
        tmp_path / "film.mp4", frames=40, sound=raw_films.speech(1.6, 44100, [0.2, 0.9] * 20)
    )
    recipe = replace(short_recipe, size=96, least_confidence=0.8)
    with pytest.raises(Rejected, match="lips and sound do not fit") as why:
        FilmMaker(recipe, drawn_face_finder, sync=sync_expert).make(ITEM, film)
    assert why.value.step == "sync"


def test_steps_can_be_switched_off(
    raw_films: SimpleNamespace, drawn_face_finder, short_recipe: FilmRecipe, tmp_path: Path
) -> None:
    silent = raw_films.silent(tmp_path / "silent.mp4")
    couple = raw_films.two_faces(tmp_path / "couple.mp4")
    long_sound = raw_films.long_sound(tmp_path / "long.mp4")
    off = replace(short_recipe, need_sound=False, one_face=False, most_difference=None)
    for film in (silent, couple, long_sound):
        with pytest.raises(Rejected):
            FilmMaker(short_recipe, drawn_face_finder).make(ITEM, film)
        (clip,) = FilmMaker(off, drawn_face_finder).make(ITEM, film)
        assert isinstance(clip, Clip) and len(clip.frames) == 10
        assert clip.audio is not None and len(clip.audio) == 6400
    soundless = raw_films.soundless(tmp_path / "soundless.mp4")
    (clip,) = FilmMaker(off, drawn_face_finder).make(ITEM, soundless)
    assert isinstance(clip, Clip) and clip.audio is None
    for strict, step in (({"least_face": 200}, "size"), ({"least_quality": 0.99}, "quality"),
                         ({"longest_film": 0.3, "least_seconds": 0.2}, "length")):  # fmt: skip
        with pytest.raises(Rejected) as why:
            FilmMaker(replace(off, **strict), drawn_face_finder).make(ITEM, couple)
        assert why.value.step == step


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"size": 16}, "size: 16; allowed 32 to 1024"),
        ({"fps": 0.0}, "fps: 0.0"),
        ({"box": "round"}, "box: 'round'; allowed fixed, tracked"),
        ({"margin": "thesis"}, "margin: 'thesis'; allowed 'thesis' with box fixed only"),
        ({"most_seconds": 0.6}, "most_seconds: 0.6; allowed at least twice"),
        ({"least_quality": 1.0}, "least_quality: 1.0"),
    ],
)
def test_recipes_that_are_not_allowed(wrong: dict, words: str) -> None:
    with pytest.raises(TalkfaceError) as error:
        FilmRecipe(**wrong)
    assert words in str(error.value)


def test_ids_of_pieces_stay_short_and_apart() -> None:
    assert piece_id("film", 3) == "film_0003"
    one, other = piece_id("a" * 79 + "b", 0), piece_id("a" * 79 + "c", 0)
    assert one != other and len(one) <= 80
