"""Cages beside the bare commands: how long a start takes, thirty at once, and what an idle one costs.

Those by nspawn need systemd, and so run in the booted container that the tests have, with the hive installed.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from libhive.names import MANAGER, AgentName, agent_name
from libhive.paths import Paths
from libhive.spec import AgentSpec
from libhive.testing.hive import Hive
from services.lifecycle.cages.keeper import read_record
from services.lifecycle.sweep import sweep
from tests.bench import caged
from tests.bench.rows import Row, row
from tests.booted.container import Container, lacking
from tests.booted.layer import installed
from tests.booted.root import CHECKOUT
from tests.cages.conftest import Hutch

BARE = "a bare {} with the same Python"
PYTHON = f"{CHECKOUT}/.venv/bin/python"
AS_LIFECYCLE = ("setpriv", "--reuid=hive-lifecycle", "--regid=hive", "--init-groups", "--")
IN_ITS_CGROUPS = ("systemd-run", "--quiet", "--pipe", "--wait", "--")


@dataclass(frozen=True, slots=True)
class Scale:
    rounds: int = 10
    crowd: int = 30
    crowds: int = 3
    agents: int = 3
    """Whose memory is measured; with none of them, that of an nspawn manager."""
    settle_seconds: float = 10
    with_hive: bool = True
    with_nspawn: bool = True


async def measure(scale: Scale) -> list[Row]:
    rows = await bubblewrap(scale)
    if scale.with_hive:
        rows.append(await memory(scale))
    if not scale.with_nspawn:
        return rows
    if why := lacking():
        print(f"  without cage.nspawn: {why}", file=sys.stderr)
        return rows
    return rows + await asyncio.to_thread(in_a_container, scale)


# ---- bubblewrap, on the host


async def bubblewrap(scale: Scale) -> list[Row]:
    root = Path(tempfile.mkdtemp(prefix="hive-", dir="/tmp"))
    root.chmod(0o755)
    hutch = Hutch("bubblewrap", Paths(run=root / "run", state=root / "state"))
    try:
        await caged.caged(hutch, 1)
        starts = [await _beside_bare(hutch, root / f"bare-{n}", 1) for n in range(scale.rounds)]
        crowds = [await _beside_bare(hutch, root / f"bares-{n}", scale.crowd) for n in range(scale.crowds)]
    finally:
        await sweep(hutch.paths)
        shutil.rmtree(root)
    return [_start("cage.bubblewrap.start", "bwrap", starts), _crowd("cage.start30", "bwrap", crowds)]


async def _beside_bare(hutch: Hutch, place: Path, count: int) -> tuple[float, float]:
    place.mkdir()
    bare = caged.bare_bubblewraps(place, count)
    return await caged.caged(hutch, count), bare


async def memory(scale: Scale) -> Row:
    async with Hive() as hive:
        await hive.start_whole()
        names = [agent_name(f"agent-{number}") for number in range(scale.agents)]
        for name in names:
            await hive.lifecycle.apply(name, 0, AgentSpec(prompt="You are idle."))
        await asyncio.gather(*(hive.wait_for_agent(name) for name in names))
        keepers = [_keeper(hive, name) for name in names]
        claude = hive.environ["HIVE_CLAUDE"]
        found = await asyncio.to_thread(caged.memory_of, keepers, claude, scale.settle_seconds)
    return _memory("cage.memory", found)


def _keeper(hive: Hive, name: AgentName) -> int:
    record = read_record(hive.paths.cage(name))
    assert record
    return record.keeper.pid


# ---- nspawn, in the container


def in_a_container(scale: Scale) -> list[Row]:
    with Container(on=installed(), limits=True) as container:
        return nspawn(container, scale)


def nspawn(container: Container, scale: Scale) -> list[Row]:
    """In one that has booted with the hive."""
    names = [f"agent-{number}" for number in range(scale.agents)]
    container.until("the hive", lambda: container.ended("hive-admin", "status").returncode == 0)
    for name in names:
        container.run("hive-admin", "spawn", name, "--prompt", "You are idle.", "--yes")
    names = names or [MANAGER]
    container.until("the cages", lambda: _all_run(container, names))
    starts = [_nspawn_beside_bare(container, 1) for _ in range(scale.rounds)]
    crowds = [_nspawn_beside_bare(container, scale.crowd) for _ in range(scale.crowds)]
    cage, bare = _inside(container, (), "memory", str(scale.settle_seconds), *names)
    return [
        _start("cage.nspawn.start", "systemd-nspawn", starts),
        _crowd("cage.nspawn.start30", "systemd-nspawn", crowds),
        _memory("cage.nspawn.memory", (cage, bare)),
    ]


def _all_run(container: Container, names: list[str]) -> bool:
    units = [f"hive-cage@{name}.service" for name in names]
    return container.run("systemctl", "is-active", *units, status=None).split() == ["active"] * len(units)


def _nspawn_beside_bare(container: Container, count: int) -> tuple[float, float]:
    (bare,) = _inside(container, IN_ITS_CGROUPS, "bare", str(count))
    (ours,) = _inside(container, AS_LIFECYCLE, "start", str(count))
    return ours, bare


def _inside(container: Container, first: tuple[str, ...], *what: str) -> list[float]:
    variables = [
        f"PYTHONPATH={CHECKOUT}",
        "PYTHONSAFEPATH=1",
        "PYTHONDONTWRITEBYTECODE=1",
        "HIVE_TEST_CAGE=nspawn",
    ]
    variables += ["HOME=/nonexistent", "PATH=/usr/bin:/bin:/usr/sbin"]
    said = container.run(
        *first, "env", "-i", *variables, PYTHON, "-m", "tests.bench.caged", *what, seconds=200
    )
    return [float(number) for number in said.split()]


# ---- rows


def _start(name: str, bare: str, found: list[tuple[float, float]]) -> Row:
    return row(name, "ms", [ours for ours, _ in found], [bare for _, bare in found], BARE.format(bare))


def _crowd(name: str, bare: str, found: list[tuple[float, float]]) -> Row:
    against = f"as many at once: {BARE.format(bare)}"
    return row(name, "s", [ours / 1000 for ours, _ in found], [bare / 1000 for _, bare in found], against)


def _memory(name: str, found: tuple[float, float]) -> Row:
    cage, bare = found
    return row(name, "MB PSS", [cage], [bare], "the bare CLI, idle")
