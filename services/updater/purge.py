"""One purge on its way: who keeps something of the agent is told to let go of it, one after the other.

The agent is destroyed first, and its row in lifecycle's registry goes last: until then nobody can make another of its name. Each
step may be done twice without harm, and is in the journal once it is done. Nothing here can fail for good: a service that
is away, or refuses for now, is asked again until it has done it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import structs

from libhive.clients.approvals import Approvals
from libhive.clients.broker import Broker
from libhive.clients.gateway import Gateway
from libhive.clients.lifecycle import Lifecycle
from libhive.clock import Clock
from libhive.faults import reach
from libhive.link import Link
from libhive.messages.updater import Purge
from libhive.names import AgentName, agent_name
from libhive.problems import NoSpace, Problem
from services.updater import rules
from services.updater.settings import Settings
from services.updater.store import Store

log = logging.getLogger("hive.updater")
Changed = Callable[[Purge], None]


class Purging:
    def __init__(
        self, link: Link, store: Store, settings: Settings, clock: Clock, changed: Changed, purge: Purge
    ) -> None:
        self.approvals, self.broker = Approvals(link), Broker(link)
        self.gateway, self.lifecycle = Gateway(link), Lifecycle(link)
        self.store, self.settings, self.clock, self.changed = store, settings, clock, changed
        self.purge = purge
        self.steps: dict[str, Callable[[AgentName], Awaitable[None]]] = {
            "asked": self.destroy,
            "destroyed": self.remove_mail,
            "mail": self.remove_usage,
            "usage": self.archive,
            "archived": self.forget,
        }

    async def run(self) -> None:
        """Until it has ended."""
        wait, agent = self.settings.retry_seconds_min, agent_name(self.purge.agent)
        while self.purge.step != "purged":
            try:
                await self.steps[self.purge.step](agent)
                wait = self.settings.retry_seconds_min
            except Problem as problem:
                with contextlib.suppress(NoSpace):
                    await self._save(detail=f"waiting: {rules.sentence(problem)}")
                await asyncio.sleep(wait)
                wait = min(wait * 2, self.settings.retry_seconds_max)

    # ---- the steps, each named for what it does after the one that is done

    async def destroy(self, agent: AgentName) -> None:
        if await self.lifecycle.agent(agent) is not None:
            await self.lifecycle.destroy(agent, id=rules.command_id(self.purge.id, "destroy"))
        await self._save(step="destroyed")

    async def remove_mail(self, agent: AgentName) -> None:
        await self.broker.purge_mailbox(agent)
        await self._save(step="mail")

    async def remove_usage(self, agent: AgentName) -> None:
        await self.gateway.forget_agent(agent)
        await self._save(step="usage")

    async def archive(self, agent: AgentName) -> None:
        await self._save(step="archived", archive=await self.approvals.archive_config(agent))

    async def forget(self, agent: AgentName) -> None:
        await self.lifecycle.forget(agent)
        await self._save(step="purged")

    async def _save(self, **changes: Any) -> None:
        """The journal first; what is not in it has not happened."""
        purge = structs.replace(self.purge, updated_ms=self.clock(), **({"detail": ""} | changes))
        await self.store.save_purge(purge)
        self.purge = purge
        self.changed(purge)
        if "step" in changes:
            log.info("purge", extra={"agent": purge.agent, "step": purge.step})
            reach(f"purge:{purge.step}")
