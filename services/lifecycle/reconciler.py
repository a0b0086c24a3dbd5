"""Makes each agent's cage as the registry wants it, from whatever state it is in.

One task an agent, a ward's, which looks at what is wanted and what is there, does one step, and looks again. It is
told by `changed` and by the end of its cage; it keeps no truth of its own that the next lifecycle could miss.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from libhive import faults
from libhive.clock import Clock
from libhive.messages.lifecycle import Agent
from libhive.names import AgentName, agent_name
from libhive.paths import Paths
from libhive.problems import NoSpace, Problem, Unavailable
from libhive.spec import AgentSpec
from services.lifecycle import logbook, rules
from services.lifecycle.builders.workshop import Workshop
from services.lifecycle.cages import Cages, Plan, Running, directories, limits
from services.lifecycle.rules import Phase, Row
from services.lifecycle.settings import Settings
from services.lifecycle.store import Store

log = logging.getLogger("hive.lifecycle")
Spawn = Callable[[Coroutine[Any, Any, Any], str], Any]

UNKILLABLE_PAUSE_SECONDS = 5.0
NO_SPACE_PAUSE_SECONDS = 5.0


class Ward:
    """What is known of one agent's cage just now."""

    def __init__(self, name: AgentName, now: int) -> None:
        self.name = name
        self.phase: Phase = "unknown"
        self.since_ms = now
        self.cage: Running | None = None
        self.cleared = False
        self.note = ""
        """What there is to say of a cage that runs."""
        self.task: asyncio.Task[None] | None = None
        self.wake = asyncio.Event()
        self.settled = asyncio.Event()


