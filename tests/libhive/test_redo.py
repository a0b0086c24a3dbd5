from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import pysqlite3.dbapi2
import pytest

from libhive import redo, sqlite, transactions
from libhive.integrity import recovery, salvage
from libhive.problems import NoSpace
from libhive.redo import END, Change, RedoLog
from libhive.sqlite import Database
from libhive.transactions import Transactions

MIGRATIONS = ("CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER)", redo.TABLE)
PUT = "INSERT INTO t (id, n) VALUES (?, ?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hive" / "hive.sqlite"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    database = opened(path)
    yield database
    database.close()


def opened(path: Path) -> Database:
    return Database.open(path, MIGRATIONS, keeps_redo=True)


def put(id: str, n: int = 1) -> list[Change]:
    return [(PUT, (id, n))]


def nothing(_: None) -> None: ...


def ids(database: Database) -> list[str]:
    return [row[0] for row in database.read(lambda c: sqlite.rows(c, "SELECT id FROM t ORDER BY id"))]


def in_file(path: Path) -> list[str]:
    """What somebody sees who is not the service."""
    connection = pysqlite3.dbapi2.connect(f"file:{path}?mode=ro", uri=True)
    found = [row[0] for row in connection.execute("SELECT id FROM t ORDER BY id")]
    connection.close()
    return found


def ends_of(database: Database) -> list[Exception]:
    """What it ends the process for."""
    ended: list[Exception] = []
    database.on_broken = ended.append
    return ended


def crash(database: Database) -> None:
    """Lets go of the files, as the end of the process would, with nothing brought to its end."""
    if database._driver.in_transaction:
        database._driver.execute("ROLLBACK")
    database._engine.dispose()
    database._writer.close()


# ---- the log


@pytest.fixture
def log(tmp_path: Path) -> RedoLog:
    log = RedoLog.open(tmp_path / "x.sqlite")
    assert log is not None
    return log


def again(tmp_path: Path) -> RedoLog:
    log = RedoLog.open(tmp_path / "x.sqlite")
    assert log is not None
    return log


def test_records_are_found_again_in_their_order(tmp_path: Path, log: RedoLog) -> None:
    for name in ("a", "b", "c"):
        log.append(redo.payload_of(put(name)))
    assert log.number == 3
    found = again(tmp_path)
    assert [rows for _, rows in found.recover(1, 0)] == [[("b", 1)], [("c", 1)]]
    assert found.number == 3
    found.append(redo.payload_of(put("d")))
    assert [rows for _, rows in again(tmp_path).recover(3, 0)] == [[("d", 1)]]


def test_a_record_that_is_not_whole_ends_the_log(tmp_path: Path, log: RedoLog) -> None:
    for name in ("a", "b", "c"):
        log.append(redo.payload_of(put(name)))
    file, size = tmp_path / "x.sqlite-redo", log._at // 3
    data = bytearray(file.read_bytes())
    for at in range(size, 2 * size):  # any byte of the second one
        torn = data.copy()
        torn[at] ^= 0x10
        file.write_bytes(torn)
        assert [rows for _, rows in again(tmp_path).recover(0, 0)] == [[("a", 1)]], at


def test_what_is_left_of_an_older_time_is_no_record(tmp_path: Path, log: RedoLog) -> None:
    for name in ("a", "b", "c"):
        log.append(redo.payload_of(put(name)))
    log.settled(3)
    assert again(tmp_path).recover(3, 0) == []
    log.append(redo.payload_of(put("d")))  # b and c still stand behind it
    found = again(tmp_path)
    assert [rows for _, rows in found.recover(3, 0)] == [[("d", 1)]]
    assert found.number == 4


