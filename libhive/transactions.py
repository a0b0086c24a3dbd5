"""What SQLite and the redo log of one database do, one after the other. It knows of no loop, and of nobody who waits.

What is appended to the redo log is durable, and is run in SQLite later: by the next batch, by `settle`, or as far as a
reader needs it (`apply`), in a transaction that may stay open until then. A batch runs without savepoints; when a piece of
it fails after it has changed something, all of it is rolled back and run again with a savepoint around each piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from pysqlite3 import dbapi2
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from libhive import faults, redo
from libhive.promise import Promise
from libhive.redo import Change, RedoLog

STORAGE_ERRORS = (OperationalError, dbapi2.OperationalError)
"""What the file or the disk did, through SQLAlchemy or through its driver: the whole batch's, not one caller's."""

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
    """Whatever raises one of STORAGE_ERRORS wants a `roll_back`; nothing that was appended gets lost by that."""

    def __init__(self, writer: Connection, connection: Any, log: RedoLog | None) -> None:
        """`connection` is the driver's own below `writer`."""
        self.log = log
        self._writer, self._connection = writer, connection
        self._looker = connection.cursor()
        self._later: list[Change] = []
        self._applied: list[Change] = []
        """In the redo log, and run in the transaction that is open."""
        self.later_bytes = 0
        """Of what is in the redo log, and not run yet."""
        self.fold: Callable[[list[Change]], list[Change]] = lambda changes: changes
        """Makes fewer changes of these, which come to the same."""
        self.on_applied: Callable[[Sequence[Change]], None] = lambda changes: None
        """Called when these, which were appended, are in SQLite's own files."""
        self.on_rollback: Callable[[Sequence[Change]], None] = lambda changes: None
        """Called when a batch with these changes was undone; they may be done again right after that."""

    @property
    def is_behind(self) -> bool:
        """Whether something that was appended has not been run yet."""
        return bool(self._later)

    @property
    def is_settled(self) -> bool:
        return not self._later and not self._connection.in_transaction

    def look(self, statement: str, values: Sequence[Any]) -> Any:
        self._begin()
        return self._looker.execute(statement, values).fetchone()

    # ---- the redo log

    def append(self, changes: Iterable[Change]) -> bool:
        """Durable when it returns. False when they do not fit into the log, however empty."""
        changes = list(changes)
        if not changes:
            return True
        assert self.log
        payload = redo.payload_of(changes)
        if not self.log.has_room(payload):
            self.settle()
            if not self.log.has_room(payload):
                return False
        self.log.append(payload)
        self._later += changes
        self.later_bytes += len(payload)
        return True

    def recover(self) -> None:
        """Finds what was appended and not run before the last end of the process."""
        came_to = redo.upto(self._connection) if self.log else None
        if came_to is None or self.log is None:
            return
        self._later = [
            (statement, tuple(values)) for statement, rows in self.log.recover(came_to) for values in rows
        ]

    def apply(self) -> None:
        """Runs what was appended."""
        self._begin()
        changes, self._later, self.later_bytes = self._later, [], 0
        self._applied += changes
        try:
            redo.replay(self._connection, redo.runs_of(self.fold(changes)))
        except dbapi2.IntegrityError as error:  # a bug: it was confirmed, and may not get lost
            raise dbapi2.OperationalError(f"a change that was confirmed cannot be made: {error}") from error

    def settle(self) -> None:
        """Brings all of it into SQLite's own files, where others see it."""
        self.apply()
        self._commit()

    # ---- SQLite

    def run(self, batch: Sequence[Piece]) -> list[Outcome]:
        """Durable when it returns."""
        try:
            self.apply()
            outcomes = [self._run(piece) for piece in batch]
        except STORAGE_ERRORS:
            raise
        except Exception:  # noqa: BLE001 - whose it is shows when each runs for itself
            self.roll_back()
            self.undone(batch)
            self.apply()
            outcomes = [self._attempt(piece) for piece in batch]
        self._commit()
        for piece in batch:
            self.on_applied(piece.changes)
        return outcomes

    def roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._later[:0], self._applied = self._applied, []

    def undone(self, batch: Sequence[Piece]) -> None:
        self.on_rollback([change for piece in batch for change in piece.changes])

    def close(self) -> None:
        if self.log:
            self.log.close()

    # ---- the rest is how it is done

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
            faults.reach("commit.begun")

    def _commit(self) -> None:
        applied = self._applied
        if applied and self.log:
            redo.note_upto(self._connection, self.log.number)
        faults.reach("commit.ready")
        self._connection.execute("COMMIT")
        faults.reach("commit.done")
        if applied and self.log:
            self._applied = []
            self.log.begin_anew()
            self.on_applied(applied)

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
