"""Who runs a hive here: a lock on its state and one on its run directory, each naming its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from libhive.embedded.processes import Process, is_alive, this_process
from libhive.paths import Paths
from libhive.problems import AlreadyExists

HOLDER_BYTES_MAX = 10_000


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    started: int
    run: str
    state: str

    @property
    def process(self) -> Process:
        return Process(self.pid, self.started)


def lock_of_state(paths: Paths) -> Path:
    return paths.state / "hive.lock"


def lock_of_run(paths: Paths) -> Path:
    return paths.run / "hive.lock"


@contextlib.contextmanager
def hold(paths: Paths) -> Iterator[None]:
    """Both locks until the end of the block, or of the process.

    Raises AlreadyExists, with who it is, when a hive runs on this state or in this run directory.
    """
    me = this_process()
    holder = Holder(pid=me.pid, started=me.started, run=str(paths.run), state=str(paths.state))
    with _locked(lock_of_state(paths)) as state, _locked(lock_of_run(paths)) as run:
        for lock in (state, run):
            lock.truncate(0)
            lock.write(msgspec.json.encode(holder))
            lock.flush()
        try:
            yield
        finally:
            _leave(paths)


def running(paths: Paths) -> Holder | None:
    """The process that runs a hive on this state or in this run directory now."""
    for path in (lock_of_state(paths), lock_of_run(paths)):
        holder = last_holder(path)
        if holder and is_alive(holder.process):
            return holder
    return None


def last_holder(path: Path) -> Holder | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError), path.open("rb") as lock:
        return msgspec.json.decode(lock.read(HOLDER_BYTES_MAX), type=Holder)
    return None


def _leave(paths: Paths) -> None:
    lock_of_run(paths).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other things lie in it, or it was never ours
        paths.run.rmdir()


def _private(path: str, flags: int) -> int:
    """Nobody else may open it: whoever can, can lock it."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    with open(path, "ab", opener=_private) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(path) from None
        if not _is_still(path, lock):  # whoever went down removed it between our open and our lock
            raise _taken(path)
        yield lock


def _is_still(path: Path, lock: IO[bytes]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(lock.fileno()).st_ino
    except FileNotFoundError:
        return False


def _taken(path: Path) -> AlreadyExists:
    holder = last_holder(path)
    who = f" (process {holder.pid})" if holder else ""
    return AlreadyExists(f"a hive already runs on {path.parent}{who}", "stop it with: make down")
