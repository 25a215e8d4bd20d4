"""evaluate-video: scores with known answers, films that differ only where they may, tables, resuming."""

import json
import math

import cv2
import numpy as np
import pytest

from talkface.data.base import Clip
from talkface.data.writer import CorpusWriter
from talkface.errors import TalkfaceError
from talkface.experts.landmark_network import LandmarkNetwork
from talkface.pipelines.evaluate import main, open_results, table
from talkface.pipelines.film_rows import make_row
from talkface.pipelines.film_scores import RealClip, mouth_squares, score_film

SIDE, COUNT = 128, 12


def opening(k: int) -> float:
    """Pixels between the lips in frame k."""
    return 6 + 5 * math.sin(1.1 * k) + 2 * math.sin(0.4 * k)


@pytest.fixture(scope="module")
def clip(draw_faces) -> RealClip:
    """A drawn face in 160 x 192 pixels whose lower lip and dark mouth move."""
    frames, landmarks = [], []
    for k in range(COUNT):
        points = LandmarkNetwork().mean_shape.numpy() * SIDE + np.float32([30, 20])
        points[66] = points[62] + np.float32([0, opening(k)])
        frame = draw_faces(160, 192, [(30, 20, SIDE)])
        corners = points[62] + np.float32([[-9, 0], [9, opening(k)]])
        (left, top), (right, bottom) = np.rint(corners).astype(int)
        frame[top:bottom, left:right] = (60, 10, 20)
        frames.append(frame)
        landmarks.append(points)
    time = np.arange(round(COUNT / 25 * 16000)) / 16000
    sound = (0.3 * np.sin(2 * np.pi * 180 * time)).astype(np.float32)
    return RealClip("drawn", np.stack(frames), np.stack(landmarks), sound, 16000, 25.0, 1, ((0.0, 0.1),))


def test_mouth_squares_follow_the_lips_and_stay_inside():
    landmarks = np.zeros((3, 68, 2))
    landmarks[:, 48:68] = [[[50, 60]], [[55, 62]], [[2, 90]]]
    landmarks[0, 54] += [20, 0]  # the widest mouth: 20, so every side is 30
    landmarks[0, 57] += [0, 10]
    assert mouth_squares(landmarks, 100, 100).tolist() == [
        [45, 50, 75, 80],
        [40, 47, 70, 77],
        [0, 70, 30, 100],
    ]


def test_scores_of_the_film_itself(clip):
    scores = score_film(clip.frames, clip, clip.landmarks, lambda a, b: (a - b).abs().mean((1, 2, 3)), 64)
    assert math.isinf(scores["psnr"]) and scores["lpips"] == 0
    assert scores["ssim"] == pytest.approx(1) and scores["correlation"] == pytest.approx(1)
    assert scores["lag"] == 0 and scores["amplitude"] == pytest.approx(1) and scores["flicker"] == 0
    assert scores["closed"] in (0, 1)


def test_scores_see_what_is_wrong(clip):
    late = np.concatenate([clip.frames[:2], clip.frames[:-2]])
    points = np.concatenate([clip.landmarks[:2], clip.landmarks[:-2]])
    scores = score_film(late, clip, points, None, 64)
    assert scores["lag"] == 2 and scores["correlation"] > 0.99 and scores["psnr"] < 30
    assert "lpips" not in scores
    noise = np.random.default_rng(0).integers(-20, 21, clip.frames.shape)
    noisy = np.clip(clip.frames + noise, 0, 255).astype(np.uint8)
    assert score_film(noisy, clip, clip.landmarks, None, 64)["flicker"] > 3
    above = clip.frames.copy()
    above[:, :40] = 0  # far from the mouth
    assert math.isinf(score_film(above, clip, clip.landmarks, None, 64)["psnr"])
    nobody = np.full_like(clip.landmarks, np.nan)
    assert score_film(clip.frames, clip, nobody, None, 64)["correlation"] == 0


@pytest.mark.parametrize("row", ["first_stage", "still", "windowed", "autoregressive", "silence", "shuffled"])
def test_rows_change_the_lower_face_only(clip, tiny_pipeline, row):
    film = make_row(row, clip, clip.samples[::-1][:4000], tiny_pipeline, {"seed": 3})
    assert film.shape == clip.frames.shape and film.dtype == np.uint8
    changed = (film != clip.frames).any(axis=(0, 3))
    rows, columns = np.nonzero(changed)
    # Everything else is the clip's own, to the bit: the way through a film file is lossless.
    assert changed.any() and rows.min() > 60 and columns.min() > 35 and columns.max() < 155
    if row == "still":
        still = film[:, 88:100, 60:130].astype(int)
        assert (
            np.abs(still - still[0]).max()
            <= 24
            < np.abs(np.diff(clip.frames[:, 88:110].astype(int), axis=0)).max()
        )


