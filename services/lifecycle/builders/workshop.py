"""The builds that go on: one per root, whoever asks for it, and as many as want it wait for the same one."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from libhive.clock import Clock
from libhive.messages.lifecycle import Root
from libhive.paths import Paths
from libhive.problems import Conflict, NoSpace, Problem
from libhive.spec import AgentSpec, RootKind
from services.lifecycle.builders import Builder
from services.lifecycle.builders.by_child import Children, Tell
from services.lifecycle.builders.by_unit import ByUnits
from services.lifecycle.builders.recipe import Manifest, Recipe
from services.lifecycle.builders.roots import Leftover, Roots, leftover_roots
from services.lifecycle.settings import Settings

log = logging.getLogger("hive.lifecycle")
Spawn = Callable[[Coroutine[Any, Any, Any], str], Any]

ASKED_MAX = 500


class Maker(Protocol):
    """How roots come to be and go: as a child of ours, or as a unit of systemd's."""

    @property
    def roots(self) -> Roots: ...

    async def make(self, recipe: Recipe, tell: Tell) -> None:
        """Until it is there. Raises the Problem that it ended with, and has left nothing of it then."""

    async def unfinished(self) -> list[Path]:
        """What is left of builds that do not go on."""

    async def remove(self, place: Path) -> None:
        """A root, or what is left of one. Raises OSError or a Problem."""


def maker(paths: Paths, settings: Settings, builders: Mapping[RootKind, Builder], clock: Clock) -> Maker:
    return (
        ByUnits(paths, settings) if settings.cage == "nspawn" else Children(paths, settings, builders, clock)
    )


