"""The command line that all preparation scripts share; a script adds its source and the options of its recipe."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from talkface.arguments import whole
from talkface.data.finding import FINDERS
from talkface.data.prepare.counts import count_corpus, describe_plan
from talkface.data.prepare.engines import ENGINES
from talkface.data.prepare.report import REPORT
from talkface.data.prepare.run import plan_shards, prepare
from talkface.data.prepare.source import About, Source
from talkface.errors import TalkfaceError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Recipe = TypeVar("Recipe", bound="DataclassInstance")
LINE_EVERY = 15.0  # seconds between lines of progress where there is no terminal


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise TalkfaceError(f"{message}; see --help")


def run_script(
    about: About,
    make_source: Callable[[argparse.Namespace], Source],
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, print licence and download, prepare, and print what came of it.

    Args:
        about: of the set, printed before its folder is looked at.
        make_source: from the parsed options; `raw` (Path) is one of them.
        add_options: adds the options of the recipe, `--size` for example.

    Returns:
        0, 2 after one line on stderr (a mistake of the user), or 130 (stopped; the same command goes on).
    """
    name = Path(sys.argv[0]).stem if argv is None else about.name.lower().replace("-", "_")
    try:
        options = _parser(about, add_options).parse_args(argv)
        print(f"licence: {about.licence}\ndownload: {about.download}", flush=True)
        _check_folders(options.raw, options.out)
        source = make_source(options)
        if options.dry_run:
            _describe(source, options)
            return 0
        with Progress(about.name) as progress:
            prepare(
                source,
                options.out,
                finder_name=options.finder,
                finder_weights=options.finder_weights,
                device=options.device,
                workers=options.workers,
                engine=options.engine,
                limit=options.limit,
                progress=progress,
            )
        print(f"{options.out}: {summary(options.out)}; see {options.out / REPORT}")
        return 0
    except TalkfaceError as error:
        print(f"{name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"{name}: error: {error.strerror or error}{where}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: stopped; the same command goes on", file=sys.stderr)
        return 130


def _parser(about: About, add_options: Callable[[argparse.ArgumentParser], None] | None) -> _Parser:
    made = _Parser(
        description=f"Prepare {about.name} for training. An interrupted run goes on when the same command is given.",
        epilog=f"Licence: {about.licence}. Download: {about.download}.",
    )
    add = made.add_argument
    add("--raw", required=True, type=Path, metavar="FOLDER", help=f"{about.name} as downloaded")
    add("--out", required=True, type=Path, metavar="FOLDER", help="of the corpus; made when missing")
    if add_options is not None:
        add_options(made)
    add("--dry-run", action="store_true", help="say what would be prepared and stop")
    add("--limit", type=whole(1), metavar="N", help="only N items, evenly spread over the set")
    add(
        "--workers",
        type=whole(1),
        default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        metavar="N",
        help="processes, or tasks at a time with ray (default: one per core); the corpus does not depend on it",
    )
    add("--engine", default="local", choices=ENGINES, help="processes of this machine, or a Ray cluster")
    add("--finder", default="bundled", choices=FINDERS, help="what finds faces (default: bundled)")
    add("--finder-weights", metavar="PATH", help="bundle, folder or file of the finder")
    add("--device", default="cpu", help="of the finder: cpu or cuda (default: cpu)")
    return made


def recipe_from(recipe: type[Recipe], options: argparse.Namespace) -> Recipe:
    """A dataclass whose fields are named as the options."""
    return recipe(
        **{name: value for name, value in vars(options).items() if name in recipe.__dataclass_fields__}
    )


def _check_folders(raw: Path, out: Path) -> None:
    if not raw.is_dir():
        raise TalkfaceError(
            f"raw: {raw} {'is no folder' if raw.exists() else 'does not exist'}; give a folder"
        )
    if out.resolve().is_relative_to(raw.resolve()):
        raise TalkfaceError(f"out: {out} lies in the raw folder {raw}; give a folder elsewhere")


def _describe(source: Source, options: argparse.Namespace) -> None:
    shards = plan_shards(source, options.limit)
    counts = describe_plan(item for items in shards.values() for item in items)
    print(json.dumps(counts, indent=1, ensure_ascii=False))
    total = sum(map(len, shards.values()))
    parts = options.out / "parts"
    there = sum((parts / f"{name}.json").is_file() for name in shards)
    print(f"would prepare {total} items in {len(shards)} shards into {options.out}; {there} shards are there")


def summary(corpus: Path) -> str:
    """The corpus in one line: how many clips, and how many files were left out at which step."""
    counts = count_corpus(corpus)
    words = "pictures" if counts.pictures == counts.clips else "clips"
    steps = ", ".join(f"{count} at '{step}'" for step, count in counts.steps().items())
    return f"{counts.clips} {words}; left out: {steps or 'none'}"


class Progress:
    """Items done, rate and time left: a bar on a terminal, else now and then a line. Called with (done, total)."""

    def __init__(self, name: str) -> None:
        from tqdm import tqdm

        self.name = name
        self.started: float | None = None  # by the first item, so that starting costs no rate
        self.first, self.last = 0, 0.0
        self.bar = tqdm(total=0, unit="item", desc=name, smoothing=0.1) if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, done: int, total: int) -> None:
        if self.bar is not None:
            self.bar.total = total
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if self.started is None:
            self.started, self.first, self.last = now, done, now
        if done < total and now - self.last < LINE_EVERY:
            return
        self.last, rate = now, (done - self.first) / max(now - self.started, 1e-6)
        left = f", {rate:.2f}/s, {(total - done) / max(rate, 1e-9) / 60:.1f} min left" if done < total else ""
        print(f"{self.name}: {done}/{total} items{left}", file=sys.stderr, flush=True)
