"""What the kernel says about processes, and handles on them that another process with the same number cannot take."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

ASK_SECONDS_MAX = 5.0
_PROC = Path("/proc")
_NS_GET_PARENT = 0xB702
"""ioctl_nsfs(2); Python knows no name for it."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A process for ever: its number, and the instant it started on this boot."""

    pid: int
    started: int
    """Field 22 of /proc/<pid>/stat, in clock ticks since the boot."""
    boot: str


class Process:
    """A handle on one process; it stays that process's after its number has been given to another."""

    def __init__(self, identity: Identity, fd: int) -> None:
        self.identity, self.pid, self._fd = identity, identity.pid, fd
        self._over: asyncio.Event | None = None

    @classmethod
    def open(cls, pid: int) -> Process | None:
        """None when there is no such process, or it is only waiting to be reaped."""
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return None
        started = start_time(pid)
        if started is None or _has_ended(fd):
            os.close(fd)
            return None
        return cls(Identity(pid=pid, started=started, boot=boot_id()), fd)

    @classmethod
    def reopen(cls, identity: Identity) -> Process | None:
        """The same process again, if it still runs."""
        process = cls.open(identity.pid)
        if process is not None and process.identity != identity:
            process.close()
            return None
        return process

    @property
    def ended(self) -> bool:
        return self._fd < 0 or _has_ended(self._fd)

    def signal(self, number: signal.Signals) -> None:
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    async def wait(self) -> None:
        """Until it has ended."""
        if self.ended:
            return
        if self._over is None:
            self._over = asyncio.Event()
            asyncio.get_running_loop().add_reader(self._fd, self._on_end)
        await self._over.wait()

    def close(self) -> None:
        """Lets go of it. Who waits for its end waits in vain."""
        if self._fd >= 0:
            if self._over is not None:
                asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _on_end(self) -> None:
        assert self._over is not None
        asyncio.get_running_loop().remove_reader(self._fd)
        self._over.set()


def _has_ended(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def command_name(pid: int) -> str:
    """What the process calls itself, at most 15 bytes; it changes with exec."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "comm").read_text(errors="replace").rstrip("\n")
    return ""


def command_line(pid: int) -> list[str]:
    """What it was started with; empty when it is gone."""
    with contextlib.suppress(OSError):
        return os.fsdecode((_PROC / str(pid) / "cmdline").read_bytes()).split("\0")[:-1]
    return []


def children(pid: int) -> list[int]:
    """The children of a single-threaded process."""
    try:
        return [
            int(child) for child in (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()
        ]
    except OSError:
        return []


def status(pid: int) -> dict[str, str]:
    """/proc/<pid>/status; empty when it is gone."""
    try:
        text = (_PROC / str(pid) / "status").read_text(errors="replace")
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def namespace(pid: int | str, kind: str) -> str:
    """Which namespace of this kind it lives in; empty when that cannot be seen."""
    with contextlib.suppress(OSError):
        return str((_PROC / str(pid) / "ns" / kind).readlink())
    return ""


def limits(pid: int) -> dict[str, str]:
    """/proc/<pid>/limits: the soft ones, by the kernel's names; empty when it is gone."""
    try:
        lines = (_PROC / str(pid) / "limits").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {line[:25].strip(): line[25:].split()[0] for line in lines}


def is_in_group(pid: int, group: Path) -> bool:
    try:
        return str(pid) in (group / "cgroup.procs").read_text().split()
    except OSError:
        return False


def user_namespaces_max(pid: int) -> int:
    """How many user namespaces there may be beside the one that it lives in, that one counted: what the namespace around
    its own allows. -1 when that cannot be seen.

    Asked from there, by another program: a process with threads cannot go there itself.
    """
    with (
        contextlib.ExitStack() as stack,
        contextlib.suppress(OSError, subprocess.SubprocessError, ValueError),
    ):
        own = _opened(stack, os.open(_PROC / str(pid) / "ns/user", os.O_RDONLY | os.O_CLOEXEC))
        around = _opened(stack, fcntl.ioctl(own, _NS_GET_PARENT))
        command = ["nsenter", f"--user=/proc/self/fd/{around}", "--preserve-credentials", "--"]
        command += ["cat", "/proc/sys/user/max_user_namespaces"]
        done = subprocess.run(
            command, pass_fds=(around,), capture_output=True, check=True, timeout=ASK_SECONDS_MAX
        )
        return int(done.stdout)
    return -1


def _opened(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def is_read_only(pid: int, place: str) -> bool:
    """The last mount on it is the one that counts."""
    try:
        mounts = (_PROC / str(pid) / "mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    options = [fields[5].split(",") for fields in map(str.split, mounts) if fields[4] == place]
    return bool(options) and "ro" in options[-1]


class Mount(NamedTuple):
    source: str = ""
    """Which directory of its file system it shows."""
    options: tuple[str, ...] = ()


def mount(pid: int, place: str) -> Mount:
    """The last one on this place is the one that counts; an empty one when there is none."""
    found = Mount()
    with contextlib.suppress(OSError):
        for fields in map(
            str.split, (_PROC / str(pid) / "mountinfo").read_text(errors="replace").splitlines()
        ):
            if fields[4] == place:
                found = Mount(fields[3], tuple(fields[5].split(",")))
    return found


def users(pid: int) -> list[tuple[int, int, int]]:
    """Which of our users those of its user namespace are: the first of them there, the first here, how many."""
    with contextlib.suppress(OSError):
        lines = (_PROC / str(pid) / "uid_map").read_text().splitlines()
        return [(int(inner), int(outer), int(count)) for inner, outer, count in map(str.split, lines)]
    return []


def interfaces(pid: int) -> list[str]:
    try:
        lines = (_PROC / str(pid) / "net/dev").read_text().splitlines()[2:]
    except OSError:
        return []
    return [line.partition(":")[0].strip() for line in lines]


def with_environment(prefix: str) -> Iterator[tuple[int, str]]:
    """Every live process that was started with an environment entry of this prefix, and the rest of that entry.

    The entry is what the process was given at exec; a fork of it shows the same.
    """
    wanted = os.fsencode(prefix)
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                for variable in (entry / "environ").read_bytes().split(b"\0"):
                    if variable.startswith(wanted):
                        yield int(entry.name), os.fsdecode(variable[len(wanted) :])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on; the second may hold spaces and parentheses."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
