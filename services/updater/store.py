"""The journal: one row per deploy, which says what has been done and all that the next step must know."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, MetaData, Row, Table, delete, insert, or_, select, update

from libhive.messages.updater import Deploy, DeployStep, Purge
from libhive.names import AgentName
from libhive.spec import AgentSpec
from libhive.sqlite import Database
from services.updater.rules import ENDED, Previous

MIGRATIONS = (
    """
    CREATE TABLE deploys (
        id TEXT PRIMARY KEY,
        agent TEXT NOT NULL,
        proposal INTEGER NOT NULL,
        step TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        detail TEXT NOT NULL,
        failure TEXT NOT NULL,
        revision INTEGER NOT NULL,
        spec BLOB,
        previous BLOB,
        held INTEGER NOT NULL,
        stopped INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX deploys_by_start ON deploys (started_ms, id);
    """,
    "ALTER TABLE deploys ADD COLUMN revive INTEGER NOT NULL DEFAULT 0;",
    "ALTER TABLE deploys ADD COLUMN root TEXT NOT NULL DEFAULT '';",
    """
    CREATE TABLE purges (
        id TEXT PRIMARY KEY,
        agent TEXT NOT NULL,
        step TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        detail TEXT NOT NULL,
        archive TEXT NOT NULL
    ) WITHOUT ROWID
    """,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One deploy. `step` is the last one that is done."""

    id: str
    agent: AgentName
    proposal: int
    step: DeployStep = "approved"
    started_ms: int
    updated_ms: int
    detail: str = ""
    failure: str = ""
    """Why it will end as failed, once all is put back."""
    revision: int = 0
    spec: AgentSpec | None = None
    previous: Previous | None = None
    held: bool = False
    """The agent's mail may be held by this deploy."""
    stopped: bool = False
    """It failed, and there was nothing to go back to."""
    root: str = ""
    """The key of what was built for it."""
    revive: bool = False
    """It makes an agent, also one that was destroyed; no other deploy brings one back."""

    @property
    def ended(self) -> bool:
        return self.step in ENDED

    def as_deploy(self) -> Deploy:
        return Deploy(
            id=self.id,
            agent=self.agent,
            proposal=self.proposal,
            step=self.step,
            started_ms=self.started_ms,
            updated_ms=self.updated_ms,
            detail=self.detail,
            root=self.root,
        )


_PURGES = Table("purges", MetaData(), *(Column(field) for field in Purge.__struct_fields__))
_DEPLOYS = Table("deploys", MetaData(), *(Column(field) for field in Entry.__dataclass_fields__))


class Store:
    def __init__(self, path: Path) -> None:
        self._database = Database.open(path, MIGRATIONS)

    def close(self) -> None:
        self._database.close()

    def entry(self, id: str) -> Entry | None:
        found = self._entries(select(_DEPLOYS).where(_DEPLOYS.c.id == id))
        return found[0] if found else None

    def never_well(self, agent: AgentName) -> bool:
        """Was this agent stopped by a deploy that had nothing to go back to, and not deployed since?"""
        telling = or_(_DEPLOYS.c.stopped == 1, _DEPLOYS.c.step == "recorded")
        query = select(_DEPLOYS.c.stopped).where(_DEPLOYS.c.agent == agent, telling)
        newest = query.order_by(_DEPLOYS.c.updated_ms.desc()).limit(1)
        return bool(self._database.read(lambda connection: connection.execute(newest).scalar()))

    def unfinished(self) -> list[Entry]:
        """In the order in which they are to be run."""
        query = select(_DEPLOYS).where(_DEPLOYS.c.step.not_in(ENDED))
        return self._entries(query.order_by(_DEPLOYS.c.started_ms, _DEPLOYS.c.id))

    def newest(self, limit: int) -> list[Entry]:
        return self._entries(
            select(_DEPLOYS).order_by(_DEPLOYS.c.started_ms.desc(), _DEPLOYS.c.id.desc()).limit(limit)
        )

    def purge(self, id: str) -> Purge | None:
        found = self._purges(select(_PURGES).where(_PURGES.c.id == id))
        return found[0] if found else None

    def purges_under_way(self) -> list[Purge]:
        query = select(_PURGES).where(_PURGES.c.step != "purged")
        return self._purges(query.order_by(_PURGES.c.started_ms, _PURGES.c.id))

    def newest_purges(self, limit: int) -> list[Purge]:
        return self._purges(
            select(_PURGES).order_by(_PURGES.c.started_ms.desc(), _PURGES.c.id.desc()).limit(limit)
        )

    async def save_purge(self, purge: Purge) -> None:
        """A new one, or the next step of one."""

        def work(connection: Connection) -> None:
            connection.execute(delete(_PURGES).where(_PURGES.c.id == purge.id))
            connection.execute(insert(_PURGES).values(**msgspec.structs.asdict(purge)))

        await self._database.write(work)

    async def add(self, entry: Entry) -> None:
        await self._database.write(
            lambda connection: connection.execute(insert(_DEPLOYS).values(**_values(entry)))
        )

    async def save(self, entry: Entry) -> None:
        query = update(_DEPLOYS).where(_DEPLOYS.c.id == entry.id).values(**_values(entry))
        await self._database.write(lambda connection: connection.execute(query))

    def _purges(self, query: Any) -> list[Purge]:
        return self._database.read(
            lambda connection: [Purge(**row._asdict()) for row in connection.execute(query).all()]
        )

    def _entries(self, query: Any) -> list[Entry]:
        return self._database.read(
            lambda connection: [_entry(row) for row in connection.execute(query).all()]
        )


def _values(entry: Entry) -> dict[str, Any]:
    return asdict(entry) | {
        "spec": entry.spec and msgspec.json.encode(entry.spec),
        "previous": entry.previous and msgspec.json.encode(entry.previous),
        "held": int(entry.held),
        "stopped": int(entry.stopped),
        "revive": int(entry.revive),
    }


def _entry(row: Row[Any]) -> Entry:
    values = row._asdict()
    spec, previous = values["spec"], values["previous"]
    return Entry(
        **values
        | {
            "spec": spec and msgspec.json.decode(spec, type=AgentSpec),
            "previous": previous and msgspec.json.decode(previous, type=Previous),
            "held": bool(values["held"]),
            "stopped": bool(values["stopped"]),
            "revive": bool(values["revive"]),
        }
    )
