"""The processes of a measurement beside the broker: its clients, and a private Redis."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from deploy.setup import setup

START_SECONDS_MAX = 15.0
ROOT = Path(__file__).resolve().parents[2]


class Side(NamedTuple):
    """One system under test: how clients reach it, and which process it is."""

    system: str
    pid: int
    path: str
    """With `{name}` where the agent's name belongs, if each has a socket of its own."""
    client: str = "usual"
    """`lean` for bare sockets."""

    @property
    def lean(self) -> Side:
        return self._replace(client="lean")

    def paths(self, names: Sequence[str]) -> list[str]:
        return [self.path.format(name=name) for name in names]


class Client:
    """A process of its own (client.py), beside the one server."""

    def __init__(
        self, side: Side, role: str, names: Sequence[str], to: Sequence[str] = (), **given: Any
    ) -> None:
        targets = [to or [name] for name in names]
        what = {
            "client": side.client,
            "role": role,
            "system": side.system,
            "paths": side.paths(names),
            "targets": targets,
            **given,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.client"],
            env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say(json.dumps(what))
        self._line()

    def go(self) -> None:
        self._say("")

    def result(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self._line())
        return said

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return line
        raise RuntimeError(f"a client ended with {self._process.wait()}; it says why above")


class Redis:
    """Debian's, durable before it confirms, on a socket and in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._socket = directory / "redis.sock"
        self._command = [
            *("redis-server", "--port", "0", "--unixsocket", str(self._socket), "--dir", str(directory)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--logfile", "redis.log"),
            *("--auto-aof-rewrite-percentage", "0"),  # else it forks to rewrite its log amid a measurement
        ]

    def __enter__(self) -> Side:
        binary = shutil.which("redis-check-rdb")  # the server itself, when it is called by the other name
        assert binary
        self._process = subprocess.Popen(
            self._command, executable=binary, env={"PATH": os.defpath}, stdout=subprocess.DEVNULL
        )
        until = time.monotonic() + START_SECONDS_MAX
        while not accepts(str(self._socket)):
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError("Redis did not come up")
            time.sleep(0.02)
        return Side("redis", self._process.pid, str(self._socket))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()


def install_redis() -> None:
    """Debian's redis-tools holds the whole server (redis-check-rdb under another name); the package redis-server would
    start one for the whole machine. Asks apt when we are root; otherwise raises SetUpError with the line to type."""
    if shutil.which("redis-check-rdb") is None:
        with setup.only_one():
            setup.debian_packages(["redis-tools"])


def accepts(path: str) -> bool:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        try:
            sock.connect(path)
        except OSError:
            return False
    return True
