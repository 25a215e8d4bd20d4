"""Bytes out of the shards of a corpus: `pread` of a file that is there, or what a remote folder brings of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from talkface.data.remote import Reading, RemoteFolder
from talkface.errors import TalkfaceError


class ShardFiles:
    """Positioned reads from a folder of shards: `pread` on one descriptor per shard and process.

    `pread` keeps no file position, so one descriptor may serve many threads and forked loader workers.

    Args:
        folder: of the shards on this machine.
        remote: where shards that are not in `folder` come from, below `shards/`.
        reading: bring whole "shards" into `folder`, or read "ranges" of remote ones and keep nothing.
    """

    def __init__(self, folder: Path, remote: RemoteFolder | None = None, reading: Reading = "shards") -> None:
        self.folder, self.remote, self.reading = folder, remote, reading
        self._descriptors: dict[str, int] = {}

    def read(self, shard: str, offset: int, size: int) -> bytes:
        descriptor = self._descriptors.get(shard)
        if descriptor is None:
            path = self.folder / f"{shard}.tar"
            if self.remote is not None and not path.is_file():
                if self.reading == "ranges":
                    return self._complete(self._bring(shard, offset, size), shard, offset, size)
                self._bring(shard)
            try:
                descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except FileNotFoundError as error:
                raise TalkfaceError(
                    f"the shard {path} is missing; allowed are the shards that the index names; "
                    "prepare the corpus again"
                ) from error
            self._descriptors[shard] = descriptor
        return self._complete(os.pread(descriptor, size, offset), shard, offset, size)

    def _bring(self, shard: str, offset: int = 0, size: int | None = None) -> bytes:
        """The remote shard into the folder (`size` None), or some bytes of it."""
        assert self.remote is not None
        name = f"shards/{shard}.tar"
        try:
            if size is not None:
                return self.remote.read(name, offset, size)
            self.remote.fetch(name, self.folder / f"{shard}.tar")
            return b""
        except FileNotFoundError as error:
            raise TalkfaceError(
                f"the shard {self.remote.url}/{name} is missing; allowed are the shards that the index names; "
                "upload it again"
            ) from error

    def _complete(self, data: bytes, shard: str, offset: int, size: int) -> bytes:
        if len(data) != size:
            raise TalkfaceError(
                f"the shard {self.folder / shard}.tar ends at {offset + len(data)} bytes, the index expects "
                f"{offset + size}; the file is truncated: delete it and prepare the corpus again"
            )
        return data

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_descriptors": {}}

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
