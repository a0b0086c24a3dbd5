"""Brokers that are born by fork, out of a process that has imported everything and opened nothing.

Each child is `services.broker` from `daemon.main` on: the same database file, lock, doors and bus as a broker that was
started by exec, a few milliseconds instead of half a second later. The nursery itself runs one child at a time and tells
how each has ended; whoever kills it does so by its pid, which stays taken until the next one is wanted.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import uvloop

from libhive import daemon, engine, faults, redo, sqlite, wire
from libhive.paths import Paths
from services.broker.__main__ import build
from tests.proofs import planted

LOG_PAGES = 64
REDO_BYTES = 16 << 10
SETTLE_SECONDS = 0.01


def main(bug: str) -> None:
    if bug:
        planted.BY_NAME[bug]()
    _shorten_log()
    _warm_up()
    gc.collect()
    gc.freeze()
    while line := sys.stdin.readline():
        pid = os.fork()
        if not pid:
            _child(line.strip())
        _tell(pid)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended
        _tell(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)
        if not sys.stdin.readline():
            break
        os.waitpid(pid, 0)


def _shorten_log() -> None:
    """To what a life writes: so lives begin it anew, and are killed doing so. To fill one of the product's length with zeros
    takes longer than all else that a life does. The redo log gets full, and SQLite what is in it, many times in a life."""
    engine.WAL_AUTOCHECKPOINT_PAGES = LOG_PAGES  # type: ignore[misc]
    sqlite.LOG_BYTES = LOG_PAGES * 4096  # type: ignore[misc]
    redo.BYTES = redo.PIECE_BYTES = REDO_BYTES  # type: ignore[misc]
    sqlite.SETTLE_SECONDS = SETTLE_SECONDS  # type: ignore[misc]


def _warm_up() -> None:
    """Builds a broker that never runs: what the first one of a process has to import and to compile, each child has from
    here."""
    with tempfile.TemporaryDirectory() as directory:
        paths = Paths(run=Path(directory), state=Path(directory))
        broker = build(paths)
        daemon.Daemon(broker, paths)
        wire.Reader(broker.bus_handlers())
        broker.core.database.close()


def _child(fault: str) -> None:
    """`fault` is a fault point, with `@` before it when it is only to hold from the signal on."""
    status = 1
    try:
        if fault.startswith("@"):
            signal.signal(signal.SIGUSR1, lambda *_: _arm(fault[1:]))
        else:
            _arm(fault)
        sys.stdin.close()
        daemon.main(build, uvloop.new_event_loop)
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(status)


def _arm(fault: str) -> None:
    os.environ["HIVE_FAULT"] = fault
    importlib.reload(faults)


def _tell(number: int) -> None:
    print(number, flush=True)


class Nursery:
    """The nursery's process, from outside: a host of brokers."""

    def __init__(self, environ: Mapping[str, str], log: int, bug: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.proofs.nursery", bug],
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self._used = False

    def spawn(self, fault: str = "") -> int:
        """Its pid."""
        self._write("\n" * self._used + f"{fault}\n")
        self._used = True
        return int(self._read())

    def fileno(self) -> int:
        """Readable once the broker has ended."""
        assert self._process.stdout
        return self._process.stdout.fileno()

    def ended(self) -> int:
        """Waits for it; its status, or the negative number of the signal that ended it."""
        return int(self._read())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)

    def _write(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return line
        raise RuntimeError("the nursery has ended; its log says why")


if __name__ == "__main__":
    main(sys.argv[1])
