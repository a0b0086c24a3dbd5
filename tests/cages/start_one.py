"""`python -m tests.cages.start_one KIND`: starts one cage, says whether it is up or what it lacks, and ends it."""

from __future__ import annotations

import asyncio
import sys

from libhive.problems import Problem
from tests.cages.conftest import INSTALLED, Hutch

SLEEP = ("-c", "import time; time.sleep(1000)")
"""It needs nothing, and so runs in whatever is left of its cage."""


async def start_one(kind: str) -> str:
    hutch = Hutch(kind, INSTALLED)
    try:
        cage = await hutch.start("mallory", 2, SLEEP)
    except Problem as problem:
        return problem.message
    await hutch.cages.kill(cage)
    return "up"


if __name__ == "__main__":
    print(asyncio.run(start_one(sys.argv[1])))
