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


class Bare:
    """A process that does nothing until the block ends."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._command, self._environment = command, environment

    def __enter__(self) -> int:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def bare_python() -> Bare:
    """An event loop that wakes once a second: what any service costs at the least."""
    program = "import asyncio\nasync def main():\n    while True: await asyncio.sleep(1)\nasyncio.run(main())"
    return Bare([sys.executable, "-c", program], {"PYTHONSAFEPATH": "1", "PATH": os.defpath})


def bare_claude(claude: str, home: Path) -> Bare:
    """The CLI that waits for its first message: what any cage costs at the least. It reaches nothing but loopback."""
    command = [claude, "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
    environment = {
        "PATH": os.defpath,
        "HOME": str(home),
        "CLAUDE_CONFIG_DIR": str(home / "cfg"),
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        "ANTHROPIC_AUTH_TOKEN": "made-up",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    return Bare(command, environment)
