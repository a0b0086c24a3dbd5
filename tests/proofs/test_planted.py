"""A proof that cannot fail proves nothing: each bug that is planted into the broker is found, by its own kind of finding."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from libhive.testing.hive import Hive
from tests.proofs import planted
from tests.proofs.runs import SEED, kill_at_points, kill_at_random, verdict
from tests.proofs.world import World

BUDGETS = ((600, 4), (2_000, 5), (6_000, 10), (12_000, 15), (12_000, 30))
"""Calls, then kills of each sort; the next one is tried when a smaller one has not met the bug."""
PATIENCE_SECONDS = 3.0


@pytest.mark.parametrize("bug", planted.BUGS, ids=lambda bug: bug.__name__)
async def test_found(bug: Callable[[], None]) -> None:
    wanted, seen = planted.BUGS[bug], set[str]()
    for calls, kills in BUDGETS:
        seen |= await _kinds(bug.__name__, f"{SEED} {bug.__name__} {calls}", calls, kills)
        if wanted in seen:
            return
    pytest.fail(f"HIVE_TEST_SEED={SEED}: not found, only {seen}")


async def _kinds(bug: str, seed: str, calls: int, kills: int) -> set[str]:
    async with Hive() as hive:
        world = World(hive, seed, bug=bug, patience_seconds=PATIENCE_SECONDS)
        try:
            world.found()
            world.until(calls)
            kill_at_random(world, kills)
            kill_at_points(world, kills)
            return {finding.partition(":")[0] for finding in verdict(world)}
        finally:
            world.close()
