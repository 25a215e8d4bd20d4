"""The measuring scripts: stage times, film curves on another clock, tables."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from evaluate_grid import RealFilm, table, write_silence
from stage_clock import StageClock

from talkface.experts.judges import LipCurve
from talkface.media import read_audio


class Work:
    def act(self, value: int) -> int:
        return value + 1


def test_stage_clock_times_every_call_and_leaves_no_trace():
    ticks = iter(range(100))
    clock = StageClock(now=lambda: float(next(ticks)))
    one, other = Work(), Work()
    original = Work.act
    clock.wrap(one, "act", "one")
    assert one.act(1) == 2 and one.act(5) == 6 and other.act(1) == 2
    assert clock.times == {"one": [1.0, 1.0]} and clock.total("one") == 2
    clock.wrap(Work, "act", "all")
    assert other.act(2) == 3 and clock.total("all") == 1
    with pytest.raises(TypeError):
        other.act("x")
    assert len(clock.times["all"]) == 2  # a call that fails also took its time
    clock.undo()
    assert Work.act is original and "act" not in vars(one)


def test_real_gap_between_and_beyond_its_frames():
    times = (np.arange(5) + 0.5) / 25
    film = RealFilm(Path("a.mpg"), 25.0, times, LipCurve(np.arange(5.0), []), np.zeros((2, 2, 3), np.uint8))
    assert film.gap_at(times).tolist() == [0, 1, 2, 3, 4]
    between = film.gap_at(np.array([0.04, 0.10 + 1e-9, 0.3]))
    assert between[:2].tolist() == pytest.approx([0.5, 2.0]) and np.isnan(between[2])


def test_silence_is_silent_and_as_long_as_asked(tmp_path):
    write_silence(tmp_path / "s.wav", 1.25)
    sound = read_audio(tmp_path / "s.wav")
    assert len(sound.samples) == 20000 and not sound.samples.any()


def test_table_of_clips():
    rows = [
        {"clip": "a", "correlation": 0.5, "lag": 1, "amplitude": 1.0, "missing_real": [], "missing": [3]},
        {"clip": "b", "correlation": 0.7, "lag": -2, "amplitude": 0.6, "missing_real": [0], "missing": []},
    ]
    lines = table(rows).splitlines()
    assert lines[0] == "| clip | correlation | lag (frames) | amplitude ratio |"
    assert lines[2:5] == [
        "| a | 0.500 | +1 | 1.000 |",
        "| b | 0.700 | -2 | 0.600 |",
        "| **mean** | **0.600** | **-0.500** | **0.800** |",
    ]
    assert lines[-1] == "Frames in which the judge found no face: 2."
