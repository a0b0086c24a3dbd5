"""Putting a backup in the place of a hive's state: all of it staged and checked first, then moved in by renames.

What was there is kept beside it. A marker lies in the state directory from the first rename to the last, so that no
service starts on a mixture, and whoever restores next finishes what was broken off.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from libhive.admin import archive
from libhive.admin.backup import check_database
from libhive.integrity import recovery, snapshots
from libhive.paths import Paths, make_private
from libhive.problems import Conflict, NotAllowed
from libhive.release import how_to

KEEPERS = {"config": "approvals", "agents": "lifecycle"}
"""Trees of the state directory, and the service whose each is."""
TREES = tuple(KEEPERS)
LOCKED = (*archive.SERVICES, "dashboard")
STAGING = ".restoring-"


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    made_ms: int
    databases: dict[str, archive.Database]
    files: int
    links: int
    kept: str
    """Where what was there before lies now; empty when nothing was."""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """The marker: from where, and where what is in the way goes."""

    staging: str
    aside: str


def restore(paths: Paths, file: Path, now_ms: int, counted: Callable[[int], object]) -> Restored:
    """Raises a Problem, and has then changed nothing."""
    state = paths.state
    _make_state(state)
    with alone(paths):
        if finish(paths):
            raise Conflict(
                "a restore that had been broken off is finished now; nothing else was done",
                "if this is not what you want, restore again",
            )
        for stale in state.glob(f"{STAGING}*"):
            _remove(stale)
        stamp = f"{datetime.fromtimestamp(now_ms / 1000, UTC):%Y%m%dT%H%M%SZ}-{now_ms % 1000:03d}"
        staging, aside = state / f"{STAGING}{stamp}", state / f"before-restore-{stamp}"
        try:
            header, manifest = _stage(file, staging, counted)
            _match_services(staging, paths)
            _mark(state, Move(staging=staging.name, aside=aside.name))
        except BaseException:
            _remove(staging)
            raise
        finish(paths)
    return Restored(
        made_ms=header.made_ms,
        databases=manifest.databases,
        files=len(manifest.files) - len(manifest.databases),
        links=len(manifest.links),
        kept=str(aside) if aside.exists() else "",
    )


@contextlib.contextmanager
def alone(paths: Paths) -> Iterator[None]:
    """With nobody else at this state: neither the one who runs a hive on it, nor a service. Raises Conflict."""
    places = [paths.state / "hive.lock", *(paths.own(service) for service in LOCKED)]
    held: list[int] = []
    try:
        for place in places:
            if place.exists():
                held.append(os.open(place, os.O_RDONLY | os.O_CLOEXEC))
                fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Conflict(f"a hive runs on {paths.state}", f"stop it first: {how_to('stop')}") from None
    finally:
        for descriptor in held:
            os.close(descriptor)


def finish(paths: Paths) -> bool:
    """Moves what is staged into its place, from wherever that was broken off. False: nothing was under way."""
    marker = paths.state / recovery.RESTORING
    if not marker.exists():
        return False
    move = msgspec.json.decode(marker.read_bytes(), type=Move)
    staging, aside = paths.state / move.staging, paths.state / move.aside
    for service in archive.SERVICES:
        staged, database = staging / "databases" / f"{service}.sqlite", paths.database(service)
        if staged.exists():
            ends = (database.name + end for end in (*recovery.ENDS, ".suspect"))
            for name in (*ends, snapshots.directory(database).name):
                _put_aside(database.parent / name, aside / service / name)
            staged.rename(database)
    for tree in TREES:
        if (staging / tree).exists():
            _put_aside(paths.state / tree, aside / tree)
            (staging / tree).rename(paths.state / tree)
    os.sync()
    _remove(staging)
    marker.unlink()
    snapshots.sync_directory(paths.state)
    return True


def _put_aside(path: Path, aside: Path) -> None:
    if path.exists():
        aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.rename(aside)


def _make_state(state: Path) -> None:
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise NotAllowed(f"cannot make {state}: {error.strerror}", "choose another HIVE_STATE_DIR") from None
    if not os.access(state, os.W_OK | os.X_OK):
        raise NotAllowed(
            f"{state} is not yours to change", "restore as the user whose hive it is: sudo hive-admin ..."
        )


def _stage(
    file: Path, staging: Path, counted: Callable[[int], object]
) -> tuple[archive.Header, archive.Manifest]:
    """All of it, checked, on stable storage."""
    staging.mkdir(mode=0o700)
    for place in ("databases", *TREES):
        (staging / place).mkdir(mode=0o700)
    stage = Stage(staging)
    header, manifest = archive.read(file, stage.keep, counted)
    as_root = archive.is_roots(staging.parent)
    if header.as_root != as_root:
        whose = "root's" if header.as_root else "an ordinary user's"
        raise Conflict(
            f"this backup is of {whose} hive",
            "agents' files have owners: restore it as the same kind of user",
        )
    for service, about in manifest.databases.items():
        check_database(staging / "databases" / f"{service}.sqlite", about)
    stage.finish(manifest.links)
    os.sync()
    return header, manifest


class Stage:
    """Writes members into a fresh directory of ours, in which there is no link until the very end."""

    def __init__(self, root: Path) -> None:
        self.root, self.as_root = root, os.geteuid() == 0
        self.directories: list[tarfile.TarInfo] = []
        self.owners: dict[str, tuple[int, int]] = {}

    def keep(self, member: tarfile.TarInfo, content: archive.Readable) -> None:
        path = self.root / member.name
        if member.isdir():
            path.mkdir(mode=0o700, exist_ok=member.name in TREES)
            self.directories.append(member)
            self.owners[member.name] = member.uid, member.gid
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            while data := content.read(1 << 20):
                file.write(data)
            file.flush()
            self._own(descriptor, member)
            os.utime(descriptor, (member.mtime, member.mtime))

    def finish(self, links: dict[str, str]) -> None:
        """Links, of whoever owns the directory they lie in; then the directories' own modes, the deepest first."""
        for name, target in links.items():
            path = self.root / name
            path.symlink_to(target)
            if self.as_root:
                os.lchown(path, *self.owners[name.rpartition("/")[0]])
        for member in reversed(self.directories):
            descriptor = os.open(
                self.root / member.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
            self._own(descriptor, member)
            os.close(descriptor)

    def _own(self, descriptor: int, member: tarfile.TarInfo) -> None:
        """Its owner where that is ours to give; never set-user-id and the like, which an agent may have set."""
        if self.as_root and not member.name.startswith("databases/"):
            os.fchown(descriptor, member.uid, member.gid)
        os.fchmod(descriptor, member.mode & 0o777)


def _match_services(staging: Path, paths: Paths) -> None:
    """Each database belongs to whoever its service runs as: the owner of its directory, which is made if need be. So do
    the trees, where services have users of their own, who may have other numbers than where the backup was made."""
    state = paths.state.stat()
    for service in archive.SERVICES:
        place = paths.own(service)
        if not place.exists():
            make_private(place)
            if os.geteuid() == 0:
                os.chown(place, state.st_uid, state.st_gid)
        if os.geteuid() == 0:
            owner = place.stat()
            os.chown(staging / "databases" / f"{service}.sqlite", owner.st_uid, owner.st_gid)
    for tree, service in KEEPERS.items():
        owner = paths.own(service).stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            _give(staging / tree, owner)


def _give(tree: Path, owner: os.stat_result) -> None:
    for folder, folders, files in os.walk(tree):
        for name in (".", *folders, *files):
            os.lchown(Path(folder) / name, owner.st_uid, owner.st_gid)


def _mark(state: Path, move: Move) -> None:
    fresh = state / f".{recovery.RESTORING}"
    with fresh.open("wb") as file:
        file.write(msgspec.json.encode(move))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(state / recovery.RESTORING)
    snapshots.sync_directory(state)


def _remove(staging: Path) -> None:
    """What came out of a backup may be read-only for its owner too."""
    for directory, _, _ in os.walk(staging):
        with contextlib.suppress(OSError):
            Path(directory).chmod(0o700)
    shutil.rmtree(staging, ignore_errors=True)
