"""`python -m services.lifecycle.sweep`: ends every cage of this hive, with no service running.

For when the services were killed with no chance to end their cages: they outlive lifecycle by design.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from libhive.names import AgentName, agent_name
from libhive.paths import Paths
from libhive.problems import BadRequest
from services.lifecycle.cages import CAGES, cgroups, directories, kernel, limits
from services.lifecycle.cages.keeper import kill_marked, marked, read_record

GRACE_SECONDS = 3.0


async def sweep(paths: Paths) -> list[str]:
    """The names of the agents whose cages were still there."""
    alive = sorted({*marked(paths), *_units(paths)})
    await asyncio.gather(*(_end(paths, name) for name in alive))
    await limits.remove([group for _, group in cgroups.left_over(paths, cgroups.hierarchies())])
    for name in _names(paths):
        directories.clear(paths.cage(name), paths.page_dir(name))
    return alive


async def _end(paths: Paths, name: str) -> None:
    with contextlib.suppress(BadRequest):
        record = read_record(paths.cage(agent_name(name)))
        if record is not None and record.kind in CAGES:
            kind = CAGES[record.kind](paths)
            if cage := await kind.adopt(agent_name(name)):
                await kind.stop(cage, GRACE_SECONDS)
    await kill_marked(paths, name)


def _units(paths: Paths) -> list[AgentName]:
    """Whose cages are units of systemd's, and run: what is in them has no mark."""
    found = []
    for name in _names(paths):
        record = read_record(paths.cage(name))
        if record and record.kind == "nspawn" and (keeper := kernel.Process.reopen(record.keeper)):
            keeper.close()
            found.append(name)
    return found


def _names(paths: Paths) -> list[AgentName]:
    cages = paths.run / "cages"
    names = []
    for entry in sorted(cages.iterdir()) if cages.is_dir() else []:
        with contextlib.suppress(BadRequest):
            names.append(agent_name(entry.name))
    return names


def main() -> None:
    ended = asyncio.run(sweep(Paths.from_environment()))
    if ended:
        sys.stderr.write(f"ended the cages of {', '.join(ended)}\n")


if __name__ == "__main__":
    main()
