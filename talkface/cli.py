"""The command line: verbs, their options, and errors as one line.

Only the standard library is imported here; a verb imports what it needs after its arguments were checked, so
that `talkface --help` and a mistyped path answer at once. Exit codes: 0 done, 1 `doctor` or `data check` found a
problem (or a defect of talkface itself), 2 a mistake the user can correct, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from talkface import __version__
from talkface.arguments import add_liveliness, check_input, check_output, frame_rate, number, whole
from talkface.corpora import add_data
from talkface.edit_emotion import add_edit_emotion
from talkface.errors import TalkfaceError
from talkface.importers.command import add_import_checkpoint
from talkface.interpolate import add_interpolate
from talkface.live import add_stream
from talkface.neighbours import add_neighbours
from talkface.reconstruct import add_reconstruct
from talkface.sample_images import add_sample_images
from talkface.startup import loading, program

TRAINING_VERBS = ("fit", "validate", "test", "predict")


class _Parser(argparse.ArgumentParser):
    """argparse, with this project's form of error line."""

    def error(self, message: str) -> NoReturn:
        raise TalkfaceError(f"{message}; see: {self.prog} --help")


def entry() -> int:
    """The program `talkface`."""
    with program():
        return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; never raises for a mistake of the user."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if not debug:
        warnings.simplefilter("ignore")
    notices = logging.StreamHandler()
    notices.setFormatter(logging.Formatter("talkface: %(message)s"))
    logging.getLogger("talkface").addHandler(notices)
    try:
        if arguments and arguments[0] in TRAINING_VERBS:
            from talkface.fit import main as run_training

            return int(run_training([item for item in arguments if item != "--debug"]) or 0)
        if arguments and arguments[0] == "evaluate-video":
            from talkface.pipelines.evaluate import main as run_evaluation

            return int(run_evaluation([item for item in arguments[1:] if item != "--debug"]) or 0)
        options = build_parser().parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except KeyboardInterrupt:
        print("talkface: interrupted", file=sys.stderr)
        return 130
    except TalkfaceError as error:
        return _report(error, " ".join(str(error).split()), 2, debug)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _report(error, f"{error.strerror or error}{where}", 2, debug)
    except Exception as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return _report(error, f"{message} (a defect of talkface; --debug shows where)", 1, debug)
    finally:
        logging.getLogger("talkface").removeHandler(notices)


def _report(error: Exception, message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"talkface: error: {message}", file=sys.stderr)
    return code


