"""Streaming: how good the lips are for how much lookahead, how late the frames come, how much memory is used.

    python scripts/bench_stream.py --films FOLDER          # everything; the 10 minutes of sound take longest
    python scripts/bench_stream.py --only delay --quick

Prints markdown for `docs/talking_film.md` (lookahead) and `docs/benchmarks.md` (the rest). Time of the processor is
that of this process, all its threads together: other work on the machine hardly changes it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from talkface import TalkingFacePipeline
from talkface.errors import TalkfaceError
from talkface.media import read_audio, read_image
from talkface.pipelines.sources import FoundFace
from talkface.pipelines.streaming import LiveSound

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".mpg", ".mp4", ".mov", ".mkv", ".avi", ".webm", ".wav", ".flac"}
LOOKAHEADS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.8)
GROUPS = (1, 2, 4, 8)
FPS = Fraction(25)
CHUNK = 320  # samples: 20 ms, as telephones send them
SAMPLE = """
import sys, itertools, numpy as np
from talkface import TalkingFacePipeline
from talkface.media import read_audio
picture, sound, seconds, guide, bundle = sys.argv[1:]
samples = np.resize(read_audio(sound).samples, 16000)
chunks = (samples[s:s + 320] for _ in range(int(seconds)) for s in range(0, 16000, 320))
def status(key):
    return int(next(l.split()[1] for l in open("/proc/self/status") if l.startswith(key)))
