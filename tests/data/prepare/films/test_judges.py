"""The sync experts that the scripts offer: on speech whose offset is known, and on a rendered film."""

from __future__ import annotations

import json
import pickle
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from talkface.data.base import Clip
from talkface.data.finding import make_finder
from talkface.data.prepare.film_clips import FilmMaker
from talkface.data.prepare.film_judges import ShapeJudge, make_sync
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.film_sync import SyncExpert, SyncMeasure
from talkface.data.prepare.source import RawItem
from talkface.errors import TalkfaceError
from talkface.experts.sync import SyncNetwork
from talkface.head.model import HeadModel

RATE = 16000


@pytest.fixture(scope="module")
def judge() -> SyncExpert:
    made = make_sync("shape")
    assert made is not None
    return made


@pytest.fixture(scope="module")
def speaking() -> SimpleNamespace:
    """A sentence: sound at 16 kHz, actions and landmarks at any rate, of the parametric head."""
    pytest.importorskip("espeakng_loader")
    from talkface.data.synthetic.motion import performance
    from talkface.data.synthetic.voices import Voice, speak

    said = speak(Voice.list("train", families=("espeak",))[0], "Bob and Paula happily bought an apple pie.")
    head = HeadModel.load()

    def landmarks(fps: float) -> np.ndarray:
        actions = torch.from_numpy(performance(said, fps=fps, seed=4).actions).float()
        points = head(torch.zeros(1, head.num_identity), actions)[:, head.landmarks, :2]
        return (points * torch.tensor([1.0, -1.0])).numpy() * 400 + 80

    return SimpleNamespace(said=said, landmarks=landmarks)


def late(samples: np.ndarray, seconds: float) -> np.ndarray:
    count = round(abs(seconds) * RATE)
    silence = np.zeros(count, np.float32)
    return np.concatenate([silence, samples]) if seconds > 0 else np.concatenate([samples[count:], silence])


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_offsets_are_found_in_frames_of_the_film(
    judge: SyncExpert, speaking: SimpleNamespace, fps: float
) -> None:
    points = speaking.landmarks(fps)
    pictures = np.zeros((len(points), 8, 8, 3), np.uint8)  # it does not look at them
    for frames in (-5, -3, 0, 4, 6):
        found = judge.measure(pictures, points, late(speaking.said.samples, frames / fps), fps, RATE)
        assert isinstance(found, SyncMeasure) and abs(found.offset - frames) <= 1, frames
    short = int(1.9 * fps)
    assert judge.measure(pictures[:short], points[:short], speaking.said.samples, fps, RATE) is None


def test_a_face_that_does_not_move_has_no_offset(judge: SyncExpert, speaking: SimpleNamespace) -> None:
    still = np.repeat(speaking.landmarks(25.0)[:1], 60, axis=0)
    found = judge.measure(np.zeros((60, 8, 8, 3), np.uint8), still, speaking.said.samples, 25.0, RATE)
    assert found == SyncMeasure(0, 0.0)


def test_judges_go_to_other_processes_and_have_names(judge: SyncExpert) -> None:
    assert pickle.loads(pickle.dumps(judge)) == judge
    assert isinstance(judge, ShapeJudge) and judge.name.startswith("shape ") and len(judge.name) == 22
    assert make_sync("none") is None


def test_a_network_judges_too(tmp_path: Path, draw_face_points) -> None:
    """Random weights know nothing; the way from the file to an answer in frames of the film is what is tested."""
    arguments = {"num_frames": 5, "actions": ["jawOpen"], "speech_channels": 8, "dilations": [1], "width": 8}
    torch.manual_seed(0)
    save_file(SyncNetwork(**arguments).state_dict(), tmp_path / "sync5.safetensors")
    spec = {"class_path": "talkface.experts.sync.SyncNetwork", "init_args": arguments}
    (tmp_path / "sync5.json").write_text(json.dumps(spec))
    judge = make_sync(str(tmp_path / "sync5.safetensors"))
    assert judge is not None and judge.name.startswith("syncnet5 ")
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (60, 64, 64, 3), np.uint8)
    points = np.repeat(draw_face_points(64)[None].astype(np.float32), 60, axis=0)
    found = judge.measure(pictures, points, rng.normal(0, 0.1, 32000).astype(np.float32), 30.0, RATE)
    assert found is not None and abs(found.offset) <= 18
    assert found.offset / 1.2 == pytest.approx(round(found.offset / 1.2))  # whole frames of 25 a second
    assert judge.measure(pictures[:40], points[:40], np.zeros(16000, np.float32), 30.0, RATE) is None


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("sharp", "--sync: 'sharp'; allowed: none, shape, or the file"),
        ("absent.model", "absent.model does not exist; .*syncnet_v2.model of https://github.com"),
    ],
)
def test_mistakes_are_one_line(choice: str, words: str) -> None:
    with pytest.raises(TalkfaceError, match=words):
        make_sync(choice)


def test_a_rendered_film_is_brought_into_step(
    judge: SyncExpert, raw_films: SimpleNamespace, tmp_path: Path
) -> None:
    """Rendered, encoded with its sound 5 frames late, found by the bundled finder, judged, and shifted."""
    pytest.importorskip("espeakng_loader")
    from talkface.data.synthetic.clips import SyntheticRecipe, make_clip, plan_clips

    recipe = SyntheticRecipe(
        identities=2,
        clips_per_identity=1,
        val_share=0,
        test_share=0,
        seed=3,
        size=112,
        supersample=1,
        max_seconds=3.0,
    )
    plan = next(iter(plan_clips(recipe).values()))[0]
    clip = make_clip(recipe, plan)
    import cv2

    pictures = [
        cv2.imdecode(np.frombuffer(f, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].copy() for f in clip.frames
    ]
    assert clip.audio is not None and len(pictures) >= 50
    film = raw_films.write(
        tmp_path / "film.mp4",
        pictures,
        Fraction(25),
        sound=late(clip.audio, 0.2)[: len(clip.audio)],
        rate=RATE,
    )
    item = RawItem("film", "train", "somebody", "film.mp4")
    choices = FilmRecipe(size=96, least_seconds=1.0, least_face=32.0)
    (made,) = FilmMaker(choices, make_finder(), sync=judge).make(item, film)
    assert isinstance(made, Clip) and made.audio is not None
    assert made.meta["sync"]["offset"] == pytest.approx(5, abs=1) and abs(made.meta["sync"]["residual"]) <= 1
    # the sound is where it was before it was planted: the envelopes meet within a frame and a half
    count = min(len(made.audio), len(clip.audio)) // 640 * 640
    loud = [np.abs(samples[:count]).reshape(-1, 640).mean(1) for samples in (made.audio, clip.audio)]
    lags = {k: float(np.corrcoef(loud[0][8:-8], np.roll(loud[1], k)[8:-8])[0, 1]) for k in range(-6, 7)}
    assert abs(max(lags, key=lambda k: lags[k])) <= 1
