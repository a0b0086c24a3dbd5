"""What a root is made from, and what came of it."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from libhive.spec import RootKind

KEY_HEX_DIGITS = 24
Output = Literal["archive", "nothing"]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what is in a root. The same recipe is the same root, whoever asks for it."""

    builder: RootKind
    version: int
    """Of the builder: what it does with the rest."""
    source: str
    """The suite of a distribution, or where the packages' definitions are."""
    architecture: str
    variant: str
    packages: tuple[str, ...]
    inputs: str

    @property
    def key(self) -> str:
        digest = hashlib.sha256(msgspec.json.encode(self)).hexdigest()
        return f"{self.builder}-{digest[:KEY_HEX_DIGITS]}"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a builder wants to be executed."""

    argv: list[str]
    environ: dict[str, str]
    output: Output
    """What it says on its standard output: a tar archive of the tree, or nothing of any meaning."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One build, as the enclosure gets it."""

    do: Work
    place: str
    """The directory that the build may write to, and the only one."""
    stage: str
    """Where the build sees it, as its working directory: what all of its users can reach."""
    tree: str
    """Where an archive is unpacked, outside of the enclosure."""
    uid: int
    """Who unpacks it, and so owns what was built."""
    gid: int
    uids: list[tuple[int, int, int]]
    """First inside, first outside, how many."""
    gids: list[tuple[int, int, int]]
    parent: int
    """The build ends with this process."""


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    packages: dict[str, str] = {}
    size_bytes: int = 0


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded of a root, beside it."""

    recipe: Recipe
    contents: Contents
    built_ms: int
