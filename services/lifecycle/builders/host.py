"""The host's own /usr is the cage's: nothing is built, and what is missing is named with the command that
mends it."""

from __future__ import annotations

from pathlib import Path

from libhive import packages
from libhive.problems import Conflict
from libhive.spec import AgentSpec, RootKind
from services.lifecycle.builders.recipe import Contents, Recipe, Work


class HostBuilder:
    kind: RootKind = "host"

    async def check(self, spec: AgentSpec) -> None:
        if missing := await packages.missing(spec.packages):
            names = ", ".join(missing)
            raise Conflict(f"this host does not have the package {names}", packages.install_hint(missing))

    def recipe(self, spec: AgentSpec) -> None:
        return None

    async def work(self, recipe: Recipe, stage: Path) -> Work:
        raise AssertionError("there is nothing to build of the host's own root")

    def accept(self, recipe: Recipe, tree: Path, contents: Contents) -> None:
        raise AssertionError("there is nothing to build of the host's own root")
