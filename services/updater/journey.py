"""One deploy on its way: each step does what it must, and then says in the journal that it is done.

A service that is away is waited for. Anything else that goes wrong is written down as the deploy's failure
first, and then undone: the agent goes back to what it was, its mail flows again, whoever asked is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from msgspec import structs

from libhive.clients.approvals import Approvals
from libhive.clients.broker import Broker
from libhive.clients.lifecycle import Lifecycle
from libhive.clock import Clock
from libhive.faults import reach
from libhive.messages.broker import Peer
from libhive.messages.lifecycle import Agent
from libhive.messages.updater import Deploy
from libhive.problems import Conflict, NoSpace, NotFound, Problem, Unavailable
from services.updater import rules
from services.updater.pulse import Pulse
from services.updater.settings import Settings
from services.updater.store import Entry, Store

log = logging.getLogger("hive.updater")

PASSING = (NoSpace, Unavailable)
"""Problems that go away by themselves."""
DETAIL_CHARACTERS_MAX = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that a deploy deals with."""

    approvals: Approvals
    broker: Broker
    lifecycle: Lifecycle
    store: Store
    settings: Settings
    clock: Clock
    pulse: Pulse
    """Beats when an agent or a peer has changed."""
    one_cage: asyncio.Lock
    """Held from the switch until the new generation is healthy."""
    changed: Callable[[Deploy], None]


