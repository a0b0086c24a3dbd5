"""hive-admin as a process of its own, before services that say what the test has told them, over the real wire."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from libhive import wire
from libhive.link import Server
from libhive.messages.base import Ping, Pong, Reply, Request
from libhive.messages.registry import REQUESTS
from libhive.paths import Paths
from libhive.problems import BadRequest, Problem

SERVICES = ("approvals", "broker", "dashboard", "gateway", "lifecycle", "updater")
ROOT = Path(__file__).parents[2]
Says = Reply | Problem | Callable[[Any], Reply | Problem]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Stage:
    """Six services that answer by `says`, and what they were asked."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(run=root / "run", state=root / "state")
        self.says: dict[type[Request[Any]], Says] = {}
        self.asked: list[Request[Any]] = []
        self.servers: dict[str, Server] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, *services: str) -> None:
        self.paths.bus("x").parent.mkdir(parents=True, exist_ok=True)
        for name in services or SERVICES:
            self.servers[name] = Server(
                self.paths.bus(name), self.paths.events(name), self._serving(name), self._spawn
            )

    def stop(self, *services: str) -> None:
        for name in services or tuple(self.servers):
            self.servers.pop(name).close()

    def environment(self) -> dict[str, str]:
        own = {"HIVE_RUN_DIR": str(self.paths.run), "HIVE_STATE_DIR": str(self.paths.state)}
        return own | {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}

    async def admin(self, *argv: str, stdin: str = "", environ: dict[str, str] | None = None) -> Ended:
        began = time.monotonic()
        process = await self.popen(*argv, environ=environ)
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
        seconds = time.monotonic() - began
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode(), seconds)

    async def popen(self, *argv: str, environ: dict[str, str] | None = None) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "libhive.admin", *argv)
        environment = self.environment() | (environ or {})
        return await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )

    def _serving(self, name: str) -> Callable[[bytes], Any]:
        async def serve(frame: bytes) -> bytes:
            envelope = wire.unpack_request(frame)
            request = wire.understand(envelope, REQUESTS[envelope.kind])
            said = self._said(name, request)
            if isinstance(said, Problem):
                return wire.pack_problem(envelope.id, said)
            return wire.pack_reply(envelope.id, said)

        return serve

    def _said(self, name: str, request: Request[Any]) -> Reply | Problem:
        if isinstance(request, Ping):
            return Pong(service=name, version="1", pid=7, up_since_ms=0)
        self.asked.append(request)
        said = self.says.get(type(request), BadRequest(f"nobody told {name} what to say to {request.KIND}"))
        return said if isinstance(said, Reply | Problem) else said(request)

    def _spawn(self, coroutine: Any, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    root = Path(tempfile.mkdtemp(prefix="hive-", dir="/tmp"))
    stage = Stage(root)
    stage.start()
    yield stage
    stage.stop()
    shutil.rmtree(root)
