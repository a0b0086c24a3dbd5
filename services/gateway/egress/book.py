"""What was decided: one row for each connection, refusals of one kind within a second in one.

An agent decides how often something is decided, so it is written once a second for all of them, not each time. A gateway
that is killed loses what is younger; what an agent learns, and what goes to the log of the service, it does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from libhive.clock import Clock
from libhive.messages.gateway import EgressDecision, EgressReason, EgressUsed, Verdict
from libhive.names import AgentName, new_id
from libhive.problems import NoSpace
from services.gateway.egress.store import EgressStore, Line
from services.gateway.settings import Settings

log = logging.getLogger("hive.gateway")

DAY_MS = 86_400_000
UNWRITTEN_MAX = 4_096
"""While the disk is full; beyond that the oldest are in the service's log only."""
DETAIL_CHARACTERS_MAX = 300


@dataclass(slots=True)
class Entry:
    """A decision, as long as anything about it may still change."""

    agent: AgentName
    at_ms: int
    host: str
    port: int
    verdict: Verdict
    reason: EgressReason
    detail: str = ""
    address: str = ""
    times: int = 1
    bytes_up: int = 0
    bytes_down: int = 0
    ended_ms: int = 0
    id: str = field(default_factory=new_id)

    def as_decision(self) -> EgressDecision:
        values = {name: getattr(self, name) for name in EgressDecision.__struct_fields__}
        return EgressDecision(**values)


class Book:
    def __init__(self, store: EgressStore, settings: Settings, clock: Clock) -> None:
        self._store, self._settings, self._clock = store, settings, clock
        self._open: dict[str, Entry] = {}
        self._unwritten: dict[str, Entry] = {}
        self._refusals: dict[tuple[str, str, int, str], Entry] = {}
        self._news: dict[str, Counter[str]] = {}
        self.publish: Callable[[EgressUsed], None] = lambda event: None

    def refuse(
        self, agent: AgentName, host: str, port: int, verdict: Verdict, reason: EgressReason, detail: str
    ) -> None:
        now, key = self._clock(), (agent, host, port, reason)
        if entry := self._refusals.get(key):
            entry.times += 1
            entry.ended_ms = now
        else:
            detail = detail[:DETAIL_CHARACTERS_MAX]
            entry = Entry(agent, now, host, port, verdict, reason, detail, ended_ms=now)
            self._refusals[key] = entry
            log.info(
                "way out %s", verdict, extra={"agent": agent, "host": host, "port": port, "reason": reason}
            )
        self._count(entry)

    def open(self, agent: AgentName, host: str, port: int, reason: EgressReason, address: str) -> Entry:
        entry = Entry(agent, self._clock(), host, port, "allowed", reason, address=address)
        self._open[entry.id] = entry
        self._count(entry)
        said = {"agent": agent, "host": host, "port": port, "address": address, "reason": reason}
        log.info("way out allowed", extra=said)
        return entry

    def end(self, entry: Entry, detail: str = "") -> None:
        entry.ended_ms, entry.detail = max(self._clock(), 1), detail
        self._open.pop(entry.id, None)
        self._unwritten[entry.id] = entry

    def open_count(self, agent: str) -> int:
        return sum(entry.agent == agent for entry in self._open.values())

    def newest(self, agent: str, limit: int) -> list[EgressDecision]:
        """What is on disk, and over it what has not come there yet."""
        found = self._store.newest(agent, limit)
        for entry in (*self._unwritten.values(), *self._open.values()):
            if entry.agent == agent:
                found[entry.id] = entry.as_decision()
        return [found[id] for id in sorted(found, reverse=True)[:limit]]

    async def begin(self) -> None:
        with contextlib.suppress(NoSpace):
            await self._store.end_open(self._clock(), "the gateway ended")

    async def run(self) -> None:
        """For ever: once a second what is new, once an hour what is too old."""
        forgotten_ms = 0
        while True:
            await asyncio.sleep(self._settings.egress_write_seconds)
            await self.write()
            now = self._clock()
            if now - forgotten_ms > DAY_MS // 24:
                with contextlib.suppress(NoSpace):
                    await self._store.forget(now - self._settings.egress_log_days * DAY_MS)
                    forgotten_ms = now

    async def write(self) -> None:
        self._refusals.clear()
        self._tell()
        lines: list[Line] = [(one.id, one.agent, one.as_decision()) for one in self._unwritten.values()]
        if not lines:
            return
        try:
            await self._store.write(lines, self._settings.egress_log_rows_max)
        except NoSpace:
            self._bound()
            return
        for id, _, written in lines:
            if (entry := self._unwritten.get(id)) and entry.as_decision() == written:
                del self._unwritten[id]

    async def close(self) -> None:
        for entry in list(self._open.values()):
            self.end(entry, "the gateway stopped")
        await self.write()

    def _count(self, entry: Entry) -> None:
        self._unwritten[entry.id] = entry
        counts = self._news.setdefault(entry.agent, Counter())
        counts["allowed" if entry.verdict == "allowed" else "refused"] += 1

    def _tell(self) -> None:
        newest: dict[str, Entry] = {}
        for entry in sorted(self._unwritten.values(), key=lambda entry: entry.verdict != "allowed"):
            newest[entry.agent] = entry
        for agent, counts in self._news.items():
            if agent in newest:
                decision = newest[agent].as_decision()
                allowed, refused = counts["allowed"], counts["refused"]
                self.publish(EgressUsed(agent=agent, allowed=allowed, refused=refused, newest=decision))
        self._news.clear()

    def _bound(self) -> None:
        log.warning("the disk is full: decisions about the way out are not kept")
        for id in list(self._unwritten)[:-UNWRITTEN_MAX]:
            del self._unwritten[id]
