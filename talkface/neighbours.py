"""The verb `talkface neighbours`: the training pictures that are nearest to generated ones (thesis figure 4.2)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from talkface.arguments import check_input, whole
from talkface.edit_options import add_machine, check_picture_out, picture_files
from talkface.errors import TalkfaceError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

PIXEL_SIZE = 64
BATCH = 64
FEATURES = ("classifier", "lpips")


def add_neighbours(verbs: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "neighbours",
        help="the training pictures nearest to generated ones: does a model repeat what it was shown?",
        description="Find the training pictures that are nearest to given ones, in pixels and in a feature space.",
    )
    add = parser.add_argument
    add(
        "--images",
        required=True,
        type=Path,
        metavar="PICTURE|FOLDER",
        help="generated faces, aligned squares",
    )
    add(
        "--training",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="a corpus, or a folder of aligned pictures",
    )
    add("--split", default="train", choices=("train", "val", "test"), help="of a corpus (default: train)")
    add(
        "--alignment",
        default="none",
        choices=("none", "canonical"),
        help="canonical: cut the corpus's faces by their landmarks first (default: none)",
    )
    add("--num", type=whole(1, 20), default=3, metavar="N", help="neighbours of each (default: 3)")
    add("--features", default="classifier", choices=FEATURES, help="the feature space (default: classifier)")
    add(
        "--lpips-backbone",
        type=Path,
        metavar="FILE",
        help="AlexNet weights of torchvision, for --features lpips",
    )
    add("--bundle", default="emotion", metavar="NAME|PATH", help="whose classifier (default: emotion)")
    add(
        "--out",
        type=Path,
        default=Path("neighbours.png"),
        metavar="PICTURE",
        help="a row for each: picture, nearest in pixels, nearest in features (default: neighbours.png)",
    )
    add_machine(parser)
    parser.set_defaults(run=_neighbours)


def _neighbours(options: argparse.Namespace) -> int:
    files = picture_files("--images", options.images)
    if not options.training.is_dir():
        raise TalkfaceError(
            f"--training: {options.training} is no folder; give a corpus or a folder of pictures"
        )
    check_picture_out(options.out, files)
    if options.lpips_backbone is not None:
        check_input("--lpips-backbone", options.lpips_backbone)
    import torch
    from tqdm import tqdm

    from talkface.media import read_image, write_image
    from talkface.metrics.neighbours import NearestNeighbours
    from talkface.pipelines.device import choose_device
    from talkface.portrait.sheet import sheet

    device = choose_device(options.device)
    embed, size = feature_space(options, device)
    source = TrainingPictures(options.training, options.split, options.alignment, size)
    asked = [square(read_image(path), str(path), size) for path in files]
    with torch.inference_mode():
        pixels = NearestNeighbours(as_pixels(asked), options.num)
        features = NearestNeighbours(_embedded(embed, asked, device), options.num)
        for start in tqdm(
            range(0, len(source), BATCH), disable=not sys.stderr.isatty(), desc="training pictures"
        ):
            some = [source[index] for index in range(start, min(start + BATCH, len(source)))]
            pixels.add(as_pixels(some))
            features.add(_embedded(embed, some, device))
    kept = pixels.indices.shape[1]
    rows = [
        [asked[row], *(source[int(index)] for found in (pixels, features) for index in found.indices[row])]
        for row in range(len(files))
    ]
    names = ["", *(["pixels"] * kept), *([options.features] * kept)]
    about = {"kind": "neighbours", "training": options.training.name, "features": options.features}
    write_image(options.out, sheet(rows, (), names), about, inputs=files)
    print(f"{'picture':<24}{'pixels, rms of 255':>20}{'nearest':>12}{options.features:>14}{'nearest':>12}")
    scale = 127.5 / (3 * PIXEL_SIZE**2) ** 0.5
    for row, path in enumerate(files):
        near, alike = float(pixels.distances[row, 0]) * scale, float(features.distances[row, 0])
        nearest = source.name(int(pixels.indices[row, 0])), source.name(int(features.indices[row, 0]))
        print(f"{path.name:<24}{near:>20.2f}{nearest[0]:>12}{alike:>14.4f}{nearest[1]:>12}")
    print(f"{options.out}: {len(files)} pictures among {len(source)}")
    return 0


def feature_space(
    options: argparse.Namespace, device: torch.device
) -> tuple[Callable[[Tensor], Tensor], int]:
    """(pictures (B, 3, S, S) in [-1, 1] -> vectors (B, D), S). Raises: TalkfaceError: no weights for it."""
    if options.features == "lpips":
        from talkface.experts.vision import LPIPS

        return LPIPS("alex", options.lpips_backbone).to(device).embed, PIXEL_SIZE
    from talkface.checkpoint import bundle_folder, load_bundle, read_description

    described = read_description(bundle_folder(options.bundle))
    if "classifier" not in described["parts"]:
        raise TalkfaceError(
            f"--features: classifier; the bundle {options.bundle} has none; allowed is --features lpips "
            "(with --lpips-backbone), or another --bundle"
        )
    bundle = load_bundle(options.bundle, device, parts=["classifier"])
    classifier, size = bundle.part("classifier"), int(bundle.meta.get("image_size", 128))
    # what it computes before it decides tells pictures apart, its eight probabilities hardly do
    return (lambda images: classifier.read(images).features) if hasattr(
        classifier, "read"
    ) else classifier, size


class TrainingPictures:
    """The pictures of a corpus's split, or of a folder: uint8 (size, size, 3), by number.

    Raises:
        TalkfaceError: no pictures there.
    """

    def __init__(self, folder: Path, split: str, alignment: str, size: int) -> None:
        self.size = size
        self._files: list[Path] = []
        if (folder / "corpus.json").is_file():
            from talkface.data.base import Corpus
            from talkface.data.labelled import LabelledPictures

            self._corpus = LabelledPictures(Corpus(folder, split), image_size=size, alignment=alignment)
        else:
            self._files = picture_files("--training", folder)

    def __len__(self) -> int:
        return len(self._files) or len(self._corpus.pictures)

    def __getitem__(self, index: int) -> np.ndarray:
        if not self._files:
            return self._corpus.read(self._corpus.pictures[index])
        from talkface.media import read_image

        return square(read_image(self._files[index]), str(self._files[index]), self.size)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def name(self, index: int) -> str:
        """What a picture is called."""
        return self._files[index].name if self._files else self._corpus.pictures[index].clip.id


def square(picture: np.ndarray, name: str, size: int) -> np.ndarray:
    """A square picture in another size. Raises: TalkfaceError: it is not square."""
    import cv2

    height, width = picture.shape[:2]
    if height != width:
        raise TalkfaceError(f"{name}: {width} x {height} pixels; allowed are square, aligned faces")
    if height == size:
        return picture
    return cv2.resize(
        picture, (size, size), interpolation=cv2.INTER_AREA if height > size else cv2.INTER_CUBIC
    )


def as_pixels(pictures: list[np.ndarray]) -> Tensor:
    """uint8 (S, S, 3) each -> (N, 3 * 64 * 64) in [-1, 1], reduced to 64 pixels so that sharpness counts less."""
    import numpy as np

    from talkface.media import to_tensor

    return to_tensor(np.stack([square(picture, "", PIXEL_SIZE) for picture in pictures])).flatten(1)


def _embedded(embed: Callable[[Tensor], Tensor], pictures: list[np.ndarray], device: torch.device) -> Tensor:
    import numpy as np

    from talkface.media import to_tensor

    return embed(to_tensor(np.stack(pictures)).to(device)).float().flatten(1).cpu()
