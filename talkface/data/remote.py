"""Corpora behind a URL: whole shards in a local cache for training, single members by byte ranges for a look.

`Corpus("https://host/corpus")`, `s3://bucket/corpus` and whatever else `fsspec` reads. `corpus.json` and
`index.parquet` are fetched whenever a corpus is opened; shards when first needed, each once per machine:

- "shards" (training): the whole shard goes to the cache under its own name and is read from there like any local
  one, with `pread`. An epoch reads from every shard, and one request for 100 MB costs no more round trips than one
  for a frame of 15 kB; so this is the default.
- "ranges" (`talkface data show`, samples of a large corpus): one request per member, nothing kept.

The cache is `$TALKFACE_CACHE`, or `~/.cache/talkface`; a corpus has one folder in it, named by its URL and a hash of
its index, so that a corpus that changed on the server never mixes with what is here. Sidecars that are computed for
it (features, latents) stay in that folder. Nothing is ever removed from it: delete what is no longer needed.

A file is written under another name, then renamed; a lock makes other processes of the machine wait instead of
fetching the same again, and is released by the system when its process dies.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from talkface.errors import TalkfaceError, require

Reading = Literal["shards", "ranges"]
READINGS = ("shards", "ranges")
ATTEMPTS = 3
WAIT = 0.5
"""Seconds before the second attempt; twice that before the third."""
Result = TypeVar("Result")


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether `place` is a URL rather than a folder."""
    return isinstance(place, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", place) is not None


def cache_folder() -> Path:
    """Where remote corpora are kept on this machine."""
    return Path(os.environ.get("TALKFACE_CACHE") or Path.home() / ".cache" / "talkface") / "corpora"


class RemoteFolder:
    """Files below a URL. Picklable, and safe in forked loader workers: a connection belongs to one process.

    Args:
        url: of the folder, without the names of its files.

    Raises:
        TalkfaceError: `fsspec`, or what it needs for this kind of URL, is not installed; or the kind is unknown.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._files: tuple[int, Any, str] | None = None
        self._connect()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_files": None}

    def _connect(self) -> tuple[Any, str]:
        """(file system, root in it) of this process."""
        if self._files is None or self._files[0] != os.getpid():
            fsspec = require("fsspec", extra="remote")
            try:
                files, root = fsspec.core.url_to_fs(self.url)
            except (ImportError, ValueError) as error:
                raise TalkfaceError(
                    f"corpus: {self.url} cannot be read ({error}); for http and s3: pip install 'talkface[remote]'"
                ) from error
            self._files = (os.getpid(), files, root)
        return self._files[1], self._files[2]

    def _try(self, name: str, act: Callable[[Any, str], Result]) -> Result:
        """`act(file system, path)`, again after a pause when the line breaks.

        Raises:
            FileNotFoundError: the server says that there is no such file.
            TalkfaceError: every attempt failed.
        """
        for attempt in range(ATTEMPTS):
            files, root = self._connect()
            try:
                return act(files, f"{root}/{name}")
            except (FileNotFoundError, TalkfaceError):
                raise
            except Exception as error:  # every kind of file system has its own
                reason = error
            if isinstance(reason, OSError) and reason.filename:
                break  # of this machine's disk, not of the line
            if attempt + 1 < ATTEMPTS:
                time.sleep(WAIT * 2**attempt)
        raise TalkfaceError(
            f"corpus: {self.url}/{name} cannot be read ({type(reason).__name__}: {reason}); check the address, "
            "the line and the space on the disk"
        ) from reason

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """A file, or `size` bytes of it from `offset`.

        Raises:
            FileNotFoundError: no such file.
            TalkfaceError: it cannot be read.
        """
        if size is None:
            return self._try(name, lambda files, path: files.cat_file(path))
        data = self._try(name, lambda files, path: files.cat_file(path, start=offset, end=offset + size))
        # a server that does not know ranges sends everything
        return data[offset : offset + size] if len(data) > size else data

    def fetch(self, name: str, target: Path) -> Path:
        """Copy a file to `target` unless it is there; returns `target`.

        Raises:
            FileNotFoundError: no such file.
            TalkfaceError: it cannot be read, or not be kept.
        """
        if target.is_file():
            return target
        import fcntl  # not on every system; those without can still read local corpora

        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if target.is_file():
                return target
            partial = target.with_name(f".{target.name}.partial")
            try:
                self._try(name, lambda files, path: files.get_file(path, str(partial)))
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
        return target


def open_remote(url: str) -> tuple[RemoteFolder, Path]:
    """A corpus behind a URL: the folder there, and the folder here with its `corpus.json` and `index.parquet`.

    Raises:
        TalkfaceError: there is no finished corpus, or it cannot be read.
    """
    remote = RemoteFolder(url)
    try:
        about = remote.read("corpus.json")
    except FileNotFoundError as error:
        raise TalkfaceError(
            f"corpus: {remote.url} has no corpus.json; give the address of the folder of a prepared corpus"
        ) from error
    try:
        index = remote.read("index.parquet")
    except FileNotFoundError as error:
        raise TalkfaceError(
            f"the corpus {remote.url} is unfinished (no index.parquet); upload it when its preparation is done"
        ) from error
    digest = hashlib.sha256(remote.url.encode() + b"\n" + about + index).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", remote.url.rpartition("://")[2]).strip("-.")[-60:]
    folder = cache_folder() / f"{name}-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, data in (("corpus.json", about), ("index.parquet", index)):
            if not (folder / file).is_file():
                partial = folder / f".{file}.{os.getpid()}.partial"
                partial.write_bytes(data)
                os.replace(partial, folder / file)
    except OSError as error:
        raise TalkfaceError(
            f"corpus: {remote.url} cannot be kept in {folder} ({error.strerror}); set TALKFACE_CACHE to another folder"
        ) from error
    return remote, folder
