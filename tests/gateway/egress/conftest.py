"""An agent's proxy within the test's own loop, with hosts on loopback and names that mean what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from libhive import destinations
from libhive.destinations import Address
from libhive.messages.gateway import EgressDecision, EgressUsed
from libhive.messages.lifecycle import Agent
from libhive.names import agent_name
from libhive.paths import Paths
from libhive.spec import AgentSpec, Egress
from services.gateway.egress import names
from services.gateway.egress.book import Book
from services.gateway.egress.doors import Proxies
from services.gateway.egress.policies import Policies
from services.gateway.settings import Settings
from services.gateway.store import Store

IRIS = agent_name("iris")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def agent(name: str, egress: Egress) -> Agent:
    return Agent(
        name=name,
        desired="running",
        cage="running",
        cage_kind="bubblewrap",
        revision=1,
        generation=1,
        uid=os.geteuid(),
        page_port=8100,
        spec=AgentSpec(egress=egress),
    )


class Scene:
    def __init__(self, paths: Paths) -> None:
        self.paths, self.now = paths, 1_000_000
        self.settings = Settings(egress_head_seconds_max=0.3)
        self.failures: list[BaseException] = []
        self.told: list[EgressUsed] = []
        self.hosts: list[asyncio.Server] = []
        self.looked_up: list[str] = []
        self.meaning: dict[str, list[Address]] = {}
        self.public: set[Address] = set()
        """Loopback addresses that pass for public ones, and for those of another host."""
        self._near: list[asyncio.StreamWriter] = []

    async def start(self, **settings: float) -> Scene:
        self.settings = replace(self.settings, **settings)  # type: ignore[arg-type]
        self.store = Store.open(self.paths.database("gateway"))
        self.policies = Policies(self.store.egress, lambda: self.now)
        self.book = Book(self.store.egress, self.settings, lambda: self.now)
        self.book.publish = self.told.append
        await self.book.begin()
        self.proxies = Proxies(
            self.paths,
            self.settings,
            self.policies,
            self.book,
            lambda what, error: self.failures.append(error),
        )
        await self.proxies.open(IRIS, os.geteuid())
        return self

    async def stop(self) -> None:
        for writer in self._near:
            writer.transport.abort()
        await self.proxies.close(IRIS)
        await self.book.close()
        self.store.close()
        assert not self.failures

    async def let(self, mode: str, *allow: str, name: str = "iris") -> None:
        await self.policies.take(agent(name, Egress(mode=mode, allow=list(allow))))  # type: ignore[arg-type]

    def name(self, name: str, *addresses: str, public: bool = False) -> None:
        self.meaning[name] = [ip_address(each) for each in addresses]
        self.public |= set(self.meaning[name]) if public else set()

    def look_up(self, host: str) -> list[Address]:
        self.looked_up.append(host)
        if host not in self.meaning:
            raise OSError("no such name")
        return self.meaning[host]

    async def host(
        self,
        talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        address: str = "127.0.0.1",
    ) -> int:
        """The port of a host that says what `talk` does."""

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await talk(reader, writer)
            writer.close()

        server = await asyncio.start_server(accepted, address, 0)
        self.hosts.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def come(self) -> Streams:
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        self._near.append(writer)
        return reader, writer

    async def connect(self, target: str) -> tuple[str, Streams]:
        """CONNECT; the answer's head, and the connection."""
        reader, writer = await self.come()
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        return head.decode(), (reader, writer)

    @property
    def socket(self) -> Path:
        return self.paths.door(IRIS, "proxy")

    def decisions(self) -> list[EgressDecision]:
        return self.book.newest("iris", 100)


@pytest.fixture
def short_paths() -> Iterator[Paths]:
    root = Path(tempfile.mkdtemp(prefix="eg-", dir="/tmp"))
    yield Paths(run=root / "run", state=root / "state")
    shutil.rmtree(root)


@pytest.fixture
async def scene(short_paths: Paths, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """Not started: a test starts it with the settings it needs."""
    one, special, is_own = Scene(short_paths), destinations.special, names.is_own
    monkeypatch.setattr(names, "_look_up", one.look_up)
    monkeypatch.setattr(names, "is_own", lambda address: address not in one.public and is_own(address))
    monkeypatch.setattr(
        destinations, "special", lambda address: "" if address in one.public else special(address)
    )
    yield one
    await one.stop()
    for server in one.hosts:
        server.close()
