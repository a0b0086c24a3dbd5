"""Command about roots: what agents' cages have for their /usr when it is not the host's, and what is in it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from libhive.admin import times
from libhive.admin.session import Session
from libhive.clock import now_ms
from libhive.messages.lifecycle import Root, RootList

EXAMPLES = "hive-admin roots\nhive-admin roots debian-3f2a"
NONE = 'every agent has the host\'s own /usr; another asks for root = "debian" in its agent.toml'


def roots_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "key",
        metavar="KEY",
        nargs="?",
        default="",
        help="one root, or the beginning of its key: its packages",
    )


async def roots(session: Session, given: Namespace) -> int:
    found = await session.lifecycle.roots(given.key)
    if session.show(RootList(roots=found)):
        return 0
    if given.key:
        _show(session, found[0])
    else:
        columns = ("root", "state", "size", "built", "agents")
        session.screen.table(columns, _rows(found), NONE)
    return 0


def _rows(found: Sequence[Root]) -> list[tuple[str, ...]]:
    return [
        (
            root.key,
            root.state,
            _size(root.size_bytes),
            times.when(root.built_ms, now_ms()) if root.built_ms else "",
            ", ".join(root.agents) or root.detail or "nobody",
        )
        for root in found
    ]


def _show(session: Session, root: Root) -> None:
    session.screen.head(f"{root.key}: {root.detail or root.state}, {_size(root.size_bytes)}")
    session.screen.table(("package", "version"), sorted(root.packages.items()), "no packages")


def _size(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB" if size_bytes else ""
