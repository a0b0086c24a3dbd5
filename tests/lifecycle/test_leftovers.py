"""What is left over of agents that no registry knows is listed, and removed when that is asked for; nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libhive.names import agent_name
from libhive.spec import AgentSpec
from services.lifecycle.cages import cgroups
from services.lifecycle.cages.keeper import MARK, mark
from tests.lifecycle.conftest import LifecycleHive

GHOST = agent_name("ghost")
SIZE = 300_000


class Haunt:
    """All that an agent can leave, in the places of a hive that does not know it."""

    def __init__(self, hive: LifecycleHive) -> None:
        self.hive, paths = hive, hive.paths
        self.outside = hive.root / "outside"
        self.directories = [
            paths.agent_state(GHOST),
            paths.cage(GHOST),
            paths.page_dir(GHOST),
            paths.doors(GHOST),
        ]
        self.logs = [paths.logs / "agents" / f"ghost.log{end}" for end in ("", ".1")]
        self.process: subprocess.Popen[bytes] | None = None
        self.groups: list[Path] = []

    def appear(self) -> None:
        self.outside.mkdir()
        (self.outside / "kept").touch()
        for directory in self.directories:
            (directory / "deep").mkdir(parents=True)
            (directory / "deep/file").write_bytes(bytes(SIZE))
            (directory / "link").symlink_to(self.outside)
        for log in self.logs:
            log.write_text("words\n")
        environment = {"PATH": os.environ["PATH"], MARK: mark(self.hive.paths, GHOST)}
        self.process = subprocess.Popen(["sleep", "1000"], env=environment)
        for group in cgroups.place(self.hive.paths, GHOST, cgroups.hierarchies()):
            group.directory.mkdir()
            (group.directory / "cgroup.procs").write_text(str(self.process.pid))
            self.groups.append(group.directory)

    def places(self) -> list[str]:
        return sorted(map(str, [*self.directories, *self.logs, *self.groups]))

    def there(self) -> list[str]:
        return [place for place in self.places() if Path(place).exists()]


@pytest.fixture
async def haunt() -> AsyncIterator[Haunt]:
    async with LifecycleHive() as hive:
        await hive.start("broker", "lifecycle")
        for name in ("iris", "ben"):
            await hive.lifecycle.apply(name, 1, AgentSpec())
        await hive.lifecycle.destroy("ben")
        made = Haunt(hive)
        made.appear()
        yield made
        assert made.process
        made.process.kill()
        made.process.wait()


async def test_it_is_listed_with_its_size_and_removed_when_asked_for(haunt: Haunt) -> None:
    hive = haunt.hive
    before = await hive.running("iris")
    (hive.paths.state / "agents" / "Not-A-Name").mkdir()
    listed = (await hive.lifecycle.collect_garbage()).leftovers
    assert {one.agent for one in listed} == {"ghost"}
    assert sorted(one.path for one in listed if one.kind != "cage") == haunt.places()
    assert [one.path for one in listed if one.kind == "cage"] == [f"processes {_pid(haunt)}"]
    (state,) = [one for one in listed if one.kind == "state"]
    assert SIZE <= state.bytes < 2 * SIZE
    assert haunt.there() == haunt.places()
    assert not any(one.removed for one in listed)

    removed = (await hive.lifecycle.collect_garbage(apply=True)).leftovers
    assert [one.path for one in removed] == [one.path for one in listed]
    assert [one.problem for one in removed if not one.removed] == []
    assert haunt.there() == []
    assert haunt.process
    assert haunt.process.wait(5) == -signal.SIGKILL
    assert (haunt.outside / "kept").exists()
    assert (hive.paths.state / "agents" / "Not-A-Name").exists()
    for known in ("iris", "ben"):
        assert hive.paths.agent_state(agent_name(known)).is_dir()
    assert (await hive.running("iris")).generation == before.generation
    assert (await hive.lifecycle.collect_garbage()).leftovers == []


async def test_an_agent_that_comes_is_not_touched(haunt: Haunt) -> None:
    """It takes what is there of its name."""
    hive = haunt.hive
    for place in haunt.directories:
        os.chown(place, *(2 * [_next_uid()] if os.geteuid() == 0 else (-1, -1)))
    await hive.lifecycle.apply("ghost", 1, AgentSpec())
    await hive.running("ghost")
    listed = (await hive.lifecycle.collect_garbage(apply=True)).leftovers
    assert listed == []
    assert (hive.paths.agent_state(GHOST) / "deep/file").exists()
    assert (await hive.running("ghost")).generation == 1


async def test_a_build_that_did_not_end_is_listed_and_removed(haunt: Haunt) -> None:
    hive = haunt.hive
    await hive.lifecycle.collect_garbage(apply=True)
    place = hive.paths.roots / ".half-made"
    (place / "usr").mkdir(parents=True)
    (place / "usr/file").write_bytes(bytes(SIZE))
    (listed,) = (await hive.lifecycle.collect_garbage()).leftovers
    assert (listed.kind, listed.path, listed.bytes, listed.removed) == ("root", str(place), SIZE, False)
    (removed,) = (await hive.lifecycle.collect_garbage(apply=True)).leftovers
    assert (removed.removed, removed.problem) == (True, "")
    assert not place.exists()


def _pid(haunt: Haunt) -> int:
    assert haunt.process
    return haunt.process.pid


def _next_uid() -> int:
    """Of the fourth agent, after the manager, iris and ben."""
    return 524_288 + 65_536 * 4
