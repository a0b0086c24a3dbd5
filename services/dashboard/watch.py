"""Listening to the other services: their events, and whether they are there at all.

Two tasks for each service. One follows its events and fetches afresh after every gap. One pings it: PUB tells
nobody that its service died or was restarted, a ping does. Nothing here waits for more than one service at a
time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from libhive.link import Gap, Link
from libhive.messages import approvals, broker, gateway, lifecycle, updater
from libhive.messages.base import Ping
from libhive.problems import Problem, Unavailable
from services.dashboard.settings import Settings
from services.dashboard.snapshot import Snapshot

log = logging.getLogger("hive.dashboard")


class Watch:
    def __init__(
        self, link: Link, snapshot: Snapshot, settings: Settings, watched: Callable[[], bool]
    ) -> None:
        self._link, self._snapshot, self._settings, self._watched = link, snapshot, settings, watched
        self._fetchers = {
            "approvals": self._fetch_approvals,
            "broker": self._fetch_broker,
            "gateway": self._fetch_gateway,
            "lifecycle": self._fetch_lifecycle,
            "updater": self._fetch_updater,
        }

    async def follow(self, service: str) -> None:
        async for item in self._link.events(service):
            if isinstance(item, Gap):
                await self.fetch(service)
            else:
                self._snapshot.apply(item)

    async def probe(self, service: str) -> None:
        """Also fetches now and then without a reason: an event may be lost that no later one betrays."""
        settings, since = self._settings, 0.0
        while True:
            await self._look(service)
            eager = self._watched() or not self._snapshot.service_up(service)
            pause = settings.ping_seconds if eager else settings.ping_unwatched_seconds
            await asyncio.sleep(pause)
            since += pause
            if since >= settings.refresh_seconds and self._snapshot.service_up(service):
                since = 0.0
                await self.fetch(service)

    async def fetch(self, service: str) -> None:
        try:
            await self._fetchers[service]()
        except Unavailable as problem:
            self._snapshot.service_silent(service, problem.message)
        except Problem as problem:
            _complain(service, problem)

    async def _look(self, service: str) -> None:
        try:
            pong = await self._link.call(service, Ping(), timeout_seconds=self._settings.pong_seconds)
        except Problem as problem:
            self._snapshot.service_silent(service, problem.message)
            return
        if self._snapshot.service_answers(service, pong):
            await self.fetch(service)

    async def _fetch_approvals(self) -> None:
        self._snapshot.take_proposals((await self._link.call("approvals", approvals.Proposals())).proposals)

    async def _fetch_broker(self) -> None:
        """Part by part: one that fails (a reply over the wire's cap, say) leaves the others."""
        parts = (
            self._fetch_history,
            self._fetch_inbox,
            self._fetch_questions,
            self._fetch_reminders,
            self._fetch_peers,
        )
        for fetch in parts:
            try:
                await fetch()
            except Unavailable:
                raise
            except Problem as problem:
                _complain("broker", problem)

    async def _fetch_history(self) -> None:
        asked = broker.History(limit=self._settings.messages_kept_max)
        self._snapshot.take_receipts((await self._link.call("broker", asked)).receipts)

    async def _fetch_inbox(self) -> None:
        asked = broker.Inbox(limit=self._settings.messages_kept_max)
        self._snapshot.take_receipts((await self._link.call("broker", asked)).receipts)

    async def _fetch_questions(self) -> None:
        kept = self._settings.messages_kept_max
        recent = (await self._link.call("broker", broker.Questions(open_only=False))).questions
        still_open = (await self._link.call("broker", broker.Questions(limit=kept))).questions
        self._snapshot.take_questions([*recent, *still_open])

    async def _fetch_reminders(self) -> None:
        self._snapshot.take_reminders((await self._link.call("broker", broker.Reminders())).reminders)

    async def _fetch_peers(self) -> None:
        self._snapshot.take_peers((await self._link.call("broker", broker.Peers())).peers)

    async def _fetch_gateway(self) -> None:
        self._snapshot.take_gateway(await self._link.call("gateway", gateway.GatewayStatus()))

    async def _fetch_lifecycle(self) -> None:
        self._snapshot.take_agents((await self._link.call("lifecycle", lifecycle.Agents())).agents)

    async def _fetch_updater(self) -> None:
        self._snapshot.take_deploys((await self._link.call("updater", updater.Deploys())).deploys)


def _complain(service: str, problem: Problem) -> None:
    log.warning(
        "a service refused to tell its state",
        extra={"peer": service, "code": problem.code, "why": problem.message},
    )
