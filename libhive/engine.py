"""How a file of SQLite is opened: by which version, with which settings, and with its schema brought up to date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2
from sqlalchemy import Connection, Engine, create_engine, event

from libhive.problems import Conflict

SQLITE_VERSION_MIN = (3, 51, 3)
"""Older ones can corrupt a WAL that is reset while another connection checkpoints."""
WAL_AUTOCHECKPOINT_PAGES = 4000
CACHE_KIB = 8 * 1024
"""Of each connection, filled by what it touches; SQLite's own 2 MB make it read its log again while there is traffic."""
BUSY_TIMEOUT_MS = 5_000


def check_version() -> None:
    """Raises Problem when the SQLite that would hold our data is too old to be trusted with a WAL."""
    if pysqlite3.dbapi2.sqlite_version_info < SQLITE_VERSION_MIN:
        wanted = ".".join(map(str, SQLITE_VERSION_MIN))
        raise Conflict(
            f"SQLite {pysqlite3.dbapi2.sqlite_version} can corrupt a write-ahead log; {wanted} or newer is needed",
            "install a newer pysqlite3 wheel",
        )


def engine_of(path: Path) -> Engine:
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


def migrate(connection: Connection, path: Path, migrations: Sequence[str]) -> None:
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
