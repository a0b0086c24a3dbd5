"""Real databases, broken as disks break them: pages overwritten, headers gone, files cut or removed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from pysqlite3 import dbapi2 as driver
from sqlalchemy import Connection

from libhive.integrity import check, recovery, reserve, salvage, snapshots
from libhive.problems import Conflict, NoSpace
from libhive.sqlite import Database

MAIL = """
    CREATE TABLE mail (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, recipient TEXT NOT NULL,
        body TEXT NOT NULL, UNIQUE (id, recipient));
    CREATE TABLE reminders (id TEXT PRIMARY KEY, agent TEXT NOT NULL) WITHOUT ROWID
"""
PAGE = 4096
FREE = 1


async def put(database: Database, *numbers: int) -> None:
    def work(c: Connection) -> None:
        for number in numbers:
            row = (f"message-{number:05d}", "iris", "x" * 500)
            c.exec_driver_sql("INSERT INTO mail (id, recipient, body) VALUES (?, ?, ?)", row)
            c.exec_driver_sql("INSERT INTO reminders VALUES (?, 'iris')", (f"reminder-{number:05d}",))

    await database.write(work)


async def made(path: Path, before: int = 200, after: int = 100) -> Path:
    """A closed database whose only snapshot has the first `before` rows; its path."""
    database = Database.open(path, [MAIL])
    await put(database, *range(before))
    snapshots.take(path, 1_700_000_000_000, free_bytes_min=FREE)
    await put(database, *range(before, before + after))
    database.close()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker" / "broker.sqlite"


def names(path: Path, query: str = "SELECT id FROM mail ORDER BY seq") -> list[str]:
    with check.connected(path) as connection:
        return [row[0] for row in connection.execute(query)]


def overwrite(path: Path, page: int, content: bytes = b"\xa5" * PAGE) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(content)


def pages_of(path: Path, name: str, kind: str = "leaf") -> list[int]:
    """The pages of a table or an index; without SQLite's dbstat, by its b-tree's own pointers."""
    with check.connected(path) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
    content = path.read_bytes()

    def below(number: int) -> list[int]:
        page = content[(number - 1) * PAGE : number * PAGE]
        if page[0] in (13, 10):
            return [number]
        cells = int.from_bytes(page[3:5], "big")
        starts = [int.from_bytes(page[12 + 2 * n : 14 + 2 * n], "big") for n in range(cells)]
        children = [int.from_bytes(page[start : start + 4], "big") for start in starts]
        found = [leaf for child in [*children, int.from_bytes(page[8:12], "big")] for leaf in below(child)]
        return found if kind == "leaf" else [number, *found]

    return below(root)


def only_report(path: Path) -> tuple[Path, recovery.Report]:
    ((place, report),) = recovery.reports(path)
    return place, report


async def test_a_snapshot_is_whole_private_and_of_one_instant_while_others_write(path: Path) -> None:
    database = Database.open(path, [MAIL])
    await put(database, *range(50))
    snapshot = snapshots.take(path, 1_700_000_000_123, free_bytes_min=FREE)
    await put(database, 50)
    assert check.fault_of(snapshot, immutable=True) == ""
    assert check.counts(snapshot)["mail"] == 50
    assert snapshot.stat().st_mode & 0o777 == 0o600
    assert snapshots.taken_ms(snapshot) == 1_700_000_000_123
    assert [entry.name for entry in snapshot.parent.iterdir()] == [snapshot.name]
    database.close()


async def test_only_the_newest_snapshots_are_kept(path: Path) -> None:
    Database.open(path, [MAIL]).close()
    taken = [snapshots.take(path, number * 1000, free_bytes_min=FREE) for number in range(1, 5)]
    snapshots.keep_newest(path, 2)
    assert snapshots.newest_first(path) == [taken[3], taken[2]]


async def test_no_snapshot_is_taken_of_what_is_not_whole_or_when_the_disk_is_short(path: Path) -> None:
    await made(path)
    with pytest.raises(NoSpace, match="leaves"):
        snapshots.take(path, 1, free_bytes_min=1 << 60)
    overwrite(path, pages_of(path, "mail")[3])
    with pytest.raises(check.Damaged):
        snapshots.take(path, 2, free_bytes_min=FREE)
    assert len(list((path.parent / "backups").iterdir())) == 1


async def test_a_broken_page_is_found_at_the_start_and_what_is_missing_is_named(path: Path) -> None:
    await made(path)
    leaf = pages_of(path, "mail")
    overwrite(path, leaf[len(leaf) // 2 + 5])
    broken = path.read_bytes()

    Database.open(path, [MAIL]).close()
    assert names(path) == [f"message-{number:05d}" for number in range(200)]
    place, report = only_report(path)
    assert (place / path.name).read_bytes() == broken
    assert sorted(report.missing["mail"]) == [f"message-{number:05d}" for number in range(200, 300)]
    assert report.missing["mail"]["message-00299"]["recipient"] == "iris"
    assert sorted(report.missing["reminders"]) == [f"reminder-{number:05d}" for number in range(200, 300)]
    assert report.restored_ms == 1_700_000_000_000
    said = recovery.summary(place, report)
    assert "Missing from mail: 100" in said
    assert "message-00200" in said
    assert "and 80 more" in said

    Database.open(path, [MAIL]).close()  # once only
    assert len(recovery.set_aside(path)) == 1


async def test_rows_whose_page_is_gone_are_still_named_by_an_index(path: Path) -> None:
    await made(path)
    for page in pages_of(path, "mail"):
        overwrite(path, page)
    Database.open(path, [MAIL]).close()
    _, report = only_report(path)
    assert sorted(report.missing["mail"]) == [f"message-{number:05d}" for number in range(200, 300)]


async def test_what_can_be_named_by_nothing_is_said_by_its_numbers(path: Path) -> None:
    """Between two broken pages there are rows that are reached from neither end."""
    await made(path)
    leaf = pages_of(path, "mail")
    for page in [leaf[29], leaf[36], *pages_of(path, "sqlite_autoindex_mail_1", "all")]:
        overwrite(path, page)
    Database.open(path, [MAIL]).close()
    _, report = only_report(path)
    gaps = [sentence for sentence in report.unreadable if sentence.startswith("mail: rows ")]
    ranges = [[int(word) for word in sentence.split() if word.isdigit()] for sentence in gaps]
    assert [5 <= last - first + 1 <= 9 for first, last in ranges] == [
        True,
        True,
    ]  # a page of seven or eight rows
    lost = {f"message-{number - 1:05d}" for first, last in ranges for number in range(first, last + 1)}
    assert set(report.missing["mail"]) == {f"message-{number:05d}" for number in range(200, 300)} - lost


@pytest.mark.parametrize("header", [b"\0" * PAGE, b"\xff" * PAGE, b"#!/bin/sh\n" * 10])
async def test_a_file_without_its_first_page_is_read_with_the_one_of_its_snapshot(
    path: Path, header: bytes
) -> None:
    await made(path)
    overwrite(path, 1, header)
    Database.open(path, [MAIL]).close()
    _, report = only_report(path)
    assert "not a database" in report.fault or "malformed" in report.fault
    assert sorted(report.missing["mail"]) == [f"message-{number:05d}" for number in range(200, 300)]


@pytest.mark.parametrize("how", ["removed", "emptied", "cut"])
async def test_a_file_that_is_gone_or_cut_is_replaced(path: Path, how: str) -> None:
    await made(path)
    if how == "removed":
        path.unlink()
    else:
        os.truncate(path, 0 if how == "emptied" else path.stat().st_size // 2)
    Database.open(path, [MAIL]).close()
    assert len(names(path)) == 200
    _, report = only_report(path)
    assert bool(report.unreadable) or report.missing


async def test_a_snapshot_that_is_broken_itself_is_passed_over(path: Path) -> None:
    await made(path)
    newer = snapshots.take(path, 1_700_000_001_000, free_bytes_min=FREE)
    overwrite(newer, pages_of(newer, "mail")[3])
    overwrite(path, 1)
    Database.open(path, [MAIL]).close()
    assert len(names(path)) == 200


async def test_without_a_snapshot_it_does_not_start_and_changes_nothing(path: Path) -> None:
    database = Database.open(path, [MAIL])
    await put(database, 1)
    database.close()
    overwrite(path, 1)
    before = path.read_bytes()
    with pytest.raises(Conflict, match="no snapshot") as refused:
        Database.open(path, [MAIL])
    assert "hive-admin restore" in refused.value.hint
    assert path.read_bytes() == before
    assert not recovery.set_aside(path)


async def test_somebody_elses_database_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "transcript.sqlite"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(Exception, match="not a database"):
        Database.open(path, [MAIL])
    assert not recovery.set_aside(path)


async def test_a_large_file_is_looked_at_whole_only_when_it_was_suspected(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(path)
    overwrite(path, pages_of(path, "mail")[3])
    monkeypatch.setattr(recovery, "SMALL_BYTES_MAX", 1000)
    Database.open(path, [MAIL]).close()
    assert not recovery.set_aside(path)
    recovery.suspicion(path).touch()
    Database.open(path, [MAIL]).close()
    assert len(recovery.set_aside(path)) == 1
    assert not recovery.suspicion(path).exists()


@pytest.mark.parametrize("point", ["moved", "reported"])
async def test_a_recovery_that_was_killed_is_finished_by_the_next_start(
    path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    await made(path)
    overwrite(path, pages_of(path, "mail")[3])
    with monkeypatch.context() as broken_off:
        if point == "moved":
            broken_off.setattr(Path, "rename", _killed_at(path))
        else:
            broken_off.setattr(salvage, "compare", _killed)
        with pytest.raises(KeyboardInterrupt):
            Database.open(path, [MAIL])
    Database.open(path, [MAIL]).close()
    assert len(names(path)) == 200
    found = [report for _, report in recovery.reports(path) if report.missing]
    assert len(found) == 1
    assert len(found[0].missing["mail"]) == 100


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _killed_at(target: Path) -> object:
    real = Path.rename

    def rename(self: Path, to: Path) -> Path:
        if to == target:
            raise KeyboardInterrupt
        return real(self, to)

    return rename


def test_damage_is_told_from_a_full_disk_through_whatever_wraps_it() -> None:
    def of(name: str) -> driver.DatabaseError:
        error = driver.DatabaseError("x")
        error.sqlite_errorname = name
        return error

    assert check.is_damage(of("SQLITE_CORRUPT_INDEX"))
    assert check.is_damage(of("SQLITE_NOTADB"))
    assert not check.is_damage(of("SQLITE_FULL"))
    assert not check.is_damage(None)
    outer = ValueError("while loading")
    outer.__cause__ = of("SQLITE_CORRUPT")
    assert check.is_damage(outer)


async def test_room_is_kept_for_a_start_on_a_full_disk(path: Path) -> None:
    Database.open(path, [MAIL]).close()
    kept = reserve.reserve_of(path)
    assert kept.stat().st_blocks * 512 >= reserve.RESERVE_BYTES


async def test_a_report_reads_back(path: Path) -> None:
    await made(path)
    path.unlink()
    Database.open(path, [MAIL]).close()
    place, report = only_report(path)
    assert msgspec.json.decode((place / "report.json").read_bytes(), type=recovery.Report) == report
