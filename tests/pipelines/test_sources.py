"""Frame times, the choice of frames and faces."""

from fractions import Fraction

import numpy as np
import pytest

from talkface.errors import TalkfaceError
from talkface.experts.face_landmarks import FaceFinder, FaceLandmarks
from talkface.media import VideoReader, VideoWriter
from talkface.pipelines.sources import (
    film_shots,
    film_timeline,
    find_in_film,
    find_in_picture,
    fixed_timeline,
)
from talkface.portrait.tracking import FORGET_AFTER, FaceTracker, face_defect, face_size, follow_face


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25, 2)])
@pytest.mark.parametrize("duration", [0.1, 1.0, 1.02, 600.0])
def test_frames_out_is_duration_times_rate(fps, duration):
    line = fixed_timeline(duration, fps)
    assert line.num_frames == int(np.floor(duration * fps + 0.5))
    assert abs(line.num_frames / fps - duration) <= 0.5 / fps + 1e-9
    assert line.centres[-1] == pytest.approx(float((line.num_frames - 0.5) / fps), abs=1e-9)


def test_a_sound_shorter_than_half_a_frame_makes_no_film():
    with pytest.raises(TalkfaceError, match="half a frame"):
        fixed_timeline(0.4, Fraction(1))


def numbered_film(path, count, rate=25, times=None):
    with VideoWriter(path, rate, times=times, crf=0) as writer:
        for k in range(count):
            writer.write(np.full((64, 64, 3), 8 * k, np.uint8))
    return VideoReader(path)


class NoFace(FaceFinder):
    def find(self, image):
        return []


def shown(reader, line):
    """Which frame of the film each shot shows."""
    return [round(float(shot.picture.mean()) / 8) for shot in film_shots(reader, NoFace(), 0, 32, line)]


def test_a_film_keeps_its_frames_and_stands_still_when_the_sound_goes_on(tmp_path):
    reader = numbered_film(tmp_path / "a.mp4", 10)
    assert shown(reader, film_timeline(reader, 0.4, None)) == list(range(10))
    assert shown(reader, film_timeline(reader, 0.2, None)) == list(range(5))
    assert shown(reader, film_timeline(reader, 0.56, None)) == [*range(10), 9, 9, 9, 9]


def test_another_rate_shows_the_frame_of_each_moment(tmp_path):
    reader = numbered_film(tmp_path / "a.mp4", 10)
    assert shown(reader, film_timeline(reader, 0.4, Fraction(50))) == [k // 2 for k in range(20)]
    assert shown(reader, film_timeline(reader, 0.4, Fraction(25, 2))) == [1, 3, 5, 7, 9]


def test_a_film_of_variable_rate_keeps_its_times(tmp_path):
    times = np.array([0.0, 0.04, 0.08, 0.20, 0.24, 0.36])
    reader = numbered_film(tmp_path / "a.mkv", 6, times=times)
    line = film_timeline(reader, 0.31, None)
    assert line.variable
    assert line.starts == pytest.approx(times[:5], abs=2e-3)
    assert line.centres == pytest.approx([0.02, 0.06, 0.14, 0.22, 0.30], abs=2e-3)
    assert shown(reader, line) == list(range(5))
    longer = film_timeline(reader, 1.0, None)
    assert shown(reader, longer)[:7] == [0, 1, 2, 3, 4, 5, 5]
    assert np.all(np.diff(longer.starts) > 0)
    assert longer.starts[-1] < 1.0 <= longer.starts[-1] + 1.5 / float(reader.rate)


class Scripted(FaceFinder):
    """Plays a script: for every picture, told apart by its brightness, a list of (x, y, size)."""

    def __init__(self, shape, script):
        self.shape, self.script = shape, script

    def find(self, image):
        places = self.script.get(round(float(image.mean())), [])
        return [FaceLandmarks.from_points(self.shape * size + np.float32([x, y])) for x, y, size in places]


@pytest.fixture
def shape(draw_faces):
    from talkface.experts.landmark_network import LandmarkNetwork

    return LandmarkNetwork().mean_shape.numpy()


def pictures(count):
    return [np.full((200, 300, 3), k, np.uint8) for k in range(count)]


def places(tracker, count):
    points = [tracker(picture) for picture in pictures(count)]
    return [None if p is None else round(float(p[:, 0].mean())) for p in points]


def test_the_tracker_never_takes_another_person_while_the_first_is_away(shape):
    script = {
        0: [(0, 0, 100), (150, 0, 90)],
        1: [(150, 0, 90)],
        2: [(150, 0, 90)],
        3: [(4, 0, 100), (150, 0, 90)],
    }
    assert places(FaceTracker(Scripted(shape, script)), 4) == [50, None, None, 54]
    second = FaceTracker(Scripted(shape, script), rank=1)
    assert places(second, 4) == [195, 195, 195, 195]
    assert second.faces_at_start == 2


def test_the_tracker_starts_anew_after_a_long_absence(shape):
    count = FORGET_AFTER + 4
    script = {0: [(0, 0, 100)]} | {k: [(180, 60, 100)] for k in range(1, count)}
    found = places(FaceTracker(Scripted(shape, script)), count)
    assert found[: FORGET_AFTER + 1] == [50] + [None] * FORGET_AFTER
    assert found[-1] == 230


def test_every_picture_of_a_film_comes_back_in_order(shape):
    script = {k: [(60 + k, 20, 120)] for k in range(20) if k not in (5, 6, 11)}
    result = list(follow_face(pictures(20), Scripted(shape, script), 0, 32))
    assert [int(picture[0, 0, 0]) for picture, _, _ in result] == list(range(20))
    assert [k for k, (_, _, crop) in enumerate(result) if crop is None] == [5, 6, 11]
    for picture, points, crop in result:
        if crop is not None:
            assert np.array_equal(crop.image, np.full_like(crop.image, picture[0, 0, 0]))
            assert np.abs(crop.to_crop(points).mean(axis=0) - (16, 18)).max() < 2


def test_what_is_wrong_with_a_face(shape):
    picture = np.zeros((200, 300, 3), np.uint8)
    assert face_defect(picture, shape * 120) is None
    assert "pixels large" in face_defect(picture, shape * 40)
    assert "border" in face_defect(picture, shape * 120 - np.float32([60, 0]))
    assert "border" in face_defect(picture, shape * 120 + np.float32([0, 130]))
    assert "finite" in face_defect(picture, shape * np.float32(np.nan))
    assert face_size(shape * 100) == pytest.approx(54, abs=1)


def test_the_search_in_a_film_takes_the_first_usable_frame(tmp_path, shape):
    reader = numbered_film(tmp_path / "a.mp4", 10)
    script = {24: [(0, 0, 40)], 40: [(0, 0, 64)]}
    found = find_in_film(reader, Scripted(shape, script), 0, lambda points: 32)
    assert (found.index, found.faces) == (5, 1)
    with pytest.raises(TalkfaceError, match=r"only 2[12] pixels"):
        find_in_film(reader, Scripted(shape, {24: [(0, 0, 40)]}), 0, lambda points: 32)
    with pytest.raises(TalkfaceError, match="no face is found"):
        find_in_film(reader, NoFace(), 0, lambda points: 32)


def test_the_search_in_a_picture_counts_faces(shape):
    picture = pictures(1)[0]
    finder = Scripted(shape, {0: [(0, 0, 150), (180, 0, 100)]})
    assert find_in_picture("p", picture, finder, 1, lambda points: 32).faces == 2
    with pytest.raises(TalkfaceError, match="face: 3; allowed are 1 to 2"):
        find_in_picture("p", picture, finder, 2, lambda points: 32)
