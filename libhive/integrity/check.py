"""Is this database whole? Looked at through a connection of its own, which changes nothing in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pysqlite3 import dbapi2 as driver

DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
FAULTS_SHOWN_MAX = 3
BUSY_TIMEOUT_SECONDS = 5.0
BOOKKEEPING = ("sqlite_",)

DatabaseError: type[Exception] = driver.DatabaseError


class Damaged(Exception):  # noqa: N818 - what was found, not a failure of the one who looked
    """The database itself is not whole; the text is SQLite's."""


def is_damage(error: BaseException | None) -> bool:
    """Whether it, or what it was raised from, says that a database is not whole: the file's fault, not the disk's."""
    while error is not None:
        said = getattr(error, "orig", None) or error
        if isinstance(error, Damaged) or str(getattr(said, "sqlite_errorname", "")).startswith(DAMAGE):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def connected(path: Path, *, immutable: bool = False) -> Iterator[Any]:
    """`immutable` is for a file that nobody writes: neither locks nor a log are made beside it."""
    how = "mode=ro&immutable=1" if immutable else "mode=rw"
    connection = driver.connect(
        f"file:{quote(str(path))}?{how}", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_SECONDS
    )
    try:
        yield connection
    finally:
        connection.close()


def fault_of(path: Path, *, deep: bool = True, immutable: bool = False) -> str:
    """What is wrong with it, in SQLite's words; empty when nothing is.

    Not `deep`, only the schema is read: the header is there and leads somewhere. Raises what is not the file's own
    fault, such as a full disk.
    """
    try:
        with connected(path, immutable=immutable) as connection:
            if not deep:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return ""
            found = connection.execute(f"PRAGMA quick_check({FAULTS_SHOWN_MAX})").fetchall()
    except driver.DatabaseError as error:
        if is_damage(error):
            return str(error)
        raise
    said = "; ".join(str(row[0]).replace("\n", " ") for row in found)
    return "" if said == "ok" else said or "quick_check says nothing"


def counts(path: Path) -> dict[str, int]:
    """How many rows each table of a snapshot has."""
    with connected(path, immutable=True) as connection:
        count = "SELECT count(*) FROM {}"
        return {
            name: connection.execute(count.format(quoted(name))).fetchone()[0] for name in tables(connection)
        }


def schema(path: Path) -> int:
    with connected(path, immutable=True) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def tables(connection: Any) -> list[str]:
    """Plain tables only: what a virtual one shows is in its shadows, and needs its module."""
    query = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name"
    return [name for (name,) in connection.execute(query) if not name.startswith(BOOKKEEPING)]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