@dataclass(slots=True)
class Build:
    """One that goes on, or has ended."""

    recipe: Recipe
    detail: str = "waiting for another build"
    problem: Problem | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Workshop:
    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        builders: Mapping[RootKind, Builder],
        clock: Clock,
        on_news: Callable[[Root], None],
    ) -> None:
        self._maker = maker(paths, settings, builders, clock)
        self.roots = self._maker.roots
        self._settings, self._builders, self._clock, self._on_news = settings, builders, clock, on_news
        self._spawn: Spawn = lambda coroutine, name: asyncio.get_running_loop().create_task(
            coroutine, name=name
        )
        self._going: dict[str, Build] = {}
        self._asked: dict[str, Build] = {}
        self._one = asyncio.Lock()

    def begin(self, spawn: Spawn) -> None:
        self._spawn = spawn
        if self.roots.unfinished():
            spawn(self._clean_up(), "removing builds that did not end")

    async def prepare(self, id: str, spec: AgentSpec) -> Root:
        """How far the root of this configuration is. The first call with an id has it built, if need be; raises the
        Problem that this build ended with."""
        if asked := self._asked.get(id):
            if isinstance(
                asked.problem, NoSpace
            ):  # it goes away by itself: who asks again has it built again
                del self._asked[id]
            return self._state(asked)
        await self._builders[spec.root].check(spec)
        recipe = self._builders[spec.root].recipe(spec)
        if recipe is None:
            return Root(key="", builder=spec.root, state="ready")
        if manifest := self.roots.manifest(recipe.key):
            return _ready(manifest)
        build = self._build(recipe)
        self._asked[id] = build
        while len(self._asked) > ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        return self._state(build)

    async def made(self, spec: AgentSpec) -> Path | None:
        """The tree, built if it is not there: the state may be a restored one. None for the host's own."""
        recipe = self._builders[spec.root].recipe(spec)
        if recipe is None:
            return None
        if self.roots.manifest(recipe.key) is None:
            build = self._build(recipe)
            await build.over.wait()
            if build.problem:
                raise build.problem
        return self.roots.tree(recipe.key)

    def key(self, spec: AgentSpec) -> str:
        """Of the root that a cage of this configuration has; empty for the host's own, and for one that this host
        cannot make."""
        try:
            recipe = self._builders[spec.root].recipe(spec)
        except Problem:
            return ""
        return recipe.key if recipe else ""

    def doing(self, spec: AgentSpec) -> str:
        """What is being done just now for the root of this configuration."""
        build = self._going.get(self.key(spec)) if self._going else None
        return build.detail if build else ""

    async def remember(self, agent: str, spec: AgentSpec) -> None:
        """Its cage is made from this root now."""
        if key := self.key(spec):
            await asyncio.to_thread(self.roots.remember, agent, key)

    def all(self, users_of: Mapping[str, list[str]]) -> list[Root]:
        """The newest first, after those that are being built; without their packages."""
        going = [self._state(build) for build in self._going.values()]
        manifests = [manifest for key in self.roots.newest() if (manifest := self.roots.manifest(key))]
        roots = going + [msgspec.structs.replace(_ready(manifest), packages={}) for manifest in manifests]
        return [msgspec.structs.replace(root, agents=users_of.get(root.key, [])) for root in roots]

    def whole(self, root: Root) -> Root:
        """The same with its packages."""
        manifest = self.roots.manifest(root.key)
        return msgspec.structs.replace(root, packages=manifest.contents.packages) if manifest else root

    async def leftovers(self, specs: Mapping[str, AgentSpec]) -> list[Leftover]:
        """What none of these agents needs."""
        needed = {*self._going, *map(self.key, specs.values())}
        since_ms = self._clock() - self._settings.root_kept_ms
        unfinished = await self._maker.unfinished()
        return await asyncio.to_thread(leftover_roots, self.roots, needed, set(specs), unfinished, since_ms)

    async def remove(self, leftovers: Collection[Leftover]) -> None:
        for each in leftovers:
            await self._maker.remove(each.path)

    # ---- one build

    def _build(self, recipe: Recipe) -> Build:
        if recipe.key not in self._going:
            self._going[recipe.key] = build = Build(recipe)
            self._spawn(self._run(build), f"building {recipe.key}")
        return self._going[recipe.key]

    async def _run(self, build: Build) -> None:
        key = build.recipe.key
        try:
            async with self._one:
                await self._make(build)
        except (Problem, OSError) as error:
            problem = error if isinstance(error, Problem) else _of_disk(error)
            log.warning("build failed", extra={"root": key, "why": problem.message})
            build.problem, build.detail = problem, problem.message
        finally:
            del self._going[key]
            build.over.set()
        self._on_news(self._seen(build))

    async def _make(self, build: Build) -> None:
        def tell(detail: str) -> None:
            if detail != build.detail:
                build.detail = detail
                self._on_news(self._seen(build))

        await self._maker.make(build.recipe, tell)
        log.info("root built", extra={"root": build.recipe.key})

    async def _clean_up(self) -> None:
        for place in await self._maker.unfinished():
            log.info("removing a build that did not end", extra={"place": place.name})
            await self._maker.remove(place)

    def _state(self, build: Build) -> Root:
        if build.problem:
            raise build.problem
        manifest = self.roots.manifest(build.recipe.key) if build.over.is_set() else None
        return _ready(manifest) if manifest else self._seen(build)

    def _seen(self, build: Build) -> Root:
        recipe = build.recipe
        over = build.over.is_set() and not build.problem
        return Root(
            key=recipe.key,
            builder=recipe.builder,
            state="failed" if build.problem else "ready" if over else "building",
            detail="" if over else build.detail,
        )


def _of_disk(error: OSError) -> Problem:
    return (NoSpace if error.errno == errno.ENOSPC else Conflict)(f"a root could not be built: {error}")


def _ready(manifest: Manifest) -> Root:
    return Root(
        key=manifest.recipe.key,
        builder=manifest.recipe.builder,
        state="ready",
        packages=manifest.contents.packages,
        size_bytes=manifest.contents.size_bytes,
        built_ms=manifest.built_ms,
    )
