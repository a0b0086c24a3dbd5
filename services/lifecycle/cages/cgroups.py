"""Where on this host a cage can have control groups of its own: cgroup v2 if a part of the tree was given to us, else v1.

A group lies below our own wherever that is possible, so that a limit on the hive holds for its cages as well. Its name is
made from the hive's and the agent's, so that a group whose record is lost is still known for ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from libhive.paths import Paths

CONTROLLERS = {"cpu": "cpu", "memory": "memory", "tasks": "pids"}
"""Our name of a limit -> the kernel's of what holds it."""
_SERVICES = "hive-services"
"""Below a group that was given to us: a group with controlled children may hold no process itself."""
_MOVES_MAX = 5


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A directory that one cage has to itself, and the limits it holds."""

    path: str
    version: int
    limits: list[str]

    @property
    def directory(self) -> Path:
        return Path(self.path)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree of groups, and where in it this process is."""

    version: int
    top: Path
    own: Path
    controllers: frozenset[str]


def name_of(paths: Paths, agent: str) -> str:
    hive = hashlib.sha256(os.fsencode(paths.run / "cages")).hexdigest()[:12]
    return f"hive-{hive}-{agent}"


def hierarchies(proc: Path = Path("/proc/self")) -> list[Hierarchy]:
    """The newest version first."""
    try:
        mounts = (proc / "mountinfo").read_text().splitlines()
        groups = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return []
    own = {
        frozenset(names.split(",")): path for _, names, path in (line.split(":", 2) for line in groups)
    }  # v2 has no names: {""}
    return sorted(_mounted(mounts, own), key=lambda found: -found.version)


def _mounted(mounts: list[str], own: dict[frozenset[str], str]) -> Iterator[Hierarchy]:
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, place = (_unescaped(field) for field in before.split(" ")[3:5])
        named = frozenset(options.split(","))
        for names, path in own.items():
            if names == {""} if kind == "cgroup2" else names and names <= named:
                inside = os.path.relpath(path, root)
                if not inside.startswith(".."):  # else we are outside of what is mounted here
                    version = 2 if kind == "cgroup2" else 1
                    yield Hierarchy(version, Path(place), Path(place, inside), names)


def place(paths: Paths, agent: str, trees: list[Hierarchy]) -> tuple[Group, ...]:
    """The groups that a cage of this agent is to have here: none, where we may not make any."""
    name, groups, placed = name_of(paths, agent), list[Group](), set[str]()
    for tree in trees:
        if parent := _room(tree) if tree.version == 2 else _writable(tree.own):
            has = _words(parent / "cgroup.subtree_control") if tree.version == 2 else tree.controllers
            limits = [limit for limit, controller in CONTROLLERS.items() if controller in has]
            if limits := [limit for limit in limits if limit not in placed]:
                groups.append(Group(path=str(parent / name), version=tree.version, limits=limits))
                placed.update(limits)
    return tuple(groups)


def left_over(paths: Paths, trees: list[Hierarchy]) -> Iterator[tuple[str, Group]]:
    """Every group of this hive that there is, by its agent's name, whoever made it, from wherever in the tree."""
    prefix = name_of(paths, "")
    for tree in trees:
        for directory, names, _ in os.walk(tree.top):
            for name in names:
                if name.startswith(prefix):
                    group = Group(path=str(Path(directory, name)), version=tree.version, limits=[])
                    yield name.removeprefix(prefix), group


def _room(tree: Hierarchy) -> Path | None:
    """Where a group of a cage can be made in a v2 tree: in what was given to us, or at its very top, by root."""
    if _delegated(tree.own) and _writable(tree.own):
        _step_aside(tree.own)
        return tree.own
    above = [parent for parent in (tree.own, *tree.own.parents) if parent.is_relative_to(tree.top)]
    if os.geteuid() == 0:  # it may write everywhere, and most of it is systemd's
        above = [*(parent for parent in above if _delegated(parent)), tree.top]
    return next((parent for parent in above if _writable(parent) and _controls(parent)), None)


def _step_aside(group: Path) -> None:
    """Moves every process in it, ours among them, to a group below, and lets its children be controlled."""
    with contextlib.suppress(OSError):
        aside = group / _SERVICES
        aside.mkdir(exist_ok=True)
        for _ in range(_MOVES_MAX):
            for pid in _words(group / "cgroup.procs"):
                with contextlib.suppress(ProcessLookupError):
                    (aside / "cgroup.procs").write_text(pid)
    for controller in CONTROLLERS.values():
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _delegated(group: Path) -> bool:
    """As systemd marks what it gives away."""
    for attribute in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(group, attribute) == b"1":
                return True
    return False


def _controls(group: Path) -> bool:
    return bool(_words(group / "cgroup.subtree_control") & {"memory", "pids"})


def _writable(group: Path) -> Path | None:
    may = os.access(group, os.W_OK | os.X_OK) and os.access(group / "cgroup.procs", os.W_OK)
    return group if may else None


def _words(file: Path) -> set[str]:
    try:
        return set(file.read_text().split())
    except OSError:
        return set()


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
