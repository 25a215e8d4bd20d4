"""The verb `talkface import-checkpoint`. Imports what it needs when it runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from talkface.arguments import check_input, whole
from talkface.errors import TalkfaceError

KINDS = ("thesis-ldm", "thesis-vqgan", "taming-vqgan", "diffusers-vq", "diffusers-unet", "auto-avsr")
WEIGHTS = ("ema", "raw")
PRECISIONS = ("fp32", "fp16")


def add_import_checkpoint(verbs: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "import-checkpoint",
        help="turn weights that another program trained into a bundle",
        description="Turn weights of the thesis, taming-transformers, diffusers or auto-avsr into a bundle. No code "
        "of the file is run.",
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="checkpoint, or folder of save_pretrained (diffusers)")
    add("--kind", required=True, choices=KINDS, help="what the file is")
    add("--out", required=True, type=Path, metavar="FOLDER", help="the bundle")
    add(
        "--weights",
        choices=WEIGHTS,
        help="ema: moving averages; raw: as the optimiser left them (default: ema where the file has them)",
    )
    add(
        "--image-size",
        type=whole(1, 65536),
        metavar="N",
        help="side of the training pictures (diffusers-unet: of the latents); default: 128 for the thesis, 256 for "
        "taming, the configuration's for diffusers",
    )
    add(
        "--num-head-channels",
        type=whole(1, 65536),
        default=32,
        metavar="N",
        help="channels per attention head of thesis-ldm, which the file does not tell (default: 32)",
    )
    add(
        "--speech",
        metavar="FOLDER|NAME",
        help="the wav2vec 2.0 that a talking face was trained with; needed for sample-video",
    )
    add(
        "--units",
        type=Path,
        metavar="FILE",
        help="vocabulary of auto-avsr, a unit and its number a line (default: unigram5000_units.txt beside FILE)",
    )
    add("--precision", choices=PRECISIONS, default="fp32", help="of the stored weights (default: fp32)")
    add("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if not options.file.is_dir():
        check_input("FILE", options.file)
    elif not options.kind.startswith("diffusers-"):
        raise TalkfaceError(f"FILE: {options.file} is a folder; give the checkpoint file for {options.kind}")
    if options.out.exists() and not options.out.is_dir():
        raise TalkfaceError(f"--out: {options.out} is a file; give the name of a folder")
    from talkface.importers.kinds import import_checkpoint

    report = import_checkpoint(
        options.file,
        options.kind,
        options.out,
        weights=options.weights,
        image_size=options.image_size,
        num_head_channels=options.num_head_channels,
        speech=options.speech,
        units=options.units,
        precision=options.precision,
    )
    for reason, number in report.ignored.items():
        print(f"talkface: left out: {number} tensors: {reason}", file=sys.stderr)
    for note in report.notes:
        print(f"talkface: {note}", file=sys.stderr)
    sizes = ", ".join(f"{name} {number / 1e6:.2f} M" for name, number in report.parts.items())
    print(f"{report.folder}: {sizes} ({report.weights} weights)")
    return 0