class Journey:
    def __init__(self, world: World, entry: Entry) -> None:
        self.world, self.entry = world, entry
        self.steps: dict[str, Callable[[], Awaitable[None]]] = {
            "approved": self.resolve,
            "resolved": self.build,
            "built": self.drain,
            "drained": self.switch,
            "switched": self.become_healthy,
            "healthy": self.record,
        }

    async def run(self) -> None:
        """Until the deploy has ended."""
        wait = self.world.settings.retry_seconds_min
        while not self.entry.ended:
            try:
                await self._next()
                wait = self.world.settings.retry_seconds_min
            except PASSING as problem:
                with contextlib.suppress(NoSpace):
                    await self._say(f"waiting: {problem.message}")
                await asyncio.sleep(wait)
                wait = min(wait * 2, self.world.settings.retry_seconds_max)

    async def _next(self) -> None:
        if self.entry.failure:
            await self.give_up()
            return
        try:
            await self.steps[self.entry.step]()
        except PASSING:
            raise
        except Problem as problem:
            why = rules.sentence(problem)[:DETAIL_CHARACTERS_MAX]
            log.warning(
                "deploy fails", extra={"agent": self.entry.agent, "step": self.entry.step, "why": why}
            )
            await self._save(failure=why, detail=why)

    # ---- the steps, each named for what it does after the one that is done

    async def resolve(self) -> None:
        """What is approved right now: approvals checks commit and tags again before it says so."""
        if not self.entry.proposal:
            rules.on_rebuild(self.entry.agent, await self._agent())
            config = await self.world.approvals.read_config(self.entry.agent)
            await self._save(step="resolved", spec=config.spec, revision=config.revision)
            return
        for each in await self.world.approvals.deployables():
            if rules.deploy_id(each.number, each.commit) == self.entry.id:
                revive = each.kind == "create_agent"
                await self._save(step="resolved", spec=each.spec, revision=each.number, revive=revive)
                return
        raise Conflict(f"proposal {self.entry.proposal} is no longer approved")

    async def build(self) -> None:
        await self._tell("building")
        assert self.entry.spec
        if await self._in_place():  # the cage keeps the root that it has
            await self._save(step="built")
            return
        while True:
            root = await self.world.lifecycle.prepare(self.entry.spec, id=self._command("build"))
            if root.state == "ready":
                break
            await self._say(f"building its root: {root.detail}")
            reach("deploy:building")
            await self.world.pulse.wait(self.world.settings.poll_seconds)
        await self._save(step="built", root=root.key, detail="")

    async def drain(self) -> None:
        """Nothing new is offered to the agent; the turn it is in goes on to its end, however long that
        takes. What changes no cage waits for nothing."""
        agent = await self._agent()
        never_well = self.world.store.never_well(self.entry.agent)
        if await self._in_place():
            await self._save(step="drained", previous=rules.previous_of(agent, never_well), detail="")
            return
        if agent and rules.mood(agent, None) != "away":
            await self._save(held=True)
            reach("deploy:before-hold")
            await self.world.broker.set_hold(self.entry.agent, "update", True)
            reach("deploy:held")
            await self._until_quiet()
        await self._save(
            step="drained", previous=rules.previous_of(await self._agent(), never_well), detail=""
        )

    async def switch(self) -> None:
        entry = self.entry
        assert entry.spec
        in_place = rules.in_place(entry.previous, entry.spec)
        async with contextlib.nullcontext() if in_place else self.world.one_cage:
            await self._heed_stop()
            previous = self.entry.previous
            if previous and previous.desired == "stopped" and not in_place:
                await self._hold_stopped()
            await self.world.lifecycle.apply(
                entry.agent,
                entry.revision,
                entry.spec,
                revive=entry.revive,
                in_place=in_place,
                id=self._command("apply"),
            )
            reach("deploy:applied")
            await self._save(step="switched")
            await self._until_healthy()

    async def become_healthy(self) -> None:
        async with self.world.one_cage:
            await self._until_healthy()

    async def record(self) -> None:
        """It is healthy, and stays: it is what it was before again, and whoever asked has to be told."""
        await self._stop_again()
        await self._release()
        try:
            await self._tell("deployed")
        except PASSING:
            raise
        except Problem as problem:
            log.warning("not recorded", extra={"agent": self.entry.agent, "why": problem.message})
            await self._save(detail=f"it runs, but could not be recorded: {rules.sentence(problem)}")
        reach("deploy:told")
        await self._save(step="recorded")

    async def give_up(self) -> None:
        done = await self._go_back()
        reach("deploy:went-back")
        await self._release()
        why = f"{self.entry.failure}; {done}" if done else self.entry.failure
        try:
            await self._tell("building")
            await self._tell("failed", why)
        except PASSING:
            raise
        except Problem as problem:
            log.warning("not recorded", extra={"agent": self.entry.agent, "why": problem.message})
        reach("deploy:told")
        await self._save(step="failed", detail=why)

    async def _in_place(self) -> bool:
        """Whether it leaves the cage as it is."""
        previous = rules.previous_of(await self._agent(), self.world.store.never_well(self.entry.agent))
        return rules.in_place(previous, self.entry.spec)

    # ---- waiting

    async def _until_quiet(self) -> None:
        loop = asyncio.get_running_loop()
        mood, since = "", loop.time()
        while True:
            now = rules.mood(await self._agent(), await self._peer())
            if now != mood:
                mood, since = now, loop.time()
            if rules.may_switch(now, loop.time() - since, self.world.settings):
                return
            await self._say(rules.waiting_for(now))
            await self.world.pulse.wait(
                min(self.world.settings.poll_seconds, self.world.settings.quiet_seconds)
            )

    async def _until_healthy(self) -> None:
        loop, entry = asyncio.get_running_loop(), self.entry
        since, generation = loop.time(), entry.previous.generation if entry.previous else 0
        in_place = rules.in_place(entry.previous, entry.spec)
        while True:
            agent, peer = await self._agent(), await self._peer()
            if rules.healthy(agent, peer, generation):
                break
            if in_place and rules.taken(agent, entry.revision, entry.spec):
                break  # how its cage does has nothing to do with it
            rules.on_unwell(entry.agent, agent, peer, loop.time() - since, self.world.settings)
            await self._say(f"waiting until it is healthy: {rules.condition(agent, peer)}")
            await self.world.pulse.wait(self.world.settings.poll_seconds)
        await self._save(step="healthy", detail="")

    # ---- what the steps are made of

    async def _go_back(self) -> str:
        """To the last good one; says what was done."""
        await self._heed_stop()
        entry, lifecycle = self.entry, self.world.lifecycle
        back = rules.way_back(entry.previous, await self._agent(), entry.step)
        try:
            async with self.world.one_cage:
                if back == "apply" and (old := entry.previous):
                    in_place, id = rules.in_place(old, entry.spec), self._command("back")
                    await lifecycle.apply(entry.agent, old.revision, old.spec, in_place=in_place, id=id)
                    await self._stop_again("stop-back")
                    return f"went back to revision {old.revision}"
                if back == "stop":
                    await lifecycle.stop(entry.agent, id=self._command("stop"))
                    await self._save(stopped=True)
                    return "it is stopped"
        except PASSING:
            raise
        except Problem as problem:
            return f"going back failed: {rules.sentence(problem)}"
        return ""

    async def _heed_stop(self) -> None:
        """Whoever has stopped the agent since the deploy looked at it wants it stopped when the deploy has ended."""
        agent, previous = await self._agent(), self.entry.previous
        if agent and previous and agent.desired == "stopped" != previous.desired:
            await self._save(previous=structs.replace(previous, desired="stopped"))

    async def _hold_stopped(self) -> None:
        """An agent that was stopped is started only to see that the configuration is good: it gets no
        mail."""
        await self._save(held=True)
        await self.world.broker.set_hold(self.entry.agent, "update", True)

    async def _stop_again(self, command: str = "stop-again") -> None:
        if self.entry.previous and self.entry.previous.desired == "stopped":
            await self.world.lifecycle.stop(self.entry.agent, id=self._command(command))

    async def _release(self) -> None:
        if not self.entry.held:
            return
        try:
            await self.world.broker.set_hold(self.entry.agent, "update", False)
        except NotFound as problem:  # destroyed for good meanwhile: there is nothing left to hold
            log.info("no hold to release", extra={"agent": self.entry.agent, "why": problem.message})
        reach("deploy:released")
        await self._save(held=False)

    async def _tell(self, step: Literal["building", "deployed", "failed"], detail: str = "") -> None:
        if self.entry.proposal:
            await self.world.approvals.record_deploy(
                self.entry.proposal, step, detail, id=self._command(f"record-{step}")
            )

    async def _agent(self) -> Agent | None:
        return await self.world.lifecycle.agent(self.entry.agent)

    async def _peer(self) -> Peer | None:
        return await self.world.broker.peer(self.entry.agent)

    def _command(self, step: str) -> str:
        return rules.command_id(self.entry.id, step)

    async def _say(self, detail: str) -> None:
        if detail != self.entry.detail:
            await self._save(detail=detail)

    async def _save(self, **changes: Any) -> None:
        """The journal first; what is not in it has not happened."""
        entry = replace(self.entry, updated_ms=self.world.clock(), **changes)
        await self.world.store.save(entry)
        self.entry = entry
        self.world.changed(entry.as_deploy())
        if "step" in changes:
            log.info("deploy", extra={"agent": entry.agent, "proposal": entry.proposal, "step": entry.step})
            reach(f"deploy:{entry.step}")
