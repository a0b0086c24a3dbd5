"""The registry on disk: agents, the starts of their cages, the commands already done, the letters to the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Connection

from libhive.clock import Clock
from libhive.messages.base import Done, Request
from libhive.messages.broker import CloseMailbox, News, OpenMailbox
from libhive.messages.lifecycle import Agent
from libhive.names import new_id
from libhive.spec import AgentSpec
from libhive.sqlite import Database
from services.lifecycle.rules import Change, Row

_LETTERS: dict[str, type[Request[Done]]] = {kind.KIND: kind for kind in (CloseMailbox, News, OpenMailbox)}

MIGRATIONS = (
    """
    CREATE TABLE agents (
        name TEXT PRIMARY KEY,
        number INTEGER NOT NULL UNIQUE,
        page_port INTEGER NOT NULL UNIQUE,
        desired TEXT NOT NULL,
        spec TEXT NOT NULL,
        revision INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        stale_generation INTEGER NOT NULL,
        broken INTEGER NOT NULL,
        detail TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE starts (
        name TEXT NOT NULL REFERENCES agents,
        generation INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ms INTEGER NOT NULL DEFAULT 0,
        exit_code INTEGER NOT NULL DEFAULT -1,
        failed INTEGER NOT NULL DEFAULT 0,
        forgiven INTEGER NOT NULL DEFAULT 0,
        detail TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (name, generation)
    ) WITHOUT ROWID;
    CREATE TABLE commands (
        id TEXT PRIMARY KEY,
        reply TEXT NOT NULL DEFAULT '',
        at_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE letters (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        body TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE purged (
        name TEXT NOT NULL,
        number INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL
    )
    """,
)

_ROW = "name, number, page_port, desired, spec, revision, generation, stale_generation, broken, detail"
_UPSERT = f"""
    INSERT INTO agents ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET desired = excluded.desired, spec = excluded.spec, revision = excluded.revision,
        generation = excluded.generation, stale_generation = excluded.stale_generation, broken = excluded.broken,
        detail = excluded.detail
"""
STARTS_KEPT_MAX = 100
"""Per agent; of older ones only the count is left, in the generation's number."""

Decide = Callable[[Row | None, list[Row]], Change]


class Store:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def rows(self) -> list[Row]:
        return self._database.read(_rows)

    def row(self, name: str) -> Row | None:
        return self._database.read(lambda connection: _row(connection, name))

    def last_purged(self) -> int:
        """The greatest number of an agent that is no more."""
        query = "SELECT coalesce(max(number), 0) FROM purged"
        return int(self._database.read(lambda connection: connection.exec_driver_sql(query).scalar_one()))

    async def forget(self, row: Row) -> None:
        def work(connection: Connection) -> None:
            _run(
                connection,
                "INSERT INTO purged (name, number, at_ms) VALUES (?, ?, ?)",
                row.name,
                row.number,
                self._clock(),
            )
            _run(connection, "DELETE FROM starts WHERE name = ?", row.name)
            _run(connection, "DELETE FROM agents WHERE name = ?", row.name)

        await self._database.write(work)

    async def command(self, id: str, name: str, decide: Decide) -> bool:
        """Does what `decide` says, once for this id; false when that was done before."""

        def work(connection: Connection) -> bool:
            if connection.exec_driver_sql("SELECT 1 FROM commands WHERE id = ?", (id,)).first():
                return False
            _save(connection, decide(_row(connection, name), _rows(connection)))
            connection.exec_driver_sql("INSERT INTO commands (id, at_ms) VALUES (?, ?)", (id, self._clock()))
            return True

        return await self._database.write(work)

    def answer(self, id: str) -> Agent | None:
        """What the command was answered, if it came that far."""
        query = "SELECT reply FROM commands WHERE id = ? AND reply != ''"
        found = self._database.read(lambda connection: connection.exec_driver_sql(query, (id,)).first())
        return msgspec.json.decode(found[0], type=Agent) if found else None

    async def answered(self, id: str, reply: Agent) -> None:
        text = msgspec.json.encode(reply).decode()
        query = "UPDATE commands SET reply = ? WHERE id = ?"
        await self._database.write(lambda connection: _run(connection, query, text, id))

    async def forget_commands(self, before_ms: int) -> None:
        query = "DELETE FROM commands WHERE at_ms < ?"
        await self._database.write(lambda connection: _run(connection, query, before_ms))

    async def started(self, name: str) -> Row:
        """The next generation's number is taken, on disk before its cage is."""

        def work(connection: Connection) -> Row:
            _run(connection, "UPDATE agents SET generation = generation + 1 WHERE name = ?", name)
            row = _row(connection, name)
            assert row is not None
            query = "INSERT INTO starts (name, generation, revision, started_ms) VALUES (?, ?, ?, ?)"
            _run(connection, query, name, row.generation, row.revision, self._clock())
            query = "DELETE FROM starts WHERE name = ? AND generation <= ?"
            _run(connection, query, name, row.generation - STARTS_KEPT_MAX)
            return row

        return await self._database.write(work)

    async def ended(self, name: str, exit_code: int) -> None:
        """Every start that has not ended yet has, as it was wanted or while nobody was looking."""
        query = "UPDATE starts SET ended_ms = ?, exit_code = ? WHERE name = ? AND ended_ms = 0"
        await self._database.write(lambda connection: _run(connection, query, self._clock(), exit_code, name))

    async def failed(
        self, name: str, exit_code: int, why: str, window_ms: int, decide: Callable[[Row, list[int]], Change]
    ) -> Row:
        """The start of this generation has failed, now; `decide` gets the failures within the window."""
        now = self._clock()

        def work(connection: Connection) -> Row:
            query = "UPDATE starts SET ended_ms = ?, exit_code = ?, failed = 1, detail = ? WHERE name = ? AND ended_ms = 0"
            _run(connection, query, now, exit_code, why, name)
            row = _row(connection, name)
            assert row is not None
            change = decide(row, _failures(connection, name, now - window_ms))
            _save(connection, change)
            return change.row

        return await self._database.write(work)

    def failures(self, name: str, since_ms: int) -> list[int]:
        return self._database.read(lambda connection: _failures(connection, name, since_ms))

    def next_letter(self) -> tuple[str, Request[Done]] | None:
        """The oldest one the broker has not taken: the id it is to be sent with, always the same, and the request."""
        query = "SELECT id, kind, body FROM letters ORDER BY seq LIMIT 1"
        found = self._database.read(lambda connection: connection.exec_driver_sql(query).first())
        return (found[0], msgspec.json.decode(found[2], type=_LETTERS[found[1]])) if found else None

    async def letter_done(self, id: str) -> None:
        await self._database.write(
            lambda connection: _run(connection, "DELETE FROM letters WHERE id = ?", id)
        )

    def close(self) -> None:
        self._database.close()


def _run(connection: Connection, query: str, *values: Any) -> None:
    connection.exec_driver_sql(query, values)


def _rows(connection: Connection) -> list[Row]:
    return [
        _row_of(found) for found in connection.exec_driver_sql(f"SELECT {_ROW} FROM agents ORDER BY number")
    ]


def _row(connection: Connection, name: str) -> Row | None:
    found = connection.exec_driver_sql(f"SELECT {_ROW} FROM agents WHERE name = ?", (name,)).first()
    return _row_of(found) if found else None


def _row_of(found: Any) -> Row:
    columns = dict(found._mapping)
    columns["spec"] = msgspec.json.decode(columns["spec"], type=AgentSpec)
    columns["broken"] = bool(columns["broken"])
    return Row(**columns)


def _failures(connection: Connection, name: str, since_ms: int) -> list[int]:
    query = "SELECT ended_ms FROM starts WHERE name = ? AND failed = 1 AND forgiven = 0 AND ended_ms > ? ORDER BY 1"
    return [row[0] for row in connection.exec_driver_sql(query, (name, since_ms))]


def _save(connection: Connection, change: Change) -> None:
    row = change.row
    spec = msgspec.json.encode(row.spec).decode()
    values = (row.name, row.number, row.page_port, row.desired, spec, row.revision)
    _run(connection, _UPSERT, *values, row.generation, row.stale_generation, int(row.broken), row.detail)
    if change.forgive:
        _run(connection, "UPDATE starts SET forgiven = 1 WHERE name = ?", row.name)
    for letter in change.letters:
        body = msgspec.json.encode(letter).decode()
        _run(connection, "INSERT INTO letters (id, kind, body) VALUES (?, ?, ?)", new_id(), letter.KIND, body)
