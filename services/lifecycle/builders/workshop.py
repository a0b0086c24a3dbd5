"""The builds that go on: one per root, whoever asks for it, and as many as want it wait for the same one."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from libhive import faults
from libhive.clock import Clock
from libhive.messages.lifecycle import Root
from libhive.paths import Paths, make_private
from libhive.problems import Conflict, NoSpace, Problem
from libhive.spec import AgentSpec, RootKind
from services.lifecycle.builders import Builder, enclosed
from services.lifecycle.builders.enclosed import doing, last_words, tail
from services.lifecycle.builders.recipe import Contents, Manifest, Recipe, Work
from services.lifecycle.builders.roots import TREE, Leftover, Roots, leftover_roots
from services.lifecycle.builders.users import users
from services.lifecycle.cages.bubblewrap import staging_place
from services.lifecycle.settings import Settings

log = logging.getLogger("hive.lifecycle")
Spawn = Callable[[Coroutine[Any, Any, Any], str], Any]

ASKED_MAX = 500
LOOK_SECONDS = 0.5


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
        self.roots = Roots(paths.roots)
        self._logs = paths.logs / "builds"
        self._settings, self._builders, self._clock, self._on_news = settings, builders, clock, on_news
        self._spawn: Spawn = lambda coroutine, name: asyncio.get_running_loop().create_task(
            coroutine, name=name
        )
        self._going: dict[str, Build] = {}
        self._asked: dict[str, Build] = {}
        self._places: set[Path] = set()
        self._one = asyncio.Lock()

    def begin(self, spawn: Spawn) -> None:
        self._spawn = spawn
        if unfinished := self.roots.unfinished():
            spawn(self._clean_up(unfinished), "removing builds that did not end")

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
        return await asyncio.to_thread(
            leftover_roots, self.roots, needed, set(specs), set(self._places), since_ms
        )

    async def remove(self, leftovers: Collection[Leftover]) -> None:
        for each in leftovers:
            if each.path in self.roots.unfinished():
                await enclosed.discard(self._settings, each.path)
            else:
                await asyncio.to_thread(self.roots.remove, each.path)

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
        recipe, builder = build.recipe, self._builders[build.recipe.builder]
        _expect_space(self.roots.directory, self._settings.root_space_bytes_min)
        to = users(self._settings)
        stage = staging_place([self.roots.directory, Path(recipe.source)])
        do = await builder.work(recipe, stage)
        work = self.roots.begin(recipe.key, to)
        self._places.add(work)
        try:
            contents = await self._execute(build, work, stage, do)
            builder.accept(recipe, work / TREE, contents)
            await enclosed.empty(self._settings, work)
            faults.reach("lifecycle.root-built")
            manifest = Manifest(recipe=recipe, contents=contents, built_ms=self._clock())
            await asyncio.to_thread(self.roots.finish, work, manifest)
            log.info("root built", extra={"root": recipe.key, "bytes": contents.size_bytes})
        except (Problem, OSError):
            await enclosed.discard(self._settings, work)
            raise
        finally:
            self._places.discard(work)

    async def _execute(self, build: Build, work: Path, stage: Path, do: Work) -> Contents:
        make_private(self._logs)
        path = self._logs / f"{build.recipe.key}.log"
        following = asyncio.ensure_future(self._follow(build, path))
        try:
            with path.open("wb") as output:
                said = await enclosed.run(self._settings, work, stage, do, output.fileno())
        finally:
            following.cancel()
        if said is None:
            raise _failed(build.recipe, path)
        return msgspec.json.decode(said, type=Contents)

    async def _follow(self, build: Build, path: Path) -> None:
        while True:
            if (detail := doing(tail(path))) != build.detail:
                build.detail = detail
                self._on_news(self._seen(build))
            await asyncio.sleep(LOOK_SECONDS)

    # ---- removing what enclosed users have made

    async def _clean_up(self, unfinished: Collection[Path]) -> None:
        for work in unfinished:
            log.info("removing a build that did not end", extra={"place": work.name})
            await enclosed.discard(self._settings, work)

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


def _failed(recipe: Recipe, path: Path) -> Problem:
    said = tail(path)
    what = f"the {recipe.builder} root could not be built: {last_words(said) or 'it said nothing'}"
    if "No space left on device" in said:
        return NoSpace(what)
    return Conflict(what, f"the whole log is {path.name} in logs/builds of the hive's state directory")


def _of_disk(error: OSError) -> Problem:
    return (NoSpace if error.errno == errno.ENOSPC else Conflict)(f"a root could not be built: {error}")


def _expect_space(directory: Path, bytes_min: int) -> None:
    there = next(place for place in (directory, *directory.parents) if place.exists())
    if (free := shutil.disk_usage(there).free) < bytes_min:
        raise NoSpace(
            f"a root needs {bytes_min >> 20} MiB of disk to be built in, and there are {free >> 20} MiB"
        )


def _ready(manifest: Manifest) -> Root:
    return Root(
        key=manifest.recipe.key,
        builder=manifest.recipe.builder,
        state="ready",
        packages=manifest.contents.packages,
        size_bytes=manifest.contents.size_bytes,
        built_ms=manifest.built_ms,
    )
