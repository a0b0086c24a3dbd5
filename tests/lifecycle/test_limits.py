"""What becomes of an agent that takes more than it may, as the operator and the manager are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

from libhive.names import MANAGER
from libhive.problems import Unavailable
from libhive.spec import AgentSpec, Limits
from services.lifecycle.cages import cgroups
from tests.groups import there_are_none
from tests.lifecycle.conftest import PROGRAM, LifecycleHive

SAID = "out of memory (limit 128 MB)"
BOMB = """
import os
if os.environ["HIVE_AGENT"] == "iris":
    taken = []
    while True: taken.append(bytearray(b"x" * (1 << 20)))
"""


async def test_an_agent_that_was_out_of_memory_is_said_to_have_been(
    hive: LifecycleHive, tmp_path: Path
) -> None:
    hive.program = tmp_path / "program.py"
    hive.program.write_text(BOMB + PROGRAM.read_text())
    await hive.start("broker", "lifecycle")
    manager = await hive.running(MANAGER)
    if there_are_none("memory:rlimit" in manager.controls):
        return  # a process of its own limits sees a MemoryError, and says so itself
    await hive.lifecycle.apply("iris", 1, AgentSpec(limits=Limits(memory_mb=128)))
    iris = await hive.wait_for("iris", lambda agent: agent.cage == "broken")
    assert (iris.detail, iris.generation) == (SAID, 5)
    told = await _news(hive)
    assert f"failed 5 times within 10 minutes, {SAID} and is broken" in told
    assert [agent for agent, _ in _groups(hive)].count("iris") == 0
    assert (await hive.running(MANAGER)).detail == ""


async def test_what_is_ended_in_a_cage_that_lives_on_is_shown(hive: LifecycleHive) -> None:
    await hive.start("lifecycle")
    if there_are_none("memory:rlimit" in (await hive.running(MANAGER)).controls):
        return
    await hive.lifecycle.apply("iris", 1, AgentSpec(limits=Limits(memory_mb=128)))
    await hive.running("iris")
    assert await _take_too_much(hive) == -9
    iris = await hive.wait_for("iris", lambda agent: bool(agent.detail))
    assert (iris.cage, iris.detail) == ("running", f"{SAID}: a process in it was ended")
    await hive.lifecycle.restart("iris")
    assert (await hive.running("iris")).detail == ""


async def _take_too_much(hive: LifecycleHive) -> int:
    for _ in range(100):
        try:
            command = ["python3", "-c", "x = bytearray(b'x' * (300 << 20))"]
            return (await hive.lifecycle.exec("iris", command)).exit_code
        except Unavailable:  # it does not listen yet
            await asyncio.sleep(0.05)
    raise AssertionError(hive.logs())


async def _news(hive: LifecycleHive) -> str:
    for _ in range(100):
        for receipt in await hive.operator.inbox():
            if "broken" in receipt.body:
                return receipt.body
        await asyncio.sleep(0.05)
    raise AssertionError(hive.logs())


def _groups(hive: LifecycleHive) -> list[tuple[str, cgroups.Group]]:
    return list(cgroups.left_over(hive.paths, cgroups.hierarchies()))
