"""Repositories of agents that are no more: put aside under the instant at which that was done, and never read again."""

from __future__ import annotations

import re
from pathlib import Path

from libhive.clock import iso
from libhive.faults import reach
from libhive.names import AgentName
from libhive.paths import Paths, make_private
from services.approvals.repo import sync


def put_aside(paths: Paths, agent: AgentName, now_ms: int) -> str:
    """Where it is now; where it was put before, when that is done already; empty when there never was one."""
    repository, directory = paths.config(agent), make_private(paths.archive)
    if repository.is_dir():
        place = directory / f"{agent}-{re.sub(r'[^0-9TZ]', '', iso(now_ms))}.git"
        repository.rename(place)
        sync(directory)
        sync(repository.parent)
        reach("archived:after-move")
        return str(place)
    return str(max(_archives(directory, agent), default=""))


def _archives(directory: Path, agent: AgentName) -> list[Path]:
    """Another agent's name may begin with this one and a hyphen."""
    pattern = re.compile(rf"{re.escape(agent)}-[0-9]{{8}}T[0-9]+Z\.git")
    return [path for path in directory.iterdir() if pattern.fullmatch(path.name)]
