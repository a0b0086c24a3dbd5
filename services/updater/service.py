"""The updater's verbs, where deploys come from, and who runs them."""

from __future__ import annotations

import asyncio
import logging

from libhive.clients.approvals import Approvals
from libhive.clients.broker import Broker
from libhive.clients.lifecycle import Lifecycle
from libhive.clock import Clock, now_ms
from libhive.daemon import Call, Daemon, Handlers
from libhive.faults import reach
from libhive.link import Gap, Link
from libhive.messages.approvals import Deployable, ProposalChanged
from libhive.messages.broker import PeerChanged
from libhive.messages.lifecycle import AgentChanged, RootChanged
from libhive.messages.updater import (
    Deploy,
    DeployChanged,
    DeployList,
    Deploys,
    Purge,
    PurgeAgent,
    PurgeChanged,
    PurgeList,
    Purges,
    Rebuild,
)
from libhive.names import AgentName, agent_name
from libhive.problems import Conflict, Problem
from services.updater import rules
from services.updater.journey import Journey, World
from services.updater.pulse import Pulse, within
from services.updater.purge import Purging
from services.updater.settings import Settings
from services.updater.store import Entry, Store

log = logging.getLogger("hive.updater")


class Updater:
    name = "updater"

    def __init__(self, settings: Settings, store: Store, link: Link, clock: Clock = now_ms) -> None:
        self.settings, self.store, self.link, self.clock = settings, store, link, clock
        self.world = World(
            approvals=Approvals(link),
            broker=Broker(link),
            lifecycle=Lifecycle(link),
            store=store,
            settings=settings,
            clock=clock,
            pulse=Pulse(),
            one_cage=asyncio.Lock(),
            changed=self._changed,
        )
        self._approved = asyncio.Event()
        self._running: set[AgentName] = set()
        self._daemon: Daemon | None = None

    def bus_handlers(self) -> Handlers:
        return {
            Deploys: self.on_deploys,
            PurgeAgent: self.on_purge_agent,
            Purges: self.on_purges,
            Rebuild: self.on_rebuild,
        }

    def door_handlers(self) -> Handlers:
        return {}

    async def start(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._run_all()
        for purge in self.store.purges_under_way():
            self._purge(purge)
        daemon.spawn(self._watch("approvals"), "approvals' events")
        daemon.spawn(self._watch("broker"), "broker's events")
        daemon.spawn(self._watch("lifecycle"), "lifecycle's events")
        daemon.spawn(self._look(), "looking for what is approved")

    async def stop(self) -> None:
        await self.link.close()
        self.store.close()

    async def on_deploys(self, call: Call, m: Deploys) -> DeployList:
        return DeployList(deploys=[entry.as_deploy() for entry in self.store.newest(m.limit)])

    async def on_purge_agent(self, call: Call, m: PurgeAgent) -> Purge:
        agent = agent_name(m.agent)
        if there := self.store.purge(call.id):
            return there
        rules.on_purge(call.caller, agent, m.confirm, await self.world.lifecycle.agent(agent))
        if there := next((purge for purge in self.store.purges_under_way() if purge.agent == agent), None):
            return there
        self._expect_no_deploy(agent)
        now = self.clock()
        purge = Purge(id=call.id, agent=agent, step="asked", started_ms=now, updated_ms=now)
        await self.store.save_purge(purge)
        self._purge_changed(purge)
        reach("purge:asked")
        self._purge(purge)
        return purge

    async def on_purges(self, call: Call, m: Purges) -> PurgeList:
        return PurgeList(purges=self.store.newest_purges(m.limit))

    async def on_rebuild(self, call: Call, m: Rebuild) -> Deploy:
        agent = agent_name(m.agent)
        if there := self.store.entry(call.id):
            return there.as_deploy()
        rules.on_rebuild(agent, await self.world.lifecycle.agent(agent))
        self._expect_no_deploy(agent)
        return (await self._begin(call.id, agent)).as_deploy()

    def _expect_no_deploy(self, agent: AgentName) -> None:
        if busy := next((entry for entry in self.store.unfinished() if entry.agent == agent), None):
            what = f"proposal {busy.proposal}" if busy.proposal else "a rebuild"
            raise Conflict(f"{what} is being deployed to {agent}", "wait until it has ended")

    def _purge(self, purge: Purge) -> None:
        assert self._daemon
        purging = Purging(self.link, self.store, self.settings, self.clock, self._purge_changed, purge)
        self._daemon.spawn(purging.run(), f"purge of {purge.agent}")

    async def _begin(self, id: str, agent: AgentName, proposal: int = 0) -> Entry:
        now = self.clock()
        entry = Entry(id=id, agent=agent, proposal=proposal, started_ms=now, updated_ms=now)
        await self.store.add(entry)
        self._changed(entry.as_deploy())
        self._run_all()
        return entry

    def _run_all(self) -> None:
        """Agents beside each other, the deploys of one agent one after the other."""
        assert self._daemon
        for agent in {entry.agent for entry in self.store.unfinished()} - self._running:
            self._running.add(agent)
            self._daemon.spawn(self._run(agent), f"deploys of {agent}")

    async def _run(self, agent: AgentName) -> None:
        while entry := next((entry for entry in self.store.unfinished() if entry.agent == agent), None):
            await Journey(self.world, entry).run()
        self._running.discard(agent)

    async def _look(self) -> None:
        """At once, when approvals says that something changed, and every now and then."""
        wait = self.settings.retry_seconds_min
        while True:
            self._approved.clear()
            try:
                for each in await self.world.approvals.deployables():
                    await self._take(each)
                wait = self.settings.retry_seconds_min
                await within(self._approved, self.settings.look_seconds)
            except Problem as problem:
                log.info("approvals cannot be asked", extra={"why": problem.message, "again_seconds": wait})
                await asyncio.sleep(wait)
                wait = min(wait * 2, self.settings.retry_seconds_max)

    async def _take(self, deployable: Deployable) -> None:
        id = rules.deploy_id(deployable.number, deployable.commit)
        if any(purge.agent == deployable.agent for purge in self.store.purges_under_way()):
            return  # it will be void, or else of the next agent of that name
        known = self.store.entry(id)
        if known is None:
            await self._begin(id, agent_name(deployable.agent), deployable.number)
        elif known.ended:  # it ended here, and approvals has not got to know
            await self._record_again(known)

    async def _record_again(self, entry: Entry) -> None:
        approvals = self.world.approvals
        await approvals.record_deploy(entry.proposal, "building")
        if entry.step == "recorded":
            await approvals.record_deploy(entry.proposal, "deployed")
        else:
            await approvals.record_deploy(entry.proposal, "failed", entry.detail)

    async def _watch(self, service: str) -> None:
        async for event in self.link.events(service):
            match event:
                case Gap(service="approvals"):
                    self._approved.set()
                case ProposalChanged() if event.proposal.state == "approved":
                    self._approved.set()
                case Gap() | PeerChanged() | AgentChanged() | RootChanged():
                    self.world.pulse.beat()

    def _purge_changed(self, purge: Purge) -> None:
        if self._daemon:
            self._daemon.publish(PurgeChanged(purge=purge))

    def _changed(self, deploy: Deploy) -> None:
        if self._daemon:
            self._daemon.publish(DeployChanged(deploy=deploy))
