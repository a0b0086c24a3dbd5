"""Answers to commands, kept beside what the commands did: repeating one by its id gives the first answer again."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from sqlalchemy import Connection

S = TypeVar("S", bound=msgspec.Struct)

ANSWERS_TABLE = """
CREATE TABLE answers (
    id TEXT PRIMARY KEY,
    reply BLOB NOT NULL,
    at_ms INTEGER NOT NULL
) WITHOUT ROWID
"""
"""For the migrations of a database that keeps them."""


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
