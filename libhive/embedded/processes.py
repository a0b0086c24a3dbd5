"""Finding and ending processes without mistaking one for another: signals go to descriptors, not to pids."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """`started` is the kernel's start time in clock ticks: with it a pid is never somebody else's."""

    pid: int
    started: int
    argv: tuple[str, ...] = ()


def this_process() -> Process:
    return Process(os.getpid(), _started(os.getpid()))


def is_alive(process: Process) -> bool:
    return process.pid > 0 and _started(process.pid) == process.started


def marked(variable: str, value: str) -> list[Process]:
    """All processes but this one and its parent whose environment had `variable=value` when they started."""
    wanted = f"{variable}={value}".encode()
    return [process for pid in _others() if (process := _with_environment(pid, wanted))]


def end(processes: Iterable[Process], *, within_seconds: float) -> None:
    """Asks them to end, then makes them. Returns when they are gone."""
    with contextlib.ExitStack() as held:
        descriptors = [fd for process in processes if (fd := _hold(process, held)) >= 0]
        _signal(descriptors, signal.SIGTERM)
        left = _wait(descriptors, within_seconds)
        _signal(left, signal.SIGKILL)
        _wait(left, within_seconds)


def _others() -> Iterator[int]:
    ours = {os.getpid(), os.getppid()}
    return (pid for entry in PROC.iterdir() if entry.name.isdigit() and (pid := int(entry.name)) not in ours)


def _with_environment(pid: int, wanted: bytes) -> Process | None:
    with contextlib.suppress(OSError):  # it ended, or is not ours to read
        if wanted in (PROC / str(pid) / "environ").read_bytes().split(b"\0"):
            argv = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
            return Process(pid, _started(pid), tuple(argv))
    return None


def _started(pid: int) -> int:
    """0 for a pid that nobody has, and for a zombie."""
    try:
        after_name = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if after_name[0] in "ZX" else int(after_name[19])


def _hold(process: Process, held: contextlib.ExitStack) -> int:
    """A descriptor of exactly this process, or -1 when it is gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return -1
    held.callback(os.close, descriptor)
    return descriptor if is_alive(process) else -1


def _signal(descriptors: Iterable[int], number: signal.Signals) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)


def _wait(descriptors: list[int], seconds: float) -> list[int]:
    """Those that have not ended within the time. A pidfd becomes readable when its process has."""
    deadline = time.monotonic() + seconds
    left = list(descriptors)
    while left and (remaining := deadline - time.monotonic()) > 0:
        ended, _, _ = select.select(left, [], [], remaining)
        left = [descriptor for descriptor in left if descriptor not in ended]
    return left
