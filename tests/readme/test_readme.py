"""Every command of the README: run where it takes seconds, otherwise at least understood by its program.

A command that no rule here covers fails: who writes a new kind of command into the README says here how it is
checked.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

from talkface import cli
from talkface.checkpoint import bundle_names
from talkface.data import Clip, CorpusWriter
from talkface.data.writer import encode_jpeg
from talkface.errors import TalkfaceError
from talkface.media import VideoWriter, open_video, read_audio, read_image
from talkface.pipelines.evaluate import add_arguments as add_evaluation_arguments

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL, PYTHON = {"", "sh", "bash", "shell", "console"}, "python"
PROGRAMS = ("make", "pip", "python", "talkface")
SECONDS = 0.2  # of sound: 5 frames

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")


def shell_commands(text: str) -> list[str]:
    """The lines of shell blocks, and code in running text that begins with a program; each once, in order."""
    found = []
    for language, block in FENCE.findall(text):
        if language in SHELL:
            found += block.replace("\\\n", " ").splitlines()
        elif language != PYTHON:
            raise AssertionError(
                f"README: a block of {language}; say in this test what is to be done with it"
            )
    for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        if code.split()[0] in PROGRAMS and " " in code:
            found.append(code)
    commands = [shlex.join(shlex.split(line, comments=True)) for line in found]
    return list(dict.fromkeys(command for command in commands if command))


def run(arguments: list[str], folder: Path) -> str:
    """Run a program to its end without an error; what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: the files that they name, with a short sound and a short film."""
    pytest.importorskip("skimage")
    made = tmp_path_factory.mktemp("readme")
    (made / "examples").mkdir()
    run([sys.executable, str(ROOT / "examples/astronaut.py"), "examples/astronaut.png"], made)
    with wave.open(str(ROOT / "examples/sentence.wav")) as whole:
        start, count = round(0.5 * whole.getframerate()), round(SECONDS * whole.getframerate())
        whole.setpos(start)
        with wave.open(str(made / "examples/sentence.wav"), "wb") as short:
            short.setparams(whole.getparams())
            short.writeframes(whole.readframes(count))
    shutil.copy(made / "examples/sentence.wav", made / "speech.wav")
    shutil.copy(made / "examples/astronaut.png", made / "face.png")
    samples = read_audio(made / "speech.wav").samples
    (made / "speech.pcm").write_bytes((samples * 32767).astype("<i2").tobytes())
    picture = read_image(made / "face.png")[:320, 60:380]
    with VideoWriter(made / "film.mp4", 25) as writer:
        for shift in range(5):
            writer.write(picture[:, shift : shift + 300])
    return made


def check_make(words: list[str], folder: Path) -> None:
    """What the target would do; the part of `make demo` that comes after the installation is done."""
    if shutil.which("make") is None:  # the README asks for make; the rest of the tests can do without
        pytest.skip("make is not installed")
    recipe = run(["make", "--dry-run", "--always-make", *words[1:]], ROOT).replace("\\\n", " ").splitlines()
    if words[1:] == ["demo"]:
        for line in recipe:
            program, *rest = shlex.split(line)
            if program.endswith("bin/talkface"):
                check_command(shlex.join(["talkface", *rest]), folder)
                return
        raise AssertionError("make demo runs no talkface")
    assert any("pytest" in line for line in recipe), recipe


def check_pip(words: list[str], folder: Path) -> None:
    """The extras that are named exist."""
    assert words[1] == "install" and len(words) == 3
    target = re.fullmatch(r"\.(?:\[([\w,-]+)\])?", words[2])
    assert target, words
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set((target.group(1) or "").split(",")) - {""} <= set(project["optional-dependencies"])


def check_python(words: list[str], folder: Path) -> None:
    """The script is there and its parser takes the options."""
    path = ROOT / words[1]
    spec = importlib.util.spec_from_file_location(f"readme_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # as python does for a script
    try:
        spec.loader.exec_module(script)
    finally:
        sys.path.remove(str(path.parent))
    parse: Callable[[list[str]], object] = (
        script.parser().parse_args if hasattr(script, "parser") else script.parse
    )
    parse(words[2:])


def check_sample_video(words: list[str], folder: Path) -> None:
    """A film comes out, of the length of the sound."""
    if words[2:] == ["--help"]:
        with pytest.raises(SystemExit) as end:
            cli.main(words[1:])
        assert end.value.code == 0
        return
    out = folder / cli.build_parser().parse_args(words[1:]).out
    out.unlink(missing_ok=True)
    run([sys.executable, "-m", "talkface.cli", *words[1:]], folder)
    assert open_video(out).num_frames == round(SECONDS * 25) and open_video(out).has_audio


def check_stream(words: list[str], folder: Path) -> None:
    """A film comes out, of the length of the sound."""
    out = folder / cli.build_parser().parse_args(words[1:]).out
    out.unlink(missing_ok=True)
    run([sys.executable, "-m", "talkface.cli", *words[1:]], folder)
    assert len(list(open_video(out))) == round(SECONDS * 25) and open_video(out).has_audio


def check_editing(words: list[str], folder: Path) -> None:
    """The options are known; where the bundle is installed, a few steps give a picture."""
    options = cli.build_parser().parse_args(words[1:])
    if "emotion" in bundle_names():
        given = [sys.executable, "-m", "talkface.cli", *words[1:], "--num-inference-steps", "2"]
        run(given, folder)
        if options.out is not None:
            assert read_image(folder / options.out).shape == read_image(folder / options.image).shape


def check_doctor(words: list[str], folder: Path) -> None:
    """It finds everything that the main job needs."""
    assert "sample-video can run" in run([sys.executable, "-m", "talkface.cli", *words[1:]], folder)


def check_fit(words: list[str], folder: Path) -> None:
    """The configuration is there and parses to its last key (`test_configs` builds it, `smoke` trains one)."""
    pytest.importorskip("pytorch_lightning")
    from talkface.fit import build

    if words[2:]:
        with pytest.raises(SystemExit) as end:
            build([*words[1:], "--print_config"])
        assert end.value.code == 0


def check_data(words: list[str], folder: Path) -> None:
    """It does what it says with a corpus of that name."""
    corpus = folder / cli.build_parser().parse_args(words[1:]).corpus
    if not corpus.exists():
        frames = [encode_jpeg(read_image(folder / "face.png")[:96, :96], 90)] * 2
        writer = CorpusWriter(corpus, name="two", licence="CC0-1.0", source="tests", fps=25, image_size=96)
        with writer.shard("train-0") as shard:
            sound = read_audio(folder / "speech.wav", 16000).samples[:1280]
            shard.add(Clip("clip-id", "train", "somebody", frames, sound))
        writer.finish(["train-0"])
    printed = run([sys.executable, "-m", "talkface.cli", *words[1:]], folder)
    expected = {"check": "content", "show": "clip-id.png", "cache": "latents: "}[words[2]]
    assert expected in printed and corpus.is_dir()


def check_evaluate_video(words: list[str], folder: Path) -> None:
    """The options are known."""
    parser = argparse.ArgumentParser()
    add_evaluation_arguments(parser)
    if words[2:]:
        parser.parse_args(words[2:])


RULES: dict[str, Callable[[list[str], Path], None]] = {
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
    "talkface sample-video": check_sample_video,
    "talkface stream": check_stream,
    "talkface edit-emotion": check_editing,
    "talkface reconstruct": check_editing,
    "talkface doctor": check_doctor,
    "talkface data": check_data,
    "talkface fit": check_fit,
    "talkface evaluate-video": check_evaluate_video,
}


def check_command(command: str, folder: Path) -> None:
    """Apply the rule of a command. Fails where there is none."""
    words = shlex.split(command)
    rule = RULES.get(words[0]) or RULES.get(" ".join(words[:2]))
    assert rule is not None, f"README: no rule here covers: {command}"
    rule(words, folder)


@pytest.mark.parametrize("command", shell_commands(README))
def test_command(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check_command(command, folder)


@pytest.mark.parametrize("code", [block for language, block in FENCE.findall(README) if language == PYTHON])
def test_python(code: str, folder: Path) -> None:
    assert run([sys.executable, "-c", code], folder).strip()


def test_every_path_that_is_named_exists() -> None:
    folders = "conf|data_prep|docs|examples|scripts|talkface|tests"
    named = set(re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]*\w", README))
    assert len(named) > 10
    made_by_examples = {"examples/astronaut.png"}
    assert [path for path in sorted(named - made_by_examples) if not (ROOT / path).exists()] == []


def test_commands_are_seen_and_strange_ones_are_refused(tmp_path: Path) -> None:
    text = "```\npip install . # now\n\n```\nor `talkface fly --high`, see `x.py`\n```bash\nmake \\\n  demo\n```\n"
    assert shell_commands(text) == ["pip install .", "make demo", "talkface fly --high"]
    for command in ("talkface fly --high", "rm README.md", "talkface"):
        with pytest.raises(AssertionError, match="no rule"):
            check_command(command, tmp_path)
    with pytest.raises(AssertionError):
        check_command("pip install '.[everything]'", tmp_path)
    with pytest.raises(FileNotFoundError):
        check_command("python scripts/nothing.py", tmp_path)
    pytest.importorskip("pytorch_lightning")
    with pytest.raises(TalkfaceError, match=r"nothing\.yaml"):
        check_command("talkface fit --config conf/nothing.yaml", tmp_path)
    with pytest.raises(TalkfaceError, match="--colour"):
        check_command("talkface sample-video --audio a.wav --id b.png --colour red", tmp_path)
    with pytest.raises(AssertionError, match="a block of ruby"):
        shell_commands("```ruby\nputs 1\n```\n")
