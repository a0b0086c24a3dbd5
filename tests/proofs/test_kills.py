"""A thousand deaths by SIGKILL at any instant, in the middle of work: nothing lost, nothing doubled, nothing stuck.

What is real: the broker's code from `daemon.main` on, its SQLite file, its sockets, its recovery, and the SIGKILL. What
is not: these brokers are born by fork instead of exec, which takes a tenth of the time. The last test does the same with
processes as the product starts them. The model judges the whole history of each run, over all its deaths.
"""

from __future__ import annotations

import pytest

from libhive.testing.hive import Hive
from tests.proofs.runs import SEED, kill_at_random, report, verdict
from tests.proofs.world import World

RUNS, KILLS, EXEC_KILLS = range(8), 126, 20
UNDER_WAY = {"answer", "ask", "hello", "recv", "remind", "send"}
"""What was being asked at some death of each run. The rarer ones are killed one by one in `test_points`."""


@pytest.mark.parametrize("run", RUNS)
async def test_killed_at_any_instant(run: int) -> None:
    async with Hive() as hive:
        world = World(hive, f"{SEED} kills {run}")
        try:
            world.found()
            kill_at_random(world, KILLS)
            found = verdict(world)
            assert not found, report(world, found)
            assert world.killed_at["random"] == len(world.history.deaths) == KILLS
            assert world.killed_at.keys() >= UNDER_WAY, world.killed_at
        finally:
            world.close()


async def test_killed_as_the_product_runs_it() -> None:
    async with Hive() as hive:
        world = World(hive, f"{SEED} exec", real=True)
        try:
            world.found()
            kill_at_random(world, EXEC_KILLS)
            found = verdict(world)
            assert not found, report(world, found)
        finally:
            world.close()
