"""The approvals' rows: proposals, the tags that were put, where each `main` is, news not yet told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Column as Field
from sqlalchemy import Connection, MetaData, Row, Select, Table, column, delete, func, insert, select, update

from libhive.answers import ANSWERS_TABLE, recall, remember
from libhive.messages.approvals import Proposal, ProposalState
from libhive.names import AgentName
from libhive.sqlite import Database
from services.approvals.story import Record, tag_name

MIGRATIONS = (
    f"""
    CREATE TABLE proposals (
        number INTEGER PRIMARY KEY,
        command TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        agent TEXT NOT NULL,
        state TEXT NOT NULL,
        requester TEXT NOT NULL,
        message TEXT NOT NULL,
        rationale TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        decided_ms INTEGER NOT NULL,
        decided_by TEXT NOT NULL,
        reason TEXT NOT NULL,
        base TEXT NOT NULL,
        "commit" TEXT NOT NULL,
        tree TEXT NOT NULL
    );
    CREATE INDEX proposals_by_state ON proposals (state, number);
    CREATE TABLE tags (
        agent TEXT NOT NULL,
        name TEXT NOT NULL,
        number INTEGER NOT NULL,
        object TEXT NOT NULL,
        PRIMARY KEY (agent, name)
    ) WITHOUT ROWID;
    CREATE INDEX tags_by_number ON tags (number);
    CREATE TABLE heads (
        agent TEXT PRIMARY KEY,
        "commit" TEXT NOT NULL,
        revision INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE outbox (
        id TEXT PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        recipient TEXT NOT NULL,
        what TEXT NOT NULL,
        body TEXT NOT NULL,
        details BLOB NOT NULL
    ) WITHOUT ROWID;
    {ANSWERS_TABLE}
    """,
)


def _table(name: str, *fields: str) -> Table:
    return Table(name, _METADATA, *(Field(field) for field in fields))


_METADATA = MetaData()
_PROPOSALS = _table("proposals", *Record.__dataclass_fields__)
_TAGS = _table("tags", "agent", "name", "number", "object")
_HEADS = _table("heads", "agent", "commit", "revision")
_OUTBOX = _table("outbox", "id", "at_ms", "recipient", "what", "body", "details")


@dataclass(frozen=True, slots=True)
class Head:
    """Where an agent's `main` was put, and by which proposal (0: built in)."""

    commit: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """News for somebody, until the broker has it. `id` is the command's, the same at every attempt."""

    id: str
    at_ms: int
    recipient: str
    what: str
    body: str
    details: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A state that a proposal has come to, with all that is written together."""

    record: Record
    """As it is from now on."""
    tag: str
    """The id of the tag that says so."""
    letter: Letter | None = None
    command: str = ""
    """Its answer is kept: the proposal as it is from now on."""
    reply: Proposal | None = None


class Store:
    def __init__(self, path: Path) -> None:
        self._database = Database.open(path, MIGRATIONS)

    def close(self) -> None:
        self._database.close()

    def proposal(self, number: int) -> Record | None:
        return self._one(_PROPOSALS.c.number == number)

    def by_command(self, command: str) -> Record | None:
        """The proposal that this command made."""
        return self._one(_PROPOSALS.c.command == command)

    def newest(self, states: tuple[ProposalState, ...] | None, limit: int) -> list[Record]:
        """The newest first; `states` None: all."""
        query = select(_PROPOSALS).order_by(_PROPOSALS.c.number.desc()).limit(limit)
        return self._records(query if states is None else query.where(_PROPOSALS.c.state.in_(states)))

    def in_states(self, states: tuple[ProposalState, ...]) -> list[Record]:
        """The oldest first, by when they were decided."""
        query = select(_PROPOSALS).where(_PROPOSALS.c.state.in_(states))
        return self._records(query.order_by(_PROPOSALS.c.decided_ms, _PROPOSALS.c.number))

    def open_for(self, agent: AgentName) -> int:
        """The number of the proposal for this agent that waits for the operator; 0: none."""
        query = select(_PROPOSALS.c.number).where(
            _PROPOSALS.c.agent == agent, _PROPOSALS.c.state == "proposed"
        )
        return self._database.read(lambda connection: connection.execute(query).scalar()) or 0

    def made_since(self, requester: str, since_ms: int) -> list[int]:
        """When this requester made proposals."""
        query = select(_PROPOSALS.c.created_ms).where(
            _PROPOSALS.c.requester == requester, _PROPOSALS.c.created_ms > since_ms
        )
        return self._database.read(lambda connection: list(connection.execute(query).scalars().all()))

    def next_number(self) -> int:
        query = select(func.coalesce(func.max(_PROPOSALS.c.number), 0) + 1)
        return self._database.read(lambda connection: int(connection.execute(query).scalar_one()))

    def tags(self, number: int) -> dict[str, str]:
        """The tags that were put for a proposal, each with its own id."""
        return self.tags_of([number]).get(number, {})

    def tags_of(self, numbers: Collection[int]) -> dict[int, dict[str, str]]:
        """The tags of several proposals, by number."""
        found: dict[int, dict[str, str]] = defaultdict(dict)
        query = select(_TAGS).where(_TAGS.c.number.in_(numbers))
        for row in self._database.read(lambda connection: connection.execute(query).all()):
            found[row.number][row.name] = row.object
        return found

    def head(self, agent: AgentName) -> Head | None:
        query = select(_HEADS.c.commit, _HEADS.c.revision).where(_HEADS.c.agent == agent)
        row = self._database.read(lambda connection: connection.execute(query).first())
        return Head(row.commit, row.revision) if row else None

    async def set_head(self, agent: AgentName, head: Head) -> None:
        """`main` of a built-in configuration."""
        await self._database.write(lambda connection: _put_head(connection, agent, head))

    async def drop_head(self, agent: AgentName) -> None:
        """Its repository is no longer here. What was proposed and decided stays told."""
        await self._database.write(
            lambda connection: connection.execute(delete(_HEADS).where(_HEADS.c.agent == agent))
        )

    async def add(self, step: Step) -> None:
        """A new proposal, with its first tag."""

        def work(connection: Connection) -> None:
            connection.execute(insert(_PROPOSALS).values(**asdict(step.record)))
            _follow(connection, step)

        await self._database.write(work)

    async def follow(self, step: Step) -> None:
        """A proposal comes to its next state: row, tag, `main`, news and answer together."""

        def work(connection: Connection) -> None:
            record = step.record
            connection.execute(
                update(_PROPOSALS).where(_PROPOSALS.c.number == record.number).values(**asdict(record))
            )
            if record.state == "approved":
                _put_head(connection, record.agent, Head(record.commit, record.number))
            _follow(connection, step)

        await self._database.write(work)

    def answered(self, command: str) -> Proposal | None:
        """The answer that this command has had before."""
        return self._database.read(lambda connection: recall(connection, command, Proposal))

    def letters(self, limit: int) -> list[Letter]:
        """News that the broker may not have yet, the oldest first."""
        query = select(_OUTBOX).order_by(_OUTBOX.c.at_ms, _OUTBOX.c.id).limit(limit)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [Letter(**row._asdict() | {"details": msgspec.json.decode(row.details)}) for row in rows]

    async def delivered(self, letter: str) -> None:
        await self._database.write(
            lambda connection: connection.execute(delete(_OUTBOX).where(column("id") == letter))
        )

    def _one(self, condition: Any) -> Record | None:
        found = self._records(select(_PROPOSALS).where(condition))
        return found[0] if found else None

    def _records(self, query: Select[Any]) -> list[Record]:
        return self._database.read(
            lambda connection: [_record(row) for row in connection.execute(query).all()]
        )


def _record(row: Row[Any]) -> Record:
    return Record(**row._asdict())


def _follow(connection: Connection, step: Step) -> None:
    record = step.record
    name = tag_name(record.state, record.number)
    connection.execute(
        insert(_TAGS).values(agent=record.agent, name=name, number=record.number, object=step.tag)
    )
    if step.letter:
        values = asdict(step.letter) | {"details": msgspec.json.encode(step.letter.details)}
        connection.execute(insert(_OUTBOX).values(**values))
    if step.command and step.reply:
        remember(connection, step.command, step.reply, record.decided_ms)


def _put_head(connection: Connection, agent: AgentName, head: Head) -> None:
    connection.execute(delete(_HEADS).where(_HEADS.c.agent == agent))
    connection.execute(insert(_HEADS).values(agent=agent, commit=head.commit, revision=head.revision))
