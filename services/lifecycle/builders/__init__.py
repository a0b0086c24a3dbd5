"""What a cage has for its `/usr`: siblings behind one small interface. Which one is used stands in the agent's
configuration (`root`), and what there is to build in `packages`.

    recipe.py   what decides what is in a root, its key      enclosure.py  one build, in a process of its own
    users.py    whom a build runs as                         tree.py       what may be in a finished tree
    roots.py    the roots on disk                            workshop.py   the builds that go on
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from libhive.spec import AgentSpec, RootKind
from services.lifecycle.builders.debian import DebianBuilder
from services.lifecycle.builders.host import HostBuilder
from services.lifecycle.builders.nix import NixBuilder
from services.lifecycle.builders.recipe import Contents, Recipe, Work
from services.lifecycle.settings import Settings

__all__ = ["Builder", "builders"]


class Builder(Protocol):
    @property
    def kind(self) -> RootKind: ...

    async def check(self, spec: AgentSpec) -> None:
        """Raises the Problem that is in the way of this configuration, as far as it can be known before the build."""

    def recipe(self, spec: AgentSpec) -> Recipe | None:
        """What the root of this configuration is made from; None where nothing has to be made. Raises a Problem for
        what this host can make no root of."""

    async def work(self, recipe: Recipe, stage: Path) -> Work:
        """What is to be executed; `stage` is its working directory, and empty. Raises a Problem that says what
        this host lacks."""

    def accept(self, recipe: Recipe, tree: Path, contents: Contents) -> None:
        """Raises a Problem for a tree that is not what was asked for, or that no agent could live in."""


def builders(settings: Settings) -> Mapping[RootKind, Builder]:
    return {"debian": DebianBuilder(), "host": HostBuilder(), "nix": NixBuilder(settings.nixpkgs)}
