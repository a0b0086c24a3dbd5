"""One SQLite file of one service: one writer with group commit, WAL, synchronous=FULL, forward-only migrations.

Group commit: `write` queues; the first write of a loop iteration schedules one commit for all that arrive until the
loop has served every ready socket, so under load the requests that came in during one fsync share the next. A `lazy`
write waits a few milliseconds for one that it can join. The commit runs inline on the loop: on a disk with a write-back
cache that beats handing it to a thread.

A database that keeps a redo log (`libhive.redo`) also takes changes that are known before any transaction begins:
`append`. A commit of nothing else is a record in that log, a fraction of what a transaction of SQLite costs. SQLite gets
them with the next `write`, with the next `read`, or a little later by a thread beside the loop, many at once.

A piece of work may run twice (see `libhive.transactions`), and what it keeps outside the database it has to forget in
`transactions.on_rollback`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, overload

import pysqlite3.dbapi2
from sqlalchemy import Connection, Engine

from libhive.engine import WAL_AUTOCHECKPOINT_PAGES, check_version, engine_of, migrate
from libhive.integrity import recovery
from libhive.paths import make_private
from libhive.problems import NoSpace
from libhive.promise import Promise
from libhive.redo import Change, RedoLog
from libhive.transactions import NOTHING, Piece, Transactions, Work, problem_of

log = logging.getLogger("hive.sqlite")

T = TypeVar("T")
U = TypeVar("U")

LAZY_SECONDS = 0.005
GATHER_SECONDS = 0.000_2
"""A commit waits so long at the most for as many to join as the last one had: it takes several times that."""
LOG_BYTES = 4 * 1024 * WAL_AUTOCHECKPOINT_PAGES
LOG_PIECE_BYTES = 1 << 20
"""Written so many zeros at a time: to make all of them at once takes most of a start."""
LOG_FREE_BYTES_MIN = 1 << 30
"""With less left on the disk the log grows as it must."""
SETTLE_SECONDS = 0.25
"""After that SQLite gets what was appended, whatever else happens."""
FREE_BYTES_MIN = 64 << 20
"""With less left on the disk nothing is appended."""
ROOM_SECONDS = 0.5
"""For so long a look at the disk holds."""
NO_SPACE_SECONDS = 1.0


class Database:
    """Use it from one event loop. After a failed fsync nothing it says can be trusted: `on_broken` has to end the process,
    whose next start recovers from the logs."""

    def __init__(self, engine: Engine, log: RedoLog | None = None) -> None:
        self._engine, self._path = engine, Path(str(engine.url.database))
        self._writer = engine.connect()
        self._driver = driver(self._writer)
        self.transactions = Transactions(self._writer, self._driver, log)
        self._looker = engine.connect() if log else None
        self._beside = ThreadPoolExecutor(1, "sqlite")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: list[Piece] = []
        self._works = 0
        """Pieces of the queue that are not mere changes."""
        self._along: list[Piece] = []
        """What waits for a transaction to join."""
        self._due: asyncio.Handle | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._hurried = False
        self._eager, self._lately, self._gathering_until = 0, 0, 0.0
        self._broken: Exception | None = None
        """What the disk did that was not for want of space: nothing may be written any more."""
        self._room_until = 0.0
        self.on_commit: Callable[[], None] = lambda: None
        """Called after each commit, before anything that follows from it."""
        self.on_settled: Callable[[], None] = lambda: None
        """Called when all that follows from a commit has happened."""
        self.on_broken: Callable[[Exception], None] = lambda error: None
        """Called once, when nothing can be written any more for a reason other than want of space."""

    @classmethod
    def open(cls, path: Path, migrations: Sequence[str], *, keeps_redo: bool = False) -> Database:
        """Opens or makes the file and brings its schema up to `migrations`, each a script, numbered from 1. With
        `keeps_redo` one of them is `redo.TABLE`, and changes may be appended where the disk has room for the log."""
        check_version()
        make_private(path.parent)
        recovery.ensure(path)
        engine = engine_of(path)
        database = cls(engine, RedoLog.open(path) if keeps_redo else None)
        database.transactions.recover()
        with contextlib.suppress(NoSpace):  # what is found waits for room
            database.settle()
        migrate(database._writer, path, migrations)
        database.transactions.begin_log()
        path.chmod(0o600)
        if keeps_redo:
            database._beside.submit(int).result()  # its thread is there before anything relies on it
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
        if self.transactions.log is None:
            return self.write(work, lazy=True)
        piece = Piece(work, (), None, Promise())
        self._along.append(piece)
        if self._loop is None:
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
        known = self.transactions.log is not None and not self.transactions.has_recovered
        return known and not self._works and not self._broken and self._has_room()

    def look(self, statement: str, values: Sequence[Any]) -> Any:
        """The first row of what is in SQLite's own files, while whoever writes there goes on; None when there is none."""
        assert self._looker
        return next(iter(driver(self._looker).execute(statement, values).fetchall()), None)

    @property
    def is_behind(self) -> bool:
        return self.transactions.is_behind

    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` on a connection that sees all that was confirmed; never write with it. With a full disk it may miss
        what was appended last."""
        if self.transactions.is_behind:
            try:
                self.transactions.apply()
            except Exception as error:  # noqa: BLE001 - with a full disk we read what there is
                problem = self._rolled_back(error)
                if not isinstance(problem, NoSpace):
                    raise problem from None
        return work(self._writer)

    def settle(self) -> None:
        """Brings all that is confirmed into SQLite's own files, where others see it. Raises NoSpace."""
        if self.transactions.is_settled:
            return
        try:
            self.transactions.settle()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            raise self._rolled_back(error) from None

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
        if self._queue or self._along:
            self._works += bool(self._along)
            self._commit()
        if self._settling:
            self._settling.cancel()
        self._beside.shutdown()
        if not self._broken:
            try:
                self.settle()
            except Exception as error:  # noqa: BLE001 - it stays in the redo log, for the next start
                log.error("not all that is confirmed is in the database yet: %s", error)
        for connection in (self._writer, self._looker):
            if connection:
                connection.close()
        self._engine.dispose()
        self.transactions.close()

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
        if not self.transactions.is_settled:
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
        if batch and self._broken is None:
            self._do(batch, as_changes=not works)

    def _do(self, batch: Sequence[Piece], *, as_changes: bool) -> None:
        try:
            if as_changes and self.transactions.append(change for piece in batch for change in piece.changes):
                outcomes = [NOTHING] * len(batch)
                self._settle_in(0 if self.transactions.is_much else SETTLE_SECONDS)
            else:
                outcomes = self.transactions.run(batch)
        except Exception as error:  # noqa: BLE001 - the disk's, the file's, or a bug: nobody waits for ever
            self._abandon(batch, error)
            return
        self.on_commit()
        for piece, (result, problem) in zip(batch, outcomes, strict=True):
            _settle(piece, result, problem)
        self.on_settled()

    def _abandon(self, batch: Sequence[Piece], error: Exception) -> None:
        problem = self._rolled_back(error)
        self.transactions.on_rollback([change for piece in batch for change in piece.changes])
        _tell(batch, problem)

    # ---- what SQLite gets later

    def _settle_in(self, seconds: float) -> None:
        if self._loop is None or (self._settling and seconds) or self.transactions.is_aside:
            return
        if self._settling:
            self._settling.cancel()
        self._settling = self._loop.call_later(seconds, self._settle_now)

    def _settle_now(self) -> None:
        self._settling = None
        if self.transactions.is_aside or self._broken:
            return  # when that ends there is a look at what has come since
        if self.transactions.is_settled:
            self._do_along()
            return
        try:
            aside = self.transactions.hand_over(self._beside)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is lost
            self._rolled_back(error)
        else:
            aside.add_done_callback(self._tell_loop)

    def _tell_loop(self, aside: Future[None]) -> None:
        """Called by the thread."""
        assert self._loop
        with contextlib.suppress(RuntimeError):  # the loop has ended, after `close`
            self._loop.call_soon_threadsafe(self._handed_back, aside)

    def _handed_back(self, aside: Future[None]) -> None:
        if self.transactions.has_handed_over(aside):  # else somebody who could not wait has taken it back
            try:
                self.transactions.take_back()
            except Exception as error:  # noqa: BLE001 - for want of space it is tried again; else it ends the process
                self._rolled_back(error)
        if self.transactions.is_aside or self._broken:
            return
        self._do_along()
        if not self.transactions.is_settled:
            self._settle_in(0 if self.transactions.is_much else SETTLE_SECONDS)

    def _do_along(self) -> None:
        along, self._along = self._along, []
        if along:
            self._do(along, as_changes=False)

    def _rolled_back(self, error: Exception) -> Exception:
        """What is told to whoever waits. If it is not for want of space, it is the last."""
        self.transactions.roll_back()
        problem = problem_of(error)
        if not isinstance(problem, NoSpace):
            self._break(problem)
        elif self.transactions.is_behind:
            self.transactions.fell_behind = True
            self._settle_in(NO_SPACE_SECONDS)
        return problem

    def _break(self, problem: Exception) -> None:
        if self._broken is None:
            self._broken = problem
            waiting, self._queue, self._along = [*self._queue, *self._along], [], []
            _tell(waiting, problem)
            self.on_broken(problem)

    def _has_room(self) -> bool:
        now = time.monotonic()
        if now > self._room_until and shutil.disk_usage(self._path.parent).free > FREE_BYTES_MIN:
            self._room_until = now + ROOM_SECONDS
        return now <= self._room_until


def _tell(pieces: Sequence[Piece], problem: Exception) -> None:
    for piece in pieces:
        if not piece.future.done():
            piece.future.set_exception(problem)


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
