"""The verb `talkface stream`: a picture speaks sound that is still coming."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from talkface.arguments import add_liveliness, check_input, check_output, frame_rate, number, whole
from talkface.errors import TalkfaceError
from talkface.startup import loading


def add_stream(verbs: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "stream",
        help="make a picture speak sound that is still coming, with little delay",
        description="Make the face in a picture speak 16-bit mono sound at 16 kHz while it comes.",
    )
    add = parser.add_argument
    add(
        "--audio",
        default="-",
        metavar="PCM|-",
        help="raw 16-bit mono samples at 16 kHz, or a wav file of such: a file, a named pipe, or - for the standard "
        "input (default)",
    )
    add("--id", required=True, type=Path, metavar="PICTURE", help="the face: any picture")
    add(
        "--out",
        default="talking.mp4",
        metavar="FILM|-",
        help="a film that can be watched while it grows, or - for raw RGB frames to the standard output "
        "(default: talking.mp4)",
    )
    add("--bundle", default="default", metavar="NAME|PATH", help="the trained model (default: default)")
    add("--face", type=whole(1), metavar="N", help="the N-th largest face (default: 1)")
    add("--crop", action="store_true", help="only the square face")
    add("--fps", type=frame_rate, metavar="RATE", help="default: 25")
    add_liveliness(parser)
    add("--seed", type=whole(0), default=0, metavar="N", help="same seed, same film (default: 0)")
    add(
        "--guide",
        choices=("none", "warp", "refined"),
        help="see sample-video; warp is several times as fast (default: the bundle's)",
    )
    live = parser.add_argument_group("delay")
    add = live.add_argument
    add(
        "--lookahead",
        type=number(0, 10),
        default=0.4,
        metavar="SECONDS",
        help="sound after a frame that is waited for; less makes lips worse (default: 0.4)",
    )
    add(
        "--group",
        type=whole(1, 64),
        default=4,
        metavar="N",
        help="frames made together; fewer come sooner and cost more (default: 4)",
    )
    add(
        "--follow",
        type=number(0, 3600),
        default=0.0,
        metavar="SECONDS",
        help="an --audio file that did not grow for so long has ended (default: 0, it does not grow)",
    )
    machine = parser.add_argument_group("machine")
    add = machine.add_argument
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps", help="default: auto")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="default: auto")
    add("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=_stream)


def _stream(options: argparse.Namespace) -> int:
    check_input("--id", options.id)
    if options.audio == "-" and sys.stdin.isatty():
        raise TalkfaceError("--audio -: the standard input is a terminal; pipe sound into it, or name a file")
    if options.audio != "-" and not Path(options.audio).exists():
        raise TalkfaceError(f"--audio: {options.audio} does not exist; give a file, a named pipe or -")
    if options.audio != "-" and Path(options.audio).is_dir():
        raise TalkfaceError(f"--audio: {options.audio} is a folder; give a file, a named pipe or -")
    if options.out != "-":
        check_output(
            Path(options.out), (options.id, *([] if options.audio == "-" else [Path(options.audio)]))
        )
    elif sys.stdout.isatty():
        raise TalkfaceError(
            "--out -: the standard output is a terminal; pipe it into a player, or name a film"
        )
    with loading():
        from talkface.checkpoint import bundle_folder

        bundle_folder(options.bundle)
        from talkface.media.pcm import read_pcm
        from talkface.media.sound import SoundQueue
        from talkface.pipelines.talking_face import TalkingFacePipeline

        pipeline = TalkingFacePipeline.from_pretrained(options.bundle, options.device, options.precision)
    queue = SoundQueue()

    def chunks() -> Iterator[Any]:
        place = sys.stdin.fileno() if options.audio == "-" else options.audio
        with open(place, "rb", buffering=0, closefd=options.audio != "-") as source:
            for samples in read_pcm(source, pipeline.speech.sample_rate, options.follow):
                if options.out != "-":
                    queue.put(samples)
                yield samples

    with pipeline.stream(
        chunks(),
        options.id,
        lookahead=options.lookahead,
        group=options.group,
        guide=options.guide,
        emotion=options.emotion,
        emotion_intensity=options.emotion_intensity,
        motion=options.motion,
        seed=options.seed,
        fps=options.fps,
        crop=options.crop,
        face=options.face,
    ) as frames:
        for note in frames.notes:
            print(f"talkface: {note}", file=sys.stderr)
        written, code = _write_raw(frames) if options.out == "-" else _write_film(frames, queue, options)
    print(f"{options.out}: {written} frames, {float(written / frames.fps):.2f} s", file=sys.stderr)
    return code


def _write_film(frames: Any, queue: Any, options: argparse.Namespace) -> tuple[int, int]:
    """Number of frames written, exit code."""
    from talkface.media import VideoWriter

    written = 0
    writer = VideoWriter(
        options.out, frames.fps, queue, metadata=frames.metadata, inputs=[options.id], growing=True
    )
    try:
        with writer:
            for frame in frames:
                writer.write(frame)
                written += 1
    except KeyboardInterrupt:
        print("\ntalkface: interrupted", file=sys.stderr)
        return written, 130
    return written, 0


def _write_raw(frames: Any) -> tuple[int, int]:
    """RGB24 to the standard output until it is closed: number of frames, exit code."""
    written = 0
    try:
        for frame in frames:
            if written == 0:
                height, width = frame.shape[:2]
                print(
                    f"talkface: raw video; play it with: ffplay -f rawvideo -pixel_format rgb24 -video_size "
                    f"{width}x{height} -framerate {frames.fps} -",
                    file=sys.stderr,
                )
            sys.stdout.buffer.write(frame.tobytes())
            sys.stdout.buffer.flush()
            written += 1
    except BrokenPipeError:  # who watched has left; nor may Python complain when it flushes at the end
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("\ntalkface: interrupted", file=sys.stderr)
        return written, 130
    return written, 0
