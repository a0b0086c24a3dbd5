"""The clients of a hive that is installed in a container."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from libhive.messages.lifecycle import Agent, Executed
from libhive.paths import Paths
from libhive.problems import Unavailable
from libhive.testing.hive import Hive
from tests.booted.container import Container

T = TypeVar("T")


class InstalledHive(Hive):
    """The clients of a hive whose processes are the container's units."""

    def __init__(self, container: Container) -> None:
        super().__init__()
        self.container = container
        self.paths = Paths(run=container.path("/run/hyperhive"), state=container.path("/var/lib/hyperhive"))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for link in self._links:
            await link.close()
        shutil.rmtree(self.root)

    def logs(self) -> str:
        return self.container.journal()[-20_000:]


def ask(container: Container, question: Callable[[InstalledHive], Awaitable[T]]) -> T | None:
    """None while nobody answers. For whoever asks again and again: hive-admin takes much longer to start than to ask."""

    async def asked() -> T | None:
        async with InstalledHive(container) as hive:
            try:
                return await question(hive)
            except Unavailable:
                return None

    with ThreadPoolExecutor(1) as elsewhere:  # the test may have a loop of its own
        return elsewhere.submit(asyncio.run, asked()).result()


def agent(container: Container, name: str) -> Agent | None:
    return ask(container, lambda hive: hive.lifecycle.agent(name))


def is_caged(container: Container, name: str) -> bool:
    found = agent(container, name)
    return found is not None and found.cage == "running"


def executed(container: Container, name: str, *command: str) -> Executed | None:
    """None until its harness listens."""
    return ask(container, lambda hive: hive.lifecycle.exec(name, [*command]))


def is_idle(container: Container, name: str) -> bool:
    peer = ask(container, lambda hive: hive.operator.peer(name))
    return peer is not None and peer.state == "idle"
