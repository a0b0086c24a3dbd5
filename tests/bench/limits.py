"""What this machine can do without us."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pysqlite3.dbapi2 as sqlite

from libhive.engine import WAL_AUTOCHECKPOINT_PAGES
from tests.bench.stream import body


class RawSqlite:
    """The storage work of a broker and nothing else: a plain table with the broker's own settings. It stays open over
    the rounds, as the broker's does: a log that is used again is faster than one that grows."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite.connect(str(path), isolation_level=None)
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            f"wal_autocheckpoint = {WAL_AUTOCHECKPOINT_PAGES}",
        ):
            self._connection.execute(f"PRAGMA {pragma}").close()
        self._connection.execute(
            "CREATE TABLE t (n INTEGER PRIMARY KEY, body TEXT NOT NULL, acked INTEGER NOT NULL)"
        )

    def messages_a_second(self, count: int, per_commit: int) -> float:
        """Each is inserted, and acknowledged by an update in the commit after that."""
        connection, before = self._connection, range(0)
        at = 1 + (connection.execute("SELECT max(n) FROM t").fetchone()[0] or 0)
        began = time.perf_counter()
        for start in range(0, count, per_commit):
            connection.execute("BEGIN IMMEDIATE")
            bodies = [(body(number),) for number in range(start, start + per_commit)]
            connection.executemany("INSERT INTO t (body, acked) VALUES (?, 0)", bodies)
            connection.executemany("UPDATE t SET acked = 1 WHERE n = ?", [(n,) for n in before])
            connection.execute("COMMIT")
            before = range(at + start, at + start + per_commit)
        return count / (time.perf_counter() - began)

    def close(self) -> None:
        self._connection.close()


BARE_BUBBLEWRAP = (
    *(
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--ro-bind",
        "/usr",
        "/usr",
        "--symlink",
        "usr/bin",
        "/bin",
    ),
    *("--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev"),
)


def bare_bubblewrap() -> float:
    """Milliseconds to start and end `true` in a bubblewrap of its own namespaces."""
    began = time.perf_counter()
    subprocess.run([*BARE_BUBBLEWRAP, "--", "/usr/bin/true"], check=True)
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
