"""The runs that the tests judge."""

from __future__ import annotations

import ast
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.proofs import store
from tests.proofs.model import findings
from tests.proofs.world import World

ROOT = Path(__file__).parents[2]
SEED = os.environ.get("HIVE_TEST_SEED") or secrets.token_hex(4)
LIFE_SECONDS_MAX = 0.04
START_SECONDS_MAX = 0.02
REACH_SECONDS_MAX = 20.0
COMMITS_MAX = 6
FOUND_MAX = 20


def points() -> list[str]:
    """Every fault point that the broker's process can reach, as the code has them."""
    files = [*(ROOT / "libhive").rglob("*.py"), *(ROOT / "services" / "broker").rglob("*.py")]
    return sorted({point for file in files for point in _points_of(file)})


def _points_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("reach", "faults.reach"):
            yield ast.literal_eval(node.args[0])


def kill_at_random(world: World, kills: int) -> None:
    """At any instant of a short life; every fourth of them before it was ready."""
    random = Random(f"{world.seed} kills")
    for number in range(kills):
        if number % 4:
            world.live(random.uniform(0, LIFE_SECONDS_MAX))
        else:
            world.live(random.uniform(0, START_SECONDS_MAX), from_ready=False)


def kill_at_points(world: World, kills: int) -> None:
    """In one of the first commits of a life."""
    random, places = Random(f"{world.seed} points"), points()
    for number in range(kills):
        world.live(REACH_SECONDS_MAX, f"{places[number % len(places)]}:{random.randint(1, COMMITS_MAX)}")


def verdict(world: World) -> list[str]:
    """Ends the run, and judges all of it."""
    unsettled = world.end()
    return unsettled + findings(world.history, store.read(world.database))


def report(world: World, found: list[str]) -> str:
    """What to look at: the findings, what was said about the first of them, and the line that runs it again."""
    kinds = sorted({finding.partition(":")[0] for finding in found})
    about = [
        line
        for word in found[0].split()[1:]
        if len(word) > 20
        for line in world.history.about(word.strip("'(),"))
    ]
    head = f"HIVE_TEST_SEED={SEED} ({world.seed}): {len(found)} findings, {', '.join(kinds)}"
    return "\n".join([head, *found[:FOUND_MAX], "", *about[:FOUND_MAX], "", world.hive.logs()[-3_000:]])
