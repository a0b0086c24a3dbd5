"""One SQLite file of one service: one writer with group commit, WAL, synchronous=FULL, forward-only migrations.

Group commit: `write` queues; the first write of a loop iteration schedules one commit for all that arrive until the
loop has served every ready socket, so under load the requests that came in during one fsync share the next. A `lazy`
write waits a few milliseconds for one that it can join. The commit runs inline on the loop: on a disk with a write-back
cache that beats handing it to a thread.

A database that keeps a redo log (`libhive.redo`) also takes changes that are known before any transaction begins:
`append`. A commit of nothing else is a record in that log, a fraction of what a transaction of SQLite costs. SQLite gets
them with the next `write`, with the next `read`, or a little later by itself, many at once.

A batch runs without savepoints. A piece that fails has usually changed nothing yet; when one has, the whole batch is
rolled back and run again with a savepoint around each piece. So a piece of work may run twice, and what it keeps
outside the database it has to forget in `on_rollback`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec
import pysqlite3.dbapi2
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from libhive import faults, redo
from libhive.integrity import recovery
from libhive.paths import make_private
from libhive.problems import Conflict, NoSpace
from libhive.promise import Promise
from libhive.redo import Change, RedoLog

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
SETTLE_SECONDS = 0.25
"""What was appended is in SQLite's own files after that, whatever else happens."""
LATER_BYTES_MAX = 512 * 1024
"""So much of it is brought there at once."""
FREE_BYTES_MIN = 64 << 20
"""With less left on the disk nothing is appended."""
ROOM_SECONDS = 0.5
"""For so long a look at the disk holds."""
NO_SPACE_SECONDS = 1.0
NOTHING = (None, None)

STORAGE_ERRORS = (OperationalError, pysqlite3.dbapi2.OperationalError)
"""What the file or the disk did, through SQLAlchemy or through its driver: the whole batch's, not one caller's."""

ANSWERS_TABLE = """
CREATE TABLE answers (
    id TEXT PRIMARY KEY,
    reply BLOB NOT NULL,
    at_ms INTEGER NOT NULL
) WITHOUT ROWID
"""


Work = Callable[[Connection], Any]
Outcome = tuple[Any, Exception | None]


class Piece(msgspec.Struct):
    """What one caller wants: `work` to do in the transaction, or `changes` that are known already. `then` makes of the
    result, after the commit, what `future` promises."""

    work: Work | None
    changes: Sequence[Change]
    then: Callable[[Any], Any] | None
    future: Promise[Any]


