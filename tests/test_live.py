"""`talkface stream`: films and raw frames from a file, from a pipe; readers that leave; one line for every mistake."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from talkface import cli
from talkface.experts import faces
from talkface.media import VideoReader, read_audio
from talkface.pipelines.talking_face import TalkingFacePipeline

RATE = 16000
HUM = (8000 * np.sin(np.arange(RATE) / 20) * np.sin(np.arange(RATE) / 900)).astype("<i2")


@pytest.fixture
def picture(tmp_path: Path, draw_faces: Callable[..., np.ndarray]) -> Path:
    path = tmp_path / "face.png"
    Image.fromarray(draw_faces(160, 240, [(60, 20, 128)])).save(path)
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.pcm"
    path.write_bytes(HUM.tobytes())
    return path


@pytest.fixture
def stream(tiny_bundle: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, drawn_face_finder):
    """stream(*options) -> exit code of `talkface stream`; the finder knows drawn faces."""
    monkeypatch.setattr(faces, "NetworkFaceFinder", lambda network, mouth=None: drawn_face_finder)

    def run(*options: str | Path) -> int:
        arguments = ["stream", "--id", picture, "--bundle", tiny_bundle, "--device", "cpu", *options]
        return cli.main([str(argument) for argument in arguments])

    return run


def test_a_film_with_its_sound(stream, sound, tmp_path, capsys):
    out = tmp_path / "film.mp4"
    assert stream("--audio", sound, "--out", out) == 0
    assert "film.mp4: 25 frames, 1.00 s" in capsys.readouterr().err
    film = VideoReader(out)
    assert len(list(film)) == 25 and film.has_audio
    heard = read_audio(out).samples[:RATE]
    assert np.corrcoef(heard, HUM[: len(heard)])[0, 1] > 0.9


def test_raw_frames_from_a_pipe(
    stream, tiny_pipeline: TalkingFacePipeline, picture, monkeypatch, capsysbinary
):
    out, into = os.pipe()

    def speak() -> None:
        with open(into, "wb", buffering=0) as pipe:
            for part in np.array_split(HUM, 30):
                pipe.write(part.tobytes())

    speaker = threading.Thread(target=speak)
    with open(out) as standard_input:
        monkeypatch.setattr("sys.stdin", standard_input)
        speaker.start()
        assert stream("--out", "-", "--precision", "fp32", "--group", "2") == 0
    speaker.join()
    written = np.frombuffer(capsysbinary.readouterr().out, np.uint8).reshape(25, 160, 240, 3)
    wanted = np.stack(list(tiny_pipeline.stream([HUM], picture, group=2)))
    assert np.array_equal(written, wanted)


def test_who_watches_may_leave(stream, sound, monkeypatch, capsys):
    out, into = os.pipe()
    os.close(out)
    with io.TextIOWrapper(open(into, "wb"), write_through=True) as standard_output:
        monkeypatch.setattr("sys.stdout", standard_output)
        assert stream("--audio", sound, "--out", "-") == 0
        monkeypatch.undo()
    assert "-: 0 frames" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--audio", "nothing.pcm"], "--audio: nothing.pcm does not exist; give a file, a named pipe or -"),
        (["--audio", "."], "--audio: . is a folder"),
        (["--audio", "{sound}", "--out", "a.avi"], "--out: a.avi is no film name"),
        (["--audio", "{sound}", "--id", "nobody.png"], "--id: nobody.png does not exist"),
        (["--audio", "{sound}", "--lookahead", "-1"], "--lookahead: -1; allowed are numbers from 0 to 10"),
        (["--audio", "{sound}", "--group", "65"], "--group: 65; allowed are whole numbers, 1 to 64"),
        (["--audio", "{picture}"], "sound: this is png; allowed are raw 16-bit samples and wav"),
        (["--audio", "{empty}"], "sound: 0.000 s is less than half a frame"),
    ],
)
def test_mistakes_are_one_line(stream, sound, picture, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.pcm").touch()
    names = {"sound": sound, "picture": picture, "empty": "empty.pcm"}
    assert stream("--out", "a.mp4", *(option.format(**names) for option in options)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "a.mp4").exists()