def test_it_goes_on_in_the_other_half_while_sqlite_takes_what_is_in_the_first(tmp_path: Path) -> None:
    """Whatever fits, at any instant of that: what SQLite does not have is found, and nothing else."""
    for seed in range(60):
        (tmp_path / f"x.sqlite{END}").write_bytes(bytes(1 << 12))
        log, random = again(tmp_path), Random(seed)
        written, settled = list[str](), 0
        for _ in range(80):
            name = f"{len(written):03}" + "x" * random.randrange(1 << random.randrange(11))
            payload = redo.payload_of(put(name))
            if log.has_room(payload):
                log.append(payload)
                written.append(name)
            if random.random() < 0.4:
                settled = random.randint(settled, len(written))
                log.settled(settled)
            found = again(tmp_path)
            assert [id for _, rows in found.recover(settled, 0) for id, _ in rows] == written[settled:]
            assert found.number == len(written)
            if random.random() < 0.2:  # as after a crash
                log = found
        assert len(written) > 30


def test_half_of_it_is_room_for_one_record(log: RedoLog) -> None:
    half = log.size // 2
    whole = redo.payload_of(put("x" * (half - redo._HEAD.size - 60)))
    room = half - redo._HEAD.size - len(whole)
    most = redo.payload_of(put("x" * (half - redo._HEAD.size - 60 + room)))
    assert redo._HEAD.size + len(most) == half
    assert not log.has_room(most + b"x")
    for _ in range(2):
        assert log.has_room(most)
        log.append(most)
    assert not log.has_room(redo.payload_of(put("a")))
    log.settled(1)
    assert log.has_room(most)
    log.append(most)
    log.settled(3)
    assert log.has_room(most)


def test_a_log_that_does_not_follow_the_database_is_left_alone(tmp_path: Path, log: RedoLog) -> None:
    """Somebody has put an older file in the database's place."""
    log.number = 7
    log.append(redo.payload_of(put("h")))
    found = again(tmp_path)
    assert found.recover(3, 0) == []
    assert found.number == 3


def test_no_log_is_begun_on_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redo, "FREE_BYTES_MIN", 1 << 62)
    assert RedoLog.open(tmp_path / "x.sqlite") is None
    assert list(tmp_path.iterdir()) == []


# ---- a database that keeps one


async def test_what_is_appended_is_read_at_once_and_in_the_file_a_little_later(
    database: Database, path: Path
) -> None:
    await database.append(put("a"), nothing)
    assert in_file(path) == []
    assert ids(database) == ["a"]
    assert in_file(path) == []
    await database.append(put("b"), nothing)
    database.settle()
    assert in_file(path) == ["a", "b"]


async def test_what_was_appended_survives_the_end_of_the_process(path: Path) -> None:
    """Again and again: with what had been read or settled before, and what had not."""
    for life in range(6):
        database = opened(path)
        assert ids(database) == [f"{number}{half}" for number in range(life) for half in "ab"]
        await database.append(put(f"{life}a"), nothing)
        if life % 3 == 1:
            assert f"{life}a" in ids(database)
        if life % 3 == 2:
            database.settle()
        await database.append(put(f"{life}b"), nothing)
        crash(database)


async def test_writes_and_appends_keep_their_order(database: Database) -> None:
    await database.append(put("a"), nothing)
    first = database.append(put("b"), nothing)
    writing = database.write(lambda c: sqlite.driver(c).execute("UPDATE t SET n = n + 1").rowcount)
    assert not database.takes_changes, "it may depend on what the write does"
    last = database.append(put("c"), nothing)
    await first, await last
    assert await writing == 2
    assert database.takes_changes
    rows = database.read(lambda c: sqlite.rows(c, "SELECT id, n FROM t ORDER BY id"))
    assert [tuple(row) for row in rows] == [("a", 2), ("b", 2), ("c", 1)]


async def test_a_write_that_fails_after_it_has_changed_something_takes_no_append_with_it(
    database: Database, path: Path
) -> None:
    def half(c: object) -> None:
        sqlite.driver(c).execute("DELETE FROM t")  # type: ignore[arg-type]
        raise ValueError("planned")

    await database.append(put("a"), nothing)
    appended, failing = database.append(put("b"), nothing), database.write(half)
    await appended
    with pytest.raises(ValueError, match="planned"):
        await failing
    assert in_file(path) == ["a", "b"]


