"""The handler table on the bus has one verb; the buttons' are in actions.py. Here the parts are put
together."""

from __future__ import annotations

import asyncio

from libhive.clock import Clock, now_ms
from libhive.daemon import Call, Daemon, Handlers
from libhive.link import Link
from libhive.messages.dashboard import Link as LoginLink
from libhive.messages.dashboard import MakeLink
from libhive.names import HIVE, OPERATOR
from libhive.paths import Paths
from libhive.problems import NotAllowed
from libhive.web.serve import WebServer, tcp_socket
from services.dashboard.actions import Actions
from services.dashboard.cagepage import CagePage
from services.dashboard.feed import Feed
from services.dashboard.files import Files
from services.dashboard.pages import Pages
from services.dashboard.reads import Reads
from services.dashboard.routes import Web
from services.dashboard.sessions import Sessions
from services.dashboard.settings import Settings
from services.dashboard.snapshot import Snapshot
from services.dashboard.store import Store
from services.dashboard.views import SERVICES
from services.dashboard.watch import Watch


class DashboardService:
    name = "dashboard"

    def __init__(
        self, paths: Paths, settings: Settings, store: Store, link: Link, clock: Clock = now_ms
    ) -> None:
        self._settings, self._store, self._link = settings, store, link
        self._sessions = Sessions(store, settings, clock)
        self._feed = Feed(settings)
        self._snapshot = Snapshot(self._feed, settings, clock)
        self._watch = Watch(link, self._snapshot, settings, watched=lambda: self._feed.watchers > 0)
        cage_page = CagePage(paths, settings)
        actions = Actions(link, self._snapshot, cage_page, settings)
        reads = Reads(link, self._feed, self._snapshot, cage_page, settings)
        self.web = Web(actions, reads, Files(), self._sessions, self._feed, settings)
        self._pages = Pages(
            settings, self.web.agent_app, self._snapshot.pages, self._snapshot.take_page_problems
        )
        self._snapshot.on_agents = self._pages.look_again
        self._server: WebServer | None = None

    def bus_handlers(self) -> Handlers:
        return {MakeLink: self.on_make_link}

    def door_handlers(self) -> Handlers:
        return {}

    async def start(self, daemon: Daemon) -> None:
        """The dashboard's own port is the one that must be had: without it there is no dashboard."""
        sock = tcp_socket(self._settings.bind, self._settings.port)
        daemon.details["url"] = f"http://127.0.0.1:{self._settings.port}"
        daemon.details["page_port_shift"] = str(self._settings.shift)
        self._server = WebServer(self.web.dashboard_app(), sock=sock, limit_concurrency=1024)
        for service in SERVICES:
            daemon.spawn(self._watch.follow(service), f"follow {service}")
            daemon.spawn(self._watch.probe(service), f"probe {service}")
        daemon.spawn(self._pages.keep(), "agents' ports")
        daemon.spawn(self._end_dead_sessions(), "sessions")
        await self._server.start()

    async def stop(self) -> None:
        self._feed.end(lambda session: True)
        await self._pages.close()
        if self._server:
            await self._server.stop()
        await self._link.close()
        self._store.close()

    async def on_make_link(self, call: Call, m: MakeLink) -> LoginLink:
        if call.caller not in (OPERATOR, HIVE):
            raise NotAllowed("only the operator gets a login link")
        return await self._sessions.make_link()

    async def _end_dead_sessions(self) -> None:
        """A stream ends with its session; cages that came up in silence get another look on the way."""
        while True:
            await asyncio.sleep(self._settings.sessions_check_seconds)
            self._feed.end(lambda session: self._sessions.alive(session) is None)
            self._snapshot.show_agents()
