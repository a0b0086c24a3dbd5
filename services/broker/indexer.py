"""Puts what is stored into the index of words, behind everybody's back.

Done as a message is stored it would cost more than storing it. So it is done later, in slices of about a millisecond that
join a commit of somebody else's where there is one: rarely while there is traffic, and not at all when nothing is left.
FTS5's own merging of its segments stops the world for tens of milliseconds now and then; it is switched off, and done here
a few pages at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pysqlite3.dbapi2
from sqlalchemy import Connection

from libhive.problems import NoSpace
from libhive.sqlite import Database, driver

SLICE_ROWS_MAX: Final = 32
SLICE_SECONDS_MAX: Final = 0.001
MERGE_PAGES: Final = 24
SPAN_ROWS: Final = 1_000
QUIET_SECONDS: Final = 0.004
BUSY_SECONDS: Final = 0.1
AGAIN_SECONDS: Final = 5.0
"""After the disk was full."""

_OPTIONS = (("automerge", 0), ("crisismerge", 1_999), ("usermerge", 16))
_UPTO = "SELECT coalesce((SELECT upto FROM progress WHERE what = 'search'), 0)"

T = TypeVar("T")
log = logging.getLogger("hive.broker")


class Indexer:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._touched = asyncio.Event()
        self._merging = self._traffic = False
        self._changes = 0

    def touched(self) -> None:
        """There is new mail."""
        self._touched.set()

    async def run(self) -> None:
        await self._write(_configure)
        while True:
            self._touched.clear()
            if await self.slice():
                await asyncio.sleep(BUSY_SECONDS if self._traffic else QUIET_SECONDS)
            else:
                await self._touched.wait()
                await asyncio.sleep(BUSY_SECONDS)  # what comes together is one slice

    async def slice(self) -> bool:
        """One step of the work; False when nothing was left to do."""
        if not (self._merging or self._database.is_behind or self._database.read(_behind)):
            return False
        if (done := await self._write(_index)) is not None:
            self._merging, before, db = done
            self._traffic, self._changes = before != self._changes, db.total_changes
        return True

    async def _write(self, work: Callable[[Connection], T]) -> T | None:
        """What the work returns; None when it could not be done, and something has been done about that."""
        try:
            along = self._traffic or self._database.is_behind
            return await (self._database.write_along if along else self._database.write)(work)
        except NoSpace:
            await asyncio.sleep(AGAIN_SECONDS)
        except pysqlite3.dbapi2.DatabaseError as error:
            if not is_damaged_index(error):
                raise
            await self.rebuild(error)
        return None

    async def rebuild(self, error: Exception) -> None:
        """A damaged index is no reason to be down: it is made anew from the messages."""
        log.error("the index of words is damaged, making it anew", exc_info=error)
        await self._database.write(_forget)
        self.touched()


def is_damaged_index(error: Exception) -> bool:
    """And not the database that it lies in: that is for the next start to look at."""
    return "fts5" in str(error) or getattr(error, "sqlite_errorname", "") == "SQLITE_CORRUPT_VTAB"


def _behind(c: Connection) -> bool:
    return bool(driver(c).execute(f"SELECT (SELECT max(seq) FROM mail) > ({_UPTO})").fetchone()[0])


def _configure(c: Connection) -> None:
    for option in _OPTIONS:
        driver(c).execute("INSERT INTO mail_words (mail_words, rank) VALUES (?, ?)", option)


def _index(c: Connection) -> tuple[bool, int, Any]:
    """The next rows, and then a little merging. Whether there is more of that, how much the connection had changed before,
    and the connection itself: what others write meanwhile shows in that number."""
    db: Any = driver(c)
    until = time.monotonic() + SLICE_SECONDS_MAX
    began = db.total_changes
    before = upto = db.execute(_UPTO).fetchone()[0]
    oldest = newest = 0
    rows = db.execute(
        "SELECT seq, body, stored_ms FROM mail WHERE seq > ? ORDER BY seq LIMIT ?", (upto, SLICE_ROWS_MAX)
    )
    for upto, body, stored_ms in rows:
        db.execute("INSERT INTO mail_words (rowid, body) VALUES (?, ?)", (upto, body))
        oldest, newest = min(oldest or stored_ms, stored_ms), max(newest, stored_ms)
        if time.monotonic() > until:
            break
    if upto > before:
        db.execute("INSERT OR REPLACE INTO progress (what, upto) VALUES ('search', ?)", (upto,))
        _extend_spans(db, before, upto, oldest, newest)
    changes = db.total_changes
    db.execute("INSERT INTO mail_words (mail_words, rank) VALUES ('merge', ?)", (MERGE_PAGES,))
    merging = db.total_changes - changes >= 2  # FTS5's own way to say that it has merged something
    return merging, began, db


def _extend_spans(db: Any, before: int, upto: int, oldest: int, newest: int) -> None:
    changed = db.execute(
        "UPDATE mail_spans SET last = ?, oldest_ms = min(oldest_ms, ?), newest_ms = max(newest_ms, ?)"
        " WHERE last = ? AND last - first < ?",
        (upto, oldest, newest, before, SPAN_ROWS),
    )
    if changed.rowcount == 0:
        db.execute("INSERT INTO mail_spans VALUES (?, ?, ?, ?)", (upto, before + 1, oldest, newest))


def _forget(c: Connection) -> None:
    db: Any = driver(c)
    db.execute("INSERT INTO mail_words (mail_words) VALUES ('delete-all')")
    db.execute("DELETE FROM mail_spans")
    db.execute("DELETE FROM progress WHERE what = 'search'")
    _configure(c)
