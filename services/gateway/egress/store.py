"""What is kept of the way out: what each agent may reach, what it learned, what was decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from libhive.messages.gateway import EgressDecision
from libhive.names import AgentName
from libhive.spec import Egress
from libhive.sqlite import Database

MIGRATION = """
    CREATE TABLE egress_specs (agent TEXT PRIMARY KEY, egress TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE egress_learned (
        agent TEXT NOT NULL,
        destination TEXT NOT NULL,
        first_ms INTEGER NOT NULL,
        PRIMARY KEY (agent, destination)
    ) WITHOUT ROWID;
    CREATE TABLE egress_log (
        id TEXT PRIMARY KEY,
        agent TEXT NOT NULL,
        verdict TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        ended_ms INTEGER NOT NULL,
        decision TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX egress_log_by_agent ON egress_log (agent, verdict, id);
    CREATE INDEX egress_log_by_age ON egress_log (at_ms);
"""

TABLES = ("egress_specs", "egress_learned", "egress_log")

_KEEP_SPEC = text(
    "INSERT INTO egress_specs VALUES (:agent, :egress) ON CONFLICT DO UPDATE SET egress = excluded.egress"
)
_FORGET_LEARNED = text("DELETE FROM egress_learned WHERE agent = :agent")
_LEARN = text("INSERT OR IGNORE INTO egress_learned VALUES (:agent, :destination, :now)")
_WRITE = text("""
    INSERT INTO egress_log VALUES (:id, :agent, :verdict, :at, :ended, :decision)
    ON CONFLICT DO UPDATE SET ended_ms = excluded.ended_ms, decision = excluded.decision
""")
_TRIM = text("""
    DELETE FROM egress_log WHERE agent = :agent AND verdict = :verdict AND id <= (
        SELECT id FROM egress_log WHERE agent = :agent AND verdict = :verdict ORDER BY id DESC LIMIT 1 OFFSET :kept
    )
""")
_FORGET_OLD = text("DELETE FROM egress_log WHERE at_ms < :before AND ended_ms != 0")
_OPEN = text("SELECT id, decision FROM egress_log WHERE ended_ms = 0")
_NEWEST = text("SELECT id, decision FROM egress_log WHERE agent = :agent ORDER BY id DESC LIMIT :limit")

Line = tuple[str, str, EgressDecision]
"""A row: its id, the agent, what was decided."""


class EgressStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def specs(self) -> dict[str, Egress]:
        rows = self._rows("SELECT agent, egress FROM egress_specs")
        return {agent: msgspec.json.decode(egress, type=Egress) for agent, egress in rows}

    def learned(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for agent, destination in self._rows("SELECT agent, destination FROM egress_learned"):
            found.setdefault(agent, set()).add(destination)
        return found

    async def keep_spec(self, agent: str, egress: Egress, *, anew: bool) -> None:
        """`anew`: it begins to learn, and what it learned another time does not count."""

        def work(connection: Connection) -> None:
            row = {"agent": agent, "egress": msgspec.json.encode(egress).decode()}
            connection.execute(_KEEP_SPEC, row)
            if anew:
                connection.execute(_FORGET_LEARNED, {"agent": agent})

        await self._database.write(work)

    async def learn(self, agent: AgentName, more: Iterable[str], now_ms: int) -> None:
        rows = [{"agent": agent, "destination": each, "now": now_ms} for each in sorted(more)]
        await self._database.write(lambda connection: _all(connection, _LEARN, rows))

    async def write(self, lines: Sequence[Line], kept_max: int) -> None:
        """Adds them, or says anew what has become of them; of each agent and verdict the newest stay."""
        rows = [
            {
                "id": id,
                "agent": agent,
                "verdict": one.verdict,
                "at": one.at_ms,
                "ended": one.ended_ms,
                "decision": msgspec.json.encode(one).decode(),
            }
            for id, agent, one in lines
        ]
        trims = [
            {"agent": agent, "verdict": verdict, "kept": kept_max}
            for agent, verdict in sorted({(agent, one.verdict) for _, agent, one in lines})
        ]

        def work(connection: Connection) -> None:
            _all(connection, _WRITE, rows)
            _all(connection, _TRIM, trims)

        await self._database.write(work)

    async def forget(self, before_ms: int) -> None:
        await self._database.write(lambda connection: _all(connection, _FORGET_OLD, [{"before": before_ms}]))

    async def end_open(self, now_ms: int, detail: str) -> None:
        """Those that the last gateway had no time to end."""

        def work(connection: Connection) -> None:
            for id, decision in connection.execute(_OPEN).all():
                one = msgspec.json.decode(decision, type=EgressDecision)
                ended = msgspec.structs.replace(one, ended_ms=now_ms, detail=detail)
                query = text("UPDATE egress_log SET ended_ms = :now, decision = :decision WHERE id = :id")
                values = {"id": id, "now": now_ms, "decision": msgspec.json.encode(ended).decode()}
                connection.execute(query, values)

        await self._database.write(work)

    def newest(self, agent: str, limit: int) -> dict[str, EgressDecision]:
        rows = self._database.read(
            lambda connection: connection.execute(_NEWEST, {"agent": agent, "limit": limit}).all()
        )
        return {id: msgspec.json.decode(decision, type=EgressDecision) for id, decision in rows}

    def _rows(self, query: str) -> Sequence[Any]:
        return self._database.read(lambda connection: connection.execute(text(query)).all())


def _all(connection: Connection, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statement, list(rows))
