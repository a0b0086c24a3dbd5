"""A redo log beside a SQLite file: changes that are on stable storage before SQLite has heard of them.

A commit of SQLite writes every page that it touches, several for each row; here a row is written once, in one piece, over
bytes that the file has already. The changes are statements with their values. SQLite runs them later, many in one
transaction of its own, and notes there up to which record it has come (the table `redo`): from then on they are its own.
The log has two halves. One is written until it is full, then the other, if SQLite has all that is in that; whenever it has
all there is, the one in use begins anew. After a crash `recover` finds what SQLite had not come to.

A record is its salt, its number, its length and a checksum of these and of what follows: statements, each with the rows of
values to run it with, as msgpack. The salt is drawn anew at each start, unless something of an earlier life is wanted still
or there is no room to note it in the table: so no record of another database, or of an older time, is taken for one of this
log. With one salt numbers go up by one. A record is only begun when the one before is durable: whatever a power cut leaves
of the last one, nobody was told of it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from libhive import faults

END: Final = "-redo"
"""What its name has beyond that of the database."""
BYTES: Final = 4 << 20
"""Its length from the first day on: a write that makes a file longer is twice as slow to sync."""
PIECE_BYTES: Final = 1 << 20
FREE_BYTES_MIN: Final = 1 << 30
"""With less left on the disk no log is begun."""
TABLE: Final = """
CREATE TABLE redo (upto INTEGER NOT NULL, salt INTEGER NOT NULL);
INSERT INTO redo VALUES (0, 0)
"""
"""For the migrations of a database that keeps one."""

ROWS: Final = 32

_ROW = re.compile(r"\(\?(?:, \?)*\)")
_HEAD = struct.Struct("<QQII")
"""Salt, number, bytes that follow, checksum."""
_SUMMED = struct.Struct("<QQI")

Value = str | int | float | bytes | None
Change = tuple[str, tuple[Value, ...]]
"""A statement and the values to run it with. It must come to the same whenever it runs: it asks for no instant and draws no
lots."""
Runs = list[tuple[str, list[tuple[Value, ...]]]]
"""Changes in their order, neighbours of one statement together."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[str, list[tuple[Any, ...]]]]).decode

log = logging.getLogger("hive.redo")


def runs_of(changes: Iterable[Change]) -> Runs:
    found: Runs = []
    last, rows = "", list[tuple[Value, ...]]()
    for statement, values in changes:
        if statement is not last:
            last, rows = statement, []
            found.append((statement, rows))
        rows.append(values)
    return found


class RedoLog:
    """`number` is that of the last record. Any OSError it raises ends the process: what of the record is durable is then for
    the next start to find."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self.size = descriptor, size
        self._half = size // 2
        self._place, self._at = 0, 0
        """In which half the next record goes, and at which byte."""
        self._lasts = [0, 0]
        """The number of the last record in each half."""
        self._upto = 0
        self.number = self.salt = 0

    @classmethod
    def open(cls, database: Path) -> RedoLog | None:
        """The database's own, made if need be; None where there is no room for one."""
        path = path_of(database)
        if not path.exists() and not _make(path):
            return None
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        return cls(descriptor, os.fstat(descriptor).st_size)

    def recover(self, upto: int, salt: int) -> Runs:
        """What follows the record `upto` of a database with this salt; the log goes on after it."""
        self.begin(upto, salt)
        data = os.pread(self._descriptor, self.size, 0)
        found: Runs = []
        for record in sorted(record for record in _records(data) if record.salt == salt):
            if record.number > self.number + 1:
                log.error("the redo log goes on at a later point than its database, and is not used")
                break
            if record.number == self.number + 1:
                self.number, self._at = record.number, record.end
                self._place = int(record.end > self._half)
                self._lasts[self._place] = record.number
                found += _decode(record.payload)
        return found

    def begin(self, upto: int, salt: int) -> None:
        """At its first byte: nothing in it is wanted."""
        self.number, self.salt, self._upto = upto, salt, upto
        self._place, self._at, self._lasts = 0, 0, [0, 0]

    def has_room(self, payload: bytes) -> bool:
        length = _HEAD.size + len(payload)
        return self._fits(length) or (length <= self._half and self._lasts[1 - self._place] <= self._upto)

    def append(self, payload: bytes) -> None:
        """On stable storage when it returns. Only while it `has_room`."""
        number = self.number + 1
        faults.reach("redo.ready")
        head = self.salt, number, len(payload)
        record = _HEAD.pack(*head, _sum(*head, payload)) + payload
        if not self._fits(len(record)):
            self._place = 1 - self._place
            self._at = self._place * self._half
        at, view = self._at, memoryview(record)
        while view:
            written = os.pwrite(self._descriptor, view, at)
            at, view = at + written, view[written:]
        faults.reach("redo.written")
        os.fdatasync(self._descriptor)
        faults.reach("redo.synced")
        self.number, self._at, self._lasts[self._place] = number, at, number

    def settled(self, upto: int) -> None:
        """Once SQLite has all records up to this one on stable storage."""
        self._upto = upto
        if upto == self.number:
            self._at = self._place * self._half

    def close(self) -> None:
        os.close(self._descriptor)

    def _fits(self, length: int) -> bool:
        return self._at + length <= (self._place + 1) * self._half


