"""Copies of a database, made while it is written, each checked before it counts as one.

SQLite's online backup copies page by page from one read transaction, so it is of one instant, never in the way of a
writer, and has the same pages: `salvage` can lend a broken file the first page of its snapshot.
"""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from pysqlite3 import dbapi2 as driver

from libhive.integrity.check import Damaged, connected, fault_of
from libhive.problems import NoSpace

FREE_BYTES_MIN = 256 << 20
"""What a snapshot leaves free: the disk is first of all for new mail."""
STEP_PAGES = 1024
BYTES_PER_SECOND_MAX = 200 << 20
_PART = ".part"


def directory(database: Path) -> Path:
    return database.parent / "backups"


def newest_first(database: Path) -> list[Path]:
    found = directory(database).glob(f"{database.stem}-*Z.sqlite")
    return sorted(found, key=lambda path: path.name, reverse=True)


def taken_ms(snapshot: Path) -> int:
    """The instant in its name."""
    instant = datetime.strptime(snapshot.stem.rpartition("-")[2], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    return int(instant.timestamp() * 1000)


def take(database: Path, now_ms: int, *, free_bytes_min: int = FREE_BYTES_MIN) -> Path:
    """Raises NoSpace when the disk is short, and Damaged when the database is not whole. Blocks: run it in a thread."""
    place = directory(database)
    place.mkdir(mode=0o700, exist_ok=True)
    clear_parts(database)
    check_room(database, free_bytes_min)
    final = place / f"{database.stem}-{_stamp(now_ms)}.sqlite"
    part = final.with_name(f".{final.name}{_PART}")
    try:
        _copy(database, part)
        if fault := fault_of(part, immutable=True):
            raise Damaged(fault)
        part.rename(final)
        sync_directory(place)
    except driver.OperationalError as error:
        if getattr(error, "sqlite_errorname", "") != "SQLITE_FULL":
            raise
        raise NoSpace("the disk is full: there is no room for a snapshot of the database") from None
    finally:
        part.unlink(missing_ok=True)
    return final


def keep_newest(database: Path, count: int) -> None:
    for old in newest_first(database)[count:]:
        old.unlink(missing_ok=True)


def clear_parts(database: Path) -> None:
    """What a process that was killed in the middle of a copy has left."""
    for part in directory(database).glob(f".{database.stem}-*{_PART}"):
        part.unlink(missing_ok=True)


def check_room(database: Path, free_bytes_min: int = FREE_BYTES_MIN) -> None:
    """Raises NoSpace when a copy would leave less than that."""
    log = database.with_name(database.name + "-wal")
    wanted = sum(path.stat().st_size for path in (database, log) if path.exists())
    disk = os.statvfs(database.parent)
    if disk.f_bavail * disk.f_frsize - wanted < free_bytes_min:
        raise NoSpace(
            f"no room for a snapshot: it takes {wanted >> 20} MiB and leaves {free_bytes_min >> 20} MiB free"
        )


def sync_directory(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(database: Path, target: Path) -> None:
    """The reader's transaction stays open over all steps: else each write would begin the copy anew."""
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with connected(database) as source, connected(target) as copy:
            copy.execute("PRAGMA journal_mode = OFF").close()
            copy.execute("PRAGMA synchronous = OFF").close()
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            page_bytes = int(source.execute("PRAGMA page_size").fetchone()[0])
            source.backup(copy, pages=STEP_PAGES, progress=_Throttle(STEP_PAGES * page_bytes))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Throttle:
    def __init__(self, step_bytes: int) -> None:
        self.step_bytes, self.began, self.done = step_bytes, time.monotonic(), 0

    def __call__(self, status: int, remaining: int, total: int) -> None:
        self.done += self.step_bytes
        ahead = self.done / BYTES_PER_SECOND_MAX - (time.monotonic() - self.began)
        if ahead > 0 and remaining:
            time.sleep(ahead)


def _stamp(now_ms: int) -> str:
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    return f"{at:%Y%m%dT%H%M%S}.{now_ms % 1000:03d}Z"


def size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