class Database:
    """Use it from one event loop. After a failed fsync nothing it says can be trusted: `failed` is raised out of the
    process, whose next start recovers from the WAL."""

    def __init__(self, engine: Engine, redo: RedoLog | None = None) -> None:
        self._engine, self._path = engine, Path(str(engine.url.database))
        self._writer = engine.connect()
        self._driver = driver(self._writer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: list[Piece] = []
        self._works = 0
        """Pieces of the queue that are not mere changes."""
        self._due: asyncio.Handle | None = None
        self._hurried = False
        self._eager, self._lately, self._gathering_until = 0, 0, 0.0
        self._broken: Exception | None = None
        """What the disk did that was not for want of space: nothing may be written any more."""
        self._redo = redo
        self._later: list[Change] = []
        """In the redo log, and not run yet."""
        self._later_bytes = 0
        self._run_already: list[Change] = []
        """In the redo log, and run in the transaction that is open."""
        self._along: list[Piece] = []
        """What waits for a transaction to join."""
        self._settling: asyncio.TimerHandle | None = None
        self._room_until = 0.0
        self.fold: Callable[[list[Change]], list[Change]] = lambda changes: changes
        """Makes fewer changes of these, which come to the same."""
        self.on_applied: Callable[[Sequence[Change]], None] = lambda changes: None
        """Called when these, which were appended, are in SQLite's own files."""
        self.on_broken: Callable[[Exception], None] = lambda error: None
        """Called when what was appended cannot be brought into SQLite, for a reason other than want of space."""
        self.on_commit: Callable[[], None] = lambda: None
        """Called after each commit, before anything that follows from it."""
        self.on_settled: Callable[[], None] = lambda: None
        """Called when all that follows from a commit has happened."""
        self.on_rollback: Callable[[], None] = lambda: None

    @classmethod
    def open(cls, path: Path, migrations: Sequence[str], *, keeps_redo: bool = False) -> Database:
        """Opens or makes the file and brings its schema up to `migrations`, each a script, numbered from 1. With
        `keeps_redo` one of them is `redo.TABLE`, and changes may be appended where the disk has room for the log."""
        check_version()
        make_private(path.parent)
        recovery.ensure(path)
        engine = _engine(path)
        database = cls(engine, RedoLog.open(path) if keeps_redo else None)
        database._recover()
        _migrate(database._writer, path, migrations)
        path.chmod(0o600)
        return database

    @overload
    def write(self, work: Callable[[Connection], T], *, lazy: bool = False) -> Promise[T]: ...
    @overload
    def write(
        self, work: Callable[[Connection], T], then: Callable[[T], U], *, lazy: bool = False
    ) -> Promise[U]: ...
    def write(
        self, work: Work, then: Callable[[Any], Any] | None = None, *, lazy: bool = False
    ) -> Promise[Any]:
        """Runs `work` in the next transaction; once that is on stable storage `then` gets its result, and the future what
        `then` makes of it.

        What `work` raises rolls back what it alone did, and is raised by the future.
        """
        self._works += 1
        return self._put(Piece(work, (), then, Promise()), lazy)

    def write_along(self, work: Callable[[Connection], T]) -> Promise[T]:
        """As `write`, but in a transaction that SQLite has anyway, or in one of its own after SETTLE_SECONDS: for what
        nobody waits for."""
        if self._redo is None:
            return self.write(work, lazy=True)
        piece = Piece(work, (), None, Promise())
        self._along.append(piece)
        self._in_loop()
        self._settle_in(SETTLE_SECONDS)
        return piece.future

    def append(
        self, changes: Sequence[Change], then: Callable[[None], U], *, lazy: bool = False
    ) -> Promise[U]:
        """As `write` does it, for changes that need no look at the database when they run, and cannot fail. Only while
        `takes_changes`; what they depend on is what `look` says at the same moment, and what was appended before."""
        return self._put(Piece(None, changes, then, Promise()), lazy)

    @property
    def takes_changes(self) -> bool:
        """Not while a `write` waits, which may change what they depend on, nor where the disk is nearly full: what cannot
        get into SQLite must not be confirmed."""
        return self._redo is not None and not self._works and not self._broken and self._has_room()

    def look(self, statement: str, values: Sequence[Any]) -> Any:
        """The first row of what SQLite has by now, without what is appended and not run yet; None when there is none."""
        self._begin()
        return self._driver.execute(statement, values).fetchone()

    @property
    def is_behind(self) -> bool:
        """Whether something that was appended has not been run yet."""
        return bool(self._later)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` on a connection that sees all that was confirmed; never write with it. With a full disk it may miss
        what was appended last."""
        if self._later:
            try:
                self._begin()
                self._apply()
            except STORAGE_ERRORS as error:
                self._roll_back()
                self._note(error)
        return work(self._writer)

    def settle(self) -> None:
        """Brings all that is confirmed into SQLite's own files, where others see it. Raises NoSpace."""
        if not (self._later or self._driver.in_transaction):
            return
        try:
            self._begin()
            self._apply()
            self._commit_store()
        except STORAGE_ERRORS as error:
            self._roll_back()
            raise self._note(error) from None

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
        if self._settling:
            self._settling.cancel()
        if self._queue or self._along:
            self._works += bool(self._along)
            self._commit()
        if not self._broken:
            with contextlib.suppress(NoSpace):
                self.settle()
        self._writer.close()
        self._engine.dispose()
        if self._redo:
            self._redo.close()

    # ---- the queue

    def _put(self, piece: Piece, lazy: bool) -> Promise[Any]:
        # kept: to be told which loop runs costs a system call each time
        loop = self._loop or self._in_loop()
        future = piece.future
        if self._broken is not None:
            future.set_exception(self._broken)
            return future
        self._queue.append(piece)
        self._eager += not lazy
        if not lazy and not self._hurried:
            if self._due:
                self._due.cancel()
            self._gathering_until = loop.time() + GATHER_SECONDS
            self._hurried, self._due = True, loop.call_soon(self._gather)
        elif self._due is None:
            self._due = loop.call_later(LAZY_SECONDS, self._commit)
        return future

    def _in_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        if self._later:
            self._settle_in(NO_SPACE_SECONDS)
        return self._loop

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
        works, self._works = self._works, 0
        if works:
            batch += self._along
            self._along = []
        if not batch or self._broken is not None:
            return
        try:
            outcomes = None if works else self._append(batch)
            if outcomes is None:
                outcomes = self._transact(batch)
        except (*STORAGE_ERRORS, OSError) as error:
            self._abandon(batch, error)
            return
        self.on_commit()
        for piece, (result, problem) in zip(batch, outcomes, strict=True):
            _settle(piece, result, problem)
        self.on_settled()

    # ---- a commit of changes alone

    def _append(self, batch: Sequence[Piece]) -> list[Outcome] | None:
        """None when they do not fit into the log, however empty."""
        changes = [change for piece in batch for change in piece.changes]
        if changes:
            assert self._redo
            payload = redo.payload_of(changes)
            if not self._redo.has_room(payload):
                self._begin()
                self._apply()
                self._commit_store()
                if not self._redo.has_room(payload):
                    return None
            self._redo.append(payload)
            self._later += changes
            self._later_bytes += len(payload)
            self._settle_in(0 if self._later_bytes > LATER_BYTES_MAX else SETTLE_SECONDS)
        return [NOTHING] * len(batch)

    def _settle_in(self, seconds: float) -> None:
        if self._loop is None or (self._settling and seconds):
            return
        if self._settling:
            self._settling.cancel()
        self._settling = self._loop.call_later(seconds, self._settle_now)

    def _settle_now(self) -> None:
        self._settling = None
        if self._along:
            self._works += 1
            self._commit()
            return
        try:
            self.settle()
        except NoSpace:
            self._settle_in(NO_SPACE_SECONDS)
        except STORAGE_ERRORS as error:
            self.on_broken(error)

    def _apply(self) -> None:
        """Runs what was appended, in the transaction that is open."""
        changes, self._later, self._later_bytes = self._later, [], 0
        self._run_already += changes
        try:
            redo.replay(self._driver, redo.runs_of(self.fold(changes)))
        except pysqlite3.dbapi2.IntegrityError as error:  # a bug: it was confirmed, and may not get lost
            raise pysqlite3.dbapi2.OperationalError(
                f"a change that was confirmed cannot be made: {error}"
            ) from error

    def _commit_store(self) -> None:
        if self._run_already and self._redo:
            redo.note_upto(self._driver, self._redo.number)
        faults.reach("commit.ready")
        self._driver.execute("COMMIT")
        faults.reach("commit.done")
        if self._run_already and self._redo:
            applied, self._run_already = self._run_already, []
            self._redo.begin_anew()
            self.on_applied(applied)

    def _roll_back(self) -> None:
        if self._driver.in_transaction:
            self._driver.execute("ROLLBACK")
        if self._run_already:
            self._later[:0], self._run_already = self._run_already, []
            self._settle_in(NO_SPACE_SECONDS)

    def _recover(self) -> None:
        """What was appended and not run before the last end of the process. On a full disk it waits for room."""
        came_to = redo.upto(self._driver) if self._redo else None
        if came_to is None or self._redo is None:
            return
        self._later = [
            (statement, tuple(values)) for statement, rows in self._redo.recover(came_to) for values in rows
        ]
        with contextlib.suppress(NoSpace):
            self.settle()

    def _has_room(self) -> bool:
        now = time.monotonic()
        if now > self._room_until and shutil.disk_usage(self._path.parent).free > FREE_BYTES_MIN:
            self._room_until = now + ROOM_SECONDS
        return now <= self._room_until

    # ---- a commit of SQLite's

    def _transact(self, batch: Sequence[Piece]) -> list[Outcome]:
        try:
            self._begin()
            self._apply()
            outcomes = [self._run(piece) for piece in batch]
        except STORAGE_ERRORS:
            raise
        except Exception:  # noqa: BLE001 - whose it is shows when each runs for itself
            self._roll_back()
            self.on_rollback()
            self._begin()
            self._apply()
            outcomes = [self._attempt(piece) for piece in batch]
        self._commit_store()
        for piece in batch:
            self.on_applied(piece.changes)
        return outcomes

    def _begin(self) -> None:
        if not self._driver.in_transaction:
            self._driver.execute("BEGIN IMMEDIATE")
            faults.reach("commit.begun")
            if self._redo:
                self._settle_in(SETTLE_SECONDS)

    def _run(self, piece: Piece) -> Outcome:
        """Raises what the disk did, and what the piece raises after it has changed something."""
        if piece.work is None:
            redo.replay(self._driver, redo.runs_of(piece.changes))
            return NOTHING
        before = self._driver.total_changes
        try:
            return piece.work(self._writer), None
        except STORAGE_ERRORS:
            raise
        except Exception as error:
            if self._driver.total_changes != before:
                raise
            return None, error

    def _attempt(self, piece: Piece) -> Outcome:
        """One piece of the batch within a savepoint, so that its failure is its own."""
        self._driver.execute("SAVEPOINT one")
        try:
            outcome = self._run(piece)
        except STORAGE_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to this one caller
            self._driver.execute("ROLLBACK TO one")
            outcome = None, error
        self._driver.execute("RELEASE one")
        return outcome

    def _abandon(self, batch: Sequence[Piece], error: Exception) -> None:
        self._roll_back()
        self.on_rollback()
        problem = self._note(error)
        for piece in [*batch, *(self._queue if self._broken else ())]:
            if not piece.future.done():
                piece.future.set_exception(problem)

    def _note(self, error: Exception) -> Exception:
        """As what it is told to whoever waits; one that is not for want of space is the last."""
        problem = _problem_of(error)
        if not isinstance(problem, NoSpace):
            self._broken = problem
        return problem


def _settle(piece: Piece, result: Any, problem: Exception | None) -> None:
    """`then` runs even when nobody waits any more: what it tells of has happened."""
    then, future = piece.then, piece.future
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
