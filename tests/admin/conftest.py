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
from typing import IO, Any

import pytest

from libhive.messages.base import Reply, Request
from libhive.paths import Paths
from libhive.problems import BadRequest, Problem
from libhive.testing import nursery
from libhive.testing.peer import Heard, Peer

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


class Actor(Peer):
    """One of the six. It refuses what nobody told it to answer."""

    def __init__(self, stage: Stage, name: str) -> None:
        super().__init__(stage.paths, name)
        self.stage = stage

    def answer(self, heard: Heard) -> Reply:
        request = heard.request
        self.stage.asked.append(request)
        said = self.stage.says.get(
            type(request), BadRequest(f"nobody told {self.name} what to say to {request.KIND}")
        )
        if isinstance(said, Problem):
            raise said
        return said if isinstance(said, Reply) else said(request)


class Stage:
    """Six services that answer by `says`, and what they were asked."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(run=root / "run", state=root / "state")
        self.says: dict[type[Request[Any]], Says] = {}
        self.asked: list[Request[Any]] = []
        self.actors: dict[str, Actor] = {}

    def start(self, *services: str) -> None:
        for name in services or SERVICES:
            self.actors[name] = Actor(self, name)
            self.actors[name].start()

    def stop(self, *services: str) -> None:
        for name in services or tuple(self.actors):
            self.actors.pop(name).stop()

    def environment(self) -> dict[str, str]:
        own = {"HIVE_RUN_DIR": str(self.paths.run), "HIVE_STATE_DIR": str(self.paths.state)}
        return own | {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}

    async def admin(self, *argv: str, stdin: str = "", environ: dict[str, str] | None = None) -> Ended:
        began = time.monotonic()
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin.encode())
            given.seek(0)
            process = nursery.start(
                "libhive.admin",
                argv,
                environ=self.environment() | (environ or {}),
                stdin=given,
                output=out,
                errors=err,
            )
            code = await asyncio.to_thread(process.wait, 30)
            return Ended(code, _all_of(out), _all_of(err), time.monotonic() - began)

    async def whole(self, *argv: str, stdin: str) -> Ended:
        """With its start, for a test of how long it takes."""
        began = time.monotonic()
        process = await self.popen(*argv)
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode(), time.monotonic() - began)

    async def popen(self, *argv: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "libhive.admin", *argv)
        return await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment()
        )


def _all_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    root = Path(tempfile.mkdtemp(prefix="hive-", dir="/tmp"))
    stage = Stage(root)
    stage.start()
    yield stage
    stage.stop()
    shutil.rmtree(root)
