"""Write docs/results/editing.md: the thesis's Table 4.2 on held-out faces, its floors and ceilings, and its figures.

    python scripts/evaluate_editing.py --corpus corpora/faces --judge build/emotion1.safetensors --work build/editing \
        --lpips-backbone alexnet.safetensors

Every picture is edited into six targets for each guidance scale and each strength; all targets share one inversion,
under the true label. Rows: the picture copied, the first stage alone, the cycle under the source's own label. Numbers:
accuracy of the judging classifier, on pictures that are not of the target class already; PSNR, SSIM, LPIPS against the
first stage's reconstruction, as the thesis has them; identity, the cosine of a face recogniser's descriptors.

What is measured is kept in --work, one line a number; the same command goes on where it was interrupted, other
--limit, --scales, --strengths and --targets add to it, and --report alone writes what there is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from editing_report import ACCURACY, EQUAL, Rows, report
from measuring import positive, run
from torch import Tensor

from talkface.adapters import split_adapter
from talkface.arguments import number, whole
from talkface.checkpoint import instantiate
from talkface.data.base import Corpus
from talkface.data.labelled import LabelledPictures
from talkface.errors import TalkfaceError
from talkface.experts.identity import DlibRecogniser
from talkface.experts.registry import check_judge
from talkface.experts.vision import LPIPS
from talkface.media import to_tensor, to_uint8, write_image
from talkface.metrics.paired import psnr, region_lpips, ssim
from talkface.pipelines.device import choose_device
from talkface.pipelines.edited_face import Face
from talkface.pipelines.emotion_edit import EmotionEditPipeline
from talkface.pipelines.expression import single
from talkface.pipelines.latent_editing import SOLVERS, STARTS, EditSettings
from talkface.portrait.crop import AlignedCrop, alignment_matrix, transform
from talkface.portrait.sheet import sheet

TARGETS = ("happy", "sad", "surprised", "fear", "disgusted", "angry")
SCALES, STRENGTHS = (1.0, 2.0, 3.0, 4.0, 5.0), (400, 500, 600)


@dataclass(frozen=True)
class Judges:
    """emotion: (B, 3, S, S) -> probabilities; distance: LPIPS or None; recogniser: or None."""

    emotion: Callable[[Tensor], Tensor]
    distance: LPIPS | None
    recogniser: DlibRecogniser | None

    def describe(self, images: Tensor, points: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        """Descriptors of aligned faces (B, 3, S, S) with their landmarks, None without a recogniser."""
        if self.recogniser is None:
            return [None] * len(points)
        return [self.recogniser.describe(*pair) for pair in zip(to_uint8(images), points, strict=True)]


@dataclass(frozen=True)
class Faces:
    """A batch: names (B,), labels (B,), images (B, 3, S, S) in [-1, 1], points (B, 68, 2) in their pixels."""

    names: list[str]
    labels: list[int]
    images: Tensor
    points: list[np.ndarray]


def read_judge(path: Path | None, pipeline: EmotionEditPipeline) -> Callable[[Tensor], Tensor]:
    """A classifier from an `.onnx` of HSEmotion, or `.safetensors` with its class in a `.json` beside it.

    Raises:
        TalkfaceError: none given and none in the bundle; unreadable.
    """
    if path is None:
        return pipeline.classify
    if path.suffix == ".onnx":
        from talkface.experts.emotion import HSEmotionClassifier

        return HSEmotionClassifier(path)
    from safetensors.torch import load_file

    try:
        judge = instantiate(json.loads(path.with_suffix(".json").read_text()))
        judge.load_state_dict(load_file(path))
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise TalkfaceError(
            f"--judge: {path} cannot be read ({reason}); give a .safetensors with its .json"
        ) from error
    return judge.eval().requires_grad_(False).to(pipeline.device)


def make_judges(options: argparse.Namespace, pipeline: EmotionEditPipeline) -> Judges:
    """Those that are asked for. Raises: TalkfaceError: weights or packages are absent; the judge guided the model."""
    judge = read_judge(options.judge, pipeline)
    if pipeline.guided_by:
        module = pipeline.classifier if options.judge is None else judge
        # to mypy a judge is a function; both kinds are Modules
        check_judge(module, pipeline.guided_by, options.allow_same_expert)  # type: ignore[arg-type]
    distance = LPIPS("alex", options.lpips_backbone) if options.lpips_backbone else None
    return Judges(judge, distance, DlibRecogniser() if options.identity else None)


def batches(corpus: Corpus, size: int, limit: int | None, batch: int) -> Iterator[Faces]:
    """Pictures of a corpus, cut out by their true landmarks; of all people one before any has two."""
    data = LabelledPictures(corpus, image_size=size, alignment="canonical")
    turn: dict[str, int] = {}
    ranked = []
    for picture in data.pictures:
        turn[picture.clip.subject] = turn.get(picture.clip.subject, -1) + 1
        ranked.append((turn[picture.clip.subject], picture.clip.id, picture))
    # the numbers of the people take turns through the emotions, so that a limit leaves no emotion out
    chosen = [picture for _, _, picture in sorted(ranked, key=lambda row: row[:2])][:limit]
    for start in range(0, len(chosen), batch):
        some = chosen[start : start + batch]
        images = torch.cat([to_tensor(data.read(picture)) for picture in some])
        points = []
        for picture in some:
            truth = corpus.read_truth(picture.clip, ["landmarks"])["landmarks"][picture.frame]
            points.append(transform(alignment_matrix(truth, size), truth).astype(np.float32))
        yield Faces([p.key for p in some], [p.clip.emotion for p in some], images, points)


def measure(
    judges: Judges,
    images: Tensor,
    plain: Tensor,
    faces: Faces,
    descriptors: list[np.ndarray | None],
    target: int,
) -> list[dict[str, Any]]:
    """One row of numbers for each picture, against `plain`."""
    with torch.inference_mode():
        told = judges.emotion(images).cpu()
        near, alike = psnr(images, plain), ssim(images, plain)
        far = None if judges.distance is None else region_lpips(judges.distance, images.cpu(), plain.cpu())
    rows = []
    for index, (mine, other) in enumerate(
        zip(judges.describe(images, faces.points), descriptors, strict=True)
    ):
        row: dict[str, Any] = {
            "picture": faces.names[index],
            "label": faces.labels[index],
            "target": target,
            ACCURACY: int(told[index].argmax()) == target,
            "judged": int(told[index].argmax()),
            "PSNR": round(min(float(near[index]), EQUAL), 4),
            "SSIM": round(float(alike[index]), 5),
        }
        if far is not None:
            row["LPIPS"] = round(float(far[index]), 5)
        if mine is not None and other is not None:
            row["identity"] = round(float(mine @ other / np.linalg.norm(mine) / np.linalg.norm(other)), 5)
        rows.append(row)
    return rows


class Table:
    """Measures cells that are not measured yet."""

    def __init__(
        self, options: argparse.Namespace, pipeline: EmotionEditPipeline, judges: Judges, rows: Rows
    ) -> None:
        self.options, self.pipeline, self.judges, self.rows = options, pipeline, judges, rows
        self.targets = [pipeline.emotions.index(name) for name in options.targets]

    def settings(self, scale: float, strength: int) -> EditSettings:
        """Those of a cell; what the thesis does not vary is the bundle's, or given."""
        settings = replace(
            self.pipeline.defaults,
            guidance_scale=scale,
            strength=strength,
            num_inference_steps=self.options.steps,
            solver=self.options.solver,
            inversion_guidance_scale=self.options.inversion_guidance_scale,
            grid=None,
            start=self.options.start,
        )
        if self.options.overshoot is not None:
            settings = replace(settings, overshoot=self.options.overshoot)
        settings.check(self.pipeline.editor.schedule)
        return settings

    def guides(self, faces: Faces) -> dict[int, Tensor]:
        """Latents (B, C, h, w) of the pictures animated to each target; none for a network that is not guided."""
        if not self.pipeline.is_guided:
            return {}
        told = [single(target, self.pipeline.emotions) for target in self.targets]
        drawn = [
            self.pipeline.guides(image[None], points, told)
            for image, points in zip(faces.images, faces.points, strict=True)
        ]
        return {
            target: self.pipeline.encode(torch.cat([one[place] for one in drawn]))
            for place, target in enumerate(self.targets)
        }

    def fill(self, faces: Faces, cells: Sequence[tuple[float, int]]) -> None:
        """Everything that is missing for a batch."""
        pipeline = self.pipeline
        latents = pipeline.encode(faces.images)
        plain = pipeline.decode(latents).cpu()
        descriptors = self.judges.describe(plain, faces.points)
        if self.rows.lacks("picture copied", faces.names, 0):
            judged = measure(self.judges, faces.images, faces.images, faces, descriptors, -1)
            self.rows.add("picture copied", [row | {"target": 0} for row in judged])
            judged = measure(self.judges, plain, faces.images, faces, descriptors, -1)
            self.rows.add("first stage", [row | {"target": 0} for row in judged])
        guides = self.guides(faces)
        for target, guide in guides.items():
            if self.rows.lacks("guide alone", faces.names, target):
                drawn = pipeline.decode(guide).cpu()
                self.rows.add("guide alone", measure(self.judges, drawn, plain, faces, descriptors, target))
        sources = [single(label, pipeline.emotions) for label in faces.labels]
        for scale, strength in cells:
            name = f"{scale:g} {strength}"
            missing = [target for target in self.targets if self.rows.lacks(name, faces.names, target)]
            cycle = self.rows.lacks(f"cycle {name}", faces.names, 0)
            if not missing and not cycle:
                continue
            settings = self.settings(scale, strength)
            own = pipeline.shown(latents)
            noisy = pipeline.editor.invert(latents, sources, settings, shown=own)
            if cycle:
                back = pipeline.editor.denoise(noisy, sources, settings, shown=own)
                back = pipeline.decode(back).cpu()
                judged = measure(self.judges, back, plain, faces, descriptors, -1)
                self.rows.add(f"cycle {name}", [row | {"target": 0} for row in judged])
            for target in missing:
                told = [single(target, pipeline.emotions)] * len(sources)
                shown = pipeline.shown(latents, guides.get(target))
                if target in guides and settings.start == "guide":
                    noisy = pipeline.editor.invert(guides[target], sources, settings, shown=shown)
                edited = pipeline.editor.denoise(noisy, told, settings, shown=shown)
                edited = pipeline.decode(edited).cpu()
                self.rows.add(name, measure(self.judges, edited, plain, faces, descriptors, target))


