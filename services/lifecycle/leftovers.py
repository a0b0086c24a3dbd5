"""What this host has of agents that the registry does not know, and of cages that have ended: found by comparing the disk
and the kernel with the registry.

Only what carries an agent's name in a place of ours is looked at, and nothing of an agent that has a row is ever listed but
the control groups of a cage that is not there. Each kind of leftover is one function in FINDERS, but for `units`, who asks
systemd.

Some of what an nspawn cage leaves only root can remove, and lifecycle is not root. When a cage's unit ends, systemd removes
its directory in /run/hive-cage, and `hive-cage end` what the agent has in its page's. So what lies there without a unit is
removed by starting one that has no plan: hive-cage refuses to make a cage then, and the unit ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from libhive.messages.lifecycle import Leftover
from libhive.names import AgentName, agent_name
from libhive.paths import Paths
from libhive.problems import BadRequest, Conflict, Problem
from libhive.spec import AgentSpec
from services.lifecycle.builders.workshop import Workshop
from services.lifecycle.cages import cgroups, directories, limits
from services.lifecycle.cages.cgroups import Group
from services.lifecycle.cages.keeper import kill_marked, marked
from services.lifecycle.cages.nspawn import PLAN_FILE, START_SECONDS_MAX, Nspawn
from services.lifecycle.cages.units import name_in, unit_of

LISTED_MAX = 200
MEASURE_SECONDS_MAX = 60
REMOVE_SECONDS_MAX = 60.0
UNKNOWN = "no agent of this name is in the registry"
ENDED = "its cage has ended"
OF_UNITS = Path("/run/hive-cage")
"""Where each cage's unit has its RuntimeDirectory."""


@dataclass(frozen=True, slots=True)
class Registry:
    """What must not be touched: every agent with a row, and those of them whose cage may be there."""

    paths: Paths
    known: Callable[[str], bool]
    caged: Callable[[str], bool]
    nspawn: Nspawn | None = None
    """When that is this hive's kind of cage: of another one, the units on this host are another hive's."""


async def find(registry: Registry) -> list[Leftover]:
    return [*await units(registry), *_find(registry)]


def _find(registry: Registry) -> Iterator[Leftover]:
    for finder in FINDERS:
        yield from finder(registry)


def measured(leftover: Leftover) -> Leftover:
    """With what it takes on the disk; nothing in it is followed."""
    if leftover.kind in ("cage", "group", "unit"):
        return leftover
    command = ["du", "--summarize", "--one-file-system", "--block-size=1", "--", leftover.path]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, IndexError):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=MEASURE_SECONDS_MAX, check=False
        )
        return structs.replace(leftover, bytes=int(done.stdout.split()[0]))
    return leftover


async def remove(registry: Registry, leftover: Leftover) -> Leftover:
    """Looks again first: there may be an agent of that name by now."""
    if registry.known(leftover.agent) and not (
        leftover.kind == "group" and not registry.caged(leftover.agent)
    ):
        return structs.replace(leftover, problem="there is an agent of this name again")
    try:
        async with asyncio.timeout(REMOVE_SECONDS_MAX):
            await _remove(registry, leftover)
    except (OSError, Problem) as error:  # a TimeoutError is an OSError
        return structs.replace(leftover, problem=str(error) or "it took too long")
    return structs.replace(leftover, removed=True)


async def _remove(registry: Registry, leftover: Leftover) -> None:
    match leftover.kind:
        case "cage":
            await kill_marked(registry.paths, leftover.agent)
        case "group":
            await limits.remove([Group(path=leftover.path, version=1, limits=[])])
        case "unit":
            assert registry.nspawn
            await _put_away(registry.nspawn, agent_name(leftover.agent))
        case _:
            await asyncio.to_thread(directories.remove, Path(leftover.path))


async def _put_away(cages: Nspawn, name: AgentName) -> None:
    await cages.end(name)
    if _of_unit(cages.paths, name):
        (cages.paths.cage(name) / PLAN_FILE).unlink(missing_ok=True)
        await cages.units.start(unit_of(name), START_SECONDS_MAX)
        await cages.end(name)
    if left := _of_unit(cages.paths, name):
        raise Conflict(f"systemd has not removed {left[0]}; as root: rm -r {' '.join(map(str, left))}")


def _of_unit(paths: Paths, name: AgentName) -> list[Path]:
    return [path for path in (OF_UNITS / name, paths.page_dir(name)) if path.exists()]


async def roots(workshop: Workshop, specs: Mapping[str, AgentSpec], *, apply: bool) -> list[Leftover]:
    """Roots that no agent needs, and builds that did not end."""
    found = []
    for one in await workshop.leftovers(specs):
        problem = ""
        if apply:
            try:
                await workshop.remove([one])
            except (OSError, Problem) as error:
                problem = str(error)
        found.append(
            Leftover(
                kind="root",
                agent="",
                path=str(one.path),
                why=one.why,
                bytes=one.size_bytes,
                removed=apply and not problem,
                problem=problem,
            )
        )
    return found


# ---- one function for each kind, in the order in which they are removed


async def units(registry: Registry) -> list[Leftover]:
    """Of nspawn cages: the unit, or else what it has left in /run."""
    if registry.nspawn is None:
        return []
    places = (registry.paths.run / "pages", OF_UNITS)
    found = {name: str(path) for place in places for name, path in _named(place)}
    for unit in await registry.nspawn.units.there():
        with contextlib.suppress(BadRequest):
            found[agent_name(name_in(unit))] = unit
    return [
        Leftover(kind="unit", agent=name, path=path, why=UNKNOWN)
        for name, path in sorted(found.items())
        if not registry.known(name)
    ]


def cages(registry: Registry) -> Iterator[Leftover]:
    for name, pids in sorted(marked(registry.paths).items()):
        if not registry.known(name):
            numbers = ", ".join(map(str, sorted(pids)))
            yield Leftover(kind="cage", agent=name, path=f"processes {numbers}", why=UNKNOWN)


def groups(registry: Registry) -> Iterator[Leftover]:
    for name, group in cgroups.left_over(registry.paths, cgroups.hierarchies()):
        if not registry.known(name):
            yield Leftover(kind="group", agent=name, path=group.path, why=UNKNOWN)
        elif not registry.caged(name):
            yield Leftover(kind="group", agent=name, path=group.path, why=ENDED)


def run(registry: Registry) -> Iterator[Leftover]:
    for place in ("agents", "cages") if registry.nspawn else ("agents", "cages", "pages"):
        for name, path in _named(registry.paths.run / place):
            if not registry.known(name):
                yield Leftover(kind="run", agent=name, path=str(path), why=UNKNOWN)


def logs(registry: Registry) -> Iterator[Leftover]:
    for suffix in (".log", ".log.1"):
        for name, path in _named(registry.paths.logs / "agents", suffix):
            if not registry.known(name):
                yield Leftover(kind="log", agent=name, path=str(path), why=UNKNOWN)


def states(registry: Registry) -> Iterator[Leftover]:
    for name, path in _named(registry.paths.state / "agents"):
        if not registry.known(name):
            yield Leftover(kind="state", agent=name, path=str(path), why=UNKNOWN)


FINDERS: tuple[Callable[[Registry], Iterator[Leftover]], ...] = (cages, groups, run, logs, states)


def _named(directory: Path, suffix: str = "") -> Iterator[tuple[AgentName, Path]]:
    """What is in a directory of ours under an agent's name; anything else somebody else has put there."""
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.name.endswith(suffix):
            with contextlib.suppress(BadRequest):
                yield agent_name(path.name.removesuffix(suffix)), path
