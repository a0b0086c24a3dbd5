"""`make bench`: prints the table and writes bench.json."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.bench import broker, hive, rows

PARTS = {"broker": broker.measure, "hive": hive.measure}


async def main(names: list[str]) -> None:
    found: list[rows.Row] = []
    for name in names or list(PARTS):
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        found += await PARTS[name]()
    print(rows.table(found))
    rows.save(found, Path("bench.json"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