async def test_a_log_that_is_full_begins_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redo, "BYTES", 1 << 12)
    monkeypatch.setattr(redo, "PIECE_BYTES", 1 << 12)
    database = opened(path)
    names = [f"{number:03}" + "x" * 500 for number in range(40)]
    for name in names:
        await database.append(put(name), nothing)
    await database.append(put("y" * 10_000), nothing)  # more than it holds
    assert path.with_name("hive.sqlite-redo").stat().st_size == 1 << 12
    crash(database)
    database = opened(path)
    assert ids(database) == [*names, "y" * 10_000]
    database.close()


class Hand:
    """Holds the thread that brings changes into SQLite, before it does anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self._let_go = threading.Event(), threading.Event()
        right = Transactions._settle_aside

        def held(*arguments: Any) -> None:
            self.reached.set()
            assert self._let_go.wait(20)
            right(*arguments)

        monkeypatch.setattr(Transactions, "_settle_aside", held)

    async def take(self, database: Database) -> None:
        if database._settling:
            database._settling.cancel()
        database._settle_now()
        await asyncio.to_thread(self.reached.wait, 20)
        assert database.transactions.is_aside

    def open(self, seconds: float = 0.0) -> None:
        threading.Timer(seconds, self._let_go.set).start()


async def test_more_is_appended_while_sqlite_takes_what_was(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Hand(monkeypatch)
    await database.append(put("a"), nothing)
    await hand.take(database)
    assert database.takes_changes
    await database.append(put("b"), nothing)
    assert in_file(path) == []
    hand.open()
    while in_file(path) != ["a", "b"]:
        await asyncio.sleep(0.01)  # b a little later, by itself


@pytest.mark.parametrize("how", ["read", "write", "settle", "along"])
async def test_who_wants_sqlite_meanwhile_waits_and_sees_all(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    hand = Hand(monkeypatch)
    await database.append(put("a"), nothing)
    await hand.take(database)
    await database.append(put("b"), nothing)
    hand.open(0.05)

    def count(c: object) -> int:
        return int(sqlite.driver(c).execute("SELECT count(*) FROM t").fetchone()[0])  # type: ignore[arg-type]

    if how == "read":
        assert ids(database) == ["a", "b"]
    elif how == "settle":
        database.settle()
        assert in_file(path) == ["a", "b"]
    else:
        assert await (database.write if how == "write" else database.write_along)(count) == 2
        assert in_file(path) == ["a", "b"]


async def test_what_another_thread_was_about_to_take_survives_the_end_of_the_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = opened(path)
    with monkeypatch.context() as held:
        hand = Hand(held)
        await database.append(put("a"), nothing)
        await hand.take(database)
        await database.append(put("b"), nothing)
        copy = path.with_name("crashed.sqlite")  # as the files are at this instant
        for end in ("", "-wal", redo.END):
            shutil.copyfile(f"{path}{end}", f"{copy}{end}")
        hand.open()
        database.close()
    assert in_file(path) == ["a", "b"]
    for file in (copy, path):
        database = opened(file)
        assert ids(database) == ["a", "b"]
        database.close()


async def test_a_disk_that_is_full_for_the_other_thread_is_tried_again(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "NO_SPACE_SECONDS", 0.01)
    await database.append(put("a"), nothing)
    database.settle()
    pages = sqlite.rows(database._writer, "PRAGMA page_count")[0][0]
    database._driver.execute(f"PRAGMA max_page_count = {pages}")
    await database.append(put("b" * 100_000), nothing)
    database._settle_now()
    while not database.transactions.fell_behind:
        await asyncio.sleep(0.001)
    await database.append(put("c"), nothing)
    assert in_file(path) == ["a"]
    with pytest.raises(NoSpace):
        database.settle()
    database._driver.execute("PRAGMA max_page_count = 1000000")
    while in_file(path) != ["a", "b" * 100_000, "c"]:
        await asyncio.sleep(0.01)


async def test_a_full_disk_is_not_tried_without_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much there is to be brought into SQLite."""
    monkeypatch.setattr(sqlite, "NO_SPACE_SECONDS", 0.1)
    monkeypatch.setattr(transactions, "LATER_BYTES_MAX", 10)
    tries: list[int] = []

    def full(*_: object) -> None:
        tries.append(1)
        _no_room(database.transactions)

    with monkeypatch.context() as failing:
        failing.setattr(redo, "note_upto", full)
        for number in range(20):
            await database.append(put(f"{number}"), nothing)
            await asyncio.sleep(0.02)
    assert 1 < len(tries) < 10
    while database.is_behind:
        await asyncio.sleep(0.01)


