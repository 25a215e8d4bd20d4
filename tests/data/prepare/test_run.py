"""Preparing: everything is in the corpus or in the list of rejections; ended anywhere, it goes on to the same bytes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from talkface.data import Corpus
from talkface.data.prepare.run import plan_shards, prepare
from talkface.errors import TalkfaceError

parquet = pytest.importorskip("pyarrow.parquet")


def quiet(line: str) -> None:
    pass


def test_every_item_is_in_the_corpus_or_rejected_with_its_reason(grey_corpus: Path) -> None:
    corpus = Corpus(grey_corpus)
    assert sorted(clip.id for clip in corpus) == [f"{n:02d}" for n in range(12) if n not in (2, 6)]
    levels = {clip.id: int(corpus.read_frame(clip, 0).mean().round()) for clip in corpus}
    assert all(abs(level - 10 * int(name)) <= 1 for name, level in levels.items())
    assert parquet.read_table(grey_corpus / "rejected.parquet").to_pylist() == [
        {"file": "02.txt", "step": "read", "reason": "'grey' is no number", "score": 0.5},
        {"file": "06.txt", "step": "defect", "reason": "ValueError: a level of -1", "score": None},
    ]


def test_shards_follow_from_the_items(grey: ModuleType, grey_raw: Path) -> None:
    shards = plan_shards(grey.GreySource(grey_raw, per_shard=4))
    assert {name: [item.id for item in items] for name, items in shards.items()} == {
        "train-00000": ["00", "01", "02", "04"],
        "val-00000": ["03", "07", "11"],
        "train-00001": ["05", "06", "08", "09"],
        "train-00002": ["10"],
    }
    some = plan_shards(grey.GreySource(grey_raw), limit=4)
    assert sorted(item.id for items in some.values() for item in items) == ["00", "03", "06", "09"]
    with pytest.raises(TalkfaceError, match="limit: 0; allowed is 1 or more"):
        plan_shards(grey.GreySource(grey_raw), limit=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "00"}, "taken"),
        ({"id": "a.b"}, "not allowed"),
        ({"split": "dev"}, "'dev'"),
        ({"subject": "03"}, "splits"),
    ],
)
def test_items_that_contradict_each_other_are_refused(
    grey: ModuleType, grey_raw: Path, change: dict[str, str], words: str
) -> None:
    from dataclasses import replace

    class Contradicts(grey.GreySource):
        def items(self):
            *others, last = super().items()[:-1]
            return [*others, replace(last, **change)]

    with pytest.raises(TalkfaceError, match=words):
        plan_shards(Contradicts(grey_raw))


def test_stopped_at_any_item_it_goes_on_to_the_same_bytes(
    grey: ModuleType, grey_raw: Path, grey_corpus: Path, tmp_path: Path, hashes: Callable
) -> None:
    class Stops(grey.GreySource):
        left = 0

        def make(self, item, finder):
            Stops.left -= 1
            if Stops.left < 0:
                raise KeyboardInterrupt
            return super().make(item, finder)

    out = tmp_path / "corpus"
    for Stops.left in (0, 1, 3, 2, 1, 4):
        with pytest.raises(KeyboardInterrupt):
            prepare(Stops(grey_raw), out, report=quiet)
        with pytest.raises(TalkfaceError, match="unfinished"):
            Corpus(out)
    prepare(grey.GreySource(grey_raw), out, report=quiet)
    assert hashes(out) == hashes(grey_corpus)


def test_killed_with_its_workers_it_goes_on_to_the_same_bytes(
    grey: ModuleType, grey_raw: Path, grey_corpus: Path, tmp_path: Path, hashes: Callable
) -> None:
    out = tmp_path / "corpus"
    code = (
        "from pathlib import Path; from grey_source import GreySource; from talkface.data.prepare.run import prepare\n"
        f"if __name__ == '__main__': prepare(GreySource(Path({str(grey_raw)!r}), seconds=0.3), {str(out)!r}, workers=2)"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    paths = os.pathsep.join([str(Path(grey.__file__).parent), *sys.path])
    process = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": paths})
    wait_until(lambda: any((out / "parts").glob("*-*.json")))
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in listed))  # nobody works on alone
    assert len(listed) >= 2 and not (out / "index.parquet").exists()
    (out / "shards" / ".train-00000.1.partial").write_bytes(b"half")
    prepare(grey.GreySource(grey_raw), out, report=quiet)
    assert hashes(out) == hashes(grey_corpus)


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_worker_that_dies_is_told_and_the_rest_is_kept(
    grey: ModuleType, grey_corpus: Path, tmp_path: Path, hashes: Callable
) -> None:
    raw, out = grey.write_raw(tmp_path / "raw"), tmp_path / "corpus"
    with pytest.raises(TalkfaceError, match="worker processes was ended from outside"):
        prepare(grey.GreySource(raw, dies="10.txt"), out, workers=2, report=quiet)
    assert any((out / "parts").glob("*-*.json"))
    seen: list[tuple[int, int]] = []
    prepare(grey.GreySource(raw), out, report=quiet, progress=lambda *where: seen.append(where))
    assert seen[-1][0] == seen[-1][1] < 12
    assert hashes(out) == hashes(grey_corpus)


def test_a_complete_corpus_is_left_alone(
    grey: ModuleType, grey_raw: Path, grey_corpus: Path, hashes: Callable, tmp_path: Path
) -> None:
    out = tmp_path / "corpus"
    shutil.copytree(grey_corpus, out)
    lines: list[str] = []
    times = {
        path: path.stat().st_mtime_ns
        for path in out.rglob("*")
        if path.name != "corpus.json" and path.is_file()
    }
    prepare(grey.GreySource(grey_raw), out, report=lines.append)
    assert lines == [f"Grey: {out} is complete"]
    assert times == {path: path.stat().st_mtime_ns for path in times}
    # a file that was lost is made again
    for name in ("report.html", "shards/val-00000.tar"):
        (out / name).unlink()
        prepare(grey.GreySource(grey_raw), out, report=quiet)
    assert hashes(out) == hashes(grey_corpus)


def test_other_settings_other_files_and_other_folders_are_refused(
    grey: ModuleType, grey_raw: Path, grey_corpus: Path, tmp_path: Path
) -> None:
    out, raw = tmp_path / "corpus", tmp_path / "raw"
    shutil.copytree(grey_corpus, out)
    shutil.copytree(grey_raw, raw)

    def refused(words: str, source: object = None, into: Path = out, **options: object) -> None:
        with pytest.raises(TalkfaceError, match=words):
            prepare(source or grey.GreySource(raw), into, report=quiet, **options)

    refused("other settings", grey.GreySource(raw, level=1))
    refused("other settings", limit=3)
    refused("has changed since .* 12 items", grey.GreySource(raw, per_shard=3))
    (raw / "new.txt").write_text("1")
    refused("has changed since .* 13 items")
    info = json.loads((out / "corpus.json").read_text())
    for version, words in (
        (0, "made by an older talkface"),
        (2, "made by a newer talkface"),
        ("1", "prepare the corpus"),
    ):
        (out / "corpus.json").write_text(json.dumps(info | {"version": version}))
        refused(words)
        with pytest.raises(TalkfaceError, match=words):
            Corpus(out)
    (out / "corpus.json").write_bytes(b"\xff{")
    refused("not valid JSON")
    refused("holds other files \\(00.txt\\) and no corpus", into=raw)
    refused("is a file; give a folder", into=raw / "00.txt")
    refused("engine: 'cloud'; allowed local, ray", into=tmp_path / "x", engine="cloud")
    refused("workers: 0; allowed is 1 or more", into=tmp_path / "x", workers=0)
    for path in raw.glob("*.txt"):
        path.unlink()
    refused("Grey: there is nothing to prepare; looked for \\*.txt", into=tmp_path / "y")


def test_two_runs_never_write_to_one_folder(grey: ModuleType, grey_raw: Path, tmp_path: Path) -> None:
    class Meets(grey.GreySource):
        def make(self, item, finder):
            with pytest.raises(TalkfaceError, match="another run writes to"):
                prepare(grey.GreySource(grey_raw), tmp_path / "corpus", report=quiet)
            return super().make(item, finder)

    prepare(Meets(grey_raw), tmp_path / "corpus", limit=1, report=quiet)
    assert len(Corpus(tmp_path / "corpus")) == 1


def test_a_full_disk_keeps_what_is_written(
    grey: ModuleType, grey_raw: Path, tmp_path: Path, hashes: Callable
) -> None:
    """The limit of a process's files fails as a disk without room does, in the middle of a shard."""
    out, source = tmp_path / "corpus", grey.GreySource(grey_raw, bytes_each=12000, per_shard=3)
    prepare(source, tmp_path / "whole", report=quiet)
    sizes = {path.stem: path.stat().st_size for path in (tmp_path / "whole" / "shards").iterdir()}
    assert sizes["train-00000"] < sizes["val-00000"] - 4096  # the first shard fits, the second does not
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sizes["val-00000"] - 4096, hard))
    try:
        with pytest.raises(TalkfaceError, match=r"no room on the disk .* 1 of 4 shards are kept; make room"):
            prepare(source, out, report=quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(out.rglob(".*.partial"))
    prepare(source, out, report=quiet)
    assert hashes(out) == hashes(tmp_path / "whole")


def test_nothing_usable_is_an_error_with_a_report(grey: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_text("no")
    with pytest.raises(TalkfaceError, match=r"none of 1 items can be used; .*report\.html says why"):
        prepare(grey.GreySource(tmp_path / "raw"), tmp_path / "corpus", report=quiet)
    assert "is no number" in (tmp_path / "corpus" / "report.html").read_text()
