"""The command line: quick help, a film for every good input, one clear line and exit 2 for every bad one."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from talkface import cli
from talkface.checkpoint import load_bundle
from talkface.experts import faces
from talkface.experts.face_landmarks import KnownLandmarks
from talkface.media import VideoReader, VideoWriter, read_image

RATE = 16000


def speech(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A hum whose loudness goes up and down like syllables, int16 (samples, channels)."""
    time_ = np.arange(int(seconds * rate)) / rate
    hum = np.sin(2 * np.pi * 180 * time_) * (0.2 + 0.2 * np.sin(2 * np.pi * 4 * time_))
    return np.repeat((hum * 20000).astype(np.int16)[:, None], channels, axis=1)


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "speech.wav", speech(0.4))


@pytest.fixture
def picture(tmp_path: Path, draw_faces: Callable[..., np.ndarray]) -> Path:
    path = tmp_path / "face.png"
    Image.fromarray(draw_faces(160, 240, [(60, 20, 128)])).save(path)
    return path


@pytest.fixture
def talk(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn_face_finder, capsys):
    """talk(sound, picture, *options) -> (exit code, lines on stderr, film); the finder knows drawn faces."""
    monkeypatch.setattr(faces, "NetworkFaceFinder", lambda network, mouth=None: drawn_face_finder)

    def run(
        audio: Path, identity: Path, *options: str, out: Path | None = None
    ) -> tuple[int, list[str], Path]:
        out = out or tmp_path / "out" / "talking.mp4"
        if out.parent == tmp_path / "out":
            out.parent.mkdir(exist_ok=True)
        capsys.readouterr()
        files = ["--audio", str(audio), "--id", str(identity), "--out", str(out)]
        code = cli.main(["sample-video", *files, "--bundle", str(tiny_bundle), "--device", "cpu", *options])
        return code, capsys.readouterr().err.splitlines(), out

    return run


def refused(result: tuple[int, list[str], Path], *words: str) -> str:
    """Check that a run ended with exit 2, one line with all `words`, and no film; return the line."""
    code, lines, out = result
    assert code == 2, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith("talkface: error: ")
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
    if out.parent.is_dir():
        assert not [path for path in out.parent.iterdir() if "talking" in path.name], (
            "something was half-written"
        )
    return lines[0]


def made(result: tuple[int, list[str], Path], frames: int) -> VideoReader:
    """Check that a run made a film of so many frames with sound; return it."""
    code, lines, out = result
    assert code == 0, lines
    film = VideoReader(out)
    assert film.num_frames == frames
    assert film.has_audio
    return film


# --- help, versions --------------------------------------------------------------------------------------


