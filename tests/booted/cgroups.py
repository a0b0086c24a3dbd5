"""A cgroup of its own for each container, below the caller's, in every hierarchy that systemd uses: nspawn makes its own
next to whatever runs in the one it was started in."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MOUNTED = Path("/sys/fs/cgroup")
OF_VERSION_1 = ("name=systemd", "memory", "pids", "cpu", "cpuacct", "cpu,cpuacct")
EMPTY_SECONDS_MAX = 5
JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'


def enter(name: str) -> list[str]:
    """The beginning of a command that runs the rest of it there."""
    places = [parent / name for parent in _own()]
    for place in places:
        place.mkdir(exist_ok=True)
    return ["sh", "-ec", JOIN, "sh", *map(str, places), "--"]


def kill(name: str) -> None:
    """All that runs there, at once: cgroup v2 can, with or without controllers."""
    for parent in _own():
        for file in (parent / name).rglob("cgroup.kill"):
            with suppress(OSError):
                file.write_text("1")


def remove(name: str) -> None:
    for parent in _own():
        for folder, _, _ in os.walk(parent / name, topdown=False):
            _remove_one(Path(folder))


def _remove_one(folder: Path) -> None:
    """What ran in it may only just have ended: the cages of a hive do so with the container, one namespace deeper."""
    for _ in range(EMPTY_SECONDS_MAX * 10):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    folder.rmdir()


def left(name: str) -> list[Path]:
    return [parent / name for parent in _own() if (parent / name).exists()]


def _own() -> Iterator[Path]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            hybrid = MOUNTED / "unified"
            yield (hybrid if hybrid.is_dir() else MOUNTED) / path.lstrip("/")
        elif (
            controllers in OF_VERSION_1 and (mounted := MOUNTED / controllers.removeprefix("name=")).is_dir()
        ):
            yield mounted / path.lstrip("/")
