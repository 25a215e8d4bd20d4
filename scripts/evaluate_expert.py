"""What the emotion classifiers are worth: confusion on held-out renders, opinions on films and paintings.

    python scripts/evaluate_expert.py --corpus corpora/faces --classifiers build/emotion0.safetensors \
        build/emotion1.safetensors --films grid/*.mpg --pictures paintings/*.png --out docs/results/experts.md

Renders are cut out by their exact landmarks, photographs by the house's face finder. `--sheet` writes what the
classifiers saw of the photographs as one picture. What stands under "In words" in the file is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from talkface.checkpoint import instantiate, load_bundle
from talkface.data.base import EMOTIONS, Corpus
from talkface.data.finding import make_finder
from talkface.errors import TalkfaceError
from talkface.media import open_video, read_image, to_tensor, write_image
from talkface.portrait.crop import AlignedCrop

SIZE = 128
WORDS = "## In words"


def load_classifier(path: Path) -> nn.Module:
    """What scripts/train_expert.py wrote."""
    made = instantiate(json.loads(path.with_suffix(".json").read_text()))
    made.load_state_dict(load_file(path))
    return made.eval().requires_grad_(False)


def held_out(folder: Path, limit: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Crops (N, 3, S, S), emotions (N,) and intensities (N,) of the test split."""
    corpus = Corpus(folder, "test")
    crops, emotions, intensities = [], [], []
    for clip in list(corpus)[:limit]:
        truth = corpus.read_truth(clip, ("landmarks", "intensity"))
        crop = AlignedCrop.from_landmarks(corpus.read_frame(clip, 0), truth["landmarks"][0], size=SIZE)
        crops.append(crop.image)
        emotions.append(clip.emotion)
        intensities.append(float(truth["intensity"][0]))
    return to_tensor(np.stack(crops)), np.array(emotions), np.array(intensities)


@torch.no_grad()
def in_parts(network: Callable[[Tensor], Tensor], images: Tensor, size: int = 32) -> Tensor:
    """`network(images)`, some at a time."""
    return torch.cat([network(part) for part in images.split(size)])


def confusion(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """(8, 8) counts: rows shown, columns said."""
    table = np.zeros((len(EMOTIONS), len(EMOTIONS)), np.int64)
    np.add.at(table, (truth, guess), 1)
    return table


def as_table(counts: np.ndarray) -> list[str]:
    """Shares of each row in percent, as Markdown."""
    lines = [
        "| shown \\ said | " + " | ".join(EMOTIONS) + " | pictures |",
        "|" + "---|" * (len(EMOTIONS) + 2),
    ]
    for name, row in zip(EMOTIONS, counts, strict=True):
        shares = " | ".join(f"{100 * value / max(1, row.sum()):.0f}" for value in row)
        lines.append(f"| {name} | {shares} | {row.sum()} |")
    return lines


def photographs(films: list[Path], pictures: list[Path]) -> dict[str, np.ndarray]:
    """Name -> uint8 picture: the first frame of each film, each picture."""
    found = {path.name: next(iter(open_video(path))) for path in films}
    return found | {path.name: read_image(path) for path in pictures}


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=Path("corpora/faces"))
    parser.add_argument("--classifiers", type=Path, nargs="+", required=True)
    parser.add_argument("--films", type=Path, nargs="*", default=[])
    parser.add_argument("--pictures", type=Path, nargs="*", default=[])
    parser.add_argument("--limit", type=int, default=10**6, help="pictures of the test split")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, help="write the crops of the photographs here")
    options = parser.parse_args()
    classifiers = [load_classifier(path) for path in options.classifiers]
    images, emotions, intensities = held_out(options.corpus, options.limit)
    coder = load_bundle("default", parts=["first_stage"]).part("first_stage")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        blurred = in_parts(lambda part: coder.decode(coder.encode(part)).float(), images)
    lines = [
        "# What the experts are worth",
        "",
        f"Written by `scripts/evaluate_expert.py`. {len(images)} held-out renders of people that no training saw, cut",
        "out by their exact landmarks.",
        "",
        "## Emotion classifiers",
        "",
        "| classifier | accuracy, renders | after the first stage | weak (below 0.75) | strong | guesses agree |",
        "|---|---|---|---|---|---|",
    ]
    said = [in_parts(classifier, images).argmax(1).numpy() for classifier in classifiers]
    for path, classifier, guess in zip(options.classifiers, classifiers, said, strict=True):
        right = guess == emotions
        coded = in_parts(classifier, blurred).argmax(1).numpy() == emotions
        weak = (emotions > 0) & (intensities < 0.75)
        strong = (emotions > 0) & ~weak
        shares = [
            right.mean(),
            coded.mean(),
            right[weak].mean(),
            right[strong].mean(),
            (guess == said[0]).mean(),
        ]
        lines.append(f"| {path.stem} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")
    for path, guess in zip(options.classifiers, said, strict=True):
        lines += ["", f"{path.stem}, in percent of a row:", "", *as_table(confusion(emotions, guess))]
    finder, crops = make_finder(), {}
    for name, picture in photographs(options.films, options.pictures).items():
        faces = finder.find(picture)
        if faces:
            crops[name] = AlignedCrop.from_landmarks(picture, faces[0].points, size=SIZE).image
        else:
            print(f"evaluate_expert: no face found in {name}", file=sys.stderr)
    if crops:
        seen = to_tensor(np.stack(list(crops.values())))
        columns = [in_parts(classifier, seen) for classifier in classifiers]
        names = " | ".join(path.stem for path in options.classifiers)
        lines += ["", "## Opinions on photographs and paintings", "", f"| picture | {names} |"]
        lines.append("|" + "---|" * (1 + len(classifiers)))
        for row, name in enumerate(crops):
            cells = []
            for chances in columns:
                best = chances[row].argsort(descending=True)[:2].tolist()
                cells.append(", ".join(f"{EMOTIONS[k]} {float(chances[row, k]):.2f}" for k in best))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        if options.sheet:
            write_image(options.sheet, np.concatenate(list(crops.values()), axis=1))
    if options.out.is_file() and WORDS in (before := options.out.read_text()):
        lines += ["", before[before.index(WORDS) :].rstrip()]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n")
    print(f"{options.out}: written")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"evaluate_expert: error: {error}", file=sys.stderr)
        sys.exit(2)