class Reconciler:
    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        store: Store,
        cages: Cages,
        clock: Clock,
        workshop: Workshop,
        on_news: Callable[[Row], None],
    ) -> None:
        self._paths, self._settings, self._store, self._cages = paths, settings, store, cages
        self._workshop = workshop
        self._clock, self._on_news = clock, on_news
        self._wards: dict[str, Ward] = {}
        self._spawn: Spawn = lambda coroutine, name: asyncio.get_running_loop().create_task(
            coroutine, name=name
        )
        self._halted = False

    @property
    def halted(self) -> bool:
        return self._halted

    def begin(self, spawn: Spawn) -> None:
        self._spawn = spawn
        for row in self._store.rows():
            self.changed(row.name)
        spawn(self._bound_logs(), "log bounds")
        spawn(self._watch_memory(), "memory of the cages")

    def changed(self, name: str) -> None:
        """Something else may be wanted of this agent than before."""
        ward = self._wards.get(name)
        if ward is None:
            ward = self._wards[name] = Ward(agent_name(name), self._clock())
            ward.task = self._spawn(self._tend(ward), f"cage of {name}")
        ward.settled.clear()
        ward.wake.set()

    async def settled(self, name: str) -> None:
        """Until there is nothing to do for this agent, or the time for an answer is over."""
        try:
            async with asyncio.timeout(self._settings.settle_seconds_max):
                await self._wards[name].settled.wait()
        except TimeoutError:
            log.warning("the cage takes its time", extra={"agent": name, "phase": self._wards[name].phase})

    async def halt(self) -> None:
        """Ends every cage, and starts none until the next lifecycle."""
        self._halted = True
        for name in self._wards:
            self.changed(name)
        await asyncio.gather(*(self.settled(name) for name in self._wards))

    def close(self) -> None:
        """Lets go of the cages; they live on."""
        for ward in self._wards.values():
            if ward.cage is not None:
                ward.cage.close()

    def agent(self, row: Row) -> Agent:
        ward = self._wards.get(row.name)
        cage = ward.cage if ward else None
        return Agent(
            name=row.name,
            desired=row.desired,
            cage=rules.cage_state(row, ward.phase if ward else "unknown"),
            cage_kind=self._cages.kind,
            revision=row.revision,
            generation=row.generation,
            uid=self._settings.uid_of(row.number),
            page_port=row.page_port,
            pid=cage.program if cage else 0,
            since_ms=ward.since_ms if ward else 0,
            detail=ward.note if ward and cage else self._building(row, ward) or row.detail,
            controls=list(cage.controls) if cage else [],
            spec=row.spec,
        )

    async def forget(self, name: AgentName) -> None:
        """Ends the care for an agent that is destroyed, and removes all that it had on this host but its row."""
        await self.settled(name)
        ward = self._wards[name]
        if ward.cage is not None:
            raise Unavailable(f"the cage of {name} has not ended yet")
        await self._cages.destroy(name)
        await asyncio.to_thread(directories.remove, *self._belongings(name))
        faults.reach("lifecycle.removed")
        if ward.task is not None:
            ward.task.cancel()
        del self._wards[name]

    def _belongings(self, name: AgentName) -> list[Path]:
        paths, log = self._paths, logbook.path(self._paths, name)
        own = [paths.agent_state(name), log, log.with_suffix(".log.1")]
        return [*own, paths.cage(name), paths.page_dir(name), paths.doors(name)]

    def caged(self, name: str) -> bool:
        """Whether there is a cage of it, or may be."""
        ward = self._wards.get(name)
        return ward is None or ward.cage is not None or ward.phase != "ended"

    def _building(self, row: Row, ward: Ward | None) -> str:
        doing = self._workshop.doing(row.spec) if ward and ward.phase == "starting" else ""
        return f"building its root: {doing}" if doing else ""

    def running(self, name: str) -> bool:
        return name in self._wards and self._wards[name].phase == "running"

    async def _tend(self, ward: Ward) -> None:
        await self._adopt(ward)
        while True:
            try:
                await self._step(ward)
            except NoSpace as problem:
                log.error("%s", problem.message, extra={"agent": ward.name})
                ward.settled.set()
                await asyncio.sleep(NO_SPACE_PAUSE_SECONDS)

    async def _step(self, ward: Ward) -> None:
        ward.wake.clear()
        row = rules.expect(self._store.row(ward.name), ward.name)
        step = self._next_step(ward, row)
        match step.do:
            case "start":
                await self._start(ward)
            case "stop":
                await self._stop(ward)
            case _ if row.desired == "destroyed" and not ward.cleared:
                await self._clear(ward)
            case _:
                ward.settled.set()
                await self._rest(ward, step.until_ms)

    def _next_step(self, ward: Ward, row: Row) -> rules.Step:
        now = self._clock()
        failures = self._store.failures(ward.name, now - self._settings.failure_window_ms)
        generation = ward.cage.record.generation if ward.cage else 0
        return rules.next_step(row, generation, failures, now, self._settings, halted=self._halted)

    async def _rest(self, ward: Ward, until_ms: int) -> None:
        seconds = max(0.0, (until_ms - self._clock()) / 1000) if until_ms else None
        try:
            async with asyncio.timeout(seconds):
                await ward.wake.wait()
        except TimeoutError:
            ward.settled.clear()

    async def _adopt(self, ward: Ward) -> None:
        cage = await self._cages.adopt(ward.name)
        if cage is None:
            self._enter(ward, "ended")
            with contextlib.suppress(NoSpace):
                await self._store.ended(ward.name, -1)
            return
        log.info("cage adopted", extra={"agent": ward.name, "generation": cage.record.generation})
        self._have(ward, cage)

    async def _start(self, ward: Ward) -> None:
        spec = rules.expect(self._store.row(ward.name), ward.name).spec
        if (built := await self._built(ward, spec)) is None:
            return
        row = await self._store.started(ward.name)
        if row.spec != spec:  # deployed just now
            await self._store.ended(ward.name, -1)
            return
        faults.reach("lifecycle.started")
        ward.cleared = False
        self._enter(ward, "starting")
        try:
            plan = self._plan(row, ward.name, built.result())
            self._cages.create(plan)
            cage = await self._cages.start(plan)
        except (Problem, OSError) as error:
            why = error.message if isinstance(error, Problem) else str(error)
            await self._failed(ward, -1, why)
        else:
            log.info(
                "cage started", extra={"agent": ward.name, "generation": row.generation, "pid": cage.program}
            )
            self._have(ward, cage)
            await self._workshop.remember(ward.name, row.spec)

    async def _stop(self, ward: Ward) -> None:
        cage = ward.cage
        assert cage is not None
        self._enter(ward, "stopping")
        grace = self._settings.stop_all_grace_seconds if self._halted else self._settings.stop_grace_seconds
        try:
            await self._cages.stop(cage, grace)
        except TimeoutError:  # a process in the kernel's own hands, e.g. waiting for a dead disk
            log.error("the cage cannot be ended", extra={"agent": ward.name})
            self._enter(ward, "unknown")
            await asyncio.sleep(UNKILLABLE_PAUSE_SECONDS)
            return
        await self._over(ward, cage)

    async def _watch(self, ward: Ward, cage: Running) -> None:
        """Its end, if nobody wanted it."""
        ended = await self._cages.ended(cage)
        if ward.cage is not cage or ward.phase != "running":
            return
        ward.cage = None
        await self._cages.kill(cage)
        try:
            await self._failed(ward, ended.exit_code, ended.why or "its program ended", ended.reason)
        except NoSpace:  # the next start will say so
            self._enter(ward, "ended")
            ward.wake.set()

    async def _over(self, ward: Ward, cage: Running) -> None:
        ended = self._cages.status(cage)
        ward.cage = None
        log.info("cage ended", extra={"agent": ward.name, "generation": cage.record.generation})
        self._enter(ward, "ended")
        await self._store.ended(ward.name, ended.exit_code if ended else -1)

    async def _failed(self, ward: Ward, exit_code: int, why: str, reason: str = "") -> None:
        """`why` may be the agent's own words, `reason` is in ours."""
        row = await self._store.failed(
            ward.name,
            exit_code,
            why,
            self._settings.failure_window_ms,
            lambda row, failures: rules.on_failure(row, failures, why, exit_code, self._settings, reason),
        )
        outcome = "broken, needs you" if row.broken else "will be started again"
        log.warning(
            "cage failed: %s", outcome, extra={"agent": ward.name, "exit_code": exit_code, "why": why}
        )
        self._enter(ward, "ended")
        ward.wake.set()

    async def _clear(self, ward: Ward) -> None:
        ward.cleared = True
        directories.forget_choices(self._paths.agent_state(ward.name))
        try:
            await self._cages.destroy(ward.name)
        except Problem as problem:  # what a cage has left behind must not stop the others' care
            log.error("%s", problem.message, extra={"agent": ward.name, "hint": problem.hint})

    def _have(self, ward: Ward, cage: Running) -> None:
        ward.cage, ward.note = cage, ""
        self._enter(ward, "running")
        self._spawn(self._watch(ward, cage), f"watch on {ward.name}")

    def _enter(self, ward: Ward, phase: Phase) -> None:
        ward.phase, ward.since_ms = phase, self._clock()
        if phase == "running" and ward.cage is not None:
            ward.since_ms = ward.cage.record.started_ms
        self._on_news(rules.expect(self._store.row(ward.name), ward.name))

    async def _built(self, ward: Ward, spec: AgentSpec) -> asyncio.Future[Path | None] | None:
        """Its root. A deploy finds it there, but the state may be a restored one: then it is built first. None when
        something else may be wanted meanwhile; the build goes on."""
        built = asyncio.ensure_future(self._workshop.made(spec))
        woken = asyncio.ensure_future(ward.wake.wait())
        if spec.root != "host":
            self._enter(ward, "starting")
        await asyncio.wait({built, woken}, return_when=asyncio.FIRST_COMPLETED)
        woken.cancel()
        if built.done():
            return built
        built.cancel()
        self._enter(ward, "ended")
        return None

    def _plan(self, row: Row, name: AgentName, tree: Path | None) -> Plan:
        paths, settings = self._paths, self._settings
        return Plan(
            name=name,
            generation=row.generation,
            revision=row.revision,
            uid=settings.uid_of(row.number),
            spec=row.spec,
            doors=paths.doors(name),
            page=paths.page_dir(name),
            state=paths.agent_state(name),
            run=paths.cage(name),
            log=logbook.path(paths, name),
            claude=settings.claude,
            claude_version=settings.claude_version,
            operator_pronouns=settings.operator_pronouns,
            root=tree if row.spec.root == "debian" else None,
            nix=tree / "nix" if tree and row.spec.root == "nix" else None,
            program=settings.program,
        )

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(self._settings.log_check_seconds)
            for ward in self._wards.values():
                if ward.cage is not None:
                    logbook.bound(ward.cage.log)

    async def _watch_memory(self) -> None:
        """What the kernel has ended in a cage that lives on, nobody there may be able to tell."""
        while True:
            await asyncio.sleep(self._settings.memory_check_seconds)
            for ward in self._wards.values():
                if ward.cage is not None and ward.phase == "running" and self._cages.look(ward.cage):
                    ward.note = f"{limits.out_of_memory(ward.cage.record.limits)}: a process in it was ended"
                    log.warning("%s", ward.note, extra={"agent": ward.name, "count": ward.cage.memory_kills})
                    self._on_news(rules.expect(self._store.row(ward.name), ward.name))