def test_help_answers_in_half_a_second() -> None:
    """Counted in processor seconds, which other programs on the machine cannot stretch much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "talkface.cli", "--help"], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    for verb in (
        "sample-video",
        "sample-images",
        "edit-emotion",
        "interpolate",
        "reconstruct",
        "neighbours",
        "doctor",
        "fit",
        "validate",
        "test",
        "predict",
        "evaluate-video",
        "version",
    ):
        assert verb in done.stdout


def test_help_and_mistakes_import_nothing_heavy() -> None:
    code = (
        "import sys; from talkface import cli; "
        "assert cli.main(['sample-video', '--audio', 'no', '--id', 'no']) == 2; "
        "print(sorted({'torch', 'numpy', 'cv2', 'av', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from talkface import __version__

    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out.strip() == f"talkface {__version__}"


def test_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "talkface", "sample-video"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("talkface: error:")


@pytest.mark.parametrize("arguments", [[], ["sing"], ["sample-video"], ["doctor", "--colour"]])
def test_unknown_arguments_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("talkface: error: ")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--fps", "0"),
        ("--fps", "fast"),
        ("--fps", "1/0"),
        ("--num-inference-steps", "0"),
        ("--num-inference-steps", "1001"),
        ("--guidance-scale", "nan"),
        ("--guidance-scale", "-1"),
        ("--seed", "-1"),
        ("--face", "0"),
        ("--batch-size", "0"),
        ("--mode", "magic"),
        ("--precision", "fp8"),
        ("--max-duration", "0"),
    ],
)
def test_numbers_out_of_range_name_what_is_allowed(
    talk, sound: Path, picture: Path, option: str, value: str
) -> None:
    line = refused(talk(sound, picture, option, value), option, value.replace("1/0", ""))
    assert "allowed" in line or "choose from" in line


# --- good input ------------------------------------------------------------------------------------------


def test_a_picture_becomes_a_film(talk, sound: Path, picture: Path, capsys) -> None:
    film = made(talk(sound, picture), frames=10)
    assert film.rate == 25
    assert film.size == (160, 240)
    with av.open(str(film.path)) as container:
        tracks = {stream.type: float(stream.duration * stream.time_base) for stream in container.streams}
    assert tracks == {"video": pytest.approx(0.4), "audio": pytest.approx(0.4)}


@pytest.mark.parametrize(
    ("fps", "rate", "frames"), [("23.976", Fraction(24000, 1001), 10), ("50", 50, 20), ("12.5", 12.5, 5)]
)
def test_the_frame_rate_can_be_chosen(
    talk, sound: Path, picture: Path, fps: str, rate: object, frames: int
) -> None:
    assert made(talk(sound, picture, "--fps", fps), frames).rate == rate


def test_crop_writes_the_square_face(talk, sound: Path, picture: Path) -> None:
    assert made(talk(sound, picture, "--crop"), frames=10).size == (32, 32)


@pytest.mark.parametrize(
    "options",
    [
        ("--mode", "autoregressive", "--eta", "1"),
        ("--emotion", "happy", "--emotion-intensity", "0.5"),
        ("--motion", "lively"),
        ("--guidance-scale", "1", "--num-inference-steps", "3"),
        ("--precision", "bf16", "--batch-size", "3"),
    ],
)
def test_every_method_makes_all_frames(talk, sound: Path, picture: Path, options: tuple[str, ...]) -> None:
    made(talk(sound, picture, *options), frames=10)


def test_same_seed_same_bytes_for_batch_sizes_1_and_8(
    talk, sound: Path, picture: Path, tmp_path: Path
) -> None:
    films = [
        talk(sound, picture, "--seed", seed, "--batch-size", size, out=tmp_path / f"{seed}-{size}.mp4")[
            2
        ].read_bytes()
        for seed, size in (("7", "1"), ("7", "8"), ("8", "8"))
    ]
    assert films[0] == films[1]
    assert films[0] != films[2]


def test_the_film_says_how_it_was_made(talk, sound: Path, picture: Path) -> None:
    with av.open(str(talk(sound, picture, "--seed", "5")[2])) as container:
        assert container.metadata["comment"] == "generated by talkface"
        details = json.loads(container.metadata["description"])
    assert details["seed"] == 5
    assert details["bundle"] == "tiny"


def test_the_mouth_of_a_film_is_made_again_in_its_own_rate(
    talk, sound: Path, tmp_path: Path, draw_faces
) -> None:
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, Fraction(30000, 1001)) as writer:
        for k in range(15):
            writer.write(draw_faces(160, 240, [(50 + k, 20, 128)]))
    film = made(talk(sound, clip), frames=12)
    assert film.rate == Fraction(30000, 1001)


def test_a_film_whose_face_disappears_keeps_its_frames_and_their_places(
    talk, sound: Path, tmp_path: Path, draw_faces
) -> None:
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, 25, crf=0) as writer:
        for k in range(10):
            writer.write(draw_faces(160, 240, [] if 3 <= k < 6 else [(60, 20, 128)]))
    code, lines, out = talk(sound, clip)
    made((code, lines, out), frames=10)
    assert "3 frames show no face and are unchanged" in lines[-1]
    before, after = list(VideoReader(clip)), list(VideoReader(out))
    changed = [np.abs(a.astype(int) - b).max() > 40 for a, b in zip(before, after, strict=True)]
    assert changed == [True] * 3 + [False] * 3 + [True] * 4


# --- faces -----------------------------------------------------------------------------------------------


def save(tmp_path: Path, array: np.ndarray, name: str = "id.png") -> Path:
    Image.fromarray(array).save(tmp_path / name)
    return tmp_path / name


def test_no_face(talk, sound: Path, tmp_path: Path, draw_faces) -> None:
    empty = save(tmp_path, draw_faces(120, 160, []))
    refused(talk(sound, empty), "no face", str(empty), "160 x 120")


def test_no_face_with_the_network_of_the_bundle(
    tiny_bundle: Path, sound: Path, tmp_path: Path, draw_faces, capsys
) -> None:
    empty = save(tmp_path, draw_faces(120, 160, []))
    out = tmp_path / "talking.mp4"
    arguments = ["--audio", str(sound), "--id", str(empty), "--out", str(out), "--bundle", str(tiny_bundle)]
    code = cli.main(["sample-video", *arguments])
    refused((code, capsys.readouterr().err.splitlines(), out), "face")


def test_of_several_faces_the_largest_is_taken_and_said(
    talk, sound: Path, tmp_path: Path, draw_faces
) -> None:
    squares = [(10, 20, 96), (120, 10, 128), (260, 60, 72)]
    original = draw_faces(160, 340, squares)
    two = save(tmp_path, original)

    def repainted(*options: str) -> tuple[int, list[str]]:
        """Which of the three faces is another one now."""
        code, lines, out = talk(sound, two, *options)
        assert code == 0
        difference = np.abs(next(iter(VideoReader(out))).astype(int) - original).max(axis=2)
        sums = [difference[y : y + side, x : x + side].mean() for x, y, side in squares]
        return int(np.argmax(sums)), lines

    chosen, lines = repainted()
    assert chosen == 1
    assert "3 faces" in lines[0]
    assert "--face" in lines[0]
    assert repainted("--face", "2") == (0, [])
    assert repainted("--face", "3") == (2, [])
    other = tmp_path / "empty" / "talking.mp4"
    other.parent.mkdir()
    refused(talk(sound, two, "--face", "4", out=other), "face: 4", "1 to 3")


def test_a_face_cut_by_the_border(
    talk, sound: Path, tmp_path: Path, draw_faces, monkeypatch, drawn_face_finder
) -> None:
    whole = draw_faces(160, 240, [(60, 20, 128)])
    points = drawn_face_finder.find(whole)[0].points - np.float32([110, 0])
    monkeypatch.setattr(faces, "NetworkFaceFinder", lambda network, mouth=None: KnownLandmarks(points))
    refused(talk(sound, save(tmp_path, whole[:, 110:])), "cut by the border")


def test_a_face_of_20_pixels(talk, sound: Path, tmp_path: Path, draw_faces) -> None:
    small = save(tmp_path, draw_faces(100, 100, [(30, 30, 28)]))
    refused(talk(sound, small), "pixels large; at least 32")


# --- pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["grey", "rgba", "16 bit", "rotated", "cmyk", "animated", "palette"])
def test_every_kind_of_picture_is_read(talk, sound: Path, tmp_path: Path, draw_faces, kind: str) -> None:
    array = draw_faces(160, 240, [(60, 20, 128)])
    image, path = Image.fromarray(array), tmp_path / "id.png"
    if kind == "grey":
        image.convert("L").save(path)
    elif kind == "rgba":
        image.putalpha(255)
        image.save(path)
    elif kind == "16 bit":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        path = path.with_suffix(".jpg")
        image.rotate(90, expand=True).save(path, exif=exif, quality=95)
    elif kind == "cmyk":
        path = path.with_suffix(".jpg")
        image.convert("CMYK").save(path, quality=95)
    elif kind == "animated":
        path = path.with_suffix(".gif")
        image.save(path, save_all=True, append_images=[image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)])
    else:
        image.convert("P").save(path)
    film = made(talk(sound, path), frames=10)
    assert film.size == (160, 240)


def test_a_truncated_picture(talk, sound: Path, picture: Path) -> None:
    picture.write_bytes(picture.read_bytes()[:1000])
    refused(talk(sound, picture), str(picture))


def test_a_file_that_is_no_picture(talk, sound: Path, tmp_path: Path) -> None:
    text = tmp_path / "face.png"
    text.write_text("this is no picture")
    refused(talk(sound, text), str(text))


# --- sounds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (48000, 2), (16000, 7), (44100, 1)])
def test_every_kind_of_sound_is_read(talk, picture: Path, tmp_path: Path, rate: int, channels: int) -> None:
    path = write_wav(tmp_path / "a.wav", speech(0.4, rate, channels), rate)
    made(talk(path, picture), frames=10)


def test_silence_makes_a_film_and_is_said(talk, picture: Path, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.zeros((6400, 1), np.int16))
    result = talk(path, picture)
    made(result, frames=10)
    assert "silent" in result[1][0]


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a sound at all" * 50])
def test_an_empty_or_corrupt_sound(talk, picture: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    refused(talk(path, picture), str(path))


def test_a_sound_without_samples(talk, picture: Path, tmp_path: Path) -> None:
    refused(talk(write_wav(tmp_path / "a.wav", np.zeros((0, 1), np.int16)), picture), "a.wav")


def test_a_sound_of_50_milliseconds(talk, picture: Path, tmp_path: Path) -> None:
    refused(talk(write_wav(tmp_path / "a.wav", speech(0.05)), picture), "too short", "0.05")


def test_a_sound_that_is_too_long(talk, picture: Path, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", speech(2.0))
    refused(talk(path, picture, "--max-duration", "1.5"), "too long", "2 s")
    hours = write_wav(tmp_path / "b.wav", np.zeros((8000 * 3 * 3600, 1), np.int16), 8000)
    started = time.perf_counter()
    refused(talk(hours, picture), "too long", "10800 s", "3600 s")
    assert time.perf_counter() - started < 5


def test_a_film_given_as_sound_must_have_sound(talk, picture: Path, tmp_path: Path, draw_faces) -> None:
    silent = tmp_path / "silent.mp4"
    with VideoWriter(silent, 25) as writer:
        writer.write(draw_faces(64, 64, []))
    refused(talk(silent, picture), str(silent), "no sound")


# --- places, weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--audio", "--id"])
def test_a_missing_file(talk, sound: Path, picture: Path, tmp_path: Path, option: str) -> None:
    none = tmp_path / "none.xyz"
    refused(
        talk(none if option == "--audio" else sound, none if option == "--id" else picture),
        option,
        "none.xyz",
    )


def test_the_output_folder_is_missing(talk, sound: Path, picture: Path, tmp_path: Path) -> None:
    refused(talk(sound, picture, out=tmp_path / "no" / "talking.mp4"), "does not exist", "mkdir -p")


def test_the_output_folder_cannot_be_written(talk, sound: Path, picture: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        folder = Path("/proc")  # permissions do not stop root, this does
    else:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
    refused(talk(sound, picture, out=folder / "talking.mp4"), "cannot be written")


def test_the_output_is_a_folder_no_film_or_an_input(talk, sound: Path, picture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "f.mp4"
    folder.mkdir()
    assert "folder" in talk(sound, picture, out=folder)[1][0]
    refused(talk(sound, picture, out=tmp_path / "talking.gif"), "talking.gif", ".mp4")
    clip = tmp_path / "clip.mp4"
    shutil.copy(sound, clip)
    code, lines, _ = talk(clip, picture, out=clip)
    assert code == 2
    assert "also an input" in lines[0]
    assert clip.read_bytes() == sound.read_bytes()


def test_an_unknown_bundle(talk, sound: Path, picture: Path) -> None:
    refused(talk(sound, picture, "--bundle", "defalt"), "unknown bundle: defalt", "path")


@pytest.mark.parametrize("change", ["cut", "flip"])
def test_damaged_weights(
    talk, tiny_bundle: Path, sound: Path, picture: Path, tmp_path: Path, change: str
) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    path = copy / "network.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x55
    path.write_bytes(data if change == "flip" else data[:-100])
    refused(talk(sound, picture, "--bundle", str(copy)), "weights are damaged", str(path))


def test_an_emotion_that_the_bundle_does_not_have(talk, sound: Path, picture: Path) -> None:
    refused(talk(sound, picture, "--emotion", "bored"), "bored", "neutral, happy")


def test_motion_of_a_film_and_values_that_are_not_allowed(
    talk, sound: Path, picture: Path, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, 25) as writer:
        for _ in range(5):
            writer.write(read_image(picture))
    refused(talk(sound, clip, "--motion", "subtle"), "motion: subtle", "for pictures")
    refused(talk(sound, picture, "--motion", "wild"), "wild", "subtle")
    refused(talk(sound, picture, "--emotion", "happy", "--emotion-intensity", "1.5"), "1.5", "0 to 1")


def test_a_device_that_is_not_there(talk, sound: Path, picture: Path) -> None:
    refused(talk(sound, picture, "--device", "tpu"), "tpu", "cpu")
    refused(talk(sound, picture, "--precision", "fp16"), "fp16", "CUDA")


def test_debug_shows_the_traceback(talk, sound: Path, picture: Path) -> None:
    code, lines, _ = talk(sound, picture, "--emotion", "bored", "--debug")
    assert code == 2
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("talkface: error: ")


def test_a_defect_is_one_line_too(capsys, monkeypatch) -> None:
    def broken(options: object) -> int:
        raise KeyError("inner")

    monkeypatch.setattr(cli, "_version", broken)
    assert cli.main(["version"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "KeyError" in lines[0]
    assert "--debug" in lines[0]


# --- Ctrl-C ----------------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c_arrives():
    """A program started in the background ignores Ctrl-C, and so would the tests run by it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_arrives")
