"""What the verbs that edit pictures share: their options, the pipeline they ask for, the files they read and write."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkface.arguments import check_input, number, whole
from talkface.errors import TalkfaceError
from talkface.startup import loading

if TYPE_CHECKING:
    from talkface.pipelines.emotion_edit import EmotionEditPipeline
    from talkface.pipelines.latent_editing import EditSettings

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
WRITTEN = (".png", ".jpg", ".jpeg", ".webp")
SOLVER_NAMES = ("ddim", "plms", "dpm++2m")
GRID_NAMES = ("paper", "leading", "trailing", "log_snr")
START_NAMES = ("guide", "picture")


def add_model(parser: argparse.ArgumentParser) -> None:
    """--bundle or --checkpoint, --aligned, --face: which model, and where the face is."""
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--bundle", default="emotion", metavar="NAME|PATH", help="the model (default: emotion)"
    )
    source.add_argument("--checkpoint", type=Path, metavar="CKPT", help="the model, as talkface fit wrote it")
    add(
        "--adapter",
        metavar="FILE[:NAME]",
        help="a finetuned adapter of the model, and which one if the file holds several (needs talkface[finetune])",
    )
    add(
        "--aligned", action="store_true", help="pictures are square aligned faces already; none is looked for"
    )
    add("--face", type=whole(1), metavar="N", help="the N-th largest face (default: 1)")


def add_settings(parser: argparse.ArgumentParser, many: bool = False, eta: float | None = None) -> None:
    """--strength, --guidance-scale, ...: how to invert and denoise.

    Args:
        many: --strength and --guidance-scale take several values.
        eta: offer --eta and --seed, with this default.
    """
    method = parser.add_argument_group("method")
    add = method.add_argument
    several: dict[str, Any] = {"nargs": "+"} if many else {}
    add(
        "--from",
        dest="source",
        default="auto",
        metavar="EXPRESSION",
        help="what the face shows: a name, auto (ask the classifier), or none (default: auto)",
    )
    add(
        "--strength",
        type=whole(1, 1000),
        metavar="T",
        help="how far towards noise, 1 to 1000 (default: the model's, else 500)",
        **several,
    )
    add(
        "--guidance-scale",
        type=number(0, 50),
        metavar="X",
        help="weight of the target; 1: none, 0: no target (default: the model's, else 3)",
        **several,
    )
    add(
        "--inversion-guidance-scale",
        type=number(0, 50),
        metavar="X",
        help="weight of the source while inverting (default: the model's, else as --guidance-scale)",
    )
    add(
        "--num-inference-steps",
        type=whole(1, 1000),
        metavar="N",
        help="each way (default: the model's, else 40)",
    )
    add("--solver", choices=SOLVER_NAMES, help="default: the model's, else ddim")
    add(
        "--timestep-grid", choices=GRID_NAMES, help="which times to step through (default: the solver's best)"
    )
    add(
        "--start",
        choices=START_NAMES,
        help="what is inverted, of a model with guides: the guide, or the picture, against which it is then weighed "
        "(default: the model's, else guide)",
    )
    add(
        "--overshoot",
        type=number(0, 1000),
        metavar="X",
        help="with --start picture: how far guidance may go beyond picture and guide (default: the model's, else 0.07; "
        "1000: as far as the guidance scale says)",
    )
    if eta is not None:
        add(
            "--eta",
            type=number(0, 1),
            default=eta,
            metavar="X",
            help=f"noise of each step back, 0 to 1 (default: {eta:g})",
        )
        add("--seed", type=whole(0), default=0, metavar="N", help="of that noise (default: 0)")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """--device, --precision, --debug."""
    add = parser.add_argument_group("machine").add_argument
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps", help="default: auto")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="default: auto")
    add("--debug", action="store_true", help="show tracebacks")


@loading()
def make_pipeline(options: argparse.Namespace) -> EmotionEditPipeline:
    """The pipeline that --bundle or --checkpoint, --adapter and machine options ask for. Raises: TalkfaceError."""
    if options.checkpoint is not None:
        check_input("--checkpoint", options.checkpoint)
    else:
        from talkface.checkpoint import bundle_folder

        bundle_folder(options.bundle)
    from talkface.adapters import read_adapters, split_adapter
    from talkface.pipelines.device import choose_device, choose_precision
    from talkface.pipelines.emotion_edit import EmotionEditPipeline

    if options.adapter is not None:  # before anything large is read
        read_adapters(split_adapter(options.adapter)[0])

    if options.checkpoint is None:
        pipeline = EmotionEditPipeline.from_pretrained(options.bundle, options.device, options.precision)
    else:
        from talkface.export import trained_bundle

        device = choose_device(options.device)
        choose_precision(options.precision, device)
        pipeline = EmotionEditPipeline(trained_bundle(options.checkpoint, device), options.precision)
    if options.adapter is not None:
        pipeline.add_adapter(*split_adapter(options.adapter))
    return pipeline


def chosen_settings(options: argparse.Namespace, pipeline: EmotionEditPipeline, **more: Any) -> EditSettings:
    """The model's settings, with those of the command line in their place, checked; `more` counts above all.

    Raises:
        TalkfaceError: values that do not go together, such as more steps than strength.
    """
    given = {
        "strength": options.strength,
        "guidance_scale": options.guidance_scale,
        "inversion_guidance_scale": options.inversion_guidance_scale,
        "num_inference_steps": options.num_inference_steps,
        "solver": options.solver,
        "grid": options.timestep_grid,
        "start": options.start,
        "overshoot": options.overshoot,
        "eta": getattr(options, "eta", None),
        "seed": getattr(options, "seed", None),
    } | more
    settings = replace(
        pipeline.defaults, **{name: value for name, value in given.items() if value is not None}
    )
    settings.check(pipeline.editor.schedule)
    return settings


def picture_files(option: str, path: Path) -> list[Path]:
    """The pictures of a folder, sorted; or the one file. Raises: TalkfaceError: nothing there to read."""
    if not path.is_dir():
        check_input(option, path)
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES and file.is_file())
    if not found:
        raise TalkfaceError(
            f"{option}: the folder {path} holds no picture; allowed endings are {', '.join(PICTURES)}"
        )
    return found


def check_picture_out(path: Path, inputs: Iterable[Path]) -> None:
    """Raises: TalkfaceError: no picture can be written to `path`, or it is one of `inputs`."""
    if path.suffix.lower() not in WRITTEN:
        raise TalkfaceError(f"--out: {path} is no picture name; allowed endings are {', '.join(WRITTEN)}")
    if path.is_dir():
        raise TalkfaceError(f"--out: {path} is a folder; give the name of a picture in it")
    if not path.parent.is_dir():
        raise TalkfaceError(
            f"--out: the folder {path.parent} does not exist; make it first: mkdir -p '{path.parent}'"
        )
    if path.exists() and any(path.samefile(other) for other in inputs if other.exists()):
        raise TalkfaceError(f"--out: {path} is also an input and would be lost; choose another name")


def check_folder_out(path: Path, source: Path) -> None:
    """Raises: TalkfaceError: `path` cannot be a folder of results of the folder `source`."""
    if path.exists() and not path.is_dir():
        raise TalkfaceError(f"--out: {path} is a file; for a folder of pictures give a folder")
    if not path.parent.is_dir():
        raise TalkfaceError(
            f"--out: the folder {path.parent} does not exist; make it first: mkdir -p '{path.parent}'"
        )
    if path.exists() and path.samefile(source):
        raise TalkfaceError(f"--out: {path} is also the input; choose another folder")


def file_key(path: Path) -> str:
    """The first 16 digits of the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
