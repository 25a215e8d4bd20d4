"""The verb `talkface edit-emotion`: another expression on a picture, on a folder of them, or a figure of many."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkface.arguments import whole
from talkface.edit_options import (
    add_machine,
    add_model,
    add_settings,
    check_folder_out,
    check_picture_out,
    chosen_settings,
    file_key,
    make_pipeline,
    picture_files,
)
from talkface.errors import TalkfaceError
from talkface.sample_images import description

if TYPE_CHECKING:
    from talkface.pipelines.edited_face import Face
    from talkface.pipelines.emotion_edit import EmotionEditPipeline
    from talkface.pipelines.expression import Expression
    from talkface.pipelines.latent_editing import EditSettings

# columns of the thesis's figures 4.7 and 4.6
GRIDS = {"guidance": (1.0, 2.0, 3.0, 4.0, 5.0), "strength": (300, 400, 500, 600)}


def add_edit_emotion(verbs: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "edit-emotion",
        help="change the expression of the face in a picture, or in a folder of pictures",
        description="Change the expression of a face. Of a folder, pictures that are done are not done again, and "
        "broken ones are reported at the end (exit code 1).",
    )
    add = parser.add_argument
    add("--image", required=True, type=Path, metavar="PICTURE|FOLDER", help="the face")
    add(
        "--to",
        required=True,
        nargs="+",
        metavar="EXPRESSION",
        help="neutral, happy, sad, surprised, fear, disgusted, angry, contempt; happy:0.5 for half of it; a mixture, "
        "happy:0.6,surprised:0.4; facial actions, AU12=0.8,AU6=0.5 or mouthSmileLeft=0.8. With --grid several, or all",
    )
    add("--out", type=Path, metavar="PICTURE|FOLDER", help="default: edited.png, or the folder edited")
    add(
        "--grid",
        choices=tuple(GRIDS),
        help="one figure: a row for each target, a column for each --guidance-scale (default: 1 2 3 4 5) or --strength "
        "(default: 300 400 500 600)",
    )
    add("--crop", action="store_true", help="write only the square face")
    add_model(parser)
    add_settings(parser, many=True)
    add_machine(parser)
    add(
        "--batch-size",
        type=whole(1, 4096),
        metavar="N",
        help="pictures of a folder that are read together; changes no picture (default: a network call's)",
    )
    parser.set_defaults(run=_edit_emotion)


def _edit_emotion(options: argparse.Namespace) -> int:
    files = picture_files("--image", options.image)
    folder = options.image.is_dir()
    out = options.out or Path("edited" if folder else "edited.png")
    if folder and options.grid:
        raise TalkfaceError(f"--grid: {options.image} is a folder; a figure is made of one picture")
    if folder:
        check_folder_out(out, options.image)
    else:
        check_picture_out(out, files)
    check_numbers(options)
    pipeline = make_pipeline(options)
    targets = [pipeline.expression(text) for text in expand(options.to, pipeline.emotions, options.grid)]
    source = pipeline.source_expression(options.source)
    if options.grid:
        return _figure(options, pipeline, files[0], targets, source, out)
    settings = chosen_settings(
        options, pipeline, strength=first(options.strength), guidance_scale=first(options.guidance_scale)
    )
    job = _Job(options, pipeline, targets[0], source, settings)
    return _folder(job, files, out) if folder else _one(job, files[0], out)


def first(values: Sequence[Any] | None) -> Any:
    """The only value; None where there is none."""
    return values[0] if values else None


def check_numbers(options: argparse.Namespace) -> None:
    """Raises: TalkfaceError: several values where one is allowed."""
    for name, column in (("guidance_scale", "guidance"), ("strength", "strength")):
        values = getattr(options, name)
        if values and len(values) > 1 and options.grid != column:
            flag = "--" + name.replace("_", "-")
            raise TalkfaceError(
                f"{flag}: {len(values)} values; allowed is one, or several with --grid {column}"
            )
    if len(options.to) > 1 and not options.grid:
        raise TalkfaceError(f"--to: {len(options.to)} targets; allowed is one, or several with --grid")


def expand(given: list[str], known: list[str], grid: str | None) -> list[str]:
    """Targets in the order given, each once; in a grid `all` stands for all known."""
    if "all" in given and not grid:
        raise TalkfaceError("--to: all; it is for --grid; allowed is one target")
    return list(dict.fromkeys(one for text in given for one in (known if text == "all" else [text])))


@dataclass(frozen=True)
class _Job:
    """What is done to every picture."""

    options: argparse.Namespace
    pipeline: EmotionEditPipeline
    target: Expression
    source: Expression | None
    settings: EditSettings

    def about(self, path: Path) -> dict[str, Any]:
        """What decides the result for a picture."""
        return self.pipeline.describe(self.settings) | {
            "from": self.options.source,
            "to": self.target.text,
            "crop": self.options.crop,
            "aligned": self.options.aligned,
            "face": self.options.face or 1,
            "input": file_key(path),
        }

    def cut(self, path: Path) -> Face:
        """Read a picture and find its face."""
        from talkface.media import read_image

        return self.pipeline.cut(read_image(path), str(path), self.options.face, self.options.aligned)

    def write(self, faces: list[tuple[Path, Face]], places: dict[Path, Path]) -> Iterator[tuple[Path, str]]:
        """Edit and write; yields each path with what was done."""
        from talkface.media import write_image

        made = self.pipeline(
            [face for _, face in faces], [self.target], source=self.source, settings=self.settings
        )
        for (path, _), (edited,) in zip(faces, made, strict=True):
            about = self.about(path) | {"source": edited.source.text, "image": path.name}
            write_image(
                places[path], edited.face if self.options.crop else edited.image, about, inputs=[path]
            )
            yield path, f"{edited.source.text} to {edited.target.text}"


def _one(job: _Job, path: Path, out: Path) -> int:
    face = job.cut(path)
    if face.faces > 1 and job.options.face is None:
        print(f"talkface: {path} shows {face.faces} faces; the largest is edited (--face)", file=sys.stderr)
    for _, done in job.write([(path, face)], {path: out}):
        print(f"{out}: {done}")
    return 0


def _folder(job: _Job, files: list[Path], out: Path) -> int:
    from tqdm import tqdm

    places = result_names(files, out)
    out.mkdir(exist_ok=True)
    missing = [path for path in files if not is_done(job, path, places[path])]
    broken: list[str] = []
    done = 0
    size = job.options.batch_size or job.pipeline.editor.group
    bar = tqdm(total=len(missing), unit="picture", desc=out.name, disable=not sys.stderr.isatty())
    try:
        with bar:
            for start in range(0, len(missing), size):
                cut: list[tuple[Path, Face]] = []
                for path in missing[start : start + size]:
                    try:
                        cut.append((path, job.cut(path)))
                    except (TalkfaceError, OSError) as error:
                        broken.append(reason(path, error))
                        bar.update()
                for _ in job.write(cut, places):
                    done += 1
                    bar.update()
    except KeyboardInterrupt:
        print(
            f"\ntalkface: interrupted; {done} of {len(missing)} pictures are written, the same command continues",
            file=sys.stderr,
        )
        return 130
    there = len(files) - len(missing)
    told = [f"{done} pictures edited"] + ([f"{there} were there"] if there else [])
    print(f"{out}: {', '.join(told)}" + (f", {len(broken)} failed" if broken else ""))
    for line in broken:
        print(f"talkface: {line}", file=sys.stderr)
    return 1 if broken else 0


def reason(path: Path, error: Exception) -> str:
    """One line for a picture that failed."""
    text = " ".join(str(error).split())
    return text if str(path) in text else f"{path}: {text}"


def result_names(files: list[Path], out: Path) -> dict[Path, Path]:
    """A PNG for each picture; two pictures of one name keep their endings in theirs."""
    stems = [path.stem for path in files]
    return {
        path: out / (f"{path.stem}.png" if stems.count(path.stem) == 1 else f"{path.name}.png")
        for path in files
    }


def is_done(job: _Job, path: Path, place: Path) -> bool:
    """Whether the result is there. Raises: TalkfaceError: it was made in another way."""
    if not place.exists():
        return False
    found, wanted = description(place), job.about(path)
    other = [name for name, value in wanted.items() if found.get(name) != value and name != "input"]
    if other:
        raise TalkfaceError(
            f"--out: {place} was made with another {', '.join(other)}; give another folder, or delete it"
        )
    return found.get("input") == wanted["input"]


def _figure(
    options: argparse.Namespace,
    pipeline: EmotionEditPipeline,
    path: Path,
    targets: list[Expression],
    source: Expression | None,
    out: Path,
) -> int:
    from talkface.media import read_image, write_image
    from talkface.portrait.sheet import sheet

    face = pipeline.cut(read_image(path), str(path), options.face, options.aligned)
    name = {"guidance": "guidance_scale", "strength": "strength"}[options.grid]
    values = getattr(options, name) or GRIDS[options.grid]
    # the other of the two has one value
    base = chosen_settings(
        options,
        pipeline,
        strength=first(options.strength if name != "strength" else values),
        guidance_scale=first(options.guidance_scale if name != "guidance_scale" else values),
    )
    columns = []
    shown = ""
    for value in values:
        changed: dict[str, Any] = {name: value}
        edited = next(pipeline([face], targets, source=source, settings=replace(base, **changed)))
        columns.append([one.face for one in edited])
        shown = edited[0].source.text
    rows = [[face.crop.image, *(column[row] for column in columns)] for row in range(len(targets))]
    label = "guidance" if name == "guidance_scale" else "strength"
    picture = sheet(
        rows, [target.text for target in targets], [shown, *(f"{label} {value:g}" for value in values)]
    )
    about = pipeline.describe(base) | {
        "from": options.source,
        "to": [target.text for target in targets],
        name: values,
    }
    write_image(out, picture, about | {"input": file_key(path)}, inputs=[path])
    print(f"{out}: {len(targets)} targets, {options.grid} {', '.join(f'{value:g}' for value in values)}")
    return 0
