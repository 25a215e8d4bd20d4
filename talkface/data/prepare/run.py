"""A source and a folder in, a finished corpus out: plan, shards, index, report.

1. The source lists its items; these form shards, a function of names, tables and settings alone.
2. An engine writes the shards that are missing; each appears whole or not at all.
3. The writer joins their rows into the index; `report.py` draws what a person should look at.

A run that was ended anywhere, in whatever way, goes on when it is started again, and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from talkface.data.base import SPLITS
from talkface.data.finding import Finder, finder_key, make_finder
from talkface.data.prepare.engines import Tick, run_tasks
from talkface.data.prepare.report import CONTACT_SHEET, REPORT, write_report
from talkface.data.prepare.source import RawItem, Rejected, Source
from talkface.data.writer import CorpusWriter, to_json, write_atomically
from talkface.errors import TalkfaceError, require

PLAN = "plan.json"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# what must be there once a preparation is complete
RESULTS = ("corpus.json", "index.parquet", "rejected.parquet", REPORT, CONTACT_SHEET)


@dataclass(frozen=True)
class FinderChoice:
    """A face finder by name, so that every process makes its own; see `finding.make_finder`."""

    name: str = "bundled"
    weights: str | None = None
    device: str = "cpu"


@cache
def finder_of(choice: FinderChoice) -> Finder:
    """The finder of a choice, made once per process."""
    return make_finder(choice.name, choice.weights, choice.device)


@dataclass(frozen=True)
class Preparation:
    """What writes one shard of a corpus, in any process."""

    source: Source
    folder: Path
    finder: FinderChoice | Finder | None

    def __call__(self, name: str, items: Sequence[RawItem], tick: Tick) -> None:
        finder = finder_of(self.finder) if isinstance(self.finder, FinderChoice) else self.finder
        with CorpusWriter.join(self.folder).shard(name) as shard:
            for item in items:
                try:
                    clips = self._clips(item, finder)
                except Rejected as why:
                    shard.reject(item.file, why.step, why.reason, why.score)
                else:
                    for clip in clips:
                        if isinstance(clip, Rejected):
                            shard.reject(item.file, clip.step, clip.reason, clip.score)
                        else:
                            shard.add(clip)
                tick(1)

    def _clips(self, item: RawItem, finder: Finder | None) -> Any:
        if item.problem is not None:
            raise Rejected(*item.problem)
        try:
            return self.source.make(item, finder)
        except (Rejected, OSError, MemoryError):
            raise
        except TalkfaceError as error:
            raise Rejected("read", str(error)) from error
        except Exception as error:
            # a file that nobody thought of must not end the work of days; reports show this step on top
            raise Rejected(
                "defect", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from error


def plan_shards(source: Source, limit: int | None = None) -> dict[str, list[RawItem]]:
    """Shard name -> its items.

    Args:
        limit: so many items, evenly spread over all of them; None = all.

    Raises:
        TalkfaceError: the folder is not of this set, a limit below 1, or items that contradict each other.
    """
    items = source.items()
    if limit is not None:
        if limit < 1:
            raise TalkfaceError(f"limit: {limit}; allowed is 1 or more")
        count = min(limit, len(items))
        items = [items[number * len(items) // count] for number in range(count)]
    ids: set[str] = set()
    home: dict[str, str] = {}
    counts = dict.fromkeys(SPLITS, 0)
    shards: dict[str, list[RawItem]] = {}
    for item in items:
        if item.id in ids or not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", item.id):
            raise TalkfaceError(f"the id {item.id!r} of {item.file} is taken or not allowed; rename the file")
        ids.add(item.id)
        if item.split not in counts:
            raise TalkfaceError(f"split of {item.file}: {item.split!r}; allowed {', '.join(SPLITS)}")
        if item.problem is None and home.setdefault(item.subject, item.split) != item.split:
            raise TalkfaceError(
                f"subject {item.subject!r} is in the splits {home[item.subject]} and {item.split} ({item.file}); "
                "a subject belongs to one split"
            )
        name = f"{item.split}-{counts[item.split] // source.items_per_shard:05d}"
        counts[item.split] += 1
        shards.setdefault(name, []).append(item)
    return shards


def prepare(
    source: Source,
    out: str | Path,
    *,
    finder_name: str = "bundled",
    finder_weights: str | None = None,
    device: str = "cpu",
    finder: Finder | None = None,
    workers: int = 1,
    engine: str = "local",
    limit: int | None = None,
    report: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write what is missing of the corpus `out`, and finish it; does nothing when it is complete.

    Args:
        finder_name, finder_weights, device: which finder looks for faces, where the source needs one.
        finder: use this one instead; picklable when there are several workers.
        workers: processes, or tasks at a time on a cluster. The result does not depend on it.
        engine: "local" or "ray"; nodes of a cluster see the raw folder and `out` under the same paths.
        limit: prepare only so many items, evenly spread; part of the settings.
        report: receives a few lines; None prints to stderr.
        progress: called with (items done, items in all), of what was missing.

    Raises:
        TalkfaceError: the raw folder is not of this set, `out` holds another corpus or other files, another run
            writes to it, the disk is full, or no item can be used.
    """
    say = report or partial(print, file=sys.stderr, flush=True)
    require("pyarrow.parquet", extra="train")  # of the index, which is written last
    shards = plan_shards(source, limit)
    total = sum(map(len, shards.values()))
    if not total:
        raise TalkfaceError(
            f"{source.about.name}: there is nothing to prepare; looked for {_looks_for(source)}"
        )
    chosen: FinderChoice | Finder | None = None
    if source.needs_finder:
        chosen = finder or FinderChoice(finder_name, finder_weights, device)
    out = Path(out)
    with _errors_of_the_disk(out, shards), _alone(out):
        writer = _writer(source, out, chosen, limit)
        _check_plan(writer.folder / "parts" / PLAN, shards)
        _remove_partial(out)
        missing = {name: items for name, items in shards.items() if not writer.is_done(name)}
        if not missing and all((out / name).is_file() for name in RESULTS):
            say(f"{source.about.name}: {out} is complete")
            return
        if 0 < len(missing) < len(shards):
            say(f"{source.about.name}: {len(missing)} of {len(shards)} shards are missing; going on")
        try:
            _write(source, out, chosen, missing, workers, engine, progress)
        finally:
            _remove_partial(out)  # of processes and nodes that died
        writer.finish(shards)
        if not write_report(out, source.about):
            raise TalkfaceError(
                f"{source.about.name}: none of {total} items can be used; {out / REPORT} says why"
            )