def test_ctrl_c_leaves_a_playable_film_of_what_was_done(
    talk, picture: Path, tmp_path: Path, monkeypatch
) -> None:
    sound = write_wav(tmp_path / "long.wav", speech(20.0))
    write = VideoWriter.write

    def write_and_interrupt(self: VideoWriter, frame: np.ndarray) -> None:
        write(self, frame)
        if self.frames_written == 6:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(VideoWriter, "write", write_and_interrupt)
    code, lines, out = talk(sound, picture)
    assert code == 130
    assert "interrupted" in lines[-1]
    film = VideoReader(out)
    assert 6 <= film.num_frames < 500
    assert len(list(film)) == film.num_frames
    assert [path.name for path in out.parent.iterdir()] == ["talking.mp4"]
    assert not [thread for thread in threading.enumerate() if thread.name == "talkface-sampler"]


@pytest.mark.usefixtures("ctrl_c_arrives")
def test_ctrl_c_before_the_first_frame_leaves_nothing(talk, sound: Path, picture: Path, monkeypatch) -> None:
    def interrupt(self: VideoWriter, frame: np.ndarray) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(VideoWriter, "write", interrupt)
    code, lines, out = talk(sound, picture)
    assert code == 130
    assert "nothing was written" in lines[-1]
    assert list(out.parent.iterdir()) == []


