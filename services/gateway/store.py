"""What the gateway remembers: usage per agent, the doors that were open, answers to repeated commands; and, in a room of
its own, the ways out."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, TextClause, text

from libhive.answers import ANSWERS_TABLE, recall, remember
from libhive.messages.base import Done
from libhive.messages.gateway import Usage
from libhive.names import AgentName
from libhive.sqlite import Database
from services.gateway.egress.store import MIGRATION as EGRESS_MIGRATION
from services.gateway.egress.store import TABLES as EGRESS_TABLES
from services.gateway.egress.store import EgressStore
from services.gateway.metering import Tokens

MIGRATIONS = [
    """
    CREATE TABLE usage (
        agent TEXT NOT NULL,
        rehearsal INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        last_ms INTEGER NOT NULL,
        PRIMARY KEY (agent, rehearsal)
    ) WITHOUT ROWID;
    CREATE TABLE doors (agent TEXT PRIMARY KEY, uid INTEGER NOT NULL) WITHOUT ROWID;
    """,
    ANSWERS_TABLE,
    EGRESS_MIGRATION,
]

_COUNT = text("""
    INSERT INTO usage VALUES (:agent, :rehearsal, 1, :error, :input, :cache_write, :cache_read, :output, :now)
    ON CONFLICT (agent, rehearsal) DO UPDATE SET
        requests = usage.requests + 1,
        errors = usage.errors + excluded.errors,
        input_tokens = usage.input_tokens + excluded.input_tokens,
        cache_write_tokens = usage.cache_write_tokens + excluded.cache_write_tokens,
        cache_read_tokens = usage.cache_read_tokens + excluded.cache_read_tokens,
        output_tokens = usage.output_tokens + excluded.output_tokens,
        last_ms = excluded.last_ms
""")
_USAGE = text("""
    SELECT agent, requests, errors, input_tokens + cache_write_tokens + cache_read_tokens, output_tokens, last_ms
    FROM usage WHERE rehearsal = :rehearsal ORDER BY agent
""")


class Store:
    def __init__(self, database: Database) -> None:
        self._database, self.egress = database, EgressStore(database)

    @classmethod
    def open(cls, path: Path) -> Store:
        return cls(Database.open(path, MIGRATIONS))

    def close(self) -> None:
        self._database.close()

    async def count(self, agent: str, tokens: Tokens, *, rehearsal: bool, error: bool, now_ms: int) -> None:
        """One more request of this agent. What was rehearsed is kept apart: it has cost nothing."""
        row: dict[str, str | int] = {
            "agent": agent,
            "rehearsal": int(rehearsal),
            "error": int(error),
            "input": tokens.input,
            "cache_write": tokens.cache_write,
            "cache_read": tokens.cache_read,
            "output": tokens.output,
            "now": now_ms,
        }
        await self._database.write(lambda connection: _run(connection, _COUNT, row))

    def usage(self, *, rehearsal: bool) -> list[Usage]:
        rows = self._database.read(
            lambda connection: connection.execute(_USAGE, {"rehearsal": int(rehearsal)}).all()
        )
        return [
            Usage(
                agent=agent,
                requests=requests,
                errors=errors,
                input_tokens=given,
                output_tokens=made,
                last_ms=last,
            )
            for agent, requests, errors, given, made, last in rows
        ]

    def doors(self) -> list[tuple[AgentName, int]]:
        """The doors that were open last, to be opened while the broker is away."""
        rows = self._database.read(
            lambda connection: connection.execute(text("SELECT agent, uid FROM doors")).all()
        )
        return [(AgentName(agent), uid) for agent, uid in rows]

    async def keep_door(self, agent: AgentName, uid: int) -> None:
        statement = text(
            "INSERT INTO doors VALUES (:agent, :uid) ON CONFLICT (agent) DO UPDATE SET uid = excluded.uid"
        )
        await self._database.write(
            lambda connection: _run(connection, statement, {"agent": agent, "uid": uid})
        )

    async def drop_door(self, agent: AgentName) -> None:
        statement = text("DELETE FROM doors WHERE agent = :agent")
        await self._database.write(lambda connection: _run(connection, statement, {"agent": agent}))

    async def forget(self, agent: AgentName) -> None:
        """All that is kept of it."""

        def work(connection: Connection) -> None:
            for table in ("usage", "doors", *EGRESS_TABLES):
                _run(connection, text(f"DELETE FROM {table} WHERE agent = :agent"), {"agent": agent})

        await self._database.write(work)

    def answered(self, id: str) -> Done | None:
        return self._database.read(lambda connection: recall(connection, id, Done))

    async def keep_answer(self, id: str, now_ms: int) -> None:
        await self._database.write(lambda connection: remember(connection, id, Done(), now_ms))


def _run(connection: Connection, statement: TextClause, row: dict[str, str | int]) -> None:
    connection.execute(statement, row)
