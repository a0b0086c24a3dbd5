"""One SQLite file of one service: one writer with group commit, WAL, synchronous=FULL, forward-only migrations.

Group commit: `write` queues; the first write of a loop iteration schedules one commit for all that arrive until the
loop has served every ready socket, so under load the requests that came in during one fsync share the next. A `lazy`
write waits a few milliseconds for one that it can join. The commit runs inline on the loop: on a disk with a write-back
cache that beats handing it to a thread.

An `early` write runs when it comes, in the transaction of the commit that it will join, while the loop waits for the rest
of that; unless one that is not early waits already: they run in the order in which they came. Between its run and its
commit the loop does other things. So it may depend on nothing in memory that these change.

A batch runs without savepoints. A piece that fails has usually changed nothing yet; when one has, the whole batch is
rolled back and run again with a savepoint around each piece. So a piece of work may run twice, and what it keeps
outside the database it has to forget in `on_rollback`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec
import pysqlite3.dbapi2
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from libhive import faults
from libhive.integrity import recovery
from libhive.paths import make_private
from libhive.problems import Conflict, NoSpace
from libhive.promise import Promise

T = TypeVar("T")
U = TypeVar("U")
S = TypeVar("S", bound=msgspec.Struct)

SQLITE_VERSION_MIN = (3, 51, 3)
"""Older ones can corrupt a WAL that is reset while another connection checkpoints."""
WAL_AUTOCHECKPOINT_PAGES = 4000
CACHE_KIB = 8 * 1024
"""Of each connection, filled by what it touches; SQLite's own 2 MB make it read its log again while there is traffic."""
LAZY_SECONDS = 0.005
GATHER_SECONDS = 0.000_2
"""A commit waits so long at the most for as many to join as the last one had: it takes several times that."""
LOG_BYTES = 4 * 1024 * WAL_AUTOCHECKPOINT_PAGES
LOG_PIECE_BYTES = 1 << 20
"""Written so many zeros at a time: to make all of them at once takes most of a start."""
LOG_FREE_BYTES_MIN = 1 << 30
"""With less left on the disk the log grows as it must."""
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


Outcome = tuple[Any, Exception | None]
Piece = tuple[Callable[[Connection], Any], Callable[[Any], Any] | None, Promise[Any]]
"""What to do in the transaction, what to make of its result after the commit, and who waits for that."""


