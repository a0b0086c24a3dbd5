"""A workshop of its own, in whose enclosure small scripts take the place of mmdebstrap."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libhive.clock import now_ms
from libhive.messages.lifecycle import Root
from libhive.paths import Paths
from libhive.problems import Conflict
from libhive.spec import AgentSpec, RootKind
from services.lifecycle.builders import builders
from services.lifecycle.builders.recipe import Contents, Output, Recipe, Work
from services.lifecycle.builders.workshop import Workshop
from services.lifecycle.settings import Settings

TREE = "mkdir -p tree/usr/bin && echo it >tree/usr/bin/it && tar -C tree -c ."
HELD = "echo 'I: waiting for the test...' >&2; until [ -e go ]; do sleep 0.02; done; "


class ScriptBuilder:
    """Its packages are nothing to it: it runs what the test says."""

    kind: RootKind = "debian"

    def __init__(self) -> None:
        self.script, self.output, self.refuses, self.began = TREE, "archive", "", 0

    async def check(self, spec: AgentSpec) -> None:
        pass

    def recipe(self, spec: AgentSpec) -> Recipe:
        return Recipe(
            builder="debian", version=0, source="test", architecture="", variant="",
            packages=tuple(sorted(spec.packages)), inputs=spec.inputs,
        )  # fmt: skip

    async def work(self, recipe: Recipe, stage: Path) -> Work:
        self.began += 1
        output: Output = "archive"
        return Work(
            argv=["sh", "-c", "mkdir tree; " + self.script],
            environ={"PATH": "/usr/bin:/bin"},
            output=output,
        )

    def accept(self, recipe: Recipe, tree: Path, contents: Contents) -> None:
        if self.refuses:
            raise Conflict(self.refuses)


class Shop(Workshop):
    """With what a test wants to know of it."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self.script, self.news = ScriptBuilder(), list[Root]()
        made = dict(builders(settings)) | {"debian": self.script}
        super().__init__(paths, settings, made, now_ms, self.news.append)
        self.paths, self.settings = paths, settings

    async def built(self, id: str, *packages: str) -> Root:
        """Raises the Problem that it ended with."""
        async with asyncio.timeout(30):
            while (root := await self.prepare(id, spec(*packages))).state != "ready":
                await asyncio.sleep(0.02)
        return root

    async def place(self) -> Path:
        """Where the build that goes on may write."""
        async with asyncio.timeout(30):
            while not (found := list(self.paths.roots.glob(".*/tmp/tree"))):
                await asyncio.sleep(0.02)
        return found[0].parent


def spec(*packages: str, inputs: str = "") -> AgentSpec:
    return AgentSpec(root="debian", packages=list(packages), inputs=inputs)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    root = Path(tempfile.mkdtemp(prefix="hive-", dir="/tmp"))  # 0700, as a home is
    yield Shop(Paths(run=root / "run", state=root / "state"), Settings(root_space_bytes_min=1 << 20))
    await asyncio.to_thread(shutil.rmtree, root)
