"""What happens to a service's database before it is opened: is it whole, and if not, what takes its place.

A damaged one is set aside, never changed and never deleted; the newest snapshot that is whole is put in its place, and
a report beside the damaged one names what the snapshot does not have. A process killed in the middle of this leaves a
missing file or a missing report, and the next start goes on from there. Without a snapshot the service does not start:
an empty database would look like a hive in which nothing ever happened.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from libhive import redo
from libhive.integrity import reserve, salvage, snapshots
from libhive.integrity.check import DatabaseError, fault_of
from libhive.problems import Conflict

SMALL_BYTES_MAX = 64 << 20
"""Up to here the whole file is looked at before the service starts; a larger one while it serves."""
NAMES_SAID_MAX = 20
ENDS = ("", "-wal", "-shm", redo.END)
RESTORING = "restoring"
"""In the state directory while a restore puts its files in place: what lies there then is of two times."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    database: str
    fault: str
    found_ms: int
    restored_from: str
    restored_ms: int
    """The instant of the snapshot that took its place."""
    missing: dict[str, salvage.Found] = {}
    unreadable: list[str] = []


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Kept beside a database that is set aside, from before it is: what the report begins with."""

    fault: str
    found_ms: int
    restored_from: str


def ensure(database: Path) -> None:
    """Before it is opened, with nobody else at it. Raises Conflict when it is damaged and nothing can take its place.

    Only of a service's own, which lies in a directory of its name: any other is its owner's to mend.
    """
    if database.parent.name != database.stem:
        return
    if (database.parent.parent / RESTORING).exists():
        raise Conflict("a restore was broken off here", "finish it: hive-admin restore FILE")
    reserve.settle(database)
    if fault := _fault(database):
        _replace(database, fault)
    suspicion(database).unlink(missing_ok=True)
    report_all(database, SMALL_BYTES_MAX)


def report_all(database: Path, bytes_max: int) -> None:
    """Writes what reports are still missing, of damaged files up to that size: a large one takes half a minute, in
    which its service can serve."""
    for place in set_aside(database):
        if not (place / "report.json").exists() and snapshots.size(place / database.name) <= bytes_max:
            _report(database, place)


def suspicion(database: Path) -> Path:
    """There when a running service has met damage: the next start then looks at the whole file, however large."""
    return database.with_name(database.name + ".suspect")


def set_aside(database: Path) -> list[Path]:
    """Every damaged one that nobody has removed, oldest first."""
    return sorted(place for place in database.parent.glob(f"{database.name}.corrupt-*") if place.is_dir())


def reports(database: Path) -> list[tuple[Path, Report]]:
    written = [place for place in set_aside(database) if (place / "report.json").is_file()]
    return [
        (place, msgspec.json.decode((place / "report.json").read_bytes(), type=Report)) for place in written
    ]


def told(place: Path) -> Path:
    """There once the operator has the report in her inbox."""
    return place / "told"


def summary(place: Path, report: Report) -> str:
    """For a person: what happened, and what is missing, by its ids as far as they fit."""
    began = _instant(report.restored_ms)
    lines = [
        f"The database {report.database} was damaged ({report.fault}).",
        f"It is kept in {place}. The snapshot of {began} is in its place: what was changed after that is as it was then.",
    ]
    for table, found in report.missing.items():
        lines.append(f"Missing from {table}: {len(found)}")
        lines += [f"  {name}{_known(found[name])}" for name in sorted(found)[:NAMES_SAID_MAX]]
        if len(found) > NAMES_SAID_MAX:
            lines.append(f"  and {len(found) - NAMES_SAID_MAX} more, in report.json there")
    lines += [f"Not even readable: {sentence}" for sentence in report.unreadable[:NAMES_SAID_MAX]]
    if not report.missing and not report.unreadable:
        lines.append("No row of it is missing from the snapshot.")
    return "\n".join(lines)


def _known(columns: dict[str, str]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in columns.items())})" if columns else ""


def _fault(database: Path) -> str:
    has_snapshots = bool(snapshots.newest_first(database))
    if not database.exists() or not database.stat().st_size:
        return "the file is gone or empty" if has_snapshots else ""
    deep = database.stat().st_size <= SMALL_BYTES_MAX or suspicion(database).exists()
    try:
        return fault_of(database, deep=deep)
    except DatabaseError:  # not the file's own fault: whoever opens it is told
        return ""


def _replace(database: Path, fault: str) -> None:
    log = logging.getLogger(f"hive.{database.stem}")
    chosen = _newest_whole(database)
    if chosen is None:
        raise Conflict(
            f"{database} is damaged ({fault}), and there is no snapshot of it to put in its place",
            f"restore a backup: hive-admin restore FILE; or, to begin with nothing: mv {database} {database}.damaged",
        )
    now_ms = time.time_ns() // 1_000_000
    fresh = database.with_name(f".{database.name}.restored")
    was_moved = _copied_or_moved(chosen, fresh)
    place = database.with_name(
        f"{database.name}.corrupt-{_instant(now_ms).replace(':', '')}-{now_ms % 1000:03d}"
    )
    place.mkdir(mode=0o700)
    finding = Finding(fault=fault, found_ms=now_ms, restored_from=chosen.name)
    _write(place / "found.json", msgspec.json.encode(finding))
    for end in ENDS:
        if (part := database.with_name(database.name + end)).exists():
            part.rename(place / part.name)
    fresh.rename(database)
    snapshots.sync_directory(database.parent)
    log.critical(
        "the database was damaged; the newest snapshot is in its place",
        extra={"fault": fault, "kept": place, "snapshot": chosen.name, "last_one": was_moved},
    )


def _newest_whole(database: Path) -> Path | None:
    for snapshot in snapshots.newest_first(database):
        try:
            if not fault_of(snapshot, immutable=True):
                return snapshot
        except DatabaseError:
            continue
    return None


def _copied_or_moved(snapshot: Path, fresh: Path) -> bool:
    """Copied; on a full disk the snapshot itself is taken. Says whether it was."""
    fresh.unlink(missing_ok=True)
    try:
        _copy(snapshot, fresh)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        snapshot.rename(fresh)
        return True
    return False


def _copy(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as bytes_of, os.fdopen(descriptor, "wb") as into:
        shutil.copyfileobj(bytes_of, into, 1 << 20)
        into.flush()
        os.fsync(descriptor)


def _report(database: Path, place: Path) -> None:
    """Compared with what is served now; on a disk too full for it, a later start does it."""
    log = logging.getLogger(f"hive.{database.stem}")
    try:
        finding = msgspec.json.decode((place / "found.json").read_bytes(), type=Finding)
        loss = salvage.compare(place / database.name, database)
        report = Report(
            database=database.stem,
            fault=finding.fault,
            found_ms=finding.found_ms,
            restored_from=finding.restored_from,
            restored_ms=snapshots.taken_ms(Path(finding.restored_from)),
            missing=loss.missing,
            unreadable=loss.unreadable,
        )
        _write(place / "report.json", msgspec.json.format(msgspec.json.encode(report)))
    except (OSError, ValueError, DatabaseError) as error:
        log.error("what the damaged database had cannot be compared: %s", error, extra={"kept": place})


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    snapshots.sync_directory(path.parent)


def _instant(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
