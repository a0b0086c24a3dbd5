"""A build as a unit `hive-build@<key>.service` of systemd's: in an installation, where lifecycle has no rights.

    lifecycle -> systemd -> room.py (hive-builder) -> enclosure.py

We write what is wanted, ask systemd to start the unit, and look at it until it is over. The unit is systemd's and not ours:
it goes on when we end, and whoever of us comes next and wants the same root waits for the same unit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from libhive.paths import Paths
from libhive.problems import Conflict, NoSpace, Problem, Unavailable
from libhive.spec import RootKind
from services.lifecycle.builders.by_child import LOOK_SECONDS, Tell, expect_space
from services.lifecycle.builders.recipe import Recipe
from services.lifecycle.builders.roots import USED, GivenRoots
from services.lifecycle.cages.units import Units
from services.lifecycle.settings import Settings

log = logging.getLogger("hive.lifecycle")

START_SECONDS_MAX = 60.0
REMOVE_SECONDS_MAX = 300.0
EXIT_NO_SPACE = 75
"""EX_TEMPFAIL: what went wrong goes away by itself."""
GOING = ("activating", "active", "deactivating", "reloading")
RESULTS = {
    "oom-kill": "it took more memory than a build may",
    "signal": "it was killed",
    "success": "it was stopped",
    "timeout": "it took longer than a build may",
}
"""systemd's word, for one that had no last words of its own."""


def unit_of(key: str) -> str:
    return f"hive-build@{key}.service"


class ByUnits:
    def __init__(self, paths: Paths, settings: Settings) -> None:
        self.roots = GivenRoots(paths.roots, paths.builds, paths.own("lifecycle") / f"roots-{USED}")
        self._settings, self._units = settings, Units()

    async def make(self, recipe: Recipe, tell: Tell) -> None:
        unit = unit_of(recipe.key)
        try:
            known = await self._begin(recipe, unit)
            async with asyncio.timeout(self._settings.build_seconds_max + START_SECONDS_MAX):
                while known["ActiveState"] in GOING:
                    tell(known["StatusText"] or "starting")
                    await asyncio.sleep(LOOK_SECONDS)
                    with contextlib.suppress(Unavailable):  # systemd, or its bus, begins anew
                        known = await self._units.properties(unit)
        except TimeoutError:
            known = {"Result": "timeout"}
        if self.roots.manifest(recipe.key) is None:
            await self._discard(recipe.key)
            raise failed(recipe.builder, known, unit)
        await self._units.let_go(unit)

    async def unfinished(self) -> list[Path]:
        places = await asyncio.to_thread(self.roots.unfinished)
        return [place for place in places if not await self._goes_on(place.name)]

    async def remove(self, place: Path) -> None:
        """First nobody wants it any more: a removal that is cut short leaves no root that is not whole."""
        unit = unit_of(place.name)
        self.roots.order(place.name).unlink(missing_ok=True)
        try:
            await self._units.stop(unit, START_SECONDS_MAX)
            await self._units.forget(unit)
            await self._units.clean(unit, REMOVE_SECONDS_MAX)
        except TimeoutError:
            raise Conflict(f"systemd did not remove {place.name}", f"journalctl -u {unit}") from None
        await self._units.let_go(unit)
        if await asyncio.to_thread(place.exists):
            raise Conflict(f"systemd did not remove {place.name}", f"journalctl -u {unit}")

    async def _begin(self, recipe: Recipe, unit: str) -> dict[str, Any]:
        """What systemd knows of the unit once it runs; it may do so already."""
        known = await self._units.properties(unit)
        if known["ActiveState"] not in GOING:
            expect_space(self.roots.directory, self._settings.root_space_bytes_min)
            await self.remove(self.roots.directory / recipe.key)
            await asyncio.to_thread(self.roots.want, recipe)
        await self._units.hold(unit)
        with contextlib.suppress(TimeoutError):
            await self._units.start(unit, START_SECONDS_MAX)
        return await self._units.properties(unit)

    async def _goes_on(self, key: str) -> bool:
        return (await self._units.properties(unit_of(key)))["ActiveState"] in GOING

    async def _discard(self, key: str) -> None:
        try:
            await self.remove(self.roots.directory / key)
        except Problem as problem:
            log.warning("a build could not be removed", extra={"place": key, "why": problem.message})


def failed(builder: RootKind, known: Mapping[str, Any], unit: str) -> Problem:
    why = RESULTS.get(known["Result"]) or known["StatusText"] or f"systemd says `{known['Result']}`"
    what = f"the {builder} root could not be built: {why}"
    if known.get("ExecMainStatus") == EXIT_NO_SPACE and known["Result"] == "exit-code":
        return NoSpace(what)
    return Conflict(what, f"the whole log: journalctl -u {unit}")
