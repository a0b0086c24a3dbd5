from __future__ import annotations

import asyncio
from pathlib import Path

import pysqlite3.dbapi2
import pytest
from sqlalchemy import Connection

from libhive import answers, engine, sqlite
from libhive.messages.base import Done, Pong
from libhive.problems import Conflict, NoSpace
from libhive.sqlite import Database

TABLE = "CREATE TABLE t (n INTEGER PRIMARY KEY)"


def put(number: int) -> object:
    def work(c: Connection) -> int:
        c.exec_driver_sql("INSERT INTO t (n) VALUES (?)", (number,))
        return number

    return work


def numbers(database: Database) -> list[int]:
    return [row.n for row in database.read(lambda c: c.exec_driver_sql("SELECT n FROM t ORDER BY n").all())]


async def test_writes_of_one_moment_share_a_commit_and_fail_alone(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "db" / "x.sqlite", [TABLE])
    commits: list[str] = []
    database._writer.connection.dbapi_connection.set_trace_callback(  # type: ignore[union-attr]
        lambda statement: commits.append(statement) if statement.startswith("COMMIT") else None
    )
    outcomes = await asyncio.gather(
        *(database.write(put(number)) for number in (1, 2, 2, 3)),  # type: ignore[arg-type]
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [int, int, outcomes[2].__class__, int]
    assert isinstance(outcomes[2], Exception)
    assert numbers(database) == [1, 2, 3]
    assert len(commits) == 1
    database.close()


async def test_the_file_is_durable_private_and_in_wal(tmp_path: Path) -> None:
    path = tmp_path / "db" / "x.sqlite"
    database = Database.open(path, [TABLE])
    pragmas = {
        name: database.read(lambda c, name=name: c.exec_driver_sql(f"PRAGMA {name}").scalar())
        for name in ("journal_mode", "synchronous")
    }  # type: ignore[misc]
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}
    assert database._writer.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    database.close()


async def test_migrations_go_forward_only(tmp_path: Path) -> None:
    path = tmp_path / "x" / "x.sqlite"
    Database.open(path, [TABLE]).close()
    second = [TABLE, "CREATE TABLE u (n INTEGER)"]
    database = Database.open(path, second)
    assert database.read(lambda c: c.exec_driver_sql("PRAGMA user_version").scalar()) == 2
    database.close()
    with pytest.raises(Conflict, match="newer hyperhive"):
        Database.open(path, [TABLE])


async def test_an_answer_is_kept_with_its_effect(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "x" / "x.sqlite", [answers.ANSWERS_TABLE])
    pong = Pong(service="x", version="1", pid=1, up_since_ms=1)
    await database.write(lambda c: answers.remember(c, "some-command", pong, 1))
    assert database.read(lambda c: answers.recall(c, "some-command", Pong)) == pong
    assert database.read(lambda c: answers.recall(c, "another-command", Done)) is None
    database.close()


def test_an_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.check_version()
    monkeypatch.setattr(pysqlite3.dbapi2, "sqlite_version_info", (3, 51, 2))
    with pytest.raises(Conflict, match="write-ahead log"):
        engine.check_version()


async def test_a_full_disk_refuses_new_work_reads_on_and_recovers(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "x" / "x.sqlite", [TABLE])
    await database.write(put(1))  # type: ignore[arg-type]
    pages = database.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    database._writer.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    def much(c: Connection) -> None:
        c.exec_driver_sql("CREATE TABLE big (body TEXT)")
        sqlite.driver(c).execute("INSERT INTO big VALUES (?)", ("x" * 1_000_000,))

    refused = [database.write(work) for work in (put(2), much, put(3))]  # type: ignore[arg-type]
    outcomes = await asyncio.gather(*refused, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NoSpace] * 3
    assert numbers(database) == [1]
    database._writer.exec_driver_sql("PRAGMA max_page_count = 1000000")
    await database.write(much)
    database.close()
