"""The updater as a process, on the real bus, between three peers that the test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import pytest

from libhive.messages import approvals, broker, lifecycle
from libhive.messages.base import Done, Reply, Request
from libhive.messages.updater import Deploy
from libhive.problems import Conflict, NotFound, Problem
from libhive.spec import AgentSpec, only_live
from libhive.testing import nursery
from libhive.testing.hive import Hive
from libhive.testing.peer import Heard, Peer

GOOD = AgentSpec(prompt="good")
BETTER = AgentSpec(prompt="better")
BAD = AgentSpec(prompt="never healthy")


class Scripted(Peer):
    """One service of the scene. `silent`: it hears nothing and says nothing."""

    def __init__(
        self, hive: Hive, name: str, handlers: dict[type[Request[Any]], Callable[[Any, str], Reply]]
    ) -> None:
        super().__init__(hive.paths, name, handlers)
        self.handlers = handlers
        self.start()

    def answer(self, heard: Heard) -> Reply:
        return self.handlers[type(heard.request)](heard.request, heard.id)


@dataclass
class Cage:
    spec: AgentSpec
    revision: int
    generation: int
    desired: lifecycle.Desired = "running"
    state: broker.HarnessState = "idle"
    turn: str = ""
    connected: bool = True
    cage: lifecycle.CageState = "running"


@dataclass
class Scene:
    """What there is, as approvals, broker and lifecycle would say it; and what the updater has done to it."""

    hive: Hive
    cages: dict[str, Cage] = field(default_factory=dict)
    approved: dict[int, approvals.Deployable] = field(default_factory=dict)
    story: dict[int, list[str]] = field(default_factory=dict)
    holds: list[tuple[str, bool]] = field(default_factory=list)
    applied: list[tuple[str, int, str]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    """Turns that were running when their cage was switched."""
    refuse_apply: str = ""
    void_once_offered: bool = False
    building: str = ""
    """What the builder does just now: the root is not there yet."""
    refuse_build: str = ""
    asked_to_build: set[str] = field(default_factory=set)
    """Under which ids."""
    answers: dict[str, Reply] = field(default_factory=dict)
    process: nursery.Process | None = None

    def __post_init__(self) -> None:
        self.approvals = Scripted(
            self.hive,
            "approvals",
            {
                approvals.Deployables: self._deployables,
                approvals.ReadConfig: self._read_config,
                approvals.RecordDeploy: self._record,
            },
        )
        self.broker = Scripted(
            self.hive,
            "broker",
            {broker.Peers: lambda m, _: broker.PeerList(peers=self._peers()), broker.SetHold: self._hold},
        )
        self.lifecycle = Scripted(
            self.hive,
            "lifecycle",
            {
                lifecycle.Agents: lambda m, _: lifecycle.AgentList(
                    agents=[self._agent(name) for name in self.cages]
                ),
                lifecycle.Apply: self._once(self._apply),
                lifecycle.Prepare: self._prepare,
                lifecycle.Stop: self._once(self._stop),
            },
        )

    # ---- verbs of a test

    def approve(
        self, number: int, agent: str, spec: AgentSpec, kind: approvals.ProposalKind = "create_agent"
    ) -> None:
        self.approved[number] = approvals.Deployable(
            number=number,
            kind=kind,
            agent=agent,
            commit=f"{number:040x}",
            state="approved",
            spec=spec,
        )
        self.story[number] = []
        self.approvals.publish(approvals.ProposalChanged(proposal=self._proposal(number)))

    def start(self, fault: str = "") -> None:
        environment = self.hive.environment() | {"HIVE_FAULT": fault}
        with (self.hive.root / "updater.log").open("ab") as log:
            self.process = nursery.start("tests.updater.quick_updater", environ=environment, output=log)

    async def died(self) -> None:
        assert self.process
        assert await asyncio.to_thread(self.process.wait, 15) == -9, self.hive.logs()

    async def stop(self) -> None:
        if self.process:
            self.process.terminate()
            await asyncio.to_thread(self.process.wait, 15)

    async def deploys(self) -> list[Deploy]:
        return await self.hive.updater.deploys()

    async def until(self, check: Callable[[Deploy], bool], seconds: float = 15.0) -> Deploy:
        """The newest deploy, once this is so."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        if (found := await self.deploys()) and check(found[0]):
                            return found[0]
                    except Problem:
                        continue
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{self.cages} {self.story}\n{self.hive.logs()}") from None

    async def ended(self) -> Deploy:
        return await self.until(lambda deploy: deploy.step in ("recorded", "failed"))

    def set(self, name: str, **changes: Any) -> None:
        for field_name, value in changes.items():
            setattr(self.cages[name], field_name, value)
        self.broker.publish(
            broker.PeerChanged(peer=next(peer for peer in self._peers() if peer.name == name))
        )

    def held(self, name: str) -> bool:
        return next((held for agent, held in reversed(self.holds) if agent == name), False)

    # ---- the services

    def _deployables(self, m: approvals.Deployables, id: str) -> Reply:
        offered = list(self.approved.values())
        if self.void_once_offered:
            self.approved.clear()
        return approvals.DeployableList(deployables=offered)

    def _read_config(self, m: approvals.ReadConfig, id: str) -> Reply:
        if m.agent not in self.cages:
            raise NotFound(f"no configuration of {m.agent}")
        cage = self.cages[m.agent]
        return approvals.Config(
            agent=m.agent, revision=cage.revision, commit="c" * 40, files={}, spec=cage.spec
        )

    def _record(self, m: approvals.RecordDeploy, id: str) -> Reply:
        story = self.story[m.number]
        legal = {"building": [], "deployed": ["building"], "failed": ["building"]}
        if story[-1:] != [m.step]:
            if story != legal[m.step]:
                raise Conflict(f"proposal {m.number} is {story}")
            story.append(m.step)
        if m.step != "building":
            self.approved.pop(m.number, None)
        return Done()

    def _proposal(self, number: int) -> approvals.Proposal:
        return approvals.Proposal(
            number=number,
            kind="change_config",
            agent=self.approved[number].agent,
            state="approved",
            requester="hm1nd",
            message="",
            created_ms=0,
        )

    def _peers(self) -> list[broker.Peer]:
        return [
            broker.Peer(
                name=name,
                connected=cage.connected,
                state=cage.state if cage.connected else "unknown",
                turn=cage.turn,
                generation=cage.generation,
            )
            for name, cage in self.cages.items()
        ]

    def _hold(self, m: broker.SetHold, id: str) -> Reply:
        if m.agent not in self.cages:
            raise NotFound(f"no agent {m.agent}")
        self.holds.append((m.agent, m.held))
        return Done()

    def _agent(self, name: str) -> lifecycle.Agent:
        cage = self.cages[name]
        return lifecycle.Agent(
            name=name,
            desired=cage.desired,
            cage=cage.cage,
            cage_kind="process",
            revision=cage.revision,
            generation=cage.generation,
            uid=0,
            page_port=8100,
            spec=cage.spec,
        )

    def _once(self, act: Callable[[Any], Reply]) -> Callable[[Any, str], Reply]:
        def handler(m: Any, id: str) -> Reply:
            if id not in self.answers:
                self.answers[id] = act(m)
            return self.answers[id]

        return handler

    def _prepare(self, m: lifecycle.Prepare, id: str) -> Reply:
        self.asked_to_build.add(id)
        if self.refuse_build:
            raise Conflict(self.refuse_build)
        key = f"{m.spec.root}-1" if m.spec.root != "host" else ""
        state: Literal["building", "ready"] = "building" if self.building else "ready"
        return lifecycle.Root(key=key, builder=m.spec.root, state=state, detail=self.building)

    def _apply(self, m: lifecycle.Apply) -> Reply:
        if self.refuse_apply:
            raise Conflict(self.refuse_apply, "mend it")
        old = self.cages.get(m.name)
        if old and old.desired == "destroyed" and not m.revive:
            raise Conflict(f"{m.name} is destroyed", "create it again")
        if m.in_place:
            assert old
            assert only_live(old.spec, m.spec)
            self.applied.append((m.name, m.revision, m.spec.egress.mode))
            old.spec, old.revision = m.spec, m.revision
            return self._agent(m.name)
        if old and old.turn:
            self.cut.append(m.name)
        self.applied.append((m.name, m.revision, m.spec.prompt))
        reply_generation = old.generation if old else 0
        self.cages[m.name] = Cage(
            m.spec, m.revision, reply_generation + 1, connected=False, cage="starting", state="starting"
        )
        asyncio.get_running_loop().call_later(0.1, self._come_up, m.name)
        return msgspec.structs.replace(self._agent(m.name), generation=reply_generation)

    def _come_up(self, name: str) -> None:
        cage = self.cages[name]
        if cage.desired == "running":
            cage.cage, cage.connected = "running", True
            self.set(name, state="starting" if cage.spec == BAD else "idle")

    def _stop(self, m: lifecycle.Stop) -> Reply:
        self.stopped.append(m.name)
        cage = self.cages[m.name]
        if cage.desired == "destroyed":
            raise Conflict(f"{m.name} is destroyed", "create it again")
        cage.desired, cage.cage, cage.connected = "stopped", "stopped", False
        return self._agent(m.name)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Hive() as hive:
        scene = Scene(hive)
        try:
            yield scene
        finally:
            await scene.stop()
            for peer in (scene.approvals, scene.broker, scene.lifecycle):
                peer.stop()
