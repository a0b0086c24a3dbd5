"""The lifecycle's verbs: the wish is written to disk first, the reconciler makes it so, the answer says what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from libhive.clock import Clock, now_ms
from libhive.daemon import Call, Daemon, Handlers
from libhive.link import Link
from libhive.messages import lifecycle as say
from libhive.messages.base import Done, Event
from libhive.names import MANAGER, agent_name
from libhive.paths import Paths
from libhive.problems import Conflict, Unavailable
from libhive.spec import MANAGER_FILES, AgentSpec, resolve
from services.lifecycle import leftovers, rules
from services.lifecycle.builders import builders
from services.lifecycle.builders.workshop import Workshop
from services.lifecycle.cages import Cages
from services.lifecycle.cages.nspawn import Nspawn
from services.lifecycle.courier import Courier
from services.lifecycle.execute import execute
from services.lifecycle.reconciler import Reconciler
from services.lifecycle.rules import Change, Row
from services.lifecycle.settings import Settings
from services.lifecycle.store import Decide, Store

CREATE_MANAGER = "create-the-manager"
"""The id of the command by which the service creates the manager: done once in the life of a registry."""


class Lifecycle:
    name = "lifecycle"

    def __init__(
        self, paths: Paths, settings: Settings, store: Store, cages: Cages, link: Link, clock: Clock = now_ms
    ) -> None:
        self._paths, self._settings, self._store, self._link, self._clock = (
            paths,
            settings,
            store,
            link,
            clock,
        )
        self._cages = cages
        self._courier = Courier(store, link, settings)
        self._workshop = Workshop(paths, settings, builders(settings), clock, self._built)
        self._reconciler = Reconciler(paths, settings, store, cages, clock, self._workshop, self._changed)
        self._forgetting = asyncio.Lock()
        self._clearing: set[str] = set()
        """Agents whose leftovers are being removed: none of that name may begin meanwhile."""
        self._publish: Callable[[Event], None] = lambda event: None

    def bus_handlers(self) -> Handlers:
        return {
            say.Agents: self.on_agents,
            say.Apply: self.on_apply,
            say.CollectGarbage: self.on_collect_garbage,
            say.Destroy: self.on_destroy,
            say.Exec: self.on_exec,
            say.Forget: self.on_forget,
            say.Logs: self.on_logs,
            say.Prepare: self.on_prepare,
            say.Restart: self.on_restart,
            say.Roots: self.on_roots,
            say.Start: self.on_start,
            say.Stop: self.on_stop,
            say.StopAll: self.on_stop_all,
        }

    def door_handlers(self) -> Handlers:
        """The manager's; no other agent has the door."""
        return {
            say.Agents: self.on_agents,
            say.Logs: self.on_logs,
            say.Restart: self.on_restart,
            say.Start: self.on_start,
            say.Stop: self.on_stop,
        }

    async def start(self, daemon: Daemon) -> None:
        self._publish = daemon.publish
        await self._store.forget_commands(self._clock() - self._settings.commands_kept_ms)
        if self._store.row(MANAGER) is None:
            spec = resolve(MANAGER_FILES)
            await self._store.command(CREATE_MANAGER, MANAGER, self._applying(MANAGER, 0, spec))
        manager = rules.expect(self._store.row(MANAGER), MANAGER)
        await daemon.doors.open(MANAGER, self._settings.uid_of(manager.number))
        self._workshop.begin(daemon.spawn)
        self._reconciler.begin(daemon.spawn)
        daemon.spawn(self._courier.run(), "courier")
        daemon.spawn(self._courier.listen(), "listening to the broker")

    async def stop(self) -> None:
        """The cages live on."""
        self._reconciler.close()
        await self._link.close()
        self._store.close()

    async def on_agents(self, call: Call, m: say.Agents) -> say.AgentList:
        return say.AgentList(agents=[self._reconciler.agent(row) for row in self._store.rows()])

    async def on_apply(self, call: Call, m: say.Apply) -> say.Agent:
        if not m.in_place:
            return await self._command(
                call, m.name, self._applying(m.name, m.revision, m.spec, revive=m.revive)
            )
        uid_of = self._settings.uid_of
        change = _to_row(m.name, lambda row: rules.on_apply_in_place(row, m.revision, m.spec, uid_of))
        agent = await self._command(call, m.name, change)
        self._publish(say.AgentChanged(agent=agent))  # no cage has changed, which would tell of itself
        return agent

    async def on_collect_garbage(self, call: Call, m: say.CollectGarbage) -> say.Leftovers:
        async with self._forgetting:
            nspawn = self._cages if isinstance(self._cages, Nspawn) else None
            registry = leftovers.Registry(self._paths, self._knows, self._reconciler.caged, nspawn)
            found = await leftovers.find(registry)
            listed = [
                await asyncio.to_thread(leftovers.measured, one) for one in found[: leftovers.LISTED_MAX]
            ]
            if m.apply:
                self._clearing = {one.agent for one in listed}
                try:
                    listed = [await leftovers.remove(registry, one) for one in listed]
                finally:
                    self._clearing = set()
            more = len(found) > len(listed)
            specs = {row.name: row.spec for row in self._store.rows()}
            listed += await leftovers.roots(self._workshop, specs, apply=m.apply)
        return say.Leftovers(leftovers=listed, more=more)

    async def on_destroy(self, call: Call, m: say.Destroy) -> say.Agent:
        return await self._command(call, m.name, _to_row(m.name, rules.on_destroy))

    async def on_exec(self, call: Call, m: say.Exec) -> say.Executed:
        row = self._row(m.name)
        if not self._reconciler.running(row.name):
            raise Conflict(f"{m.name} has no cage that runs", f"hive-admin start {m.name}")
        return await execute(self._paths.page(agent_name(row.name)), m.argv, m.timeout_seconds)

    async def on_forget(self, call: Call, m: say.Forget) -> Done:
        async with self._forgetting:
            row = self._store.row(m.name)
            if row is not None:
                rules.on_forget(row)
                await self._reconciler.forget(agent_name(row.name))
                await self._store.forget(row)
                self._publish(say.AgentForgotten(name=row.name))
        return Done()

    async def on_logs(self, call: Call, m: say.Logs) -> say.LogText:
        row = self._row(m.name)
        return say.LogText(text=await asyncio.to_thread(self._cages.log, agent_name(row.name), m.lines))

    async def on_prepare(self, call: Call, m: say.Prepare) -> say.Root:
        if self._reconciler.halted:
            raise _going_down()
        return await self._workshop.prepare(call.id, m.spec)

    async def on_roots(self, call: Call, m: say.Roots) -> say.RootList:
        agents: dict[str, list[str]] = {}
        for row in self._store.rows():
            if row.desired != "destroyed":
                agents.setdefault(self._workshop.key(row.spec), []).append(row.name)
        roots = await asyncio.to_thread(self._workshop.all, agents)
        if not m.key:
            return say.RootList(roots=roots)
        return say.RootList(roots=[self._workshop.whole(rules.root_named(roots, m.key))])

    async def on_restart(self, call: Call, m: say.Restart) -> say.Agent:
        rules.expect_not_itself(call.caller, m.name)
        return await self._command(call, m.name, _to_row(m.name, rules.on_restart))

    async def on_start(self, call: Call, m: say.Start) -> say.Agent:
        return await self._command(call, m.name, _to_row(m.name, rules.on_start))

    async def on_stop(self, call: Call, m: say.Stop) -> say.Agent:
        rules.expect_not_itself(call.caller, m.name)
        return await self._command(call, m.name, _to_row(m.name, rules.on_stop))

    async def on_stop_all(self, call: Call, m: say.StopAll) -> Done:
        await self._reconciler.halt()
        return Done()

    async def _command(self, call: Call, name: str, decide: Decide) -> say.Agent:
        if self._reconciler.halted:
            raise _going_down()
        agent_name(name)
        if name in self._clearing:
            raise Unavailable(f"what an earlier {name} has left is being removed", "try again in a moment")
        if await self._store.command(call.id, name, decide):
            self._courier.wake()
            self._reconciler.changed(name)
        elif answer := self._store.answer(call.id):
            return answer
        await self._reconciler.settled(name)
        agent = self._reconciler.agent(self._row(name))
        await self._store.answered(call.id, agent)
        return agent

    def _applying(self, name: str, revision: int, spec: AgentSpec, *, revive: bool = False) -> Decide:
        def decide(row: Row | None, rows: list[Row]) -> Change:
            there = row or rules.new_row(name, rows, self._settings, self._store.last_purged())
            return rules.on_apply(there, revision, spec, self._settings.uid_of, revive=revive)

        return decide

    def _knows(self, name: str) -> bool:
        return self._store.row(name) is not None

    def _row(self, name: str) -> Row:
        return rules.expect(self._store.row(name), name)

    def _built(self, root: say.Root) -> None:
        self._publish(say.RootChanged(root=root))

    def _changed(self, row: Row) -> None:
        self._publish(say.AgentChanged(agent=self._reconciler.agent(row)))
        self._courier.wake()


def _going_down() -> Unavailable:
    """Not a Conflict: a deploy that is under way waits and goes on after the next start."""
    return Unavailable("the hive is going down", "once it is down, start it again: make up")


def _to_row(name: str, change: Callable[[Row], Change]) -> Decide:
    """What is done to an agent that must be there."""
    return lambda row, rows: change(rules.expect(row, name))
