"""Which rows of a broken database are not in the one that was put in its place, by name.

A table is walked from both ends towards what cannot be read, and then from the middle of what is left; its indexes
hold the names as well, on other pages. The broken file is only ever read.
"""

from __future__ import annotations

import contextlib
import heapq
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pysqlite3 import dbapi2 as driver

from libhive import redo
from libhive.integrity.check import connected, quoted, tables

NAMES = ("id", "number", "name", "agent")
"""The columns by which a person would look for a row, best first."""
SHOWN = ("seq", "recipient", "sender", "asker", "agent", "kind", "state", "step")
UNNAMED = frozenset({"answers", "commands", "heads", "letters", "outbox", "starts", "tags", "usage"})
"""Bookkeeping: nobody asks for a row of these by its name."""
PROBES_MAX = 400
END = 2**62
NAMED_MAX = 100_000
PAGE_BYTES_DEFAULT = 4096

Found = dict[str, dict[str, str]]
Seen = Callable[[Any], None]


class Loss:
    """What is missing: by table, each name with what else is known of it; and what could not even be read."""

    def __init__(self) -> None:
        self.missing: dict[str, Found] = {}
        self.unreadable: list[str] = []


def compare(broken: Path, whole: Path) -> Loss:
    """Never raises for what the broken file holds: what cannot be read is said."""
    loss = Loss()
    if not broken.exists():
        loss.unreadable.append("the file itself is gone: nothing of it can be named")
        return loss
    with connected(whole) as kept:
        _compare_log(broken, kept, loss)
        try:
            with _readable(broken, whole) as lost:
                for table in tables(kept):
                    if table not in UNNAMED and (name := _name_column(kept, table)):
                        _compare_table(lost, kept, table, name, loss)
        except (driver.DatabaseError, OSError) as error:
            loss.unreadable.append(f"the file itself cannot be read ({error}): nothing of it can be named")
    return loss


def _compare_log(broken: Path, kept: Any, loss: Loss) -> None:
    """What was stored last may be in the redo log alone. It is run in an empty database with the tables of the whole one, so
    that no damage of the broken file hinders it."""
    try:
        runs = redo.left_in(broken)
    except (OSError, ValueError) as error:
        loss.unreadable.append(f"its redo log cannot be read ({error}): what was stored last is not named")
        return
    with contextlib.closing(driver.connect(":memory:", isolation_level=None)) as lost:
        for table in tables(kept):
            (sql,) = kept.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
            lost.execute(sql)
        for statement, rows in runs:
            for values in rows:
                with contextlib.suppress(driver.DatabaseError):  # a change of what only the file has
                    lost.execute(statement, values)
        for table in tables(lost):
            if table not in UNNAMED and (name := _name_column(lost, table)):
                _compare_table(lost, kept, table, name, loss)


@contextlib.contextmanager
def _readable(broken: Path, whole: Path) -> Iterator[Any]:
    """On a copy, which may be written: reading a log needs that. Without a first page it is lent the whole one's."""
    with tempfile.TemporaryDirectory(dir=broken.parent, prefix=".salvage-") as place:
        copy = Path(place) / broken.name
        for end in ("", "-wal"):
            if (part := broken.with_name(broken.name + end)).exists():
                shutil.copyfile(part, copy.with_name(copy.name + end))
        if not _opens(copy):
            _lend_first_page(copy, whole)
        with connected(copy) as connection:
            yield connection


def _opens(path: Path) -> bool:
    try:
        with connected(path) as connection:
            return bool(tables(connection))
    except driver.DatabaseError:
        return False


def _lend_first_page(copy: Path, whole: Path) -> None:
    """The schema and where each table begins are the same in both: one is a page-by-page copy of the other."""
    with whole.open("rb") as source:
        page = bytearray(source.read(100))
        size = int.from_bytes(page[16:18], "big")
        size = 65_536 if size == 1 else size or PAGE_BYTES_DEFAULT
        page += source.read(size - 100)
    page[28:32] = (copy.stat().st_size // size).to_bytes(4, "big")
    page[92:96] = page[24:28]  # else the count just written would not be believed
    page[32:40] = bytes(8)  # nor is anything known of free pages
    with copy.open("r+b") as target:
        target.write(page)


def _name_column(connection: Any, table: str) -> str:
    columns = _columns(connection, table)
    return next((name for name in NAMES if name in columns), "")


def _columns(connection: Any, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(table)})")]


