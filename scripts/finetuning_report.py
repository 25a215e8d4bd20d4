"""Write docs/results/clip_finetuning.md: an emotion model before and after CLIP-guided finetuning, on held-out faces.

    python scripts/evaluate_editing.py ... --work build/before
    python scripts/evaluate_editing.py ... --work build/full --bundle build/tuned
    python scripts/evaluate_editing.py ... --work build/lora --adapter adapters.safetensors:last
    python scripts/finetuning_report.py --before build/before --after "all weights=build/full" "adapter=build/lora"

Only pictures that every folder has are compared. Two models beside each other are drawn with --faces, which edits as
`talkface edit-emotion --start picture` does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from editing_report import ACCURACY, NUMBERS, Rows, edited, mean
from evaluate_editing import batches
from measuring import cell, markdown, positive, run

from talkface.adapters import split_adapter
from talkface.arguments import number
from talkface.data.base import Corpus
from talkface.errors import TalkfaceError
from talkface.head.emotions import EMOTIONS
from talkface.media import to_uint8, write_image
from talkface.metrics.interval import bootstrap_interval
from talkface.pipelines.device import choose_device
from talkface.pipelines.edited_face import Face
from talkface.pipelines.emotion_edit import EmotionEditPipeline
from talkface.pipelines.expression import single
from talkface.pipelines.latent_editing import EditSettings
from talkface.portrait.crop import AlignedCrop
from talkface.portrait.sheet import sheet

FIGURE = "clip_finetuning.jpg"
TARGETS = ("happy", "sad", "surprised", "fear", "disgusted", "angry")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--before", type=Path, required=True, help="--work of the model as it was")
    add("--after", nargs="+", required=True, metavar="NAME=FOLDER", help="--work of finetuned ones")
    add("--about", type=Path, help="text (markdown) on how they were trained, put below the tables")
    add("--out", type=Path, default=Path("docs/results/clip_finetuning.md"))
    add(
        "--faces",
        nargs="*",
        default=[],
        metavar="NAME=BUNDLE[+ADAPTER]",
        help="models of the figure; without, the one that is there",
    )
    add("--corpus", type=Path, help="of the figure's faces, split test")
    add("--skip", type=int, default=0, metavar="N", help="leave out the first N faces")
    add("--people", type=positive, default=3, metavar="N", help="faces in the figure (default: 3)")
    add("--scale", type=number(0, 50), default=1.0, help="guidance scale of the figure (default: 1)")
    add("--steps", type=positive, default=10)
    return made


def named(texts: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE. Raises: TalkfaceError: no equals sign."""
    if bad := [text for text in texts if "=" not in text]:
        raise TalkfaceError(f"{bad[0]}; allowed is NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def common(folders: dict[str, Rows], name: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of a cell, of the pictures and targets that all have, in one order."""
    shared = set.intersection(*(set(rows.cells[name]) for rows in folders.values()))
    return {
        model: edited([rows.cells[name][key] for key in sorted(shared)]) for model, rows in folders.items()
    }


def tables(folders: dict[str, Rows]) -> list[str]:
    """Per guidance scale and strength: every model's numbers, differences from the first with their intervals."""
    first = next(iter(folders))
    names = sorted(
        (
            name
            for name in folders[first].cells
            if name[0].isdigit() and all(rows.of(name) for rows in folders.values())
        ),
        key=lambda name: tuple(map(float, reversed(name.split()))),
    )
    lines = []
    for name in names:
        scale, strength = name.split()
        found = common(folders, name)
        pictures = len({row["picture"] for row in found[first]})
        body = []
        for model, rows in found.items():
            single_targets = [
                mean([r for r in rows if r["target"] == EMOTIONS.index(t)], ACCURACY) for t in TARGETS
            ]
            forms = {"PSNR": "{:.2f}"}
            values = [cell(mean(rows, number), forms.get(number, "{:.3f}")) for number in NUMBERS]
            body.append([model, cell(mean(rows, ACCURACY)), *map(cell, single_targets), *values])
        for model, rows in list(found.items())[1:]:
            gained = [
                float(a[ACCURACY]) - float(b[ACCURACY]) for a, b in zip(rows, found[first], strict=True)
            ]
            low, high = bootstrap_interval(gained)
            told = [f"{sum(gained) / len(gained):+.3f} ({low:+.3f} to {high:+.3f})"]
            for target in TARGETS:
                rows_of = [
                    g for g, row in zip(gained, rows, strict=True) if row["target"] == EMOTIONS.index(target)
                ]
                told.append(f"{sum(rows_of) / max(1, len(rows_of)):+.3f}")
            for one in NUMBERS:
                own, base = mean(rows, one), mean(found[first], one)
                told.append("–" if own is None or base is None else f"{own - base:+.3f}")
            body.append([f"{model}, difference", *told])
        lines += [
            f"## Guidance {scale}, strength {strength}: {pictures} faces, {len(found[first])} edits",
            "",
        ]
        lines += [markdown(["", ACCURACY, *TARGETS, *NUMBERS], body), ""]
    return lines


def figure(options: argparse.Namespace) -> str:
    """Draw the models below each other for every face; the name of the picture."""
    corpus = Corpus(options.corpus, "test")
    rows, names = [], []
    pipelines = {}
    for name, model in named(options.faces).items():
        bundle, _, adapter = model.partition("+")
        made = EmotionEditPipeline.from_pretrained(bundle, choose_device("auto"), finder=object())
        if adapter:
            made.add_adapter(*split_adapter(adapter))
        pipelines[name] = made
    first = next(iter(pipelines.values()))
    faces = next(
        batches(corpus, first.image_size, options.skip + options.people, options.skip + options.people)
    )
    whole = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for index in range(options.skip, options.skip + options.people):
        picture = to_uint8(faces.images[index : index + 1])[0]
        cut = AlignedCrop.from_matrix(picture, whole, len(picture))
        face = Face(picture, cut, np.ones(picture.shape[:2]), 1, faces.points[index])
        for name, pipeline in pipelines.items():
            settings = EditSettings(
                strength=500, num_inference_steps=options.steps, guidance_scale=options.scale,
                inversion_guidance_scale=1.0, start="picture",
            )  # fmt: skip
            told = [single(EMOTIONS.index(target), pipeline.emotions) for target in TARGETS]
            source = single(faces.labels[index], pipeline.emotions)
            [edits] = pipeline([face], told, source=source, settings=settings)
            rows.append([picture, *(one.face for one in edits)])
            names.append(name)
    path = options.out.with_name(FIGURE)
    write_image(path, sheet(rows, names, ["picture", *TARGETS]), {"scale": options.scale})
    return path.name


def main() -> int:
    """Write the page."""
    options = parser().parse_args()
    there = options.out.with_name(FIGURE)
    drawn = figure(options) if options.faces else there.name if there.is_file() else None
    folders = {"before": Rows(options.before)} | {
        name: Rows(Path(folder)) for name, folder in named(options.after).items()
    }
    about = json.loads((options.before / "about.json").read_text())
    lines = [
        "# CLIP-guided finetuning, measured",
        "",
        "Written by `scripts/finetuning_report.py`; what it is: [clip_finetuning.md](../clip_finetuning.md).",
        "",
        f"Held-out faces of the corpus `{about['corpus']}` (split {about['split']}; nobody of them was seen in "
        f"training or when an epoch was chosen), edited from the {about['start']} with {about['solver']}, "
        f"{about['num_inference_steps']} steps each way, in {about['precision']}; guidance while inverting: "
        f"{about['inversion_guidance_scale']}. Judge: {about['judge']}, which neither guided nor chose an epoch. "
        "Accuracy: share of pictures, not of the target class already, that the judge finds to be of it. PSNR, SSIM, "
        "LPIPS and identity (dlib) compare with the first stage's reconstruction of the picture. Intervals: 95 %, "
        "bootstrap over edits.",
        "",
        *tables(folders),
    ]
    if options.about is not None:
        lines += [options.about.read_text().rstrip(), ""]
    if drawn is not None:
        lines += [
            f"Guidance {options.scale:g}; in every block of rows one person, the models below each other:",
            "",
            f"![faces before and after]({drawn})",
            "",
        ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines)
    options.out.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    run("finetuning_report", main)
