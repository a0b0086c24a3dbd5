"""What SQLite and the redo log of one database do, one after the other. It knows of no loop, and of nobody who waits.

What is appended to the redo log is durable, and is run in SQLite later: by the next batch, by `settle`, or as far as a
reader needs it (`apply`), in a transaction that may stay open until then. Most often another thread does it (`hand_over`)
while more is appended; whoever wants SQLite meanwhile waits until that has ended. A batch runs without savepoints; when a
piece of it fails after it has changed something, all of it is rolled back and run again with a savepoint around each piece.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import msgspec
from pysqlite3 import dbapi2
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from libhive import faults, redo
from libhive.problems import NoSpace
from libhive.promise import Promise
from libhive.redo import Change, RedoLog

STORAGE_ERRORS = (OperationalError, dbapi2.OperationalError)
"""What the file or the disk did, through SQLAlchemy or through its driver: the whole batch's, not one caller's."""

LATER_BYTES_MAX = 512 * 1024
LATER_CHANGES_MAX = 2_000
"""With more than that appended, it is time for SQLite to get it."""

Work = Callable[[Connection], Any]
Outcome = tuple[Any, Exception | None]
NOTHING: Outcome = (None, None)


class Piece(msgspec.Struct):
    """What one caller wants: `work` to do in the transaction, or `changes` that are known already. `then` makes of the
    result, after the commit, what `future` promises."""

    work: Work | None
    changes: Sequence[Change]
    then: Callable[[Any], Any] | None
    future: Promise[Any]


class Transactions:
    """What raises wants a `roll_back`; nothing that was appended gets lost by that."""

    def __init__(self, writer: Connection, connection: Any, log: RedoLog | None) -> None:
        """`connection` is the driver's own below `writer`."""
        self.log = log
        self._writer, self._connection = writer, connection
        self._aside: tuple[Future[None], int] | None = None
        """What another thread brings into SQLite, and up to which record that goes."""
        self._later: list[Change] = []
        self._applied: list[Change] = []
        """In the redo log, and run in the transaction that is open."""
        self.later_bytes = self._applied_bytes = 0
        """Of the records that these are in."""
        self.fold: Callable[[list[Change]], list[Change]] = lambda changes: changes
        """Makes fewer changes of these, which come to the same."""
        self.on_applied: Callable[[Sequence[Change]], None] = lambda changes: None
        """Called when these, which were appended, are in SQLite's own files."""
        self.has_recovered = False
        """It holds what an earlier process had appended, of which nobody in this one knows."""
        self.fell_behind = False
        """SQLite could not be given what was appended: whoever has looked since may not have seen all."""
        self.on_caught_up: Callable[[], None] = lambda: None
        """Called when SQLite has got it after all."""
        self.on_rollback: Callable[[Sequence[Change]], None] = lambda changes: None
        """Called when a transaction was undone, and these appended changes are not made. Work may be done again after that."""

    @property
    def is_behind(self) -> bool:
        """Whether something that was appended has not been run yet."""
        return bool(self._later) or self._aside is not None

    @property
    def is_aside(self) -> bool:
        """Whether another thread has SQLite."""
        return self._aside is not None

    @property
    def is_settled(self) -> bool:
        return not self.is_behind and not self._connection.in_transaction

    # ---- the redo log

    def append(self, changes: Iterable[Change]) -> bool:
        """Durable when it returns. False when they do not fit into the log, however empty."""
        changes = list(changes)
        if not changes:
            return True
        assert self.log
        payload = redo.payload_of(changes)
        for make_room in (self.take_back, self.settle):
            if not self.log.has_room(payload):
                make_room()
        if not self.log.has_room(payload):
            return False
        self.log.append(payload)
        self._later += changes
        self.later_bytes += len(payload)
        return True

    @property
    def is_much(self) -> bool:
        """Whether it is time to settle. Not while there was no room for it: that is tried again in its own time."""
        much = self.later_bytes > LATER_BYTES_MAX or len(self._later) > LATER_CHANGES_MAX
        return much and not self.fell_behind

    def recover(self) -> None:
        """Finds what was appended and not run before the last end of the process."""
        mark = redo.mark_of(self._connection) if self.log else None
        if mark is None or self.log is None:
            return
        runs = self.log.recover(*mark)
        self._later = [(statement, tuple(values)) for statement, rows in runs for values in rows]
        self.has_recovered = bool(self._later)

    def begin_log(self) -> None:
        """With a salt of its own, unless there is something in it still."""
        if self.log is None or self._later:
            return
        mark = redo.mark_of(self._connection)
        assert mark, "a database that keeps a redo log has its table"
        self.log.begin(*mark)
        salt = secrets.randbits(62)
        try:
            self._begin()
            redo.note_salt(self._connection, salt)
            self._commit()
        except STORAGE_ERRORS:  # no room, perhaps: the old salt is as good while nothing is in the log
            self.roll_back()
        else:
            self.log.salt = salt

    def apply(self) -> None:
        """Runs what was appended."""
        self.take_back()
        if not self._later:
            return
        self._begin()
        changes = self._take()
        try:
            redo.replay(self._connection, redo.runs_of(self.fold(changes)))
        except BaseException:  # whatever it is, what was confirmed does not count as done
            self.roll_back()
            raise

    def settle(self) -> None:
        """Brings all of it into SQLite's own files, where others see it."""
        try:
            self.apply()
            if self._connection.in_transaction:
                self._commit()
        except BaseException:
            self.roll_back()
            raise

    def hand_over(self, executor: Executor) -> Future[None]:
        """Has all of it brought into SQLite's own files by a thread of the executor. To be followed by `take_back`."""
        assert self.log
        assert not self.is_aside
        upto, changes = self.log.number, self._take()
        aside = executor.submit(self._settle_aside, self.fold(changes), upto)
        self._aside = aside, upto
        return aside

    def has_handed_over(self, aside: Future[None]) -> bool:
        """Whether that has not been taken back yet."""
        return self._aside is not None and self._aside[0] is aside

    def take_back(self) -> None:
        """Waits for the other thread, and raises what it raised."""
        if self._aside is None:
            return
        (aside, upto), self._aside = self._aside, None
        try:
            aside.result()
        except BaseException:
            self.roll_back()
            raise
        self._settled(upto)

    def _settle_aside(self, changes: Iterable[Change], upto: int) -> None:
        """In the other thread: nothing but SQLite is touched."""
        self._begin()
        redo.replay(self._connection, redo.runs_of(changes))
        self._end(upto)

    # ---- SQLite

    def run(self, batch: Sequence[Piece]) -> list[Outcome]:
        """Durable when it returns."""
        try:
            self.apply()
            self._begin()
            outcomes = [self._run(piece) for piece in batch]
        except STORAGE_ERRORS:
            raise
        except Exception:  # noqa: BLE001 - whose it is shows when each runs for itself
            self.roll_back()
            self.on_rollback(())
            self.apply()
            self._begin()
            outcomes = [self._attempt(piece) for piece in batch]
        self._commit()
        for piece in batch:
            self.on_applied(piece.changes)
        return outcomes

    def roll_back(self) -> None:
        with contextlib.suppress(Exception):  # whoever tries again finds it again
            self.take_back()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._later[:0], self._applied = self._applied, []
        self.later_bytes, self._applied_bytes = self.later_bytes + self._applied_bytes, 0

    def close(self) -> None:
        if self.log:
            self.log.close()

    # ---- the rest is how it is done

    def _take(self) -> list[Change]:
        """What was appended, to be run in the transaction that is open or about to be."""
        changes, self._later = self._later, []
        self._applied += changes
        self.later_bytes, self._applied_bytes = 0, self._applied_bytes + self.later_bytes
        return changes

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
            faults.reach("commit.begun")

    def _commit(self) -> None:
        upto = self.log.number if self.log and self._applied else 0
        self._end(upto)
        if upto:
            self._settled(upto)

    def _end(self, upto: int) -> None:
        if upto:
            redo.note_upto(self._connection, upto)
        faults.reach("commit.ready")
        self._connection.execute("COMMIT")
        faults.reach("commit.done")

    def _settled(self, upto: int) -> None:
        """SQLite has the records up to this one."""
        assert self.log
        applied, self._applied, self._applied_bytes = self._applied, [], 0
        self.has_recovered = False
        self.log.settled(upto)
        self.on_applied(applied)
        if self.fell_behind:
            self.fell_behind = False
            self.on_caught_up()

    def _run(self, piece: Piece) -> Outcome:
        """Raises what the disk did, and what the piece raises after it has changed something."""
        if piece.work is None:
            redo.replay(self._connection, redo.runs_of(piece.changes))
            return NOTHING
        before = self._connection.total_changes
        try:
            return piece.work(self._writer), None
        except STORAGE_ERRORS:
            raise
        except Exception as error:
            if self._connection.total_changes != before:
                raise
            return None, error

    def _attempt(self, piece: Piece) -> Outcome:
        """One piece of the batch within a savepoint, so that its failure is its own."""
        self._connection.execute("SAVEPOINT one")
        try:
            outcome = self._run(piece)
        except STORAGE_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to this one caller
            self._connection.execute("ROLLBACK TO one")
            outcome = None, error
        self._connection.execute("RELEASE one")
        return outcome


def problem_of(error: Exception) -> Exception:
    """NoSpace for want of room on the disk; anything else is itself."""
    cause = getattr(error, "orig", error)
    if getattr(cause, "sqlite_errorname", "").startswith("SQLITE_FULL") or "disk is full" in str(cause):
        return NoSpace("the disk is full: this was not stored")
    return error
