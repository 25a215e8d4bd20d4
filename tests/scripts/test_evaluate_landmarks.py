"""The table of landmarks: known offsets come out as they were put in."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from evaluate_landmarks import clips_table, numbers_of, offsets, points_table, to_outline

from talkface.experts.landmark_network import LandmarkNetwork


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """(9, 68, 2): a mean face of 100 pixels, rolled by 0.3 rad, whose mouth opens."""
    face = 100 * LandmarkNetwork(channels=(4, 4, 4, 4)).mean_shape.numpy().astype(np.float64)
    film = np.repeat(face[None], 9, axis=0)
    film[:, [55, 56, 57, 58, 59, 65, 66, 67], 1] += np.linspace(0, 8, 9)[:, None]
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    return film @ turn.T


def test_offsets_are_in_the_frame_of_the_face_and_in_percent_of_its_eyes(faces):
    along = (faces[0, 45] - faces[0, 36]) / 100
    down = np.array([-along[1], along[0]])
    moved = faces + 3 * along + 2 * down
    assert np.allclose(offsets(moved, faces), [3, 2])


def test_the_outline_forgives_points_that_slid_along_it(faces):
    slid = faces[-1:].copy()
    slid[0, 61] += 0.5 * (slid[0, 62] - slid[0, 61])
    assert to_outline(slid, faces[-1:])[0] < 1e-9
    assert np.linalg.norm(offsets(slid, faces[-1:])[0, 61]) > 1


def test_half_openings_have_half_the_slope(faces):
    ours = faces.copy()
    ours[:, [65, 66, 67]] = faces[:1, [65, 66, 67]] + 0.5 * (faces[:, [65, 66, 67]] - faces[:1, [65, 66, 67]])
    ours[4] = np.nan
    numbers = numbers_of(ours, faces)
    assert numbers["found"] == 8 and numbers["judged"] == 9
    assert numbers["correlation"] > 0.999 and abs(numbers["slope"] - 0.5) < 0.02
    assert numbers["eyes"] < 1e-9 < numbers["inner lips"]
    results = {"film": numbers, "picture": numbers_of(faces[:1], faces[:1])}
    assert "| film | 8/9 | 1.000 | 0.50 |" in clips_table(results)
    assert "**films, mean**" in clips_table(results) and "**pictures, mean**" in clips_table(results)
    assert points_table(results).count("\n") == 21


def test_no_face_no_numbers(faces):
    nowhere = np.full_like(faces, np.nan)
    assert numbers_of(nowhere, faces) == {"frames": 9, "found": 0, "judged": 9}
    assert "| film | 0/9 | – |" in clips_table({"film": numbers_of(nowhere, faces)})
