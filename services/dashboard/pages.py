"""The agents' ports, opened and closed as agents come and go. A port that somebody else has is shown, and
tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.types import ASGIApp

from libhive.problems import Problem
from libhive.web.serve import WebServer, tcp_socket
from services.dashboard.settings import Settings

log = logging.getLogger("hive.dashboard")

PORT_MIN, PORT_MAX = 1_024, 65_535


class Pages:
    def __init__(
        self,
        settings: Settings,
        build: Callable[[str, int], ASGIApp],
        wanted: Callable[[], dict[str, int]],
        report: Callable[[dict[str, str]], None],
    ) -> None:
        self._settings, self._build, self._wanted, self._report = settings, build, wanted, report
        self._open: dict[str, tuple[int, WebServer]] = {}
        self._problems: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._closed = False

    def look_again(self) -> None:
        self._changed.set()

    async def keep(self) -> None:
        """For ever: the ports that are open are those that are wanted."""
        while True:
            self._changed.clear()
            async with self._one_at_a_time:
                await self._reconcile({} if self._closed else self._wanted())
            try:
                async with asyncio.timeout(self._settings.ports_retry_seconds):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        self._closed = True
        async with self._one_at_a_time:
            await self._reconcile({})

    async def _reconcile(self, wanted: dict[str, int]) -> None:
        gone = [name for name, (port, _) in self._open.items() if wanted.get(name) != port]
        await asyncio.gather(*(self._close(name) for name in gone))
        problems: dict[str, str] = {}
        for name, port in wanted.items():
            if name not in self._open and (problem := await self._try(name, port)):
                problems[name] = problem
        if problems != self._problems:
            self._problems = problems
            self._report(problems)

    async def _try(self, name: str, port: int) -> str:
        """Opens the agent's port; what is wrong with it, if so."""
        problem = await self._start(name, port)
        if problem and problem != self._problems.get(name):
            log.warning("an agent's page has no port", extra={"agent": name, "port": port, "why": problem})
        return problem

    async def _start(self, name: str, port: int) -> str:
        if not PORT_MIN <= port <= PORT_MAX:
            return f"port {port} is not between {PORT_MIN} and {PORT_MAX}: choose another HIVE_DASHBOARD_PORT"
        try:
            sock = tcp_socket(self._settings.bind, port)
        except (Problem, OSError) as problem:
            return str(problem)
        server = WebServer(self._build(name, port), sock=sock)
        await server.start()
        self._open[name] = (port, server)
        return ""

    async def _close(self, name: str) -> None:
        _, server = self._open.pop(name)
        await server.stop()
