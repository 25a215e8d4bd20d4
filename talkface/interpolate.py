"""The verb `talkface interpolate`: from one face to another through the latents of a diffusion model."""

from __future__ import annotations

import argparse
from pathlib import Path

from talkface.arguments import check_input, whole
from talkface.arguments import check_output as check_film
from talkface.edit_options import (
    add_machine,
    add_model,
    add_settings,
    check_picture_out,
    chosen_settings,
    file_key,
    make_pipeline,
)
from talkface.errors import TalkfaceError

FILM_RATE = 10


def add_interpolate(verbs: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "interpolate",
        help="faces between two faces, as a strip and a film",
        description="Invert two faces to noise, interpolate there along the sphere, and denoise.",
    )
    add = parser.add_argument
    add("--images", required=True, nargs=2, type=Path, metavar="PICTURE", help="the two faces")
    add("--frames", type=whole(2, 1000), default=10, metavar="N", help="faces, both included (default: 10)")
    add(
        "--out",
        type=Path,
        default=Path("between.png"),
        metavar="PICTURE",
        help="the strip (default: between.png)",
    )
    add("--film", type=Path, metavar="FILM", help="there and back (default: as --out, with the ending mp4)")
    add_model(parser)
    add_settings(parser, eta=0.0)
    add_machine(parser)
    # the thesis's figures 4.3 and 4.4
    parser.set_defaults(run=_interpolate, num_inference_steps=20, guidance_scale=1.0)


def _interpolate(options: argparse.Namespace) -> int:
    for path in options.images:
        check_input("--images", path)
    if options.out.suffix.lower() == "":
        raise TalkfaceError(f"--out: {options.out} has no ending; give a picture, as between.png")
    check_picture_out(options.out, options.images)
    film = options.film or options.out.with_suffix(".mp4")
    check_film(film, options.images)
    pipeline = make_pipeline(options)
    pipeline.source_expression(options.source)
    settings = chosen_settings(options, pipeline)
    from talkface.media import VideoWriter, read_image, write_image
    from talkface.portrait.sheet import sheet

    one, other = (
        pipeline.cut(read_image(path), str(path), options.face, options.aligned) for path in options.images
    )
    faces = pipeline.interpolate(one, other, options.frames, source=options.source, settings=settings)
    about = pipeline.describe(settings) | {
        "from": options.source,
        "frames": options.frames,
        "inputs": [file_key(path) for path in options.images],
    }
    write_image(options.out, sheet([faces]), about, inputs=options.images)
    with VideoWriter(film, FILM_RATE, metadata=about, inputs=options.images) as writer:
        for face in [*faces, *faces[-2:0:-1]]:
            writer.write(face)
    print(f"{options.out}, {film}: {options.frames} faces")
    return 0
