"""The roots on disk: `<state>/roots/<key>/` with its `tree/` and `manifest.json`; whole, or not there.

What is being built, and what is being removed, has a name that begins with a dot, and is nobody's root.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec

from libhive.paths import make_private
from services.lifecycle.builders.recipe import Manifest
from services.lifecycle.builders.users import Users

MANIFEST, TMP, TREE, USED = "manifest.json", "tmp", "tree", "used.json"
KEYS_PER_AGENT = 2
"""The root that an agent's cage has, and the one it had before: what a deploy may go back to."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """What no agent needs. `path` is absolute."""

    path: Path
    size_bytes: int
    why: str


class Roots:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def tree(self, key: str) -> Path:
        return self.directory / key / TREE

    def manifest(self, key: str) -> Manifest | None:
        """None when there is no such root."""
        if not key or key.startswith(".") or "/" in key or not self.tree(key).is_dir():
            return None
        try:
            return msgspec.json.decode((self.directory / key / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.DecodeError):
            return None

    def newest(self) -> list[str]:
        """The keys of all, the newest first."""
        found = {name: manifest for name in self._names() if (manifest := self.manifest(name))}
        return sorted(found, key=lambda key: (-found[key].built_ms, key))

    def begin(self, key: str, to: Users) -> Path:
        """A new place to build in, closed to everybody: its `tmp` is for the build, its `tree` for who unpacks it."""
        make_private(self.directory, 0o755)
        work = make_private(self.directory / f".{key}.{secrets.token_hex(4)}")
        tree, tmp = make_private(work / TREE, 0o755), make_private(work / TMP)
        if os.geteuid() == 0:
            os.chown(tree, to.uid, to.gid)
            os.chown(tmp, to.uids[0][1], to.gids[0][1])
        tmp.chmod(0o777)  # no other can come to it but the build's users, by a bind of it
        return work

    def finish(self, work: Path, manifest: Manifest) -> None:
        """From here on it is a root. The files of the tree are on disk already."""
        (work / TMP).rmdir()
        _write(work / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        work.chmod(0o755)
        _sync(work)
        place = self.directory / manifest.recipe.key
        if place.exists():  # it was not whole, or it would not have been built again
            self.remove(place)
        work.rename(place)
        _sync(self.directory)

    def unfinished(self) -> list[Path]:
        return [self.directory / name for name in self._names() if name.startswith(".")]

    def remove(self, place: Path) -> None:
        """First it is no root any more: a removal that is cut short leaves none that is not whole."""
        gone = (
            place if place.name.startswith(".") else place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        )
        if gone != place:
            place.rename(gone)
        shutil.rmtree(gone)

    # ---- who has which

    def remember(self, agent: str, key: str) -> None:
        """This agent's cage is made from this root now."""
        used = self.used()
        keys = [key, *(other for other in used.get(agent, []) if other != key)][:KEYS_PER_AGENT]
        if keys != used.get(agent):
            _write(self.directory / USED, msgspec.json.encode(used | {agent: keys}))

    def used(self) -> dict[str, list[str]]:
        try:
            return msgspec.json.decode((self.directory / USED).read_bytes(), type=dict[str, list[str]])
        except (OSError, msgspec.DecodeError):
            return {}

    def _names(self) -> list[str]:
        if not self.directory.is_dir():
            return []
        return sorted(place.name for place in self.directory.iterdir() if USED not in place.name)


def leftover_roots(
    roots: Roots, needed: Collection[str], agents: Collection[str], building: Collection[Path], since_ms: int
) -> list[Leftover]:
    """What may be removed. Kept are the roots that are `needed` by key, those that the cages of these `agents` have or
    had before, and those that were built since this instant: an approved deploy may be on its way to them."""
    kept = {*needed, *(key for agent, keys in roots.used().items() if agent in agents for key in keys)}
    found = [
        Leftover(path, _size(path), "a build that did not end")
        for path in roots.unfinished()
        if path not in building
    ]
    for key in roots.newest():
        manifest = roots.manifest(key)
        if manifest and key not in kept and manifest.built_ms < since_ms:
            found.append(Leftover(roots.directory / key, manifest.contents.size_bytes, "no agent needs it"))
    return found


def _size(directory: Path) -> int:
    size = 0
    for _, _, names, fd in os.fwalk(directory):
        size += sum(os.stat(name, dir_fd=fd, follow_symlinks=False).st_size for name in names)
    return size


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(0o644)
    temporary.rename(path)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
