"""Cages: siblings behind one small interface. Which one is used is a setting, never a fallback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from libhive.names import AgentName
from libhive.paths import Paths
from libhive.problems import BadRequest
from services.lifecycle.cages.bubblewrap import Bubblewrap
from services.lifecycle.cages.keeper import Ended, Running
from services.lifecycle.cages.nspawn import Nspawn
from services.lifecycle.cages.plan import Plan
from services.lifecycle.cages.process import ProcessCage

__all__ = ["CAGES", "Cages", "Ended", "Plan", "Running", "cages"]


class Cages(Protocol):
    """One kind of cage. A cage outlives who started it and can be adopted by the next."""

    @property
    def kind(self) -> str: ...

    def check(self) -> None:
        """Raises a Problem that says what this host lacks, and the command that mends it."""

    def create(self, plan: Plan) -> None:
        """The directories and files the cage needs, with their owners; does nothing that is done already."""

    async def start(self, plan: Plan) -> Running:
        """Returns when the cage's program runs under all its controls.

        Raises a Problem that says why not; nothing of the cage is then left running.
        """

    async def stop(self, cage: Running, grace_seconds: float) -> None:
        """Asks the program to end; after the grace time, kills the cage."""

    async def kill(self, cage: Running) -> None:
        """Returns when no process of the cage is left."""

    def status(self, cage: Running) -> Ended | None:
        """None while it runs."""

    def look(self, cage: Running) -> bool:
        """Whether the kernel has ended something in it for want of memory since the last look."""

    async def ended(self, cage: Running) -> Ended:
        """Waits for its end."""

    async def adopt(self, name: AgentName) -> Running | None:
        """The cage that an earlier lifecycle started, if it runs; what is left of one that does not is ended."""

    def log(self, name: AgentName, lines: int) -> str:
        """The last lines of what its cages wrote. It may take its time: call it in a thread."""

    async def destroy(self, name: AgentName) -> None:
        """Removes what `create` made, but for the agent's state."""


CAGES: dict[str, Callable[[Paths], Cages]] = {
    "bubblewrap": Bubblewrap,
    "nspawn": Nspawn,
    "process": ProcessCage,
}


def cages(kind: str, paths: Paths) -> Cages:
    """Raises BadRequest for a kind that does not exist."""
    if kind not in CAGES:
        raise BadRequest(
            f"HIVE_CAGE={kind!r:.40} is not a kind of cage", f"the kinds are {', '.join(sorted(CAGES))}"
        )
    return CAGES[kind](paths)
