"""`make bench`: prints the table and writes bench.json. `python -m tests.bench broker` or `... fan1000 cage` runs parts."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from pathlib import Path

from tests.bench import backlog, broker, cage, crowd, flood, hive, rows
from tests.bench.processes import install_redis

WORKS = ("seq", "c16", "p64", "latency")
BROKER = (*WORKS, "fan1000", "idle", "backlog", "flood")
PARTS = (*BROKER, "hive", "cage")
CORES = 2
"""What every system shares with its clients, however many there are."""


async def main(names: list[str]) -> None:
    parts = chosen(names)
    prepare(with_redis=not {"fan1000", *WORKS}.isdisjoint(parts))
    found = await measure(parts, broker.Scale())
    print(rows.table(found))
    rows.save(found, Path("bench.json"))


def chosen(names: list[str]) -> list[str]:
    """The parts that are named; `broker` alone, or beside `hive`, is all of its parts."""
    if unknown := set(names) - {"broker", *PARTS}:
        raise SystemExit(f"there is no {', '.join(unknown)}; there are: broker {' '.join(PARTS)}")
    if not names:
        return list(PARTS)
    whole_broker = "broker" in names and set(BROKER).isdisjoint(names)
    return [part for part in PARTS if part in names or (whole_broker and part in BROKER)]


def prepare(*, with_redis: bool) -> None:
    if with_redis:
        install_redis()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def measure(parts: list[str], scale: broker.Scale) -> list[rows.Row]:
    works = [part for part in WORKS if part in parts]
    steps = {
        " ".join(works): lambda: broker.measure(works, scale),
        "fan1000": lambda: crowd.fan(scale),
        "idle": lambda: crowd.idle(scale),
        "backlog": lambda: backlog.measure(scale),
        "flood": lambda: flood.measure(scale),
        "hive": hive.measure,
        "cage": lambda: cage.measure(cage.Scale()),
    }
    found: list[rows.Row] = []
    for name, step in steps.items():
        if name and (name in parts or name == " ".join(works)):
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            began = time.monotonic()
            found += await step()
            print(f"  in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
