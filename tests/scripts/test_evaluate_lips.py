"""Judging the lips of films: exact articulation in place of the sound, films that are kept, what changed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from evaluate_lips import Spoken, change, distance, dub, edits, kept, lengths, told
from speech_windows import OUTPUTS

from talkface.checkpoint import load_bundle
from talkface.errors import TalkfaceError
from talkface.experts.speech import ArticulationEncoder
from talkface.head.model import ACTIONS
from talkface.media import Audio
from talkface.pipelines.talking_face import TalkingFacePipeline

JAW = ACTIONS.index("jawOpen")


@pytest.fixture(scope="module")
def spoken(draw_faces) -> Spoken:
    """A still face of 0.4 s whose jaw is said to open with time."""
    frames = np.repeat(draw_faces(160, 240, [(60, 20, 128)])[None], 10, 0)
    sound = Audio((0.1 * np.sin(np.arange(6400) / 9)).astype(np.float32), 16000)

    def exact(times: np.ndarray) -> np.ndarray:
        actions = np.zeros((len(times), len(ACTIONS)), np.float32)
        actions[:, JAW] = times
        return actions

    return Spoken("clip", frames, np.zeros((10, 68, 2), np.float32), sound, 25.0, ("ab", "pp aa"), exact)


def articulate(bundle: Path, finder: object) -> TalkingFacePipeline:
    """The tiny bundle with an untrained encoder that tells actions."""
    pipeline = TalkingFacePipeline(load_bundle(bundle), "fp32", finder)
    torch.manual_seed(3)
    pipeline.speech = ArticulationEncoder(OUTPUTS, channels=8, dilations=(1,), bands=8).eval()
    return pipeline


def test_the_exact_articulation_takes_the_place_of_the_sound(tiny_bundle, drawn_face_finder, spoken):
    pipeline = articulate(tiny_bundle, drawn_face_finder)
    heard = pipeline.hear(spoken.sound)
    with told(pipeline, spoken):
        features = pipeline.hear(spoken.sound)
        jaw = pipeline.speech.to_actions(features, ["jawOpen"])[:, 0]
    times = (np.arange(20) + 0.5) / 50
    assert features.shape == heard.shape
    np.testing.assert_allclose(jaw, times, atol=1e-4)
    assert torch.equal(pipeline.hear(spoken.sound), heard), "afterwards it hears again"


def test_a_film_that_is_told_differs_and_is_as_long(tiny_bundle, drawn_face_finder, spoken):
    pipeline = articulate(tiny_bundle, drawn_face_finder)
    made = [dub(pipeline, spoken, None, 0, exact) for exact in (False, True)]
    assert made[0].shape == made[1].shape == spoken.frames.shape
    assert not np.array_equal(*made)


def test_an_encoder_that_tells_no_actions_is_refused(tiny_pipeline, spoken):
    with pytest.raises(TalkfaceError, match="does not tell facial actions"), told(tiny_pipeline, spoken):
        pass


def test_films_are_kept_for_one_bundle_and_one_way_of_telling(
    tiny_bundle, drawn_face_finder, spoken, tmp_path
):
    other = shutil.copytree(tiny_bundle, tmp_path / "other")
    description = json.loads((other / "bundle.json").read_text())
    description["meta"]["articulation_gain"] = 1.5
    (other / "bundle.json").write_text(json.dumps(description))
    folder = tmp_path / "films"
    for bundle in (tiny_bundle, other):
        pipeline = articulate(bundle, drawn_face_finder)
        for exact in (False, True):
            first = kept(folder, pipeline, spoken, None, 0, exact)
            assert np.array_equal(first, kept(folder, pipeline, spoken, None, 0, exact))
    assert len(list(folder.glob("*.npy"))) == 4


def test_errors_are_counted_and_compared_in_pairs():
    said = [("abcd", "pp aa"), ("ef", "ss iy")]
    wrong = edits([("abxx", "pp"), ("ef", "ss iy kk")], said)
    np.testing.assert_allclose(wrong, [[2, 1], [0, 1]])
    np.testing.assert_allclose(lengths(said), [[4, 2], [2, 2]])
    before = np.array([10.0, 20.0, 30.0, 15.0])
    rate, low, high = change(before, 0.8 * before)
    assert rate == pytest.approx(-0.2) and low == pytest.approx(-0.2) and high == pytest.approx(-0.2)
    rate, low, high = change(before, before + np.array([5, -5, 5, -5]))
    assert low < rate < high and rate == 0


def test_distance_is_of_the_frames_that_both_have():
    real = torch.eye(4)[:3]
    assert distance(real[:2], real) == pytest.approx(0.0)
    assert distance(real.flip(0), real) == pytest.approx(2 / 3)
