"""How fast is a talking face: the bundle stage by stage, whole commands, memory, and the paper's network size.

    python scripts/bench_talking.py                      # everything; the 10-minute sound takes longest
    python scripts/bench_talking.py --quick              # shorter sounds, fewer rounds
    python scripts/bench_talking.py --only paper         # needs no bundle

Prints markdown for `docs/benchmarks.md` and writes the same figures as JSON. Stages run in two threads
(sampling beside pasting and writing), so their shares may add up to more than 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_paper_size import Variant, measure
from bench_paper_size import table as paper_table
from peak_memory import peak_memory
from stage_clock import StageClock

import talkface
from talkface.errors import TalkfaceError
from talkface.media import VideoWriter, read_audio
from talkface.pipelines.face_guide import FaceGuide
from talkface.portrait.blend import ColourMatcher, PlaceOfCrop

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ("bundle", "generation", "command", "startup", "memory", "paper")
STAGES = ("find face", "speech", "guide", "encode", "sample", "decode", "paste", "write film")
FIRST_FRAME = """
import sys
from talkface import TalkingFacePipeline
bundle, sound, picture = sys.argv[1:]
with TalkingFacePipeline.from_pretrained(bundle)(sound, image=picture).frames() as frames:
    next(frames)
    print("first frame", flush=True)
"""


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        name = next(
            (s.split(":")[1].strip() for s in info.read_text().splitlines() if "model name" in s), name
        )
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "load_before": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "talkface": talkface.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def write_sound(path: Path, source: Path, seconds: float) -> Path:
    """`source` said again and again until `seconds` are full, 16 kHz mono wav."""
    samples = np.resize(read_audio(source).samples, round(seconds * 16000))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def run_film(pipeline: Any, sound: Path, out: Path, source: dict[str, Path], mode: str) -> dict[str, Any]:
    """Make and write one film; frames/s and the share of the time that each stage is busy."""
    clock = StageClock()
    for owner, name, stage in (
        (pipeline.finder, "find", "find face"),
        (pipeline.finder, "track", "find face"),
        (pipeline.speech, "encode_long", "speech"),
        (pipeline.first_stage, "encode", "encode"),
        (pipeline.network, "forward", "sample"),
        (pipeline.first_stage, "decode", "decode"),
        *([] if pipeline.change_decoder is None else [(pipeline.change_decoder, "forward", "decode")]),
        (ColourMatcher, "__call__", "paste"),
        (FaceGuide, "draw", "guide"),
        (PlaceOfCrop, "__call__", "paste"),
        (VideoWriter, "write", "write film"),
    ):
        clock.wrap(owner, name, stage)
    try:
        start = time.perf_counter()
        result = pipeline(sound, mode=mode, **source)
        with result.frames() as frames, VideoWriter(out, result.fps, audio_path=sound) as writer:
            for frame in frames:
                writer.write(frame)
        seconds = time.perf_counter() - start
    finally:
        clock.undo()
    shares = {stage: clock.total(stage) / seconds for stage in STAGES}
    return {"frames": result.num_frames, "fps": result.num_frames / seconds, "shares": shares}


def bench_bundle(options: argparse.Namespace, picture: Path, folder: Path) -> tuple[str, Any]:
    """Picture and film, windowed and autoregressive."""
    pipeline = talkface.TalkingFacePipeline.from_pretrained(options.bundle, "cpu", options.precision)
    sound = write_sound(folder / "sound.wav", options.sound, 2 if options.quick else 10)
    warm = write_sound(folder / "warm.wav", options.sound, 0.5)
    spoken = folder / "picture.mp4"
    run_film(pipeline, warm, folder / "warm.mp4", {"image": picture}, "windowed")
    rows = {
        "picture, windowed": run_film(pipeline, sound, spoken, {"image": picture}, "windowed"),
        "picture, autoregressive": run_film(
            pipeline, sound, folder / "a.mp4", {"image": picture}, "autoregressive"
        ),
        "film, windowed": run_film(pipeline, sound, folder / "b.mp4", {"film": spoken}, "windowed"),
        "film, autoregressive": run_film(
            pipeline, sound, folder / "c.mp4", {"film": spoken}, "autoregressive"
        ),
    }
    lines = ["| input, mode | frames/s | " + " | ".join(STAGES) + " |", "|---" * (len(STAGES) + 2) + "|"]
    for name, row in rows.items():
        shares = " | ".join(f"{100 * row['shares'][stage]:.0f} %" for stage in STAGES)
        lines.append(f"| {name} | {row['fps']:.2f} | {shares} |")
    return "\n".join(lines), rows


def bench_generation(options: argparse.Namespace, picture: Path, folder: Path) -> tuple[str, Any]:
    """A picture speaks, nothing is written: search for the face and all frames, by one worker and by the default."""
    pipeline = talkface.TalkingFacePipeline.from_pretrained(options.bundle, "cpu", options.precision)
    sound = read_audio(write_sound(folder / "generation.wav", options.sound, 4))
    default = pipeline.workers
    variants = [
        (guide, motion, workers)
        for guide in ("refined", "warp")
        for motion in ("subtle", "none")
        for workers in sorted({1, default})
    ]
    spent: dict[tuple[str, str, int], list[tuple[float, float]]] = {variant: [] for variant in variants}
    frames = 0
    for number in range(2 if options.quick else 4):
        for guide, motion, pipeline.workers in variants:
            wall, work = time.perf_counter(), time.process_time()
            frames = sum(1 for _ in pipeline(sound, picture, guide=guide, motion=motion))
            if number:  # the first round warms up
                spent[guide, motion, pipeline.workers].append(
                    (time.perf_counter() - wall, time.process_time() - work)
                )
    seconds = {variant: np.median(times, axis=0).tolist() for variant, times in spent.items()}
    lines = [
        f"| `--guide`, `--motion` | frames/s, {default} workers | frames/s, one | processor ms a frame, one |",
        "|---|---|---|---|",
    ]
    for guide, motion, workers in variants:
        if workers == 1:
            many, (one, work) = seconds[guide, motion, default][0], seconds[guide, motion, 1]
            rates = f"{frames / many:.1f} | {frames / one:.1f} | {1000 * work / frames:.0f}"
            lines.append(f"| {guide}, {motion} | {rates} |")
    named = {f"{guide}, {motion}, {workers}": value for (guide, motion, workers), value in seconds.items()}
    return "\n".join(lines), {"frames": frames, "wall_and_processor_seconds": named}


def bench_command(options: argparse.Namespace, picture: Path, folder: Path) -> tuple[str, Any]:
    """`talkface sample-video` from typing to the finished film, in turns for the sound as it is and for 20 s of it."""
    sounds = {"as it is": options.sound, "20 s": write_sound(folder / "command.wav", options.sound, 20)}
    seconds: dict[str, list[float]] = {name: [] for name in sounds}
    for _ in range(1 if options.quick else 5):
        for name, sound in sounds.items():
            arguments = ["--audio", str(sound), "--id", str(picture), "--out", str(folder / "command.mp4")]
            command = [sys.executable, "-m", "talkface", "sample-video", *arguments]
            command += ["--bundle", options.bundle, "--device", "cpu", "--precision", options.precision]
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    lines = ["| sound | film | seconds, median | least | frames/s, median |", "|---|---|---|---|---|"]
    for name, sound in sounds.items():
        length, median = read_audio(sound).duration, float(np.median(seconds[name]))
        lines.append(
            f"| {name} | {length:.2f} s | {median:.2f} | {min(seconds[name]):.2f} | {25 * length / median:.1f} |"
        )
    return "\n".join(lines), {"seconds": seconds}


def bench_startup(options: argparse.Namespace, picture: Path, folder: Path) -> tuple[str, Any]:
    """New process to first frame, three times; the first also reads the files from the disk."""
    sound = write_sound(folder / "startup.wav", options.sound, 10)
    times = []
    for _ in range(1 if options.quick else 3):
        start = time.perf_counter()
        command = [sys.executable, "-c", FIRST_FRAME, options.bundle, str(sound), str(picture)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if "first frame" not in process.stdout.readline():
                raise TalkfaceError("start-up: the new process failed; its message is above")
            times.append(time.perf_counter() - start)
            process.kill()
    listed = ", ".join(f"{value:.1f}" for value in times)
    return f"Start of the process to first frame: {listed} s.", {"seconds": times}


def bench_memory(options: argparse.Namespace, picture: Path, folder: Path) -> tuple[str, Any]:
    """Peak resident memory of `talkface sample-video` for a short and a long sound, one step a frame."""
    peaks = {}
    for seconds in (10, 60 if options.quick else 600):
        sound = write_sound(folder / f"{seconds}.wav", options.sound, seconds)
        arguments = ["--audio", str(sound), "--id", str(picture), "--out", str(folder / f"{seconds}.mp4")]
        arguments += ["--bundle", options.bundle, "--device", "cpu", "--num-inference-steps", "1"]
        peaks[seconds] = peak_memory(["sample-video", *arguments])
    (short, least), (long, most) = peaks.items()
    text = f"Peak memory: {least:.0f} MB for {short} s, {most:.0f} MB for {long} s ({most - least:+.0f} MB)."
    return text, {"megabytes": peaks}


def bench_paper(options: argparse.Namespace) -> tuple[str, Any]:
    """The paper's network, its procedure and ours."""
    variants = [Variant(4, torch.float32), Variant(4, torch.bfloat16), Variant(4, torch.bfloat16, still=True)]
    if not options.quick:
        variants.append(Variant(8, torch.bfloat16))
    now = time.process_time if options.clock == "cpu" else time.perf_counter
    rounds, calls = (1, 2) if options.quick else (3, 4)
    thesis, ours = measure(variants, rounds, calls, now)
    figures = {
        f"{variant.group} {variant.dtype} {variant.still}": vars(parts) for variant, parts in ours.items()
    }
    return paper_table(thesis, ours), {"thesis": vars(thesis), **figures}


