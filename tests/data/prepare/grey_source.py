"""A real source of the simplest kind, importable by worker processes: text files that name a grey level."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from talkface.data.base import Clip
from talkface.data.finding import Finder
from talkface.data.prepare.source import About, RawItem, Rejected, item_id
from talkface.data.writer import encode_jpeg

SIDE = 16


def write_raw(folder: Path, count: int = 12) -> Path:
    """`count` files; the third is no number, and the seventh one that nobody thought of."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:02d}.txt").write_text({2: "grey", 6: "-1"}.get(number, str(10 * number)))
    return folder


class GreySource:
    """Files become pictures of 16 x 16; every fourth goes to val.

    Args:
        seconds: that an item takes.
        bytes_each: of meta data, to fill a disk.
        hosts: a folder where every node that works leaves a file; work begins when there are two.
        dies: the worker kills itself, once, at the item whose file this is.
    """

    about = About("Grey", "CC0-1.0", "nothing", ("*.txt",), "tests")
    fps: float = 25
    sample_rate = 16000
    image_size = SIDE
    needs_finder = False

    def __init__(
        self,
        raw: Path,
        per_shard: int = 2,
        seconds: float = 0,
        bytes_each: int = 0,
        dies: str = "",
        level: int = 0,
        hosts: Path | None = None,
    ) -> None:
        self.raw, self.items_per_shard, self.seconds = raw, per_shard, seconds
        self.bytes_each, self.dies, self.level, self.hosts = bytes_each, dies, level, hosts

    def items(self) -> list[RawItem]:
        files = sorted(path.name for path in self.raw.glob("*.txt"))
        return [
            RawItem(
                item_id(name), "val" if number % 4 == 3 else "train", item_id(name), name, emotion=number % 8
            )
            for number, name in enumerate(files)
        ]

    def settings(self) -> dict[str, Any]:
        return {"level": self.level}

    def make(self, item: RawItem, finder: Finder | None) -> list[Clip]:
        if self.hosts is not None:
            (self.hosts / os.environ["RAY_RAYLET_PID"]).touch()
            end = time.monotonic() + 120
            while len(list(self.hosts.iterdir())) < 2 and time.monotonic() < end:
                time.sleep(0.02)
        time.sleep(self.seconds)
        if item.file == self.dies and not (self.raw / "died").exists():
            (self.raw / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        text = (self.raw / item.file).read_text()
        if not text.lstrip("-").isdigit():
            raise Rejected("read", f"'{text}' is no number", 0.5)
        if int(text) < 0:
            raise ValueError(f"a level of {text}")
        picture = np.full((SIDE, SIDE, 3), self.level + int(text), np.uint8)
        points = np.full((1, 68, 2), 8, np.float32)
        return [
            Clip(
                item.id,
                item.split,
                item.subject,
                [encode_jpeg(picture, 95)],
                truth={"landmarks": points},
                emotion=item.emotion,
                meta={"filling": "x" * self.bytes_each},
            )
        ]