def figures(
    options: argparse.Namespace, pipeline: EmotionEditPipeline, table: Table, corpus: Corpus
) -> list[str]:
    """Write the pictures; their names. Targets x scales and x strengths for one face, faces x targets.

    They show what a user gets: the change laid over the picture.
    """
    folder = options.out.parent
    folder.mkdir(parents=True, exist_ok=True)
    faces = next(batches(corpus, pipeline.image_size, options.figures, options.figures))
    shown = to_uint8(faces.images)
    whole = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    cut = [
        Face(
            picture,
            AlignedCrop.from_matrix(picture, whole, len(picture)),
            np.ones(picture.shape[:2]),
            1,
            points,
        )
        for picture, points in zip(shown, faces.points, strict=True)
    ]
    sources = [single(label, pipeline.emotions) for label in faces.labels]
    targets = [single(target, pipeline.emotions) for target in table.targets]

    def edited(face: int, settings: EditSettings) -> list[np.ndarray]:
        """For each target, uint8 (S, S, 3)."""
        [made] = pipeline([cut[face]], targets, source=sources[face], settings=settings)
        return [one.face for one in made]

    names = [pipeline.emotions[target] for target in table.targets]
    written = []
    for kind, values in (("guidance", SCALES), ("strength", (300, *STRENGTHS))):
        columns = []
        for value in values:
            scale, strength = (value, 500) if kind == "guidance" else (3.0, int(value))
            columns.append(edited(0, table.settings(scale, strength)))
        rows = [[shown[0], *(column[target] for column in columns)] for target in range(len(names))]
        above = [sources[0].text, *(f"{kind} {value:g}" for value in values)]
        written.append(f"editing_{kind}.jpg")
        write_image(folder / written[-1], sheet(rows, names, above), {"kind": kind})
    rows = [[picture, *edited(face, table.settings(3.0, 500))] for face, picture in enumerate(shown)]
    written.append("editing_people.jpg")
    write_image(
        folder / written[-1], sheet(rows, [s.text for s in sources], ["picture", *names]), {"kind": "people"}
    )
    return written


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--corpus", type=Path, required=True, help="made by data_prep/synthetic_faces.py")
    add("--split", default="test", choices=("train", "val", "test"), help="default: test")
    add("--bundle", default="emotion", help="default: emotion")
    add(
        "--work",
        type=Path,
        default=Path("build/editing"),
        help="what is measured already (default: build/editing)",
    )
    add("--out", type=Path, default=Path("docs/results/editing.md"), help="default: docs/results/editing.md")
    add(
        "--judge",
        type=Path,
        metavar="FILE",
        help="classifier that judges (default: the bundle's, which guides)",
    )
    add(
        "--lpips-backbone",
        type=Path,
        metavar="FILE",
        help="AlexNet weights of torchvision; without it no LPIPS",
    )
    add("--identity", action="store_true", help="measure it (needs talkface[identity])")
    add("--limit", type=positive, metavar="N", help="pictures (default: all)")
    add("--targets", nargs="+", choices=TARGETS, default=TARGETS, help="default: all six")
    add("--scales", type=number(0, 50), nargs="+", default=SCALES, help="default: 1 2 3 4 5")
    add("--strengths", type=whole(1, 1000), nargs="+", default=STRENGTHS, help="default: 400 500 600")
    add("--inversion-guidance-scale", type=number(0, 50), help="default: as while denoising (the thesis)")
    add("--start", choices=STARTS, default="picture", help="what a guided model inverts (default: picture)")
    add("--overshoot", type=number(0, 1000), help="of guidance beyond the guide (default: the bundle's)")
    add("--steps", type=positive, default=40, help="each way (default: 40)")
    add("--solver", choices=tuple(SOLVERS), default="ddim", help="default: ddim")
    add("--batch-size", type=positive, default=8, help="pictures in each network call (default: 8)")
    add("--figures", type=positive, default=6, metavar="N", help="faces in the figures (default: 6)")
    add("--no-figures", action="store_true", help="write the table only")
    add("--report", action="store_true", help="measure nothing; write what there is")
    add("--adapter", metavar="FILE[:NAME]", help="a finetuned adapter of the bundle")
    add("--allow-same-expert", action="store_true", help="also judge by an expert that guided the finetuning")
    add("--device", default="auto")
    return made