async def test_a_disk_that_fails_for_the_other_thread_ends_the_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = opened(path)
    ended = ends_of(database)
    with monkeypatch.context() as failing:
        failing.setattr(redo, "note_upto", _io_error)
        await database.append(put("a"), nothing)
        database._settle_now()
        while not ended:
            await asyncio.sleep(0.001)
    with pytest.raises(pysqlite3.dbapi2.OperationalError, match="I/O"):
        await database.append(put("b"), nothing)
    database.close()
    assert in_file(path) == []
    database = opened(path)
    assert ids(database) == ["a"]
    database.close()


def _io_error(*_: object) -> None:
    raise pysqlite3.dbapi2.OperationalError("disk I/O error")


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
async def test_what_the_other_thread_could_not_be_given_is_not_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    database = opened(path)
    ended = ends_of(database)
    await database.append(put("a"), nothing)
    database.transactions.fold = _fail_with(error)
    database._settle_now()
    assert [type(one) for one in ended] == [error]
    with pytest.raises(error):
        await database.write(lambda c: None)
    database.close()
    database = opened(path)
    assert ids(database) == ["a"]
    database.close()


async def test_a_disk_that_fails_for_the_other_thread_is_told_though_a_reader_hears_of_it_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = opened(path)
    ended = ends_of(database)
    with monkeypatch.context() as failing:
        failing.setattr(redo, "note_upto", _io_error)
        hand = Hand(failing)
        await database.append(put("a"), nothing)
        await hand.take(database)
        along = database.write_along(lambda c: None)
        hand.open()
        with pytest.raises(pysqlite3.dbapi2.OperationalError, match="I/O"):
            ids(database)
    assert len(ended) == 1
    with pytest.raises(pysqlite3.dbapi2.OperationalError, match="I/O"):
        await along
    database.close()


