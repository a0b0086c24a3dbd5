"""The harness's own memory: every event of the CLI, every turn, and what is owed to the broker.

A turn's end, the mail it settled and the reply it makes are one transaction. So a harness that dies between the end
of a turn and its acknowledgement settles that debt when it is back, and the model does not see the mail again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from libhive.clock import Clock, now_ms
from libhive.messages.broker import Send
from libhive.promise import Promise
from libhive.sqlite import Database

log = logging.getLogger("hive.harness")

MIGRATIONS = (
    """
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        turn TEXT NOT NULL,
        kind TEXT NOT NULL,
        body TEXT NOT NULL
    );
    CREATE TABLE turns (
        turn TEXT PRIMARY KEY,
        session TEXT NOT NULL,
        outcome TEXT NOT NULL,
        ended_ms INTEGER NOT NULL,
        woken_by TEXT NOT NULL,
        text TEXT NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL
    );
    CREATE TABLE settled (
        mail TEXT PRIMARY KEY,
        turn TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        acked INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX settled_owed ON settled (acked) WHERE acked = 0;
    CREATE TABLE replies (
        id TEXT PRIMARY KEY,
        body TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    );
    CREATE TABLE written_to (
        mail TEXT NOT NULL,
        recipient TEXT NOT NULL,
        PRIMARY KEY (mail, recipient)
    ) WITHOUT ROWID
    """,
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One event as it is shown. `body` is the CLI's own JSON."""

    seq: int
    at_ms: int
    turn: str
    kind: str
    body: msgspec.Raw


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    turns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class TurnEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a turn ended. `mails` are settled by it: empty when it failed."""

    turn: str
    session: str
    outcome: str
    woken_by: str
    text: str
    usage: Usage = Usage()
    mails: tuple[str, ...] = ()
    reply_id: str = ""
    reply: Send | None = None


class Transcript:
    def __init__(self, database: Database, clock: Clock = now_ms) -> None:
        self._database, self._clock = database, clock

    @classmethod
    def open(cls, path: Path) -> Transcript:
        """The agent can write this file. One that it has spoilt is put aside rather than left to end every harness."""
        try:
            return cls(Database.open(path, MIGRATIONS))
        except DatabaseError as error:
            log.error("the transcript cannot be read, and is begun anew: %s", error)
            for part in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
                if part.exists() or part.is_symlink():
                    part.rename(part.with_name(f"{part.name}.spoilt"))
            return cls(Database.open(path, MIGRATIONS))

    def close(self) -> None:
        self._database.close()

    def append(self, turn: str, kind: str, body: bytes) -> Promise[Entry]:
        """Done once it is on stable storage, and only then may it be shown."""
        return self._database.write(lambda connection: self._add(connection, turn, kind, body))

    def end_turn(self, end: TurnEnd, body: bytes) -> Promise[Entry]:
        """The `result` event, the turn's row, what it settles, and the reply it owes: all or nothing."""

        def work(connection: Connection) -> Entry:
            entry = self._add(connection, end.turn, "result", body)
            used = end.usage
            connection.exec_driver_sql(
                "INSERT OR REPLACE INTO turns VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    end.turn, end.session, end.outcome, self._clock(), end.woken_by, end.text,
                    used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens,
                ),
            )  # fmt: skip
            for mail in end.mails:
                connection.exec_driver_sql(
                    "INSERT OR IGNORE INTO settled (mail, turn, at_ms) VALUES (?,?,?)",
                    (mail, end.turn, self._clock()),
                )
            if end.reply is not None:
                connection.exec_driver_sql(
                    "INSERT OR IGNORE INTO replies VALUES (?,?,?)",
                    (end.reply_id, msgspec.json.encode(end.reply).decode(), self._clock()),
                )
            return entry

        return self._database.write(work)

    def settled(self, mails: Iterable[str]) -> set[str]:
        """Which of these a turn has already taken to its end."""
        return {mail for mail in mails if self._one("SELECT 1 FROM settled WHERE mail = ?", mail)}

    def owe_again(self, mails: Sequence[str]) -> Promise[None]:
        """The broker offers what was settled: its acknowledgement got lost."""
        return self._each("UPDATE settled SET acked = 0 WHERE mail = ?", [(mail,) for mail in mails])

    def owed_acks(self, limit: int = 64) -> list[str]:
        rows = self._rows("SELECT mail FROM settled WHERE acked = 0 ORDER BY at_ms LIMIT ?", limit)
        return [row[0] for row in rows]

    def acked(self, mails: Sequence[str]) -> Promise[None]:
        return self._each("UPDATE settled SET acked = 1 WHERE mail = ?", [(mail,) for mail in mails])

    def owed_replies(self) -> list[tuple[str, Send]]:
        rows = self._rows("SELECT id, body FROM replies ORDER BY at_ms")
        return [(row[0], msgspec.json.decode(row[1], type=Send)) for row in rows]

    def replied(self, id: str) -> Promise[None]:
        return self._each("DELETE FROM replies WHERE id = ?", [(id,)])

    def note_written(self, mail: str, recipients: Sequence[str]) -> Promise[None]:
        """A turn that began with this mail has sent to these; a repeated turn knows it."""
        return self._each(
            "INSERT OR IGNORE INTO written_to VALUES (?,?)", [(mail, name) for name in recipients]
        )

    def written_to(self, mail: str) -> set[str]:
        return {row[0] for row in self._rows("SELECT recipient FROM written_to WHERE mail = ?", mail)}

    def page(self, after: int = 0, before: int = 0, limit: int = 200) -> list[Entry]:
        """In order: what follows `after`; else what ends just before `before`, or with the newest."""
        if after:
            return self._entries("seq > ? ORDER BY seq LIMIT ?", after, limit)
        found = self._entries("seq < ? ORDER BY seq DESC LIMIT ?", before or 1 << 62, limit)
        return found[::-1]

    def newest(self) -> int:
        found = self._one("SELECT max(seq) FROM events")
        return int(found[0] or 0) if found else 0

    def usage(self) -> Usage:
        columns = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in columns)
        row = self._one(f"SELECT count(*), {sums} FROM turns")  # noqa: S608
        assert row is not None
        return Usage(turns=row[0], **dict(zip(columns, row[1:], strict=True)))

    def last_turns(self, limit: int) -> list[tuple[str, str]]:
        """What woke each of the last good turns and what it ended with, oldest first."""
        rows = self._rows(
            "SELECT woken_by, text FROM turns WHERE outcome = 'done' ORDER BY ended_ms DESC LIMIT ?", limit
        )
        return [(row[0], row[1]) for row in rows][::-1]

    def prune(self, events_kept_max: int) -> Promise[None]:
        return self._each("DELETE FROM events WHERE seq <= ?", [(self.newest() - events_kept_max,)])

    def _add(self, connection: Connection, turn: str, kind: str, body: bytes) -> Entry:
        at_ms = self._clock()
        seq = connection.exec_driver_sql(
            "INSERT INTO events (at_ms, turn, kind, body) VALUES (?,?,?,?) RETURNING seq",
            (at_ms, turn, kind, body.decode()),
        ).scalar_one()
        return Entry(seq=seq, at_ms=at_ms, turn=turn, kind=kind, body=msgspec.Raw(body))

    def _entries(self, where: str, *values: Any) -> list[Entry]:
        rows = self._rows(f"SELECT seq, at_ms, turn, kind, body FROM events WHERE {where}", *values)  # noqa: S608
        return [
            Entry(seq=r[0], at_ms=r[1], turn=r[2], kind=r[3], body=msgspec.Raw(r[4].encode())) for r in rows
        ]

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        return self._database.read(lambda connection: list(connection.exec_driver_sql(sql, values)))

    def _one(self, sql: str, *values: Any) -> Any:
        rows = self._rows(sql, *values)
        return rows[0] if rows else None

    def _each(self, sql: str, values: Sequence[tuple[Any, ...]]) -> Promise[None]:
        def work(connection: Connection) -> None:
            for row in values:
                connection.exec_driver_sql(sql, row)

        return self._database.write(work)