def main() -> int:
    """Measure what is missing, then write the report."""
    options = parser().parse_args()
    corpus = Corpus(options.corpus, options.split)
    pipeline = EmotionEditPipeline.from_pretrained(
        options.bundle, choose_device(options.device), finder=object(), group=options.batch_size
    )
    if options.adapter is not None:
        pipeline.add_adapter(*split_adapter(options.adapter))
    rows = Rows(options.work)
    table = Table(options, pipeline, make_judges(options, pipeline), rows)
    about = pipeline.describe(table.settings(3.0, 500)) | {
        "corpus": options.corpus.name,
        "split": options.split,
        "judge": "the bundle's own classifier" if options.judge is None else options.judge.name,
        "inversion_guidance_scale": options.inversion_guidance_scale or "the same",
        "adapter": options.adapter,
    }
    rows.check(about)
    cells = sorted(
        ((scale, strength) for scale in options.scales for strength in options.strengths),
        key=lambda cell: (cell != (3.0, 500), cell[1], cell[0]),
    )
    if not options.report:
        for cell in cells:  # cell by cell, so that an interrupted run has whole ones
            for faces in batches(corpus, pipeline.image_size, options.limit, options.batch_size):
                table.fill(faces, [cell])
            print(f"guidance {cell[0]:g}, strength {cell[1]}: done", flush=True)
    written = [] if options.no_figures else figures(options, pipeline, table, corpus)
    text = report(rows, pipeline.emotions, about, written)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    run("evaluate_editing", main)
