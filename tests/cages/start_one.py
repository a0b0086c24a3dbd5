"""`python -m tests.cages.start_one KIND [ROOT | --run CODE]`: starts one cage, says whether it is up or what it lacks, and ends
it. With a root: what the cage sees of it. With code: how its program is said to have ended."""

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


async def run_one(kind: str, code: str) -> str:
    hutch = Hutch(kind, INSTALLED)
    cage = await hutch.start("mallory", 2, ("-c", code))
    ended = await hutch.cages.ended(cage)
    await hutch.cages.kill(cage)
    return f"{ended.exit_code} {ended.last_words!r} {ended.reason!r}"


async def main(kind: str, what: str = "", code: str = "") -> None:
    if what == "--run":
        print(await run_one(kind, code))
    else:
        print(await (look_at(kind, Path(what)) if what else start_one(kind)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
