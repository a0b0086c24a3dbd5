"""What this machine can do without us."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pysqlite3.dbapi2 as sqlite

BODY = "x" * 1024


def raw_sqlite(directory: Path, rows: int, rows_per_commit: int) -> float:
    """Rows a second into a WAL with synchronous=FULL."""
    path = directory / f"raw-{time.time_ns()}.sqlite"
    connection = sqlite.connect(str(path), isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body TEXT)")
    began = time.perf_counter()
    for _ in range(rows // rows_per_commit):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO t (body) VALUES (?)", [(BODY,)] * rows_per_commit)
        connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    for leftover in directory.glob(f"{path.name}*"):
        leftover.unlink()
    return rows // rows_per_commit * rows_per_commit / took


def paced_sqlite_commits(directory: Path, count: int, per_second: int) -> list[float]:
    """Microseconds of each commit of one row, `per_second` a second: the processor sleeps in between."""
    path = directory / f"paced-{time.time_ns()}.sqlite"
    connection = sqlite.connect(str(path), isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body TEXT)")
    took = []
    for _ in range(count):
        time.sleep(1 / per_second)
        began = time.perf_counter()
        connection.execute("INSERT INTO t (body) VALUES (?)", (BODY,))
        took.append((time.perf_counter() - began) * 1e6)
    connection.close()
    for leftover in directory.glob(f"{path.name}*"):
        leftover.unlink()
    return took


def bare_bubblewrap() -> float:
    """Milliseconds to start and end `true` in a bubblewrap of its own namespaces."""
    command = ["bwrap", "--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"]
    command += [
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    began = time.perf_counter()
    subprocess.run([*command, "--", "/usr/bin/true"], check=True)
    return (time.perf_counter() - began) * 1000


class BarePython:
    """An idle Python process with an event loop: what any service costs at the least."""

    def __enter__(self) -> BarePython:
        program = "import asyncio; asyncio.run(asyncio.sleep(600))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], env={"PYTHONSAFEPATH": "1", "PATH": os.defpath}
        )
        time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
