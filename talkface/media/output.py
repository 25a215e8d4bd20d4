"""Files that appear complete or not at all.

Everything is written to a hidden neighbour of the final name and renamed when it is finished, so that a
crash, a full disk or Ctrl-C never leaves half a file under the name that the user asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from talkface.errors import TalkfaceError

PathLike = str | os.PathLike[str]


def check_output(path: PathLike, inputs: Iterable[PathLike | None] = ()) -> Path:
    """Return `path` as a `Path` once it is sure that a file may be written there.

    Args:
        path: the file to write; an existing file may be replaced.
        inputs: files that are being read and therefore must not be replaced.

    Raises:
        TalkfaceError: the folder is missing or not writable, `path` is a folder, or it is one of `inputs`.
    """
    target = Path(path)
    folder = target.parent
    if target.is_dir():
        raise TalkfaceError(f"cannot write '{target}': it is a folder; give a file name inside it")
    if not folder.exists():
        raise TalkfaceError(f"cannot write '{target}': the folder '{folder}' does not exist; make it first")
    if not folder.is_dir():
        raise TalkfaceError(f"cannot write '{target}': '{folder}' is not a folder; choose another output")
    for source in inputs:
        if source is not None and target.exists() and os.path.exists(source) and target.samefile(source):
            raise TalkfaceError(f"cannot write '{target}': it is also the input; choose another output name")
    return target


@contextlib.contextmanager
def replacing(path: PathLike, inputs: Iterable[PathLike | None] = ()) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` on success, delete it on any exception.

    Raises:
        TalkfaceError: see `check_output`; also when the folder refuses new files.
    """
    target = check_output(path, inputs)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        # created at once: a folder that cannot be written must be reported before any long computation
        temporary.open("wb").close()
    except OSError as error:
        raise write_error(target, error) from error
    try:
        yield temporary
    except BaseException:
        remove(temporary)
        raise
    try:
        os.replace(temporary, target)
    except OSError as error:
        remove(temporary)
        raise write_error(target, error) from error


def remove(path: Path) -> None:
    """Delete a temporary file, whether or not it was created."""
    with contextlib.suppress(OSError):
        path.unlink()


def write_error(path: PathLike, error: Exception) -> TalkfaceError:
    """The error that a user sees when writing `path` failed with `error`."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    advice = "choose another output"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        advice = "free some disk space or choose another output; nothing was left behind"
    return TalkfaceError(f"cannot write '{path}': {reason}; {advice}")
