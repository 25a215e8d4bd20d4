"""The verb `talkface reconstruct`: what first stage and inversion lose, in numbers and in a sheet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkface.arguments import check_input
from talkface.edit_emotion import reason
from talkface.edit_options import (
    add_machine,
    add_model,
    add_settings,
    check_picture_out,
    chosen_settings,
    make_pipeline,
    picture_files,
)
from talkface.errors import TalkfaceError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from talkface.pipelines.emotion_edit import EmotionEditPipeline
    from talkface.pipelines.latent_editing import EditSettings

# what is compared with what
ROWS = (
    ("first stage / picture", "first_stage", "picture"),
    ("cycle / first stage", "cycle", "first_stage"),
    ("cycle / picture", "cycle", "picture"),
)
MOST_SHOWN = 16


def add_reconstruct(verbs: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "reconstruct",
        help="how much of a face survives the first stage, and inversion and back: PSNR, SSIM, LPIPS",
        description="Encode and decode faces (first stage), and invert and denoise them with their own expression "
        "(cycle). Prints means over the pictures, on the aligned face at the model's size.",
    )
    add = parser.add_argument
    add("--image", required=True, type=Path, metavar="PICTURE|FOLDER", help="faces")
    add(
        "--out",
        type=Path,
        metavar="PICTURE",
        help=f"a sheet of the first {MOST_SHOWN}: picture, first stage, cycle",
    )
    add("--first-stage-only", action="store_true", help="no cycle")
    add(
        "--lpips-backbone",
        type=Path,
        metavar="FILE",
        help="AlexNet weights of torchvision for LPIPS (default: torchvision's cache; without them no LPIPS)",
    )
    add_model(parser)
    add_settings(parser)
    add_machine(parser)
    parser.set_defaults(run=_reconstruct)


def _reconstruct(options: argparse.Namespace) -> int:
    files = picture_files("--image", options.image)
    if options.out is not None:
        check_picture_out(options.out, files)
    if options.lpips_backbone is not None:
        check_input("--lpips-backbone", options.lpips_backbone)
    pipeline = make_pipeline(options)
    cycle = not options.first_stage_only
    if cycle:
        pipeline.source_expression(options.source)
    settings = chosen_settings(options, pipeline)
    distance = perceptual(options.lpips_backbone)
    scores: dict[str, list[list[float]]] = {}
    shown: list[list[np.ndarray]] = []
    broken: list[str] = []
    for path in files:
        try:
            images = _images(options, pipeline, path)
        except (TalkfaceError, OSError) as error:
            if len(files) == 1:
                raise
            broken.append(reason(path, error))
            continue
        made = {"picture": images} | dict(
            pipeline.reconstruct(images, source=options.source, settings=settings, cycle=cycle)
        )
        for name, one, other in ROWS:
            if one in made:
                scores.setdefault(name, []).append(_score(made[one], made[other], distance))
        if options.out is not None and len(shown) < MOST_SHOWN:
            from talkface.media import to_uint8

            shown.append([to_uint8(value)[0] for value in made.values()])
    print(_table(scores, len(files) - len(broken), settings if cycle else None))
    if options.out is not None and shown:
        from talkface.media import write_image
        from talkface.portrait.sheet import sheet

        names = ["picture", "first stage", "cycle"][: len(shown[0])]
        write_image(options.out, sheet(shown, (), names), pipeline.describe(settings), inputs=files)
    for line in broken:
        print(f"talkface: {line}", file=sys.stderr)
    return 1 if broken else 0


def _images(options: argparse.Namespace, pipeline: EmotionEditPipeline, path: Path) -> Tensor:
    from talkface.media import read_image

    return pipeline.images([pipeline.cut(read_image(path), str(path), options.face, options.aligned)])


def perceptual(backbone: Path | None) -> Callable[[Any, Any], Any] | None:
    """LPIPS (AlexNet), or None with a line on stderr where it cannot be had; a given file must be good."""
    from talkface.experts.vision import LPIPS

    if backbone is not None:
        return LPIPS("alex", backbone)
    try:
        import torch

        cached = Path(torch.hub.get_dir()) / "checkpoints"
        if not any(cached.glob("alexnet-*")):
            raise TalkfaceError(f"no AlexNet in {cached}; give it with --lpips-backbone")
        return LPIPS("alex")
    except TalkfaceError as error:
        print(f"talkface: LPIPS is left out: {error}", file=sys.stderr)
        return None


def _score(images: Tensor, others: Tensor, distance: Callable[[Any, Any], Any] | None) -> list[float]:
    """PSNR, SSIM and, where there is a `distance`, LPIPS of pictures (1, 3, H, W)."""
    from talkface.metrics.paired import psnr, region_lpips, ssim

    one, other = images.cpu(), others.cpu()
    found = [float(psnr(one, other)), float(ssim(one, other))]
    return found + ([] if distance is None else [float(region_lpips(distance, one, other))])


def _table(scores: dict[str, list[list[float]]], count: int, settings: EditSettings | None) -> str:
    """Means, one line for each comparison."""
    head = f"{count} pictures"
    if settings is not None:
        head += (
            f"; cycle: {settings.solver}, {settings.num_inference_steps} steps each way, strength "
            f"{settings.strength}, guidance {settings.guidance_scale:g}"
        )
    lines = [head, f"{'':<24}{'PSNR':>8}{'SSIM':>8}{'LPIPS':>8}"]
    for name, rows in scores.items():
        means = [sum(column) / len(column) for column in zip(*rows, strict=True)]
        numbers = f"{means[0]:8.2f}{means[1]:8.4f}" + (f"{means[2]:8.4f}" if len(means) > 2 else f"{'-':>8}")
        lines.append(f"{name:<24}{numbers}")
    return "\n".join(lines)
