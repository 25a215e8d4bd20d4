"""Peak resident memory of a `talkface` command, in a process of its own.

It is VmHWM of that process, which begins at zero with the program; the maximum that Linux hands to a waiting
parent begins with the size of the parent.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from talkface.errors import TalkfaceError

CHILD = """
import sys
from talkface.cli import main
code = main(sys.argv[1:])
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print("peak", status["VmHWM"].split()[0])
sys.exit(code)
"""


def peak_memory(arguments: list[str]) -> float:
    """Run `talkface ARGUMENTS` and return its peak in MB (2^20 bytes).

    Raises:
        TalkfaceError: this is not Linux, or the command failed (its message is on stderr).
    """
    if not Path("/proc/self/status").is_file():
        raise TalkfaceError("peak memory: /proc/self/status does not exist; measure on Linux")
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise TalkfaceError(
            f"talkface {arguments[0]}: exit code {done.returncode} in the measured process; see its message above"
        )
    return int(done.stdout.rsplit("peak", 1)[1]) / 1024
