"""`python -m tests.cages.start_one KIND [ROOT]`: starts one cage, says whether it is up or what it lacks, and ends it. With a
root: what the cage sees of it."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path

from libhive.problems import Problem
from tests.cages.conftest import INSTALLED, Hutch

SLEEP = ("-c", "import time; time.sleep(1000)")
"""It needs nothing, and so runs in whatever is left of its cage."""
LOOK = "echo $(ls -d /usr/ours) $(cat /etc/ssl/certs/own) $(test -e /etc/mime.types || echo no-mime.types)"


async def start_one(kind: str) -> str:
    hutch = Hutch(kind, INSTALLED)
    try:
        cage = await hutch.start("mallory", 2, SLEEP)
    except Problem as problem:
        return problem.message
    await hutch.cages.kill(cage)
    return "up"


async def look_at(kind: str, root: Path) -> str:
    hutch = Hutch(kind, INSTALLED)
    plan = dataclasses.replace(hutch.plan("mallory", 2), root=root)
    hutch.cages.create(plan)
    cage = await hutch.cages.start(plan)
    done = await hutch.run("mallory", "sh", "-c", LOOK)
    await hutch.cages.kill(cage)
    return done.output.rstrip()


if __name__ == "__main__":
    kind, *root = sys.argv[1:]
    print(asyncio.run(look_at(kind, Path(root[0])) if root else start_one(kind)))