# --- doctor ----------------------------------------------------------------------------------------------


def test_doctor_checks_the_main_job(tiny_bundle: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    from talkface import checkpoint

    shutil.copytree(tiny_bundle, tmp_path / "default")
    monkeypatch.setattr(checkpoint, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setenv("TALKFACE_CACHE", str(tmp_path / "cache"))
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in (
        "torch",
        "libx264",
        "aac",
        "cpu",
        "bundle default",
        "hashes agree",
        "CC0-1.0",
        "GB free",
        "[train]",
        "expert [CLIP]",
        "expert [identity]        ArcFace IR-SE50: no model_ir_se50.pth",
        "TreB1eN/InsightFace_Pytorch; give its path or put it into",
    ):
        assert word in text


def test_doctor_finds_damage_and_missing_packages(
    tiny_bundle: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    from talkface import checkpoint, doctor

    copy = shutil.copytree(tiny_bundle, tmp_path / "default")
    with (copy / "network.safetensors").open("ab") as file:
        file.write(b"x")
    monkeypatch.setattr(checkpoint, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setattr(doctor, "NEEDED", ("torch", "no-such-package"))
    monkeypatch.setitem(doctor.EXTRAS, "magic", ("magic", ("no_such_module",)))
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "weights are damaged" in text
    assert "pip install 'no-such-package'" in text
    assert "pip install 'talkface[magic]'" in text
    assert "2 problem(s)" in text


def test_doctor_without_a_bundle_says_how_to_get_one(tmp_path: Path, monkeypatch, capsys) -> None:
    from talkface import checkpoint

    monkeypatch.setattr(checkpoint, "WEIGHTS_FOLDER", tmp_path)
    assert cli.main(["doctor"]) == 1
    assert "train_bundle.py" in capsys.readouterr().out


def test_the_first_frame_of_a_crop_is_the_face(talk, sound: Path, picture: Path) -> None:
    """The upper half of the square is not painted, so it is that of the picture."""
    from talkface.portrait.crop import AlignedCrop

    film = made(talk(sound, picture, "--crop"), frames=10)
    upper = next(iter(film))[:12].astype(float)
    finder = faces.NetworkFaceFinder(None)
    array = read_image(picture)
    crop = AlignedCrop.from_landmarks(array, finder.find(array)[0].points, size=32)
    assert np.abs(upper - crop.image[:12]).mean() < 6


# --- export ---------------------------------------------------------------------------------------------


@pytest.fixture
def run_files(tmp_path: Path, tiny_bundle: Path) -> tuple[Path, Path]:
    """What `talkface fit` leaves behind: a checkpoint of the tiny bundle's networks and its YAML."""
    bundle = load_bundle(tiny_bundle)
    trained = ("network", "first_stage", "conditioner")
    state = {
        f"{part}.{key}": value for part in trained for key, value in bundle.part(part).state_dict().items()
    }
    arguments = {part: bundle.specs[part] for part in trained}
    arguments |= {"schedule": bundle.meta["schedule"], "prediction_type": "epsilon", "learning_rate": 1e-3}
    checkpoint, config = tmp_path / "last.ckpt", tmp_path / "talking.yaml"
    torch.save({"state_dict": state, "hyper_parameters": arguments, "epoch": 3}, checkpoint)
    config.write_text(
        "data:\n  class_path: talkface.data.modules.TalkingDataModule\n  init_args:\n"
        "    encoder: {class_path: talkface.experts.speech.LogMelEncoder, init_args: {bands: 8}}\n"
        "    window: 2\n    window_rate: 25.0\n    image_size: 32\n"
    )
    return checkpoint, config


def test_a_training_becomes_a_bundle_that_makes_the_same_film(
    talk, run_files, tiny_bundle: Path, sound: Path, picture: Path, tmp_path: Path
) -> None:
    checkpoint, config = run_files
    out = tmp_path / "mine"
    arguments = ["--checkpoint", str(checkpoint), "--config", str(config), "--base", str(tiny_bundle)]
    assert cli.main(["export", *arguments, "--out", str(out)]) == 0
    steps = ("--num-inference-steps", "3", "--guidance-scale", "1")
    film = list(made(talk(sound, picture, *steps, "--bundle", str(out)), 10))
    meta = load_bundle(out).meta
    assert meta["emotions"][1] == "happy"
    again = shutil.copytree(tiny_bundle, tmp_path / "again")
    description = json.loads((again / "bundle.json").read_text())
    description["meta"]["timestep_spacing"] = "trailing"
    (again / "bundle.json").write_text(json.dumps(description))
    expected = list(made(talk(sound, picture, *steps, "--bundle", str(again)), 10))
    assert np.array_equal(film, expected)


def test_export_refuses_what_is_no_talking_face(run_files, tiny_bundle: Path, tmp_path: Path, capsys) -> None:
    checkpoint, config = run_files
    empty = tmp_path / "empty.yaml"
    empty.write_text("trainer: {}\n")
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {}}, other)
    for files, words in (
        ((checkpoint, empty), "no readable data section"),
        ((other, config), "not described by a class path"),
        ((config, config), "cannot be read safely"),
    ):
        arguments = ["--checkpoint", str(files[0]), "--config", str(files[1]), "--base", str(tiny_bundle)]
        assert cli.main(["export", *arguments, "--out", str(tmp_path / "out")]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert words in lines[0]
    assert not (tmp_path / "out").exists()
