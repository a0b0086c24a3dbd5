"""`hive-admin gc`: what is left over of agents and cages that are no more, and removing it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from libhive.admin.session import Session

EXAMPLES = "hive-admin gc\nhive-admin gc --apply"
DETAIL = (
    "Directories, logs, processes, units and control groups that carry the name of an agent which no registry knows.\n"
    "Without --apply nothing is removed. What belongs to an agent that there is, also one that was destroyed,\n"
    "is never touched: for that there is hive-admin purge."
)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--apply", action="store_true", help="remove it")


async def collect(session: Session, given: Namespace) -> int:
    found = await session.lifecycle.collect_garbage(apply=given.apply)
    failed = [one for one in found.leftovers if one.problem]
    if not session.show(found):
        session.screen.leftovers(found, applied=given.apply)
    return 1 if failed else 0