def build_parser() -> argparse.ArgumentParser:
    """All verbs and their options (the training verbs are listed here, and parsed by `talkface.fit`)."""
    parser = _Parser(
        prog="talkface", description="Talking faces and facial reenactment with diffusion models."
    )
    parser.add_argument("--version", action="version", version=f"talkface {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_sample_video(verbs)
    add_stream(verbs)
    add_sample_images(verbs)
    add_edit_emotion(verbs)
    add_interpolate(verbs)
    add_reconstruct(verbs)
    add_neighbours(verbs)
    add_data(verbs)
    doctor = verbs.add_parser("doctor", help="say what is installed, what is missing and what to do about it")
    doctor.add_argument("--bundle", metavar="NAME|PATH", action="append", help="also check this bundle")
    doctor.add_argument("--debug", action="store_true", help="show tracebacks")
    doctor.set_defaults(run=_doctor)
    _add_export(verbs)
    add_import_checkpoint(verbs)
    version = verbs.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    for verb, text in (
        ("fit", "train what a YAML file describes: talkface fit --config conf/….yaml"),
        ("validate", "compute the validation losses of a checkpoint"),
        ("test", "compute the test losses of a checkpoint"),
        ("predict", "run a trained module over a data module"),
        ("evaluate-video", "measure films: quality, lip movement, identity"),
    ):
        verbs.add_parser(verb, help=text, add_help=False)
    return parser


def _add_sample_video(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "sample-video",
        help="make a face speak: a picture (or film) and a sound in, a film out",
        description="Make the face in a picture, or re-make the mouth in a film, to speak a sound.",
    )
    add = parser.add_argument
    add(
        "--audio",
        required=True,
        type=Path,
        metavar="SOUND",
        help="speech: wav, mp3, flac, m4a, or a film's sound",
    )
    add(
        "--id",
        required=True,
        type=Path,
        metavar="PICTURE|FILM",
        help="the face: any picture, or a film to dub",
    )
    add("--out", type=Path, default=Path("talking.mp4"), metavar="FILM", help="default: talking.mp4")
    add("--bundle", default="default", metavar="NAME|PATH", help="the trained model (default: default)")
    add(
        "--face",
        type=whole(1),
        metavar="N",
        help="the N-th largest face, when there are several (default: 1)",
    )
    add("--crop", action="store_true", help="write only the square face")
    add("--fps", type=frame_rate, metavar="RATE", help="default: 25 for a picture, the film's own for a film")
    add_liveliness(parser)
    add("--seed", type=whole(0), default=0, metavar="N", help="same seed, same film (default: 0)")
    method = parser.add_argument_group("method")
    add = method.add_argument
    add(
        "--mode",
        choices=("windowed", "autoregressive"),
        default="windowed",
        help="windowed: fixed reference, in batches (default); autoregressive: each frame after the last",
    )
    add(
        "--guide",
        choices=("none", "warp", "refined"),
        help="refined: paint over the picture animated by its fitted head; warp: that picture itself; "
        "none: paint from the sound alone (default: the bundle's)",
    )
    add("--num-inference-steps", type=whole(1, 1000), metavar="N", help="default: the bundle's")
    add(
        "--guidance-scale",
        type=number(0, 50),
        metavar="X",
        help="weight of the sound; 1 = none (default: the bundle's)",
    )
    add(
        "--eta",
        type=number(0, 1),
        default=0.0,
        metavar="X",
        help="noise of each step, autoregressive only (default: 0)",
    )
    machine = parser.add_argument_group("machine")
    add = machine.add_argument
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps", help="default: auto")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="default: auto")
    add(
        "--batch-size",
        type=whole(1, 4096),
        metavar="N",
        help="frames made together; does not change the film",
    )
    add(
        "--max-duration",
        type=number(0.04, 86400),
        default=3600.0,
        metavar="SECONDS",
        help="refuse longer sounds (default: 3600)",
    )
    add("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=_sample_video)


def _add_export(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser("export", help="turn a training checkpoint into a bundle")
    add = parser.add_argument
    add("--checkpoint", required=True, type=Path, metavar="CKPT", help="written by talkface fit")
    add("--config", type=Path, metavar="YAML", help="the configuration of that training; for talking faces")
    add("--out", required=True, type=Path, metavar="FOLDER", help="the bundle")
    add("--base", default="default", metavar="NAME|PATH", help="bundle whose face finder is used")
    add("--card", type=Path, metavar="FILE", help="model card to put into it")
    add("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=_export)


def _sample_video(options: argparse.Namespace) -> int:
    check_input("--audio", options.audio)
    check_input("--id", options.id)
    check_output(options.out, (options.audio, options.id))
    with loading():
        from talkface.checkpoint import bundle_folder

        bundle_folder(options.bundle)
        from tqdm import tqdm

        from talkface.media import VideoWriter, is_video
        from talkface.pipelines.talking_face import TalkingFacePipeline

        pipeline = TalkingFacePipeline.from_pretrained(options.bundle, options.device, options.precision)
    kind = "film" if is_video(options.id) else "image"
    result = pipeline(
        options.audio,
        **{kind: options.id},
        mode=options.mode,
        guide=options.guide,
        num_inference_steps=options.num_inference_steps,
        guidance_scale=options.guidance_scale,
        eta=options.eta,
        emotion=options.emotion,
        emotion_intensity=options.emotion_intensity,
        motion=options.motion,
        seed=options.seed,
        fps=options.fps,
        batch_size=options.batch_size,
        crop=options.crop,
        face=options.face,
        max_seconds=options.max_duration,
    )
    for note in result.notes:
        print(f"talkface: {note}", file=sys.stderr)
    written = 0
    bar = tqdm(total=result.num_frames, unit="frame", desc=options.out.name, disable=not sys.stderr.isatty())
    try:
        with (
            bar,
            result.frames() as frames,
            VideoWriter(
                options.out,
                result.fps,
                audio_path=options.audio,
                times=result.times,
                metadata=result.metadata,
                pixel_aspect=result.pixel_aspect,
                inputs=[options.id],
            ) as writer,
        ):
            for frame in frames:
                writer.write(frame)
                written += 1
                bar.update()
    except KeyboardInterrupt:
        done = f"{options.out} holds the first {written} frames" if written else "nothing was written"
        print(f"\ntalkface: interrupted; {done}", file=sys.stderr)
        return 130
    if result.frames_without_face:
        print(
            f"talkface: {result.frames_without_face} frames show no face and are unchanged", file=sys.stderr
        )
    print(f"{options.out}: {written} frames, {float(written / result.fps):.2f} s")
    return 0


def _export(options: argparse.Namespace) -> int:
    check_input("--checkpoint", options.checkpoint)
    if options.config is not None:
        check_input("--config", options.config)
    if options.card is not None:
        check_input("--card", options.card)
    from talkface.export import export_bundle

    folder = export_bundle(options.checkpoint, options.config, options.out, options.base, options.card)
    verb = "sample-video" if (folder / "speech.safetensors").is_file() else "sample-images"
    print(f"{folder}: use it with talkface {verb} --bundle '{folder}'")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from talkface.doctor import run

    return run(options.bundle or [])


def _version(options: argparse.Namespace) -> int:
    print(f"talkface {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(entry())
