"""The evaluation of long films: what is put together, what is counted, what is kept."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from evaluate_long import Stages, findings, main
from likeness import Likeness, mean_distances
from long_film import (
    MINUTE,
    fit_sound,
    minute_rows,
    minutes,
    probe_frames,
    repeated,
    slope_a_minute,
    table,
    write_wav,
)
from peak_memory import peak_memory

from talkface.errors import TalkfaceError
from talkface.experts.face_landmarks import KnownLandmarks
from talkface.media import read_audio


def test_sounds_and_curves_stay_in_step(tmp_path):
    """A sound that says the number of its frame goes with a curve that says the same, after any repetition."""
    counts = (75, 60)
    curves = [np.arange(count) + 100.0 * k for k, count in enumerate(counts)]
    # the first sound is a little short, the second too long, as the tracks of films are
    sounds = [np.repeat(curve, 640) for curve in curves]
    sounds = [
        fit_sound(s, n) for s, n in zip((sounds[0][:-300], np.append(sounds[1], 7)), counts, strict=True)
    ]
    assert [len(sound) for sound in sounds] == [75 * 640, 60 * 640] and not sounds[0][-300:].any()
    curve, sound = repeated(curves, 400), repeated(sounds, 400 * 640)
    assert np.array_equal(sound[::640], curve) and curve[135] == 0 and curve[210] == 100
    write_wav(tmp_path / "long.wav", sound / 200)
    kept = read_audio(tmp_path / "long.wav")
    assert kept.sample_rate == 16000 and np.abs(kept.samples - sound / 200).max() < 1e-4


def test_probes_are_spread_and_not_periodic():
    probes = probe_frames(10 * MINUTE)
    assert len(probes) == 200 and np.array_equal(probes // 75, np.arange(200))
    assert len(set(probes % 75)) > 50  # films of 75 frames are repeated: all their moments are looked at
    assert np.array_equal(probes, probe_frames(10 * MINUTE))
    assert len(probe_frames(40)) == 1


@pytest.mark.parametrize(
    ("count", "expected"),
    [(700, [700]), (1500, [1500]), (2000, [2000]), (2250, [1500, 750]), (4600, [1500, 1500, 1600])],
)
def test_minutes_cover_every_frame_once(count, expected):
    parts = list(minutes(count))
    assert [part.stop - part.start for part in parts] == expected
    assert np.array_equal(np.concatenate([np.arange(count)[part] for part in parts]), np.arange(count))


def test_rows_see_the_minute_that_goes_wrong():
    rng = np.random.default_rng(0)
    real = rng.standard_normal(3 * MINUTE)
    made = np.roll(0.5 * real, 2)
    made[2 * MINUTE :] = rng.standard_normal(MINUTE)
    made[5] = np.nan
    probes = probe_frames(len(real))
    rows = minute_rows(real, made, probes, {"far": np.where(probes < MINUTE, 0.1, 0.3)})
    assert [row["lag"] for row in rows[:2]] == [2, 2]
    assert rows[0]["correlation"] > 0.99 and rows[1]["correlation"] > 0.99 and rows[2]["correlation"] < 0.2
    assert [row["faceless"] for row in rows] == [1, 0, 0] and rows[0]["amplitude"] == pytest.approx(
        0.5, abs=0.01
    )
    assert [row["far"] for row in rows] == pytest.approx([0.1, 0.3, 0.3])
    lines = table(rows, {"far": {"another person": 0.9}}).splitlines()
    assert lines[0].endswith("| far distance |") and lines[2].endswith("| +2 | 0.50 | 0.1000 |")
    assert lines[-1] == "far distance from the picture, for scale: another person 0.9000."


def test_slope_and_its_interval():
    frames = probe_frames(10 * MINUTE)
    assert slope_a_minute(frames, 0.2 + 0.03 * frames / MINUTE) == pytest.approx((0.03, 0), abs=1e-9)
    rng, inside = np.random.default_rng(1), 0
    for _ in range(300):
        slope, half = slope_a_minute(frames, 0.02 * frames / MINUTE + rng.standard_normal(len(frames)))
        inside += abs(slope - 0.02) < half
    assert 0.9 < inside / 300 < 0.99
    assert np.isnan(slope_a_minute(frames[:2], frames[:2])).all()


def test_findings_name_growth_beyond_what_is_wanted():
    rows = [{"correlation": 0.5}, {"correlation": 0.4}]
    for long, word in ((700.0, "+200 MB, within"), (701.0, "+201 MB, NOT within")):
        text = findings(
            {
                "peak_mb": {"short": 500.0, "long": long},
                "minutes": rows,
                "slope_a_minute": {"far": (0.1, 0.02)},
            }
        )
        assert word in text and "0.500 in the first minute, 0.400 in the last" in text
        assert "far distance: +0.10000 ± 0.02000 a minute" in text


def test_stages_are_done_once_and_only_for_one_plan(tmp_path):
    calls: list[int] = []

    def work() -> int:
        calls.append(1)
        (tmp_path / "film").write_text("x")
        return len(calls)

    for _ in range(2):  # a second run finds what the first one left
        stages = Stages(tmp_path / "stages.json", {"minutes": 1, "films": [["a", 1]]})
        assert stages.get("film", work, tmp_path / "film") == 1
    (tmp_path / "film").unlink()
    assert stages.get("film", work, tmp_path / "film") == 2
    assert json.loads((tmp_path / "stages.json").read_text())["done"] == {"film": 2}
    with pytest.raises(TalkfaceError, match="another minutes"):
        Stages(tmp_path / "stages.json", {"minutes": 2, "films": [["a", 1]]})


def test_mean_distances_by_kind_leave_out_pictures_without_a_face():
    def grey(level):
        return np.full((40, 40, 3), level, np.uint8)

    class Finder(KnownLandmarks):
        def find(self, image):
            return [] if image[0, 0, 0] == 99 else super().find(image)

    points = np.random.default_rng(0).uniform(5, 35, (68, 2))
    way = Likeness(
        lambda picture, where: float(picture.mean()) + (where[0, 0] - points[0, 0]), lambda a, b: abs(a - b)
    )
    others = [("near", grey(12)), ("near", grey(14)), ("far", grey(50)), ("far", grey(99))]
    found = mean_distances(grey(10), points, others, Finder(points), {"level": way})
    assert found["level"] == pytest.approx({"near": 3, "far": 40}, abs=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_that_of_the_command(capfd):
    ballast = bytearray(300_000_000)  # what this process holds must not count
    assert 5 < peak_memory(["version"]) < 100
    assert len(ballast) == 300_000_000
    with pytest.raises(TalkfaceError, match="exit code 2"):
        peak_memory(["sing"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--minutes", "0.1"], "--minutes: 0.1; allowed are 0.25 to 60"),
        ([], "holds 0 files"),
        (["--films", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_bad_input_is_named_before_any_work(tmp_path, options, words):
    base = ["--films", str(tmp_path), "--task", "none.task", "--out", str(tmp_path / "out")]
    with pytest.raises(TalkfaceError, match=words):
        main([*base, *options])
    assert not (tmp_path / "out").exists()