async def test_what_a_reader_took_back_is_settled_all_the_same(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SETTLE_SECONDS", 0.01)
    hand = Hand(monkeypatch)
    await database.append(put("a"), nothing)
    await hand.take(database)
    await database.append(put("b"), nothing)
    hand.open()
    assert ids(database) == ["a", "b"]
    while in_file(path) != ["a", "b"] or not database.transactions.is_settled:
        await asyncio.sleep(0.01)


async def test_nobody_waits_for_a_thread_because_an_earlier_one_has_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.append(put("a"), nothing)
    earlier = database.transactions.hand_over(database._beside)
    database.transactions.take_back()
    hand = Hand(monkeypatch)
    await database.append(put("b"), nothing)
    await hand.take(database)
    database._handed_back(earlier)
    assert database.transactions.is_aside
    hand.open()


async def test_what_joins_a_transaction_is_done_though_there_is_always_something_to_settle(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SETTLE_SECONDS", 0.001)
    along = database.write_along(lambda c: sqlite.driver(c).execute("SELECT count(*) FROM t").fetchone()[0])
    number = 0
    while not along.done():
        await database.append(put(f"{number}"), nothing)
        number += 1
    assert await along > 0


async def test_many_rows_of_one_statement_come_to_the_same(database: Database, path: Path) -> None:
    again = "INSERT INTO t (id, n) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
    names = [f"{number:03}" for number in range(2 * redo.ROWS + 5)]
    for statement in (PUT, again):
        await database.append([(statement, (name, int(name))) for name in names], nothing)
    more = "INSERT INTO t (id, n) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET n = n + ?"
    await database.append([(more, (name, 0, 0)) for name in names], nothing)
    await database.append([("UPDATE t SET n = n + ? WHERE id = ?", (1, name)) for name in names], nothing)
    database.settle()
    rows = database.read(lambda c: sqlite.rows(c, "SELECT id, n FROM t ORDER BY id"))
    assert [tuple(row) for row in rows] == [(name, int(name) + 1) for name in names]


async def test_what_joins_a_transaction_is_done_without_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SETTLE_SECONDS", 0.01)
    done = database.write_along(lambda c: sqlite.driver(c).execute("SELECT 7").fetchone()[0])
    assert await done == 7
    commits: list[str] = []
    database.on_commit = lambda: commits.append("one")
    along = database.write_along(lambda c: None)
    await database.write(lambda c: None)
    await along
    assert commits == ["one"]


async def test_a_full_disk_keeps_what_was_confirmed_and_refuses_the_rest(
    database: Database, path: Path
) -> None:
    await database.append(put("a"), nothing)
    database.settle()
    pages = sqlite.rows(database._writer, "PRAGMA page_count")[0][0]
    database._driver.execute(f"PRAGMA max_page_count = {pages}")
    await database.append(put("b" * 100_000), nothing)
    with pytest.raises(NoSpace):
        database.settle()
    with pytest.raises(NoSpace):
        await database.write(lambda c: None)
    assert ids(database) == ["a"], "reading goes on, with what SQLite has"
    database._driver.execute("PRAGMA max_page_count = 1000000")
    database.settle()
    assert ids(database) == in_file(path) == ["a", "b" * 100_000]


async def test_nothing_is_appended_where_the_disk_is_nearly_full(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FREE_BYTES_MIN", 1 << 62)
    assert not database.takes_changes


async def test_a_start_on_a_full_disk_waits_with_what_was_confirmed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = opened(path)
    await database.append(put("a"), nothing)
    crash(database)
    with monkeypatch.context() as full:
        full.setattr(Transactions, "_commit", _no_room)
        database = opened(path)
        assert database.is_behind
        assert not database.takes_changes, "nobody knows what they are"
        assert ids(database) == ["a"]
        assert not database.takes_changes
    await database.write(lambda c: None)
    assert database.takes_changes
    assert in_file(path) == ["a"]
    database.close()


def _no_room(self: Transactions) -> None:
    raise pysqlite3.dbapi2.OperationalError("database or disk is full")


async def test_a_confirmed_change_that_cannot_be_made_ends_the_process(database: Database) -> None:
    """It would be a bug; what was confirmed is not passed over in silence."""
    ended = ends_of(database)
    await database.append(put("a"), nothing)
    await database.append(put("a"), nothing)
    database._settle_now()
    while not ended:
        await asyncio.sleep(0.001)
    assert "UNIQUE" in str(ended)
    with pytest.raises(pysqlite3.dbapi2.IntegrityError):
        await database.write(lambda c: None)


@pytest.mark.parametrize("error", [MemoryError, pysqlite3.dbapi2.DatabaseError, KeyError])
async def test_no_failure_to_run_it_counts_as_done(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    database = opened(path)
    await database.append(put("a"), nothing)
    with monkeypatch.context() as failing:
        failing.setattr(redo, "replay", _fail_with(error))
        with pytest.raises(error):
            ids(database)
    database.close()
    database = opened(path)
    assert ids(database) == ["a"]
    database.close()


@pytest.mark.parametrize("error", [MemoryError, pysqlite3.dbapi2.DatabaseError, KeyError])
async def test_a_failure_to_run_it_ends_the_process_and_leaves_nobody_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    database = opened(path)
    ended = ends_of(database)
    await database.append(put("a"), nothing)
    monkeypatch.setattr(redo, "replay", _fail_with(error))
    with pytest.raises(error):
        await database.write(lambda c: None)
    assert [type(one) for one in ended] == [error]
    with pytest.raises(error):
        await database.append(put("b"), nothing)
    database.close()
    monkeypatch.undo()
    database = opened(path)
    assert ids(database) == ["a"]
    database.close()


def _fail_with(error: type[Exception]) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error("planned")

    return fail


async def test_who_fell_behind_is_told_when_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = opened(path)
    told: list[str] = []
    database.transactions.on_caught_up = lambda: told.append("caught up")
    await database.append(put("a"), nothing)
    database.settle()
    await database.append(put("b"), nothing)
    with monkeypatch.context() as full:
        full.setattr(Transactions, "_commit", _no_room)
        with pytest.raises(NoSpace):
            database.settle()
    assert told == []
    database.settle()
    assert told == ["caught up"]
    database.close()


async def test_a_batch_that_runs_again_has_not_fallen_behind(database: Database) -> None:
    """Anybody can make one fail; nobody need look at everything anew for that."""
    told: list[str] = []
    database.transactions.on_caught_up = lambda: told.append("caught up")

    def half(c: object) -> None:
        sqlite.driver(c).execute("DELETE FROM t")  # type: ignore[arg-type]
        raise ValueError("planned")

    await database.append(put("a"), nothing)
    with pytest.raises(ValueError, match="planned"):
        await database.write(half)
    assert ids(database) == ["a"]
    assert told == []


async def test_a_log_of_another_database_does_no_harm(path: Path) -> None:
    """The database was moved away, to begin with nothing, and its log was not."""
    database = opened(path)
    for number in range(6):
        await database.append(put(f"old {number}"), nothing)
    crash(database)
    for part in path.parent.glob("hive.sqlite*"):
        if not part.name.endswith(redo.END):
            part.unlink()
    for life in range(3):
        database = opened(path)
        assert ids(database) == [f"new {number}" for number in range(life)]
        await database.append(put(f"new {life}"), nothing)
        crash(database)


async def test_without_a_log_everything_goes_through_sqlite(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_quota(*_: object) -> None:
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(redo, "_write_zeros", no_quota)
    database = opened(path)
    assert not database.takes_changes
    assert [part.name for part in path.parent.iterdir() if END in part.name] == []
    await database.write(lambda c: sqlite.driver(c).execute(*put("a")[0]))
    assert in_file(path) == ["a"]
    database.close()


async def test_an_older_store_begins_to_keep_one(path: Path) -> None:
    Database.open(path, MIGRATIONS[:1]).close()
    database = opened(path)
    await database.append(put("a"), nothing)
    crash(database)
    database = opened(path)
    assert ids(database) == ["a"]
    database.close()


# ---- what else looks at the files


async def test_what_only_the_log_has_is_named_among_what_is_missing(path: Path) -> None:
    database = opened(path)
    await database.append(put("settled"), nothing)
    database.settle()
    await database.append(put("appended"), nothing)
    crash(database)
    whole = path.with_name("whole.sqlite")
    Database.open(whole, MIGRATIONS).close()
    assert set(salvage.compare(path, whole).missing["t"]) == {"settled", "appended"}


def test_what_both_halves_have_is_looked_at_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    (tmp_path / f"x.sqlite{END}").write_bytes(bytes(1 << 12))
    log = again(tmp_path)
    for number in range(1, 8):  # three in each half
        if number == 7:
            log.settled(3)
        log.append(redo.payload_of(put(f"{number}" + "x" * 550)))
    assert [row[0][0] for _, rows in redo.left_in(path) for row in rows] == ["4", "5", "6", "7"]


async def test_it_is_named_though_the_file_is_damaged(path: Path) -> None:
    database = opened(path)
    whole = path.with_name("whole.sqlite")
    await database.append(put("known"), nothing)
    database.settle()
    shutil.copyfile(path, whole)
    await database.append(put("appended"), nothing)
    crash(database)
    Database.open(whole, MIGRATIONS).close()
    path.write_bytes(b"this is no database")
    path.with_name("hive.sqlite-wal").unlink(missing_ok=True)
    assert "appended" in salvage.compare(path, whole).missing["t"]


def test_a_log_goes_where_its_database_goes() -> None:
    assert redo.END in recovery.ENDS


async def test_the_log_is_private(database: Database, path: Path) -> None:
    assert redo.path_of(path).stat().st_mode & 0o777 == 0o600
