"""The garbage collector while the program starts: off in a process of our own, untouched in anybody else's."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from talkface.startup import loading

PROGRAM = """
import gc, sys
from talkface import startup
startup._process["own"] = True
with startup.loading():
    assert not gc.isenabled()
    kept = [[] for _ in range(1000)]
assert gc.isenabled()
print(gc.get_freeze_count())
try:
    with startup.loading():
        raise ValueError
except ValueError:
    print(gc.isenabled())
"""


def test_what_another_program_holds_is_not_touched():
    before = gc.get_freeze_count()
    with loading():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_what_the_program_loads_is_not_looked_at_again():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    frozen, enabled = done.stdout.split()
    assert int(frozen) > 1000
    assert enabled == "True"


@pytest.mark.parametrize(("arguments", "code"), [(["version"], 0), (["sample-video"], 2)])
def test_the_program_ends_with_the_exit_code_of_its_verb(arguments, code):
    done = subprocess.run([sys.executable, "-m", "talkface", *arguments], capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
