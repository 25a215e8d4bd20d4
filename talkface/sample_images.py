"""The verb `talkface sample-images`: faces that show an emotion, as one picture or a folder of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkface.arguments import check_input, number, whole
from talkface.errors import TalkfaceError
from talkface.startup import loading

if TYPE_CHECKING:
    import numpy as np

    from talkface.pipelines.generate import EmotionPipeline

GRID_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
WIDEST_GRID = 16  # pictures in a row


def add_sample_images(verbs: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "sample-images",
        help="make faces that show an emotion, with an emotion-conditional model",
        description="Make faces that show an emotion. In a folder, pictures that are there are not made again.",
    )
    add = parser.add_argument
    add(
        "--emotion",
        required=True,
        nargs="+",
        metavar="NAME",
        help="one or several of those that the model knows, or all: neutral, happy, sad, surprised, fear, disgusted, "
        "angry, contempt",
    )
    add(
        "--num",
        type=whole(1, 1_000_000),
        default=16,
        metavar="N",
        help="pictures of each emotion (default: 16)",
    )
    add(
        "--out",
        type=Path,
        default=Path("faces.png"),
        metavar="PICTURE|FOLDER",
        help=f"one picture with all of them ({', '.join(GRID_SUFFIXES)}), or a folder of PNGs (default: faces.png)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--bundle", default="emotion", metavar="NAME|PATH", help="the model (default: emotion)"
    )
    source.add_argument("--checkpoint", type=Path, metavar="CKPT", help="the model, as talkface fit wrote it")
    add("--seed", type=whole(0), default=0, metavar="N", help="same seed, same pictures (default: 0)")
    method = parser.add_argument_group("method")
    add = method.add_argument
    add("--num-inference-steps", type=whole(1, 1000), metavar="N", help="default: the model's, else 50")
    add(
        "--guidance-scale",
        type=number(0, 50),
        metavar="X",
        help="1: none; above: more of the emotion; 0: none of it (default: the model's, else 1)",
    )
    add("--eta", type=number(0, 1), default=1.0, metavar="X", help="noise of each step, 0 to 1 (default: 1)")
    machine = parser.add_argument_group("machine")
    add = machine.add_argument
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps", help="default: auto")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="default: auto")
    add("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=_sample_images)


def _sample_images(options: argparse.Namespace) -> int:
    if options.checkpoint is not None:
        check_input("--checkpoint", options.checkpoint)
    folder = check_place(options.out)
    pipeline = _pipeline(options)
    names = choose_emotions(options.emotion, pipeline.emotions)
    settings = pipeline.settings(
        options.num_inference_steps, options.guidance_scale, options.eta, options.seed
    )
    wanted = [(name, index) for name in names for index in range(options.num)]
    save = _fill_folder if folder else _write_grid
    return save(options, pipeline, wanted, settings)


def check_place(out: Path) -> bool:
    """Whether `out` is a folder. Raises: TalkfaceError when nothing can be written there."""
    suffix = out.suffix.lower()
    if out.is_dir() or (not suffix and not out.exists()):
        if not out.parent.is_dir():
            raise TalkfaceError(
                f"--out: the folder {out.parent} does not exist; make it first: mkdir -p '{out.parent}'"
            )
        return True
    if suffix not in GRID_SUFFIXES:
        raise TalkfaceError(
            f"--out: {out} is neither a folder nor a picture; allowed endings are {', '.join(GRID_SUFFIXES)}, "
            "or none for a folder"
        )
    if not out.parent.is_dir():
        raise TalkfaceError(
            f"--out: the folder {out.parent} does not exist; make it first: mkdir -p '{out.parent}'"
        )
    return False


def choose_emotions(given: list[str], known: list[str]) -> list[str]:
    """Names in the order given, each once; `all` stands for those known.

    Raises:
        TalkfaceError: an unknown one.
    """
    names = [name for text in given for name in text.split(",") if name]
    for name in names:
        if name != "all" and name not in known:
            raise TalkfaceError(f"--emotion: {name}; allowed are {', '.join(known)}, and all")
    return list(dict.fromkeys(one for name in names for one in (known if name == "all" else [name])))


@loading()
def _pipeline(options: argparse.Namespace) -> EmotionPipeline:
    if options.checkpoint is None:
        from talkface.checkpoint import bundle_folder

        bundle_folder(options.bundle)
    from talkface.pipelines.device import choose_device, choose_precision
    from talkface.pipelines.generate import EmotionPipeline

    if options.checkpoint is None:
        return EmotionPipeline.from_pretrained(options.bundle, options.device, options.precision)
    from talkface.export import trained_bundle

    device = choose_device(options.device)
    choose_precision(options.precision, device)
    return EmotionPipeline(trained_bundle(options.checkpoint, device), options.precision)


def _made(
    options: argparse.Namespace,
    pipeline: EmotionPipeline,
    wanted: list[tuple[str, int]],
    settings: dict[str, Any],
) -> Iterator[np.ndarray]:
    from tqdm import tqdm

    made = pipeline(
        wanted,
        num_inference_steps=settings["num_inference_steps"],
        guidance_scale=settings["guidance_scale"],
        eta=settings["eta"],
        seed=settings["seed"],
    )
    return iter(
        tqdm(made, total=len(wanted), unit="face", desc=options.out.name, disable=not sys.stderr.isatty())
    )


def _write_grid(
    options: argparse.Namespace,
    pipeline: EmotionPipeline,
    wanted: list[tuple[str, int]],
    settings: dict[str, Any],
) -> int:
    from talkface.media import check_output, write_image

    check_output(options.out)
    names = list(dict.fromkeys(name for name, _ in wanted))
    pictures = list(_made(options, pipeline, wanted, settings))
    about = settings | {"emotions": names, "num": options.num}
    write_image(options.out, tile(pictures, options.num, len(names)), about)
    print(f"{options.out}: {len(pictures)} faces; {', '.join(names)}")
    return 0


def tile(pictures: list[np.ndarray], num: int, emotions: int) -> np.ndarray:
    """One picture of all: near a square for one emotion; of several, each begins a row. Empty places are white."""
    import numpy as np

    columns = min(num, WIDEST_GRID) if emotions > 1 else min(num, int(np.ceil(num**0.5)))
    rows = -(-num // columns)
    height, width = pictures[0].shape[:2]
    sheet = np.full((emotions * rows * height, columns * width, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        emotion, index = divmod(place, num)
        row, column = divmod(index, columns)
        top, left = (emotion * rows + row) * height, column * width
        sheet[top : top + height, left : left + width] = picture
    return sheet


def _fill_folder(
    options: argparse.Namespace,
    pipeline: EmotionPipeline,
    wanted: list[tuple[str, int]],
    settings: dict[str, Any],
) -> int:
    from talkface.media import write_image

    options.out.mkdir(exist_ok=True)
    paths = {pair: options.out / f"{pair[0]}_{pair[1]:05d}.png" for pair in wanted}
    about = {pair: settings | {"emotion": pair[0], "number": pair[1]} for pair in wanted}
    missing = [pair for pair in wanted if not paths[pair].exists()]
    for pair in sorted(set(wanted) - set(missing)):
        if (found := description(paths[pair])) != about[pair]:
            other = [name for name, value in about[pair].items() if found.get(name) != value]
            raise TalkfaceError(
                f"--out: {paths[pair]} was made with another {', '.join(other)}; give another folder, or delete it"
            )
    done = 0
    try:
        for pair, picture in zip(missing, _made(options, pipeline, missing, settings), strict=True):
            write_image(paths[pair], picture, about[pair])
            done += 1
    except KeyboardInterrupt:
        print(
            f"\ntalkface: interrupted; {done} of {len(missing)} faces are written, the same command continues",
            file=sys.stderr,
        )
        return 130
    there = len(wanted) - len(missing)
    print(f"{options.out}: {done} faces made" + (f", {there} were there" if there else ""))
    return 0


def description(path: Path) -> dict[str, Any]:
    """What `write_image` noted in a PNG; empty for a picture that is not ours or cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            found = json.loads(picture.info.get("Comment", "{}"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
