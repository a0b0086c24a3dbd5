"""Real cages in a short directory of their own, ended and removed with each test.

HIVE_TEST_CAGE=nspawn runs what holds for every kind with cages by nspawn: as the user hive-lifecycle, where the unit, the
polkit rule and the directories of an installation are (tests/booted/test_cages.py does so).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from libhive.messages.lifecycle import Executed
from libhive.names import agent_name
from libhive.paths import Paths
from libhive.problems import Unavailable
from libhive.spec import AgentSpec, Limits
from services.lifecycle import logbook
from services.lifecycle.cages import Plan, Running, cages, cgroups
from services.lifecycle.cages.keeper import marked
from services.lifecycle.cages.nspawn import Nspawn
from services.lifecycle.execute import execute
from services.lifecycle.settings import Settings
from services.lifecycle.sweep import sweep

KIND = os.environ.get("HIVE_TEST_CAGE", "bubblewrap")
KINDS = ("nspawn",) if KIND == "nspawn" else ("bubblewrap", "process")
INSTALLED = Paths(run=Path("/run/hyperhive"), state=Path("/var/lib/hyperhive"))
LOOKS = ("test_isolation", "test_the_process_cage_fails_it")
"""These share their cages, of which each looks at something else: to start them takes longer."""
PROGRAM = (Path(__file__).parent / "program.py").read_text()


class Hutch:
    """Cages of one kind, driven by verbs."""

    def __init__(self, kind: str, paths: Paths) -> None:
        self.paths, self.settings, self.cages = paths, Settings(cage=kind), cages(kind, paths)
        self.generation = 0

    def plan(
        self,
        name: str,
        number: int = 1,
        program: tuple[str, ...] = ("-c", PROGRAM),
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> Plan:
        agent = agent_name(name)
        self.generation += 1
        return Plan(
            name=agent,
            generation=self.generation,
            revision=0,
            uid=self.settings.uid_of(number),
            spec=AgentSpec(limits=limits),
            doors=self.paths.doors(agent),
            page=self.paths.page_dir(agent),
            state=self.paths.agent_state(agent),
            run=self.paths.cage(agent),
            log=logbook.path(self.paths, agent),
            claude=None,
            claude_version="0",
            operator_pronouns="she/her",
            program=program,
        )

    async def start(
        self,
        name: str,
        number: int = 1,
        program: tuple[str, ...] = ("-c", PROGRAM),
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> Running:
        plan = self.plan(name, number, program, limits)
        if self.cages.kind != "nspawn":
            self.paths.page(plan.name).unlink(missing_ok=True)
        self.cages.create(plan)
        return await self.cages.start(plan)

    async def have(self, name: str, number: int = 1) -> None:
        """A cage to look at, which may have been looked at before."""
        cage = await self.cages.adopt(agent_name(name)) or await self.start(name, number)
        cage.close()

    async def run(self, name: str, *argv: str, timeout_seconds: int = 10) -> Executed:
        """A command in the cage, as soon as its program listens."""
        for _ in range(200):
            with contextlib.suppress(Unavailable):
                return await execute(self.paths.page(agent_name(name)), list(argv), timeout_seconds)
            await asyncio.sleep(0.05)
        raise AssertionError(f"the cage of {name} does not answer: {self.log(name)}")

    async def python(self, name: str, code: str) -> Executed:
        return await self.run(name, "python3", "-c", code, timeout_seconds=60)

    def log(self, name: str) -> str:
        return self.cages.log(agent_name(name), 50)

    def processes(self) -> object:
        """Whatever there still is of any cage."""
        if self.cages.kind != "nspawn":
            return marked(self.paths)
        show = ["systemctl", "list-units", "--plain", "--no-legend"]
        show += ["--state=active,activating,deactivating,failed"]
        show += ["hive-cage@iris.service", "hive-cage@mallory.service"]
        return subprocess.run(show, capture_output=True, text=True, check=True).stdout

    def groups(self) -> list[str]:
        """The control groups of this hutch's cages."""
        if self.cages.kind == "nspawn":
            return [
                str(path) for path in Path("/sys/fs/cgroup").rglob("hive-cage@*") if "hm1nd" not in path.name
            ]
        return [group.path for _, group in cgroups.left_over(self.paths, cgroups.hierarchies())]


def new_paths() -> Paths:
    root = Path(tempfile.mkdtemp(prefix="hive-", dir="/tmp"))  # 0700, as a home is
    return Paths(run=root / "run", state=root / "state")


async def end_all(hutch: Hutch) -> None:
    await sweep(hutch.paths)
    assert not hutch.processes()
    assert not hutch.groups()


@pytest.fixture(scope="module")
def looked_at() -> Iterator[dict[str, Paths]]:
    """Where the cages are that tests share, by their kind."""
    found: dict[str, Paths] = {}
    yield found
    for kind, paths in found.items():
        asyncio.run(end_all(Hutch(kind, paths)))
        shutil.rmtree(paths.run.parent)


@pytest.fixture
def short_paths(request: pytest.FixtureRequest, kind: str, looked_at: dict[str, Paths]) -> Iterator[Paths]:
    looks = request.node.originalname in LOOKS
    if KIND == "nspawn":
        yield INSTALLED
        if looks:
            return
        for name in ("iris", "mallory", "outside"):
            for directory in (INSTALLED.agent_state, INSTALLED.cage, INSTALLED.doors):
                shutil.rmtree(directory(agent_name(name)), ignore_errors=True)
        return
    if looks:
        if kind not in looked_at:
            looked_at[kind] = new_paths()
        yield looked_at[kind]
        return
    paths = new_paths()
    yield paths
    shutil.rmtree(paths.run.parent)


@pytest.fixture
def kind() -> str:
    return KIND


@pytest.fixture
async def hutch(kind: str, short_paths: Paths, request: pytest.FixtureRequest) -> AsyncIterator[Hutch]:
    made = Hutch(kind, short_paths)
    made.cages.check()
    yield made
    looks = request.node.originalname in LOOKS
    if isinstance(made.cages, Nspawn):
        for name in () if looks else ("iris", "mallory"):
            if cage := await made.cages.adopt(agent_name(name)):
                await made.cages.kill(cage)
        made.cages.units.close()
    if looks:
        return
    if isinstance(made.cages, Nspawn):
        assert not made.processes()
        assert not made.groups()
    else:
        await end_all(made)


@pytest.fixture
def as_root() -> bool:
    return os.geteuid() == 0