def test_the_sound_matters(clip, tiny_pipeline):
    spoken, again, silent = (
        make_row(row, clip, clip.samples, tiny_pipeline, {"seed": 3})
        for row in ("windowed", "windowed", "silence")
    )
    assert np.array_equal(spoken, again) and not np.array_equal(spoken, silent)


def test_table_has_means_intervals_gains_and_failures():
    rows = {
        "windowed": [{"psnr": 26.0, "correlation": 0.5}, {"psnr": 28.0, "correlation": 0.7}],
        "still": [{"psnr": 23.0, "correlation": 0.0}, {"failed": "no face"}],
        "real": [{"psnr": math.inf}, {"psnr": math.inf}],
    }
    text = table(rows)
    assert "| film | mouth PSNR (dB) | lip-gap correlation |" in text
    assert "| windowed | 27.00 [26.00, 28.00] | 0.600 [0.500, 0.700] |" in text
    assert "| real | ∞ | – |" in text
    assert "Mouth PSNR of windowed over the still mouth: +3.00 [+3.00, +3.00] dB." in text
    assert "1 films could not be made, the first (still): no face" in text


def test_results_continue_or_refuse(tmp_path):
    path = tmp_path / "clips.jsonl"
    assert open_results(path, {"seed": 0}, fresh=False) == {}
    with path.open("a") as file:
        file.write('{"clip": "a", "row": "real", "psnr": 1.0}\n{"clip": "a", "row": "sti')
    expected = {("a", "real"): {"psnr": 1.0}}
    assert open_results(path, {"seed": 0}, fresh=False) == expected
    assert open_results(path, {"seed": 0}, fresh=False) == expected  # the broken line is gone
    with pytest.raises(TalkfaceError, match="other settings"):
        open_results(path, {"seed": 1}, fresh=False)
    assert open_results(path, {"seed": 1}, fresh=True) == {}


@pytest.fixture(scope="module")
def corpus(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation") / "corpus"
    writer = CorpusWriter(folder, name="drawn", licence="CC0-1.0", source="tests", fps=25, image_size=160)
    with writer.shard("test-00000") as shard:
        for number in range(2):
            frames = [cv2.imencode(".jpg", frame[:, 16:176, ::-1])[1].tobytes() for frame in clip.frames[:3]]
            points = (clip.landmarks[:3] - [16, 0]).astype(np.float32)
            shard.add(
                Clip(f"clip{number}", "test", f"person{number}", frames, clip.samples, {"landmarks": points})
            )
    writer.finish(["test-00000"])
    return folder


def test_command_writes_tables_and_continues(corpus, tiny_bundle, tmp_path, capsys):
    command = ["--corpus", str(corpus), "--bundle", str(tiny_bundle), "--out", str(tmp_path / "out")]
    command += ["--rows", "real", "--no-lpips", "--films", "--device", "cpu"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert set(results["clips"]) == {"clip0", "clip1"}
    assert results["clips"]["clip0"]["real"]["psnr"] is None  # infinite
    assert results["clips"]["clip1"]["real"]["ssim"] == pytest.approx(1)
    assert (tmp_path / "out/table.md").read_text() == printed
    assert (tmp_path / "out/clip1_real.mp4").stat().st_size > 500
    log = tmp_path / "out/clips.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:-1]) + "\n")
    assert main(command) == 0
    assert capsys.readouterr().out == printed
    assert log.read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "best"], "invalid choice: 'best'"),
        (["--corpus", "nowhere"], "nowhere"),
        (["--bundle", "unknown"], "unknown bundle"),
        (["--sync-expert", "absent.pth"], "absent.pth does not exist"),
    ],
)
def test_mistakes_are_one_line(corpus, arguments, message):
    command = {"--corpus": str(corpus), "--no-lpips": None, **dict([arguments])}
    flat = [part for pair in command.items() for part in pair if part is not None]
    with pytest.raises(TalkfaceError, match=message):
        main(flat)