pipeline = TalkingFacePipeline.from_pretrained(bundle, "cpu")
for number, frame in enumerate(pipeline.stream(chunks, picture, guide=guide), start=1):
    if number % 1500 == 0:
        print(number // 1500, status("VmRSS") / 1024, status("VmHWM") / 1024, flush=True)
"""


def chunks_of(samples: np.ndarray) -> Iterator[np.ndarray]:
    """The sound (n,) in chunks as they come over a wire."""
    for start in range(0, len(samples), CHUNK):
        yield samples[start : start + CHUNK]


def actions(speech: Any, samples: np.ndarray, group: int, lookahead: float | None, level: Any) -> np.ndarray:
    """Facial actions (T, A) of the frames, as they were known when the frame was made."""
    sound = LiveSound(
        chunks_of(samples), speech, group=group, lookahead=lookahead, level=level, device=torch.device("cpu")
    )
    # only features are asked for here: nobody reads the crop
    face = FoundFace(np.zeros((1, 1, 3), np.uint8), np.zeros((68, 2)), None, 1)  # type: ignore[arg-type]
    rows = []
    for shot in sound.shots(face, FPS, 0.0):
        both = sound.features[
            torch.tensor([2 * shot.index, min(2 * shot.index + 1, len(sound.features) - 1)])
        ]
        rows.append(speech.to_actions(both.mean(0), speech.actions).numpy())
    return np.stack(rows)


def bench_lookahead(options: argparse.Namespace, pipeline: TalkingFacePipeline) -> str:
    """Correlation with the actions told from the whole sound, by lookahead; level estimated on the way."""
    speech = pipeline.speech
    jaw = speech.actions.index("jawOpen")
    paths = sorted(path for path in options.films.iterdir() if path.suffix.lower() in SUFFIXES)
    lines = [
        "| lookahead (s) | level | frames a group | delay (s) | jaw correlation | all actions | amplitude of the jaw "
        "| steps at group borders |",
        "|---" * 8 + "|",
    ]
    for level_known in (True, False):
        for group in (8, 2):
            for seconds in LOOKAHEADS:
                rows = []
                for path in paths:
                    samples = read_audio(path).samples
                    whole = actions(speech, samples, group, None, None)
                    level = speech.level(torch.from_numpy(samples)[None]) if level_known else None
                    live = actions(speech, samples, group, seconds, level)
                    moving = whole.std(0) > 0.005
                    agree = [np.corrcoef(whole[:, k], live[:, k])[0, 1] for k in np.flatnonzero(moving)]
                    steps = [
                        np.abs(np.diff(values, axis=0)).mean(1)[group - 1 :: group].mean()
                        for values in (live, whole)
                    ]
                    rows.append(
                        (
                            np.corrcoef(whole[:, jaw], live[:, jaw])[0, 1],
                            np.mean(agree),
                            live[:, jaw].std() / whole[:, jaw].std(),
                            steps[0] / steps[1],
                        )
                    )
                cells = " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0))
                known = "given" if level_known else "estimated"
                delay = seconds + (group - 0.5) / float(FPS)
                lines.append(f"| {seconds} | {known} | {group} | {delay:.2f} | {cells} |")
    return "\n".join(lines)


def bench_delay(options: argparse.Namespace, pipeline: TalkingFacePipeline) -> str:
    """First frame after the call with all of the sound at hand, then the cost of a frame, by group and guide."""
    samples = read_audio(options.sound).samples
    picture = read_image(options.picture)
    lines = [
        "| guide | frames a group | waits for sound (s) | first frame: wall, processor (s) | frames/s "
        "| processor (ms a frame) |",
        "|---" * 6 + "|",
    ]
    count = 24 if options.quick else 72
    next(pipeline.stream([samples], picture))  # whatever happens once in a process
    for guide in ("refined", "warp"):
        for group in GROUPS:
            begun, worked = time.perf_counter(), time.process_time()
            with pipeline.stream(chunks_of(samples), picture, group=group, guide=guide) as live:
                next(live)
                first = time.perf_counter() - begun, time.process_time() - worked
                for _ in range(group - 1):
                    next(live)
                begun, worked = time.perf_counter(), time.process_time()
                for _ in range(count):
                    next(live)
                wall, cpu = time.perf_counter() - begun, time.process_time() - worked
            lines.append(
                f"| {guide} | {group} | {live.delay:.2f} | {first[0]:.2f}, {first[1]:.2f} | {count / wall:.1f} "
                f"| {1000 * cpu / count:.0f} |"
            )
    return "\n".join(lines)


def bench_memory(options: argparse.Namespace, pipeline: TalkingFacePipeline) -> str:
    """Resident memory of a process of its own, minute by minute."""
    minutes = 2 if options.quick else 10
    command = [sys.executable, "-c", SAMPLE, str(options.picture), str(options.sound)]
    command += [str(60 * minutes), options.guide, options.bundle]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise TalkfaceError(
            f"memory: exit code {done.returncode} in the measured process; see its message above"
        )
    lines = ["| minute | resident (MB) | peak so far (MB) |", "|---|---|---|"]
    for line in done.stdout.splitlines():
        minute, resident, peak = line.split()
        lines.append(f"| {minute} | {float(resident):.0f} | {float(peak):.0f} |")
    return "\n".join(lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add(
        "--only",
        nargs="+",
        choices=("lookahead", "delay", "memory"),
        default=["lookahead", "delay", "memory"],
    )
    add("--films", type=Path, help="folder of films or sounds with speech, for the lookahead")
    add("--bundle", default="default", help="bundle name or folder")
    add("--picture", type=Path, help="default: the astronaut that scikit-image ships")
    add("--sound", type=Path, default=ROOT / "examples/sentence.wav")
    add("--guide", choices=("none", "warp", "refined"), default="warp", help="of the memory section")
    add("--threads", type=int, help="default: torch's")
    add("--quick", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    if "lookahead" in options.only and options.films is None:
        raise TalkfaceError("--films: missing; the lookahead section needs a folder of films with speech")
    pipeline = TalkingFacePipeline.from_pretrained(options.bundle, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        if options.picture is None:
            options.picture = Path(folder) / "face.png"
            subprocess.run(
                [sys.executable, str(ROOT / "examples/astronaut.py"), str(options.picture)], check=True
            )
        for name in options.only:
            work = {"lookahead": bench_lookahead, "delay": bench_delay, "memory": bench_memory}[name]
            print(f"\n{name}\n\n{work(options, pipeline)}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        sys.exit(f"error: {error}")
