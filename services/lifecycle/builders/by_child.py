"""A build as a child process of lifecycle's own: in a hive that is not installed, and runs as one user."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from libhive import faults
from libhive.clock import Clock
from libhive.paths import Paths, make_private
from libhive.problems import Conflict, NoSpace, Problem
from libhive.spec import RootKind
from services.lifecycle.builders import Builder, enclosed
from services.lifecycle.builders.enclosed import doing, last_words, tail
from services.lifecycle.builders.recipe import Contents, Manifest, Recipe
from services.lifecycle.builders.roots import TREE, Roots, furnish
from services.lifecycle.builders.users import Users, users
from services.lifecycle.cages.bubblewrap import staging_place
from services.lifecycle.settings import Settings

LOOK_SECONDS = 0.5
FULL = "No space left on device"
Tell = Callable[[str], None]
"""Hears what is being done, again and again."""


class Children:
    def __init__(
        self, paths: Paths, settings: Settings, builders: Mapping[RootKind, Builder], clock: Clock
    ) -> None:
        self.roots = Roots(paths.roots)
        self._logs, self._builders, self._clock = paths.logs / "builds", builders, clock
        self._settings = settings
        self._places: set[Path] = set()

    async def make(self, recipe: Recipe, tell: Tell) -> None:
        expect_space(self.roots.directory, self._settings.root_space_bytes_min)
        work = self.roots.place(recipe.key)
        self._places.add(work)
        try:
            contents = await self._execute(recipe, work, tell)
            faults.reach("lifecycle.root-built")
            manifest = Manifest(recipe=recipe, contents=contents, built_ms=self._clock())
            await asyncio.to_thread(self.roots.finish, work, manifest)
        except (Problem, OSError):
            await enclosed.discard(self._settings, work)
            raise
        finally:
            self._places.discard(work)

    async def unfinished(self) -> list[Path]:
        return [place for place in self.roots.unfinished() if place not in self._places]

    async def remove(self, place: Path) -> None:
        if place in self.roots.unfinished():
            await enclosed.discard(self._settings, place)
        else:
            await asyncio.to_thread(self.roots.remove, place)

    async def _execute(self, recipe: Recipe, work: Path, tell: Tell) -> Contents:
        make_private(self._logs)
        path = self._logs / f"{recipe.key}.log"
        following = asyncio.ensure_future(_follow(path, tell))
        builder = self._builders[recipe.builder]
        try:
            with path.open("wb") as output:
                contents = await built(
                    self._settings, users(self._settings), builder, recipe, work, output.fileno()
                )
        finally:
            following.cancel()
        if contents is None:
            raise failed(
                recipe.builder,
                tail(path),
                f"the whole log is {path.name} in logs/builds of the hive's state directory",
            )
        return contents


async def _follow(path: Path, tell: Tell) -> None:
    while True:
        tell(doing(tail(path)))
        await asyncio.sleep(LOOK_SECONDS)


# ---- what is the same wherever it is done


async def built(
    settings: Settings, to: Users, builder: Builder, recipe: Recipe, work: Path, log_fd: int
) -> Contents | None:
    """One build, in a directory of its own; None when it failed, and the log has the words for it."""
    stage = staging_place([work, Path(recipe.source)])
    do = await builder.work(recipe, stage)
    furnish(work, to)
    said = await enclosed.run(settings, to, work, stage, do, log_fd)
    if said is None:
        return None
    contents = msgspec.json.decode(said, type=Contents)
    builder.accept(recipe, work / TREE, contents)
    await enclosed.empty(settings, to, work)
    return contents


def failed(builder: RootKind, said: str, hint: str) -> Problem:
    what = f"the {builder} root could not be built: {last_words(said) or 'it said nothing'}"
    if FULL in said:
        return NoSpace(what)
    return Conflict(what, hint)


def expect_space(directory: Path, bytes_min: int) -> None:
    there = next(place for place in (directory, *directory.parents) if place.exists())
    if (free := shutil.disk_usage(there).free) < bytes_min:
        raise NoSpace(
            f"a root needs {bytes_min >> 20} MiB of disk to be built in, and there are {free >> 20} MiB"
        )
