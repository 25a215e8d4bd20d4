"""What the tests of preparation share: a set of text files and its uninterrupted corpus."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def grey() -> ModuleType:
    """The module `grey_source`, under a name that worker processes find too."""
    sys.path.insert(0, str(Path(__file__).parent))
    import grey_source

    return grey_source


@pytest.fixture(scope="session")
def hashes() -> Callable[[Path], dict[str, str]]:
    """hashes(folder) -> sha256 of every file in it."""

    def of(folder: Path) -> dict[str, str]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }

    return of


@pytest.fixture(scope="session")
def grey_raw(tmp_path_factory: pytest.TempPathFactory, grey: ModuleType) -> Path:
    return grey.write_raw(tmp_path_factory.mktemp("grey") / "raw")


@pytest.fixture(scope="session")
def grey_corpus(tmp_path_factory: pytest.TempPathFactory, grey: ModuleType, grey_raw: Path) -> Path:
    """Prepared without any interruption."""
    from talkface.data.prepare.run import prepare

    out = tmp_path_factory.mktemp("grey") / "corpus"
    prepare(grey.GreySource(grey_raw), out, report=lambda line: None)
    return out
