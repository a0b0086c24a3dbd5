from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import random
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from libhive.daemon import Daemon
from libhive.link import Link
from libhive.names import OPERATOR
from libhive.paths import Paths
from services.dashboard.service import DashboardService
from services.dashboard.settings import Settings
from services.dashboard.store import Store
from tests.dashboard.chromium import CHROMIUM, FLAGS, Browsing, visit
from tests.dashboard.rich import Hive


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser of a whole module lives in its loop, and so must all that a test meets it with."""
    ours = (item for item in items if item.path.parent == Path(__file__).parent)
    for item in ours:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


class Dashboard:
    """A running dashboard, and a browser's way into it."""

    def __init__(self, service: DashboardService, settings: Settings, paths: Paths) -> None:
        self.service, self.settings, self.paths = service, settings, paths
        self.port = settings.port
        self._clients: list[httpx.AsyncClient] = []

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    def url(self, path: str = "/", port: int | None = None) -> str:
        return f"http://127.0.0.1:{port or self.port}{path}"

    async def token(self) -> str:
        link = await self.service._sessions.make_link()
        return link.url.partition("#")[2]

    async def browser(self, port: int | None = None) -> httpx.AsyncClient:
        """Logged in, and sending what a browser sends from the dashboard's own page."""
        client = self.stranger(port)
        async with self.stranger() as at_the_door:
            said = await at_the_door.post("/api/login", json={"token": await self.token()})
            assert said.status_code == 200, said.text
            client.cookies.update(at_the_door.cookies)
        return client

    def stranger(self, port: int | None = None) -> httpx.AsyncClient:
        headers = {"sec-fetch-site": "same-origin", "origin": self.url("", port)}
        client = httpx.AsyncClient(base_url=self.url("", port), headers=headers, timeout=10, trust_env=False)
        self._clients.append(client)
        return client

    async def until(self, true: Callable[[], Awaitable[bool] | bool], seconds: float = 8.0) -> None:
        async with asyncio.timeout(seconds):
            while True:
                found = true()
                if await found if isinstance(found, Awaitable) else found:
                    return
                await asyncio.sleep(0.02)


@pytest.fixture
def paths() -> Iterator[Paths]:
    root = Path(tempfile.mkdtemp(prefix="hd", dir="/tmp"))
    yield Paths(run=root / "r", state=root / "s")
    shutil.rmtree(root)


def free_port() -> int:
    """One whose agents' ports (1,000 and 1,100 above it, and on) are free as well."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError):
            for offset in (0, 1000, 1101, 1102):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
            return port


@pytest.fixture
def settings() -> Settings:
    return Settings(
        port=free_port(), ping_seconds=0.1, ping_unwatched_seconds=0.1, pong_seconds=0.5, call_seconds=1.0
    )


@pytest_asyncio.fixture(loop_scope="module")
async def hive(paths: Paths) -> AsyncIterator[Hive]:
    hive = Hive(paths)
    hive.start()
    yield hive
    hive.stop()


@contextlib.asynccontextmanager
async def running(paths: Paths, settings: Settings) -> AsyncIterator[Dashboard]:
    service = DashboardService(
        paths, settings, Store(paths.database("dashboard")), Link(paths, actor=OPERATOR)
    )
    daemon = Daemon(service, paths)
    await service.start(daemon)
    dashboard = Dashboard(service, settings, paths)
    try:
        yield dashboard
    finally:
        await dashboard.close()
        await service.stop()
        await daemon._tasks.cancel()


@pytest_asyncio.fixture(loop_scope="module")
async def dashboard(hive: Hive, paths: Paths, settings: Settings) -> AsyncIterator[Dashboard]:
    async with running(paths, settings) as dashboard:
        known = dashboard.service._snapshot
        await dashboard.until(lambda: all(known.service_up(peer.name) for peer in hive.all))
        # before what it says of itself has come a service is up already; the broker's peers come last
        await dashboard.until(
            lambda: all((known._agents, known._peers, known._proposals, known._deploys, known._report))
        )
        yield dashboard


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browsing() -> AsyncIterator[Browsing]:
    """One browser for a module; what each `browsing()` opens in it knows nothing of the others."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield functools.partial(visit, browser)
        await browser.close()