class Database:
    """Use it from one event loop. After a failed fsync nothing it says can be trusted: `failed` is raised out of the
    process, whose next start recovers from the WAL."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._path = engine, engine.url.database
        self._writer = engine.connect()
        self._reader = engine.connect()
        self._driver = driver(self._writer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: list[Piece] = []
        self._ran: list[Outcome] = []
        """What came of the first pieces of the queue, which have run already."""
        self._spoilt: Exception | None = None
        """What the one after these has raised, after it had changed something or because of the disk."""
        self._due: asyncio.Handle | None = None
        self._hurried = False
        self._eager, self._lately, self._gathering_until = 0, 0, 0.0
        self._broken: Exception | None = None
        """What the disk did that was not for want of space: nothing may be written any more."""
        self.on_commit: Callable[[], None] = lambda: None
        """Called after each commit, before anything that follows from it."""
        self.on_settled: Callable[[], None] = lambda: None
        """Called when all that follows from a commit has happened."""
        self.on_rollback: Callable[[], None] = lambda: None

    @classmethod
    def open(cls, path: Path, migrations: Sequence[str]) -> Database:
        """Opens or makes the file and brings its schema up to `migrations`, each a script, numbered from 1."""
        check_version()
        make_private(path.parent)
        recovery.ensure(path)
        engine = _engine(path)
        database = cls(engine)
        _migrate(database._writer, path, migrations)
        path.chmod(0o600)
        return database

    @overload
    def write(
        self, work: Callable[[Connection], T], *, lazy: bool = False, early: bool = False
    ) -> Promise[T]: ...
    @overload
    def write(
        self,
        work: Callable[[Connection], T],
        then: Callable[[T], U],
        *,
        lazy: bool = False,
        early: bool = False,
    ) -> Promise[U]: ...
    def write(
        self,
        work: Callable[[Connection], Any],
        then: Callable[[Any], Any] | None = None,
        *,
        lazy: bool = False,
        early: bool = False,
    ) -> Promise[Any]:
        """Runs `work` in the next transaction; once that is on stable storage `then` gets its result, and the future what
        `then` makes of it.

        What `work` raises rolls back what it alone did, and is raised by the future.
        """
        # kept: to be told which loop runs costs a system call each time
        if (loop := self._loop) is None:
            loop = self._loop = asyncio.get_running_loop()
        future: Promise[Any] = Promise()
        if self._broken is not None:
            future.set_exception(self._broken)
            return future
        self._queue.append((work, then, future))
        if early and len(self._ran) + 1 == len(self._queue):
            self._run_early(work)
        self._eager += not lazy
        if not lazy and not self._hurried:
            if self._due:
                self._due.cancel()
            self._gathering_until = loop.time() + GATHER_SECONDS
            self._hurried, self._due = True, loop.call_soon(self._gather)
        elif self._due is None:
            self._due = loop.call_later(LAZY_SECONDS, self._commit)
        return future

    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` on a connection of its own that sees what is committed; never write with it."""
        return work(self._reader)

    def grow_log(self) -> None:
        """Gives the write-ahead log its full length now: one that is reused commits half as fast again as one that
        grows. What SQLite reads of it ends where the checksums do, so zeros at its end mean nothing."""
        path = Path(f"{self._path}-wal")
        missing = LOG_BYTES - path.stat().st_size if path.exists() else 0
        if missing > 0 and shutil.disk_usage(path.parent).free > LOG_FREE_BYTES_MIN:
            zeros = bytes(min(missing, LOG_PIECE_BYTES))
            with path.open("ab", buffering=0) as log:
                while missing > 0:
                    missing -= log.write(zeros[:missing])
                os.fsync(log.fileno())

    def close(self) -> None:
        if self._queue:
            self._commit()
        self._reader.close()
        self._writer.close()
        self._engine.dispose()

    def _gather(self) -> None:
        """Under load whoever was answered by the last commit is about to ask again: a short wait makes one commit of
        two. Who is alone waits for nobody."""
        loop = self._loop
        assert loop is not None
        if self._eager < self._lately and loop.time() < self._gathering_until:
            self._due = loop.call_soon(self._gather)  # timers have milliseconds
        else:
            self._commit()

    def _commit(self) -> None:
        if self._due:
            self._due.cancel()
        self._lately, self._eager = self._eager, 0
        self._due, self._hurried = None, False
        batch, self._queue = self._queue, []
        if not batch or self._broken is not None:
            return
        try:
            outcomes = self._transact(batch)
        except STORAGE_ERRORS as error:
            self._abandon(batch, error)
            return
        self.on_commit()
        for (_, then, future), (result, problem) in zip(batch, outcomes, strict=True):
            _settle(future, then, result, problem)
        self.on_settled()

    def _run_early(self, work: Callable[[Connection], Any]) -> None:
        try:
            self._begin()
            self._ran.append(self._run(work))
        except Exception as error:  # noqa: BLE001 - the commit is where it is dealt with
            self._spoilt = error

    def _transact(self, batch: Sequence[Piece]) -> list[Outcome]:
        outcomes, self._ran, spoilt, self._spoilt = self._ran, [], self._spoilt, None
        try:
            if spoilt:
                raise spoilt
            self._begin()
            outcomes += [self._run(work) for work, _, _ in batch[len(outcomes) :]]
        except STORAGE_ERRORS:
            raise
        except Exception:  # noqa: BLE001 - whose it is shows when each runs for itself
            self._driver.execute("ROLLBACK")
            self.on_rollback()
            self._begin()
            outcomes = [self._attempt(work) for work, _, _ in batch]
        faults.reach("commit.ready")
        self._driver.execute("COMMIT")
        faults.reach("commit.done")
        return outcomes

    def _begin(self) -> None:
        if not self._driver.in_transaction:
            self._driver.execute("BEGIN IMMEDIATE")
            faults.reach("commit.begun")

    def _run(self, work: Callable[[Connection], Any]) -> Outcome:
        """Raises what the disk did, and what the piece raises after it has changed something."""
        before = self._driver.total_changes
        try:
            return work(self._writer), None
        except STORAGE_ERRORS:
            raise
        except Exception as error:
            if self._driver.total_changes != before:
                raise
            return None, error

    def _attempt(self, work: Callable[[Connection], Any]) -> Outcome:
        """One piece of the batch within a savepoint, so that its failure is its own."""
        self._driver.execute("SAVEPOINT one")
        try:
            result = work(self._writer)
        except STORAGE_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to this one caller
            self._driver.execute("ROLLBACK TO one")
            self._driver.execute("RELEASE one")
            return None, error
        self._driver.execute("RELEASE one")
        return result, None

    def _abandon(self, batch: Sequence[Piece], error: Exception) -> None:
        if self._driver.in_transaction:
            self._driver.execute("ROLLBACK")
        self.on_rollback()
        problem = _problem_of(error)
        if not isinstance(problem, NoSpace):
            self._broken = problem
        for _, _, future in [*batch, *(self._queue if self._broken else ())]:
            if not future.done():
                future.set_exception(problem)


def _settle(
    future: Promise[Any], then: Callable[[Any], Any] | None, result: Any, problem: Exception | None
) -> None:
    """`then` runs even when nobody waits any more: what it tells of has happened."""
    if problem is None and then is not None:
        try:
            result = then(result)
        except Exception as error:  # noqa: BLE001 - raised by whoever waits
            problem = error
    if future.done():
        return
    if problem is None:
        future.set_result(result)
    else:
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
    results costs several times what such a statement does, and even asking it for this adds up."""
    found = getattr(connection, "hive_driver", None)
    if found is None:
        found = connection.hive_driver = connection.connection.driver_connection  # type: ignore[attr-defined]
    return found


def rows(connection: Connection, query: str, values: Sequence[Any] = ()) -> list[Any]:
    """What a statement returns, as the driver's rows, whose columns are got by name."""
    cursor = driver(connection).cursor()
    cursor.row_factory = pysqlite3.dbapi2.Row
    return list(cursor.execute(query, values))


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
            f"cache_size = -{CACHE_KIB}",
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
