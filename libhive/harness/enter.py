"""`python -I -m libhive.harness.enter PROGRAM...`: the first process of an nspawn cage, before anything of the agent's.

Takes the cage's system-call filter upon itself, which every process to come inherits, and becomes a small init: a shell
that reaps what the agent's tools leave behind, hands SIGTERM on, and ends with the program. Ends at once when the filter
cannot be had. The standard library only: nothing of the hive is needed here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

FILTER = Path("/etc/hive/seccomp")
NAME = "hive-init"
INIT = """
trap 'asked=1; again=1; [ -z "$program" ] || kill -TERM "$program"' TERM
"$@" &
program=$!
[ -z "$asked" ] || kill -TERM "$program"
while
    again=; wait "$program"; code=$?
    [ "$code" = 127 ] && [ -n "$status" ] || status=$code
    [ -n "$again" ]
do :; done
counts="/sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control"
[ "$status" != 137 ] || ! grep -qs "^oom_kill [1-9]" $counts || echo "hive-init: out of memory"
exit "$status"
"""
NOT_FOR_THE_PROGRAM = ("NOTIFY_SOCKET", "container")
"""What nspawn puts into the environment beyond what it was told to."""
FILTER_LINE_BYTES = 8
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_char_p))


def take_filter(lines: bytes) -> None:
    """No new privileges are needed for it where none can be gained: nspawn has seen to that."""
    program = _Program(len(lines) // FILTER_LINE_BYTES, lines)
    libc = ctypes.CDLL(None, use_errno=True)
    if not lines or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        sys.exit(f"the cage did not get the control `seccomp`: {os.strerror(ctypes.get_errno())}")


def become_init(program: list[str]) -> NoReturn:
    signal.signal(
        signal.SIGPIPE, signal.SIG_DFL
    )  # Python ignores it, and what is ignored stays so over an exec
    kept = {name: text for name, text in os.environ.items() if not name.startswith(NOT_FOR_THE_PROGRAM)}
    os.execve("/bin/sh", ["sh", "-c", INIT, NAME, *program], kept)  # noqa: S606 - becoming it is the point


if __name__ == "__main__":
    take_filter(FILTER.read_bytes() if FILTER.exists() else b"")
    become_init(sys.argv[1:])
