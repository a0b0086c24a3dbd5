"""Whom a build runs as: root and some 65,000 others in its own user namespace, nobody on the host."""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

from libhive.problems import Conflict
from services.lifecycle.settings import Settings

IDS = 65_535
"""The highest that Debian gives is 65,534."""
Range = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Users:
    """`uid` and `gid` unpack what is built, and own it. The ranges: first inside, first outside, how many."""

    uid: int
    gid: int
    uids: list[Range]
    gids: list[Range]


def users(settings: Settings, etc: Path = Path("/etc")) -> Users:
    """As root, the range of the agent with the number 0, who is none. Else those ids that the caller may give away:
    enclosed root is nobody then either, and not the caller, whose files are none of its business."""
    if os.geteuid() == 0:
        first = settings.uid_first
        # the kernel lets a death signal through only to whom the dying process might have killed itself
        return Users(first, first, [(0, first, IDS)], [(0, first, IDS)])
    uid, gid = os.geteuid(), os.getegid()
    if shutil.which("newuidmap") is None:
        raise Conflict(
            "newuidmap is not installed: without it an ordinary user cannot build a root",
            "sudo apt-get install -y uidmap",
        )
    return Users(
        uid,
        gid,
        [(0, subordinate(etc / "subuid", uid), IDS)],
        [(0, subordinate(etc / "subgid", uid), IDS)],
    )


def subordinate(table: Path, uid: int) -> int:
    """The first of the ids that this user may give to others."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    for line in table.read_text().splitlines() if table.is_file() else []:
        owner, first, count = (*line.split(":"), "", "")[:3]
        if owner in (name, str(uid)) and first.isdecimal() and count.isdecimal() and int(count) >= IDS:
            return int(first)
    raise Conflict(
        f"{table} gives {name} no range of {IDS} ids: without one an ordinary user cannot build a root",
        f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}",
    )
