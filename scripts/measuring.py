"""What the measuring scripts share: finding films and pictures, dictating facial actions, tables, errors."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkface.errors import TalkfaceError, require
from talkface.head.expression import commanded
from talkface.head.fit import FittedHead, HeadFitter
from talkface.head.model import ACTIONS, HeadModel
from talkface.media import open_video, read_image
from talkface.media.output import replacing
from talkface.metrics.interval import bootstrap_interval
from talkface.pipelines.face_guide import FaceGuide

FILMS = {".mpg", ".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"}
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
Array = np.ndarray


def positive(text: str) -> int:
    """An option that counts: a whole number from 1 up."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}; allowed are whole numbers from 1 up")
    return number


def judged(parser: argparse.ArgumentParser) -> None:
    """The options of every script that makes films with a bundle and has them judged."""
    add = parser.add_argument
    add("--task", type=Path, required=True, help="MediaPipe's face_landmarker.task")
    add("--bundle", default="default", help="bundle name or folder (default: default)")
    add("--seed", type=int, default=0)
    add("--device", default="auto")
    add("--precision", default="auto")


def files_in(folder: Path, suffixes: set[str], option: str, least: int = 1) -> list[Path]:
    """The files of a folder with these suffixes, sorted. Raises: TalkfaceError: no folder, or too few files."""
    if not folder.is_dir():
        raise TalkfaceError(
            f"{option}: {folder} is not a folder; give a folder of {', '.join(sorted(suffixes))}"
        )
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if len(paths) < least:
        raise TalkfaceError(
            f"{option}: {folder} holds {len(paths)} files of {', '.join(sorted(suffixes))}; at least {least} needed"
        )
    return paths


def read_face(name: str) -> tuple[str, Array]:
    """(short name, uint8 picture) of a picture file, the first frame of a film, or `astronaut` (public domain)."""
    if name == "astronaut":
        return name, require("skimage.data", extra="demo").astronaut()
    path = Path(name)
    if path.suffix.lower() in FILMS:
        return path.stem, next(iter(open_video(path)))
    return path.stem, read_image(path)


def dictation(speech: Any, actions: Array, rate: float, limit: float = 0.0) -> Tensor:
    """Features (T', D) that a speech encoder would give for actions (T, 52) in [0, 1], each held for 1 / `rate` s.

    Args:
        limit: largest feature, in the encoder's standard deviations; 0 = none.

    Raises:
        TalkfaceError: the encoder does not tell facial actions.
    """
    if not hasattr(speech, "from_actions"):
        raise TalkfaceError(
            f"--bundle: its sound encoder ({type(speech).__name__}) does not tell facial actions; "
            "give a bundle with an ArticulationEncoder"
        )
    held = torch.from_numpy(np.repeat(actions, round(speech.feature_rate / rate), axis=0)).float()
    features = speech.from_actions(held.to(speech.mean), ACTIONS)
    return (features.clamp(-limit, limit) if limit else features).cpu()


def drawn_gaps(fitter: HeadFitter, person: FittedHead, actions: Tensor) -> Tensor:
    """(T,) how far the lips of a fitted head part at facial actions (T, 52): exact, of the mesh that is drawn.

    Mean of the three pairs of inner lip landmarks over the distance of the eyes' outer corners, seen from the front of
    the picture; lips that lie on each other are 0 apart.
    """
    one = torch.zeros(len(actions), dtype=torch.long)
    shape = fitter.shape(person.identity[one].double(), actions.double())
    x, y = person[one].project(shape.float())[..., :2].unbind(-1)
    apart = (y[:, [67, 66, 65]] - y[:, [61, 62, 63]]).mean(1).clamp(min=0)
    return apart / torch.hypot(x[:, 45] - x[:, 36], y[:, 45] - y[:, 36])


@contextmanager
def dictated(pipeline: Any, actions: Array, rate: float, limit: float) -> Iterator[list[float]]:
    """Inside, the pipeline shows given actions (T, 52), each for 1 / `rate` s, whatever the sound.

    The network is told them as the features of `dictation`; the guide shows them as `commanded` does. Given is a list
    that grows, frame by frame, by the lip gap that the guide draws (`drawn_gaps`); it stays empty without a guide.
    """
    fitter, gaps = HeadFitter(HeadModel.load()), list[float]()

    def show(self: FaceGuide, times: Sequence[float]) -> Tensor:
        shown = torch.from_numpy(commanded(actions[(np.asarray(times) * rate).astype(int)], self.rest))
        gaps.extend(drawn_gaps(fitter, self.person, shown).tolist())
        return shown

    features, own = dictation(pipeline.speech, actions, rate, limit), FaceGuide.actions
    pipeline.hear = lambda sound, listener=None: features
    # the pipeline builds its guide itself, so the class is what can be told; put back below whatever happens
    FaceGuide.actions = show  # type: ignore[method-assign]
    try:
        yield gaps
    finally:
        del pipeline.hear
        FaceGuide.actions = own  # type: ignore[method-assign]  # gives the class its own back


def cell(value: Any, form: str = "{:.3f}") -> str:
    """A number as a cell of a table; a dash where there is none."""
    if isinstance(value, str):
        return value
    known = value is not None and math.isfinite(value)
    return form.format(value) if known else "∞" if value == math.inf else "–"


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def mean_cell(values: Sequence[float], form: str = "{:.3f}") -> str:
    """Mean and 95 % bootstrap interval of one number per clip; nan is left out."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known or not np.isfinite(known).all():
        return cell(float(np.mean(known)) if known else None)
    low, high = bootstrap_interval(known)
    return f"{form.format(np.mean(known))} [{form.format(low)}, {form.format(high)}]"


def tidy(value: Any) -> Any:
    """Ready for JSON: arrays become lists, numbers are rounded, nan and infinity become null."""
    if isinstance(value, dict):
        return {key: tidy(x) for key, x in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [tidy(x) for x in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value if isinstance(value, int | str | bool | type(None)) else str(value)


def save(out: Path, name: str, text: str, results: dict[str, Any]) -> None:
    """Print a table and keep it, and everything it was made from, as NAME.md and NAME.json in the folder `out`."""
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    for suffix, content in ((".md", text + "\n"), (".json", json.dumps(tidy(results), indent=1))):
        with replacing(out / f"{name}{suffix}") as temporary:
            temporary.write_text(content)


def run(name: str, main: Callable[[], int]) -> None:
    """End the program: a user's mistake is one line and exit code 2."""
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        sys.exit(2)
