"""The whole hive with ten caged agents: what it costs to do nothing, and how long an approval takes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from libhive.messages.base import Ping
from libhive.names import agent_name
from libhive.spec import AgentSpec
from libhive.testing.hive import SERVICES, Hive
from tests.bench import limits
from tests.bench.rows import Row, row

AGENTS = 10
IDLE_SECONDS = 20
APPROVALS = 5
_TICKS = os.sysconf("SC_CLK_TCK")


async def measure() -> list[Row]:
    async with Hive() as hive:
        await hive.start_whole()
        rows = await _approvals(hive)
        names = [f"agent-{number}" for number in range(AGENTS)]
        for name in names:
            await hive.lifecycle.apply(name, 0, AgentSpec(prompt="You are idle."))
        await asyncio.gather(*(hive.wait_for_agent(name) for name in names))
        await asyncio.sleep(5)
        return rows + await _idle(hive, names)


async def _approvals(hive: Hive) -> list[Row]:
    took, bare = [], []
    for number in range(APPROVALS):
        bare.append(limits.bare_bubblewrap())
        proposed = await hive.approvals.spawn(f"new-{number}", "You are new.")
        detail = await hive.approvals.show(proposed.number)
        began = time.perf_counter()
        await hive.approvals.approve(proposed.number, detail.digest)
        await hive.wait_for_agent(f"new-{number}")
        took.append((time.perf_counter() - began) * 1000)
        await hive.lifecycle.destroy(f"new-{number}")
    return [row("deploy.approve_to_healthy", "ms", took, bare, "bare bubblewrap start and end of `true`")]


async def _idle(hive: Hive, names: list[str]) -> list[Row]:
    with limits.BarePython() as bare:
        pids = {f"idle.{service}": [await _pid(hive, service)] for service in SERVICES}
        pids["idle.cage"] = [pid for name in names for pid in await _cage_pids(hive, name)]
        pids["bare"] = [bare.process.pid]
        before = {name: _cpu_seconds(found) for name, found in pids.items()}
        began = time.perf_counter()
        await asyncio.sleep(IDLE_SECONDS)
        seconds = time.perf_counter() - began
        share = {name: 100 * (_cpu_seconds(found) - before[name]) / seconds for name, found in pids.items()}
        memory = {name: _pss_mb(found) for name, found in pids.items()}
    for figures in (share, memory):
        figures["idle.cage"] /= len(names)
    idle = "an idle Python with an event loop"
    rows = []
    for name in [name for name in pids if name != "bare"]:
        rows.append(row(f"{name}.cpu", "% core", [share[name]], [share["bare"]], idle))
        rows.append(row(f"{name}.memory", "MB PSS", [memory[name]], [memory["bare"]], idle))
    return rows


async def _pid(hive: Hive, service: str) -> int:
    return (await hive.operator_link.call(service, Ping())).pid


async def _cage_pids(hive: Hive, name: str) -> list[int]:
    agent = await hive.lifecycle.agent(agent_name(name))
    assert agent is not None
    return _with_children(agent.pid)


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += _with_children(int(child))
    return found


def _cpu_seconds(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def _pss_mb(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
