"""Many agents: a fan-out to 1,000 of them, and what 100 cost who only wait."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from libhive.testing.hive import Hive
from tests.bench.broker import (
    ENVIRON,
    Outcome,
    Scale,
    beside_redis,
    door_of,
    maybe_redis,
    rates_of,
    rounds,
    run,
    sides,
)
from tests.bench.processes import Client, Side
from tests.bench.rows import Row, row
from tests.bench.usage import cpu_seconds, pss_mb

FAN_MEMORY_MB, IDLE_PERCENT, IDLE_MEMORY_MB = 120.0, 0.5, 60.0
"""The budgets."""
MAILBOXES_AT_ONCE = 50


async def fan(scale: Scale) -> list[Row]:
    """One sender with 64 in flight, each message to the next agent; all of them wait in recv."""
    agents = [f"agent-{number}" for number in range(scale.agents)]
    memory: dict[str, list[float]] = {}

    def once(side: Side) -> Outcome:
        def look() -> None:
            memory.setdefault(side.system, []).append(pss_mb([side.pid]))

        return run(side, ["sender"], agents, "send", {"count": scale.fanned, "depth": 64}, look)

    async with Hive(ENVIRON) as hive:
        await hive.start("broker")
        await _open(hive, ["sender", *agents])
        door = await door_of(hive)
        with maybe_redis(hive, scale) as redis:
            systems = {name: partial(once, side) for name, side in sides(door, redis).items()}
            found = rounds(scale.rounds, {"fan": systems})["fan"]
    redis_memory = f"; Redis {max(memory['redis']):.0f} MB" if "redis" in memory else ""
    return [
        *beside_redis("broker.fan1000", "msgs/s", rates_of(found), ">= 2"),
        row(
            "broker.fan1000.memory",
            "MB PSS",
            [max(memory["door"])],
            [FAN_MEMORY_MB],
            f"its budget{redis_memory}",
            "< 1",
        ),
    ]


async def idle(scale: Scale) -> list[Row]:
    agents = [f"agent-{number}" for number in range(scale.pollers)]
    async with Hive(ENVIRON) as hive:
        await hive.start("broker")
        await _open(hive, agents)
        door = await door_of(hive)
        with Client(door.lean, "idle", agents) as client:
            client.go()
            time.sleep(scale.settle_seconds)
            before, began = cpu_seconds([door.pid]), time.monotonic()
            time.sleep(scale.idle_seconds)
            share = 100 * (cpu_seconds([door.pid]) - before) / (time.monotonic() - began)
            memory = pss_mb([door.pid])
    against = f"its budget, with {scale.pollers} agents in long-poll"
    return [
        row("broker.idle.cpu", "% core", [share], [IDLE_PERCENT], against, "< 1"),
        row("broker.idle.memory", "MB PSS", [memory], [IDLE_MEMORY_MB], against, "< 1"),
    ]


async def _open(hive: Hive, names: list[str]) -> None:
    for start in range(0, len(names), MAILBOXES_AT_ONCE):
        await asyncio.gather(*(hive.open_mailbox(name) for name in names[start : start + MAILBOXES_AT_ONCE]))