WORK = {
    "bundle": bench_bundle,
    "generation": bench_generation,
    "command": bench_command,
    "startup": bench_startup,
    "memory": bench_memory,
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    add("--bundle", default="default", help="bundle name or folder")
    add("--picture", type=Path, help="default: the astronaut that scikit-image ships")
    add("--sound", type=Path, default=ROOT / "examples/sentence.wav")
    add("--precision", default="auto", help="of the bundle")
    add("--threads", type=int, help="default: torch's")
    clocks = "of the paper section: time that passes, or time that the processor worked (use --threads 1)"
    add("--clock", choices=("wall", "cpu"), default="wall", help=clocks)
    add("--quick", action="store_true")
    add("--out", type=Path, default=Path("runs/bench.json"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"machine": machine(options)}
    print(json.dumps(report["machine"]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = options.picture
        if picture is None and set(options.only) != {"paper"}:
            picture = folder / "face.png"
            subprocess.run([sys.executable, str(ROOT / "examples/astronaut.py"), str(picture)], check=True)
        for section in options.only:
            if section == "paper":
                text, figures = bench_paper(options)
            else:
                work = WORK[section]
                text, figures = work(options, picture, folder)
            report[section] = figures
            print(f"\n{section}\n\n{text}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        sys.exit(f"error: {error}")