def payload_of(changes: Iterable[Change]) -> bytes:
    return _encode(runs_of(changes))


def path_of(database: Path) -> Path:
    return database.with_name(database.name + END)


def replay(connection: Any, runs: Runs) -> None:
    """In a transaction of the driver's connection. An INSERT of many rows gets ROWS of them by one execution, which lets go of
    Python's lock once: another thread may well keep it for as long as many rows take."""
    for statement, rows in runs:
        many, at = _of_many(statement), 0
        while many and len(rows) - at >= ROWS:
            connection.execute(many, list(chain.from_iterable(rows[at : at + ROWS])))
            at += ROWS
        connection.executemany(statement, rows[at:])


@lru_cache
def _of_many(statement: str) -> str:
    """The same for ROWS rows; empty when it is no INSERT of a row of values."""
    head, values, tail = statement.partition(" VALUES ")
    row = _ROW.match(tail) if values and head.startswith("INSERT INTO ") else None
    if row is None or "?" in (rest := tail[row.end() :]):
        return ""
    return f"{head} VALUES {', '.join([row[0]] * ROWS)}{rest}"


def mark_of(connection: Any) -> tuple[int, int] | None:
    """The record that the database has come to, and its salt; None when it keeps no redo log."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'redo'").fetchone():
        return None
    row = connection.execute("SELECT upto, salt FROM redo").fetchone()
    return (int(row[0]), int(row[1])) if row else None


def note_upto(connection: Any, number: int) -> None:
    """In the transaction that has run the records up to it."""
    connection.execute("UPDATE redo SET upto = ?", (number,))


def note_salt(connection: Any, salt: int) -> None:
    """In a transaction after which nothing in the log is wanted any more."""
    connection.execute("UPDATE redo SET salt = ?", (salt,))


def left_in(database: Path) -> Runs:
    """All that a log still holds, also what its database has: for whoever looks for what is missing."""
    path = path_of(database)
    if not path.exists():
        return []
    records = sorted(_records(path.read_bytes()), key=lambda record: (record.salt, record.number))
    return [run for record in records for run in _decode(record.payload)]


class _Record(NamedTuple):
    number: int
    salt: int
    payload: bytes
    end: int


def _records(data: bytes) -> Iterator[_Record]:
    """In each half from its first byte on, as far as one follows another."""
    half = len(data) // 2
    for start in (0, half):
        yield from _following(data, start, start + half)


def _following(data: bytes, at: int, limit: int) -> Iterator[_Record]:
    last: _Record | None = None
    while at + _HEAD.size <= limit:
        salt, number, length, checksum = _HEAD.unpack_from(data, at)
        start, end = at + _HEAD.size, at + _HEAD.size + length
        if not length or end > limit or (last and (salt, number) != (last.salt, last.number + 1)):
            return
        payload = data[start:end]
        if _sum(salt, number, length, payload) != checksum:
            return
        last = _Record(number, salt, payload, end)
        yield last
        at = end


def _sum(salt: int, number: int, length: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_SUMMED.pack(salt, number, length)))


def _make(path: Path) -> bool:
    """Whole before it has its name, and its name durable before anything is in it. Says whether it could be made."""
    if shutil.disk_usage(path.parent).free < FREE_BYTES_MIN:
        return False
    fresh = path.with_name(f".{path.name}.new")
    try:
        _write_zeros(fresh)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        log.warning("no redo log could be made: %s", error)
        return False
    fresh.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True


def _write_zeros(fresh: Path) -> None:
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        zeros = bytes(PIECE_BYTES)
        for _ in range(BYTES // PIECE_BYTES):
            os.write(descriptor, zeros)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