def _write(
    source: Source,
    out: Path,
    finder: FinderChoice | Finder | None,
    missing: dict[str, list[RawItem]],
    workers: int,
    engine: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    count, total = 0, sum(map(len, missing.values()))

    def tick(fresh: int) -> None:
        nonlocal count
        count += fresh
        if progress is not None:
            progress(count, total)

    run_tasks(engine, Preparation(source, out.absolute(), finder), missing, workers, tick)


def _looks_for(source: Source) -> str:
    return ", ".join(source.about.looks_for) or "its files"


def _writer(
    source: Source, out: Path, finder: FinderChoice | Finder | None, limit: int | None
) -> CorpusWriter:
    """The writer of these settings; raises when `out` holds anything else."""
    if out.is_dir() and not (out / "corpus.json").is_file():
        others = sorted(path.name for path in out.iterdir() if path.name not in ("shards", "parts"))
        if others := [name for name in others if not name.endswith(".partial")]:
            raise TalkfaceError(
                f"out: {out} holds other files ({others[0]}) and no corpus; give a new or empty folder"
            )
    config = source.settings()
    if finder is not None:
        made = finder_of(finder) if isinstance(finder, FinderChoice) else finder
        config[getattr(source, "finder_setting", "finder")] = finder_key(made)
    if limit is not None:
        config["limit"] = limit
    return CorpusWriter(
        out,
        name=source.about.name,
        licence=source.about.licence,
        source=source.about.source,
        fps=source.fps,
        image_size=source.image_size,
        sample_rate=source.sample_rate,
        config=config,
    )


def _check_plan(path: Path, shards: dict[str, list[RawItem]]) -> None:
    """Raise when the raw folder gave other items last time: shards of two plans do not fit together."""
    told = [[name, item.id, item.file, item.subject] for name, items in shards.items() for item in items]
    plan = to_json({"items": len(told), "hash": hashlib.sha256(to_json(told)).hexdigest()[:16]})
    if not path.is_file():
        write_atomically(path, plan)
    elif path.read_bytes() != plan:
        raise TalkfaceError(
            f"the raw folder has changed since the corpus {path.parents[1]} was begun (it holds {len(told)} items "
            "now); bring the files back, or give another folder"
        )


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder, so that two runs never write to it at once; a killed run holds nothing."""
    try:
        import fcntl
    except ImportError:  # no such lock on Windows
        yield
        return
    if out.exists() and not out.is_dir():
        raise TalkfaceError(f"out: {out} is a file; give a folder for the corpus")
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TalkfaceError(f"out: another run writes to {out}; wait for it, or end it") from error
        except OSError:  # some network disks cannot lock folders; the shards stay whole all the same
            pass
        yield
    finally:
        os.close(folder)


@contextlib.contextmanager
def _errors_of_the_disk(out: Path, shards: Iterable[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        kept = [(out / "parts" / f"{name}.json").is_file() for name in shards]
        raise TalkfaceError(
            f"out: no room on the disk of {out} ({os.strerror(error.errno)}); {sum(kept)} of {len(kept)} shards are "
            "kept; make room and give the same command again, it goes on"
        ) from error


def _remove_partial(out: Path) -> None:
    """Files that a killed process left half written."""
    for folder in (out, out / "shards", out / "parts"):
        for path in folder.glob(".*.partial"):
            path.unlink(missing_ok=True)
