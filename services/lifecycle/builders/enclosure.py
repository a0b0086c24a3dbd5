"""`python -m services.lifecycle.builders.enclosure`: one build, apart from the host. It reads its Job from its standard
input, and writes the Contents of the finished tree on its standard output.

    lifecycle -> this process -> the first process of the build's own namespaces -> the builder

What packages bring to run at their installation runs as root, but of a user namespace: to the host these users are
nobody, and all they can write to is one directory. The tree leaves it as an archive, which this process unpacks when it
is no longer root itself. Whatever dies first, everything below dies with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import msgspec

from services.lifecycle.builders import tree
from services.lifecycle.builders.recipe import Contents, Job

_PR_SET_PDEATHSIG = 1
_CLONE_NEW = 0x10000000 | 0x00020000 | 0x20000000 | 0x08000000 | 0x04000000
"""NEWUSER, NEWNS, NEWPID, NEWIPC, NEWUTS. The network stays the host's: packages are downloaded."""
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
_UNPACK = (
    "tar", "--extract", "--no-same-owner", "--no-same-permissions", "--delay-directory-restore",
    "--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./run/*", "--exclude=./sys/*",
)  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    _die_with_parent()
    if os.getppid() != job.parent:
        return 1
    os.umask(0o022)
    directory = os.open(job.tree, os.O_RDONLY | os.O_DIRECTORY)
    reading, writing = os.pipe()
    builder = _enclose(job, writing)
    os.close(writing)
    _become(job.uid, job.gid)
    _die_with_parent()
    os.fchdir(directory)  # its parents may be closed to whom we have become
    unpacked = _take(job, reading)
    built = os.waitstatus_to_exitcode(os.waitpid(builder, 0)[1])
    if built or unpacked:
        return 1
    if job.do.output != "nothing":
        sys.stdout.buffer.write(msgspec.json.encode(_finish(directory)))
    return 0


def _take(job: Job, reading: int) -> int:
    """What the build says on its standard output, until its end."""
    if job.do.output == "archive":
        return subprocess.run(_UNPACK, stdin=reading, stdout=2, check=False).returncode
    while os.read(reading, 65_536):
        pass
    return 0


def _finish(directory: int) -> Contents:
    size = tree.tidy(directory)
    contents = Contents(packages=tree.packages(directory), size_bytes=size)
    if _libc.syncfs(directory) != 0:
        raise _error("syncfs")
    return contents


# ---- the namespaces


def _enclose(job: Job, output: int) -> int:
    """Starts the build; returns the process that ends as it ends."""
    ready, mapped = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _run_or_die(job, output, ready[1], mapped)
    os.close(ready[1])
    os.close(mapped[0])
    if os.read(ready[0], 1):
        _map(pid, job)
        os.write(mapped[1], b"x")
    os.close(mapped[1])
    os.close(ready[0])
    return pid


def _run_or_die(job: Job, output: int, ready: int, mapped: tuple[int, int]) -> NoReturn:
    """In the child: nothing of the parent's program may go on in it."""
    try:
        os.close(mapped[1])
        os._exit(_run(job, output, ready, mapped[0]))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is said, and this process ends
        os.write(2, f"E: the build could not be enclosed: {error}\n".encode())
    os._exit(1)


def _run(job: Job, output: int, ready: int, mapped: int) -> int:
    _die_with_parent()
    if _libc.unshare(_CLONE_NEW) != 0:
        raise _error("unshare")
    # still as who we were: of the enclosed users none may be able to reach the directory by its own path
    _mount("none", "/", _MS_REC | _MS_PRIVATE)
    _mount(job.place, job.stage, _MS_BIND)
    os.write(ready, b"x")
    os.close(ready)
    if not os.read(mapped, 1):
        return 1  # its parent has ended, or could not map the users; it has said why
    _become_inside()
    _die_with_parent()
    alive = os.pipe()
    pid = os.fork()
    if pid == 0:
        _execute(job, output, alive)
    os.close(alive[0])
    os.write(alive[1], b"x")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) and 1


def _execute(job: Job, output: int, alive: tuple[int, int]) -> NoReturn:
    """The first process of the namespace: with it, everything in it ends."""
    os.close(alive[1])
    _die_with_parent()
    if not os.read(alive[0], 1):
        os._exit(1)
    with contextlib.suppress(OSError):  # in some containers it is refused; mmdebstrap does without
        _mount("proc", "/proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "proc")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.chdir(job.stage)
    os.execvpe(job.do.argv[0], job.do.argv, job.do.environ)  # noqa: S606 - a list, and no shell


def _map(pid: int, job: Job) -> None:
    for kind, ranges in (("uid", job.uids), ("gid", job.gids)):
        if os.geteuid() == 0:
            table = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in ranges)
            Path(f"/proc/{pid}/{kind}_map").write_text(table)
        else:
            numbers = [str(number) for each in ranges for number in each]
            subprocess.run([f"new{kind}map", str(pid), *numbers], check=True, stdout=2)


# ---- what the kernel is asked for


def _become(uid: int, gid: int) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


def _become_inside() -> None:
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setgroups([])


def _die_with_parent() -> None:
    """A change of user takes it back."""
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise _error("prctl")


def _mount(source: str, target: str, flags: int, kind: str = "none") -> None:
    if _libc.mount(*map(os.fsencode, (source, target, kind)), flags, None) != 0:
        raise _error(f"mount on {target}")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    raise SystemExit(main())
