"""The MediaPipe judge: curves of a real film, missing faces, size does not matter."""

from pathlib import Path

import numpy as np
import pytest

from talkface.errors import TalkfaceError
from talkface.experts.judges import MediaPipeJudge, relative_gap
from talkface.metrics.articulation import correlation

DATA = Path(__file__).resolve().parents[3] / "shared/data"
TASK = DATA / "weights/face_landmarker.task"


def test_relative_gap_of_points_that_we_place():
    points = np.zeros((478, 2))
    points[10], points[152] = (50, 0), (50, 200)
    points[13], points[14] = (50, 140), (50, 150)
    assert relative_gap(points) == pytest.approx(0.05)
    assert relative_gap(points @ np.array([[0.0, 3.0], [-3.0, 0.0]]) + 11) == pytest.approx(0.05)


def test_absent_task_file(tmp_path):
    with pytest.raises(TalkfaceError, match="does not exist"):
        MediaPipeJudge(tmp_path / "absent.task")


@pytest.fixture(scope="module")
def judge():
    if not TASK.exists():
        pytest.skip("face_landmarker.task is not beside this checkout")
    pytest.importorskip("mediapipe", exc_type=ImportError)
    with MediaPipeJudge(TASK) as judge:
        yield judge


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    import av

    with av.open(str(DATA / "grid/lbax4n.mpg")) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)][10:40]


def test_real_film_moves_and_missing_faces_are_told(judge, frames):
    broken = [*frames]
    broken[3] = np.zeros_like(frames[3])
    curve = judge.curve(broken)
    assert curve.missing == [3] and np.isnan(curve.gap[3])
    assert np.nanmax(curve.gap) > 2 * np.nanmin(curve.gap) and 0.005 < np.nanmax(curve.gap) < 0.3


def test_same_curve_at_another_size_and_later(judge, frames):
    import cv2

    whole = judge.curve(frames).gap
    small = judge.curve([cv2.resize(frame, None, fx=0.6, fy=0.6) for frame in frames[2:]]).gap
    value, lag = correlation(whole, small)
    assert value > 0.95 and lag == -2