def _compare_table(lost: Any, kept: Any, table: str, name: str, loss: Loss) -> None:
    known = [column for column in _columns(kept, table) if column == name or column in SHOWN]
    found = loss.missing.get(table, {})
    is_kept = f"SELECT 1 FROM {quoted(table)} WHERE {quoted(name)} = ?"

    def seen(columns: list[str], row: Any) -> None:
        said = {column: str(value) for column, value in zip(columns, row, strict=True)}
        key = said.pop(name)
        if key in found:
            found[key] |= said
        elif len(found) < NAMED_MAX and not kept.execute(is_kept, (row[columns.index(name)],)).fetchone():
            found[key] = said

    walk = _Walk(lost, table, known, lambda row: seen(known, row))
    gaps = walk.by_rowid() if _has_rowid(kept, table) else walk.by_key(name)
    for index, columns in _indexes(kept, table, name):
        covered = [column for column in columns if column == name or column in SHOWN]
        _Walk(lost, table, covered, lambda row, c=covered: seen(c, row), index).by_key(name)  # type: ignore[misc]
    if found:
        loss.missing[table] = found
    loss.unreadable += gaps


def _has_rowid(connection: Any, table: str) -> bool:
    query = "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?"
    return not connection.execute(query, (table,)).fetchone()[0]


def _indexes(connection: Any, table: str, name: str) -> list[tuple[str, list[str]]]:
    """Those that hold the name in full; a partial index holds some rows only, and cannot be asked for all."""
    found = []
    for _, index, _, origin, partial in connection.execute(f"PRAGMA index_list({quoted(table)})"):
        columns = [row[2] for row in connection.execute(f"PRAGMA index_info({quoted(index)})")]
        if not partial and origin != "pk" and name in columns:
            found.append((index, columns))
    return found


class _Walk:
    """Through one table or index of the broken file."""

    def __init__(self, lost: Any, table: str, columns: list[str], seen: Seen, index: str = "") -> None:
        self.lost, self.table, self.columns, self.seen = lost, table, columns, seen
        by = f"INDEXED BY {quoted(index)}" if index else "NOT INDEXED"
        self.source = f"{quoted(table)} {by}"

    def by_rowid(self) -> list[str]:
        """Sentences about the rows that could not be read."""
        low = self._run("ASC", -1, END)
        if low is None:
            return []
        high = self._run("DESC", low, END)
        if high is None:
            return []
        if high == END and (high := self._last_known() + 1) <= low + 1:
            return [f"{self.table}: what comes after row {low} cannot be read"]
        gaps = self._gaps(low, high)
        return [f"{self.table}: rows {first} to {last} cannot be read" for first, last in gaps]

    def by_key(self, name: str) -> list[str]:
        """From both ends; what lies between two unreadable pages of an index stays there."""
        if self._sweep(name, "ASC") and self._sweep(name, "DESC"):
            return [f"{self.table}: some rows cannot be read, and have no number by which to say how many"]
        return []

    def _sweep(self, name: str, order: str) -> bool:
        """Whether it broke off."""
        picked = ", ".join(quoted(column) for column in self.columns)
        try:
            query = f"SELECT {picked} FROM {self.source} ORDER BY {quoted(name)} {order}"
            for row in self.lost.execute(query):
                self.seen(row)
        except driver.DatabaseError:
            return True
        return False

    def _gaps(self, low: int, high: int) -> list[tuple[int, int]]:
        """What stays unread between `low` and `high`, neither included: the widest gap is tried from its middle,
        both ways, until they are all single rows or it has been tried often enough."""
        heap = [(low - high, low, high)]
        for _ in range(PROBES_MAX):
            if not heap or heap[0][2] - heap[0][1] <= 2:
                break
            _, low, high = heapq.heappop(heap)
            middle = (low + high) // 2
            up, down = self._run("ASC", middle - 1, high), self._run("DESC", low, middle)
            for first, last in ((up, high), (low, down)):
                if first is not None and last is not None and last - first > 1:
                    heapq.heappush(heap, (first - last, first, last))
        return _joined(sorted((low + 1, high - 1) for _, low, high in heap))

    def _run(self, order: str, low: int, high: int) -> int | None:
        """Reads between the two, neither included. The last row before it broke off, or where it began; None: it
        came to the end."""
        last = low if order == "ASC" else high
        picked = ", ".join(quoted(column) for column in self.columns)
        between = f"WHERE rowid > ? AND rowid < ? ORDER BY rowid {order}"
        try:
            for row in self.lost.execute(f"SELECT rowid, {picked} FROM {self.source} {between}", (low, high)):
                last = row[0]
                self.seen(row[1:])
        except driver.DatabaseError:
            return last
        return None

    def _last_known(self) -> int:
        """The highest number that was ever given, when the table counts and its counter can be read."""
        with contextlib.suppress(driver.DatabaseError):
            query = "SELECT seq FROM sqlite_sequence WHERE name = ?"
            if row := self.lost.execute(query, (self.table,)).fetchone():
                return int(row[0])
        return 0


def _joined(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for first, last in gaps:
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return found
