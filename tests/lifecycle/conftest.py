"""A real hive-lifecycle process with real cages, in which a small program of the tests takes the harness's place."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from libhive.messages.lifecycle import Agent
from libhive.testing.hive import Hive

PROGRAM = Path(__file__).parent.parent / "cages" / "program.py"

START = """
import os, pathlib, sys
from libhive import daemon
from services.lifecycle.__main__ import build
from services.lifecycle.settings import Settings
kind, program = sys.argv[1:]
settings = Settings(cage=kind, program=("-c", pathlib.Path(program).read_text()), retry_first_ms=50, retry_factor=1,
                    nixpkgs=os.environ.get("HIVE_NIXPKGS", ""), memory_check_seconds=0.2)
daemon.main(lambda paths: build(paths, settings))
"""


class LifecycleHive(Hive):
    kind = "bubblewrap"
    program = PROGRAM

    def spawn(self, service: str) -> None:
        if service != "lifecycle":
            super().spawn(service)
            return
        with (self.root / "lifecycle.log").open("ab") as log:
            self.processes[service] = subprocess.Popen(
                [sys.executable, "-c", START, self.kind, str(self.program)],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def wait_for(self, name: str, what: Callable[[Agent], bool], seconds: float = 10) -> Agent:
        agent = None
        for _ in range(int(seconds / 0.05)):
            agent = await self.lifecycle.agent(name)
            if agent is not None and what(agent):
                return agent
            await asyncio.sleep(0.05)
        raise AssertionError(f"{name} is {agent}\n{self.logs()}")

    async def running(self, name: str) -> Agent:
        return await self.wait_for(name, lambda agent: agent.cage == "running")


@pytest.fixture
async def hive() -> AsyncIterator[LifecycleHive]:
    async with LifecycleHive() as made:
        yield made
