"""The one exception that users see, and late imports that name the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType


class TalkfaceError(Exception):
    """A mistake the user can correct.

    The message is one line: what is wrong, which value, what is allowed, what to do. The command line prints
    it and exits with code 2; Python callers may catch it.
    """


def require(module: str, extra: str) -> ModuleType:
    """Import `module` when it is first needed.

    Raises:
        TalkfaceError: the module is not installed; the message names the pip extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TalkfaceError(
            f"the package '{module}' is needed for this and cannot be imported ({error}); "
            f"install it with: pip install 'talkface[{extra}]'"
        ) from error


def check_range(name: str, value: float, lowest: float, highest: float) -> None:
    """Raises: TalkfaceError: `value` is not in [lowest, highest]."""
    if not lowest <= value <= highest:
        raise TalkfaceError(f"{name}: {value}; allowed are {lowest} to {highest}")
