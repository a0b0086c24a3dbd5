"""What each agent may reach, as lifecycle said last: kept on disk, because the gateway works on while lifecycle is away."""

from __future__ import annotations

import logging
from collections.abc import Callable

from libhive.clients.lifecycle import Lifecycle
from libhive.clock import Clock
from libhive.link import Gap, Link
from libhive.messages.lifecycle import Agent, AgentChanged
from libhive.names import AgentName
from libhive.problems import NoSpace
from libhive.spec import Egress
from services.gateway.asking import until_answered
from services.gateway.egress import rules
from services.gateway.egress.store import EgressStore

log = logging.getLogger("hive.gateway")


class Policies:
    def __init__(self, store: EgressStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._known = store.specs()
        self._kept = dict(self._known)
        self._learned = store.learned()
        self.on_change: Callable[[str], None] = lambda agent: None

    def of(self, agent: str) -> Egress | None:
        """None: nobody has ever said."""
        return self._known.get(agent)

    def learned(self, agent: str) -> list[str]:
        return sorted(self._learned.get(agent, ()))

    def has_room(self, agent: str, more: set[str]) -> bool:
        return rules.room_for(self._learned.get(agent, set()), more)

    async def learn(self, agent: AgentName, more: set[str]) -> None:
        """On disk before the first byte goes out. Raises NoSpace."""
        known = self._learned.setdefault(agent, set())
        if new := more - known:
            await self._store.learn(agent, new, self._clock())
            known |= new

    async def follow(self, link: Link) -> None:
        """For ever. While lifecycle is away all stays as it is."""
        async for event in link.events("lifecycle"):
            if isinstance(event, AgentChanged):
                await self.take(event.agent)
            elif isinstance(event, Gap):
                agents = await until_answered(Lifecycle(link).agents, "lifecycle", "ways out")
                for agent in agents:
                    await self.take(agent)
                for name in set(self._known) - {agent.name for agent in agents}:
                    self.forget(name)

    async def take(self, agent: Agent) -> None:
        name, egress = agent.name, agent.spec.egress
        before = self._known.get(name)
        anew = egress.mode == "learn" and (before is None or before.mode != "learn")
        if before != egress:
            self._known[name] = egress
            if anew:
                self._learned.pop(name, None)
            log.info(
                "another way out", extra={"agent": name, "mode": egress.mode, "entries": len(egress.allow)}
            )
            self.on_change(name)
        if self._kept.get(name) != egress:
            await self._keep(name, egress, anew=anew)

    def forget(self, name: str) -> None:
        """It is purged; what is on disk is the store's to remove."""
        for kept in (self._known, self._kept, self._learned):
            kept.pop(name, None)
        self.on_change(name)

    async def _keep(self, name: str, egress: Egress, *, anew: bool) -> None:
        try:
            await self._store.keep_spec(name, egress, anew=anew)
        except NoSpace:
            # what is known counts; it is written with the next change, or when lifecycle is asked again
            log.warning("the disk is full: what an agent may reach was not kept", extra={"agent": name})
        else:
            self._kept[name] = egress
