"""One SQLite file of one service: one writer with group commit, WAL, synchronous=FULL, forward-only migrations.

Group commit: `write` queues; the first write of a loop iteration schedules one commit for all that arrive until the
loop has served every ready socket, so under load the requests that came in during one fsync share the next. The
commit runs inline on the loop: on a disk with a write-back cache that beats handing it to a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pysqlite3.dbapi2
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from libhive.paths import make_private
from libhive.problems import Conflict, NoSpace

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

SQLITE_VERSION_MIN = (3, 51, 3)
"""Older ones can corrupt a WAL that is reset while another connection checkpoints."""
WAL_AUTOCHECKPOINT_PAGES = 4000
BUSY_TIMEOUT_MS = 5_000

STORAGE_ERRORS = (OperationalError, pysqlite3.dbapi2.OperationalError)
"""What the file or the disk did, through SQLAlchemy or through its driver: the whole batch's, not one caller's."""

ANSWERS_TABLE = """
CREATE TABLE answers (
    id TEXT PRIMARY KEY,
    reply BLOB NOT NULL,
    at_ms INTEGER NOT NULL
) WITHOUT ROWID
"""


class Database:
    """Use it from one event loop. After a failed fsync nothing it says can be trusted: `failed` is raised out of the
    process, whose next start recovers from the WAL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.connect()
        self._reader = engine.connect()
        self._queue: list[tuple[Callable[[Connection], Any], asyncio.Future[Any]]] = []

    @classmethod
    def open(cls, path: Path, migrations: Sequence[str]) -> Database:
        """Opens or makes the file and brings its schema up to `migrations`, each a script, numbered from 1."""
        check_version()
        make_private(path.parent)
        engine = _engine(path)
        database = cls(engine)
        _migrate(database._writer, path, migrations)
        path.chmod(0o600)
        return database

    def write(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Runs `work` in the next transaction; the future is done once that is on stable storage.

        What `work` raises rolls back what it alone did, and is raised by the future.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.append((work, future))
        if len(self._queue) == 1:
            loop.call_soon(self._commit)
        return future

    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` on a connection of its own that sees what is committed; never write with it."""
        return work(self._reader)

    def close(self) -> None:
        if self._queue:
            self._commit()
        self._reader.close()
        self._writer.close()
        self._engine.dispose()

    def _commit(self) -> None:
        batch, self._queue = self._queue, []
        if not batch:
            return
        outcomes: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []
        try:
            self._writer.exec_driver_sql("BEGIN IMMEDIATE")
            for work, future in batch:
                outcomes.append((future, *self._attempt(work)))
            self._writer.exec_driver_sql("COMMIT")
        except STORAGE_ERRORS as error:
            self._abandon(batch, error)
            return
        for future, result, problem in outcomes:
            if future.done():
                continue
            if problem is None:
                future.set_result(result)
            else:
                future.set_exception(problem)

    def _attempt(self, work: Callable[[Connection], Any]) -> tuple[Any, Exception | None]:
        """One piece of the batch within a savepoint, so that its failure is its own."""
        self._writer.exec_driver_sql("SAVEPOINT one")
        try:
            result = work(self._writer)
        except STORAGE_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to this one caller
            self._writer.exec_driver_sql("ROLLBACK TO one")
            self._writer.exec_driver_sql("RELEASE one")
            return None, error
        self._writer.exec_driver_sql("RELEASE one")
        return result, None

    def _abandon(self, batch: Sequence[tuple[object, asyncio.Future[Any]]], error: Exception) -> None:
        if self._writer.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
            self._writer.exec_driver_sql("ROLLBACK")
        problem = _problem_of(error)
        for _, future in batch:
            if not future.done():
                future.set_exception(problem)


def check_version() -> None:
    """Raises Problem when the SQLite that would hold our data is too old to be trusted with a WAL."""
    if pysqlite3.dbapi2.sqlite_version_info < SQLITE_VERSION_MIN:
        wanted = ".".join(map(str, SQLITE_VERSION_MIN))
        raise Conflict(
            f"SQLite {pysqlite3.dbapi2.sqlite_version} can corrupt a write-ahead log; {wanted} or newer is needed",
            "install a newer pysqlite3 wheel",
        )


def driver(connection: Connection) -> Any:
    """The driver's own connection, for the few statements that run for every message: going through SQLAlchemy's
    results costs several times what such a statement does."""
    return connection.connection.driver_connection


def remember(connection: Connection, id: str, reply: msgspec.Struct, at_ms: int) -> None:
    """Keeps the answer to a command, in the transaction of its effect."""
    connection.exec_driver_sql(
        "INSERT OR IGNORE INTO answers (id, reply, at_ms) VALUES (?, ?, ?)",
        (id, msgspec.json.encode(reply), at_ms),
    )


def recall(connection: Connection, id: str, kind: type[S]) -> S | None:
    """The answer that the command `id` has had before."""
    row = connection.exec_driver_sql("SELECT reply FROM answers WHERE id = ?", (id,)).first()
    return msgspec.json.decode(row[0], type=kind) if row else None


def _engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", module=pysqlite3.dbapi2, connect_args={"isolation_level": None}
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"wal_autocheckpoint = {WAL_AUTOCHECKPOINT_PAGES}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    return engine


def _migrate(connection: Connection, path: Path, migrations: Sequence[str]) -> None:
    have = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if have > len(migrations):
        raise Conflict(
            f"{path} was written by a newer hyperhive (schema {have}, this one knows {len(migrations)})",
            "run the newer version, or restore a backup",
        )
    for number, script in enumerate(migrations[have:], have + 1):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        for statement in script.split(";"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"PRAGMA user_version = {number}")
        connection.exec_driver_sql("COMMIT")


def _problem_of(error: Exception) -> Exception:
    cause = getattr(error, "orig", error)
    if getattr(cause, "sqlite_errorname", "").startswith("SQLITE_FULL") or "disk is full" in str(cause):
        return NoSpace("the disk is full: this was not stored")
    return error
