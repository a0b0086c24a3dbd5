"""The whole hive with ten caged agents: what it costs to do nothing, and how long an approval takes."""

from __future__ import annotations

import asyncio
import time

from libhive.messages.base import Ping
from libhive.names import agent_name
from libhive.spec import AgentSpec
from libhive.testing.hive import SERVICES, Hive
from tests.bench import limits
from tests.bench.rows import Row, row
from tests.bench.usage import cpu_seconds, pss_mb, with_children

AGENTS = 10
IDLE_SECONDS = 20
APPROVALS = 5


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
    """Shares of a core over IDLE_SECONDS, and memory at their end; a cage's are the mean of all of them."""
    home = hive.root / "bare-claude"
    home.mkdir()
    with limits.bare_python() as python, limits.bare_claude(hive.environ["HIVE_CLAUDE"], home) as claude:
        await asyncio.sleep(5)
        pids = {service: [await _pid(hive, service)] for service in SERVICES} | {
            "python": [python],
            "claude": [claude],
        }
        pids["cage"] = [pid for name in names for pid in await _cage_pids(hive, name)]
        before = {name: cpu_seconds(found) for name, found in pids.items()}
        began = time.perf_counter()
        await asyncio.sleep(IDLE_SECONDS)
        seconds = time.perf_counter() - began
        share = {name: 100 * (cpu_seconds(found) - before[name]) / seconds for name, found in pids.items()}
        memory = {name: pss_mb(found) for name, found in pids.items()}
    for figures in (share, memory):
        figures["cage"] /= len(names)
    rows = []
    for name in (*SERVICES, "cage"):
        bare, what = (
            ("claude", "the bare CLI, idle")
            if name == "cage"
            else ("python", "an event loop that wakes once a second")
        )
        rows.append(row(f"idle.{name}.cpu", "% core", [share[name]], [share[bare]], what))
        rows.append(row(f"idle.{name}.memory", "MB PSS", [memory[name]], [memory[bare]], what))
    return rows


async def _pid(hive: Hive, service: str) -> int:
    return (await hive.operator_link.call(service, Ping())).pid


async def _cage_pids(hive: Hive, name: str) -> list[int]:
    agent = await hive.lifecycle.agent(agent_name(name))
    assert agent is not None
    return with_children(agent.pid)
