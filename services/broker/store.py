"""The broker's tables. One method per query; what changes something is one transaction, durable once awaited.

The id of a message, question or reminder is the id of the command that made it: repeating the command finds it there.
"""

from __future__ import annotations

import json
from asyncio import Future
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from libhive.messages.broker import Mail, Question, Receipt, Reminder
from libhive.names import OPERATOR, new_id
from libhive.problems import Conflict, NotFound, StaleLease
from libhive.sqlite import Database, driver
from services.broker import rules
from services.broker.mail import (
    MAIL_COLUMNS,
    QUESTION_COLUMNS,
    Draft,
    mail_from,
    question_from,
    receipt_from,
    receipt_of,
    reminder_from,
)
from services.broker.rules import Entry

MIGRATIONS = (
    """
    CREATE TABLE mailboxes (
        name TEXT PRIMARY KEY, uid INTEGER NOT NULL, open INTEGER NOT NULL, allowed TEXT,
        lease TEXT NOT NULL DEFAULT '', status TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE TABLE holds (agent TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (agent, reason)) WITHOUT ROWID;
    CREATE TABLE mail (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, recipient TEXT NOT NULL, sender TEXT NOT NULL,
        kind TEXT NOT NULL, body TEXT NOT NULL, in_reply_to TEXT NOT NULL, root TEXT NOT NULL, hops INTEGER NOT NULL,
        question TEXT NOT NULL, choices TEXT NOT NULL, deadline_ms INTEGER NOT NULL, details TEXT NOT NULL,
        state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, lease TEXT NOT NULL DEFAULT '',
        turn TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', stored_ms INTEGER NOT NULL,
        offered_ms INTEGER NOT NULL DEFAULT 0, seen_ms INTEGER NOT NULL DEFAULT 0, acked_ms INTEGER NOT NULL DEFAULT 0,
        UNIQUE (id, recipient)
    );
    CREATE INDEX mail_open ON mail (recipient, seq) WHERE state IN ('stored', 'offered', 'seen');
    CREATE INDEX mail_replies ON mail (in_reply_to) WHERE in_reply_to <> '';
    CREATE INDEX mail_by_sender ON mail (sender, seq);
    CREATE INDEX mail_by_recipient ON mail (recipient, seq);
    CREATE TABLE questions (
        id TEXT PRIMARY KEY, asker TEXT NOT NULL, recipient TEXT NOT NULL, text TEXT NOT NULL, choices TEXT NOT NULL,
        state TEXT NOT NULL, asked_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL, default_answer TEXT NOT NULL,
        answer TEXT NOT NULL DEFAULT '', answered_by TEXT NOT NULL DEFAULT '', answered_ms INTEGER NOT NULL DEFAULT 0,
        answer_id TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE INDEX questions_open ON questions (deadline_ms) WHERE state = 'open';
    CREATE TABLE reminders (
        id TEXT PRIMARY KEY, agent TEXT NOT NULL, text TEXT NOT NULL, due_ms INTEGER NOT NULL,
        created_ms INTEGER NOT NULL, state TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX reminders_due ON reminders (due_ms) WHERE state = 'pending';
    """,
)

_REMINDER = "id, agent, text, due_ms, created_ms"
_OPEN = "state IN ('stored', 'offered', 'seen')"
_OPEN_MAIL = "mail INDEXED BY mail_open"
"""By name: without statistics the planner may walk all that a mailbox ever got to find what is open in it."""


class Store:
    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, path: Path) -> Store:
        return cls(Database.open(path, MIGRATIONS))

    def close(self) -> None:
        self._database.close()

    # ---- mailboxes

    def directory(self) -> dict[str, Entry]:
        """Every mailbox that ever was, by name."""
        rows = self._all("SELECT name, uid, open, allowed FROM mailboxes ORDER BY name")
        return {
            row.name: Entry(
                row.name, row.uid, bool(row.open), frozenset(json.loads(row.allowed)) if row.allowed else None
            )
            for row in rows
        }

    def open_mailbox(self, name: str, uid: int, allowed: list[str] | None) -> Future[None]:
        def work(c: Connection) -> None:
            c.exec_driver_sql(
                "INSERT INTO mailboxes (name, uid, open, allowed) VALUES (?, ?, 1, ?) ON CONFLICT (name) DO UPDATE"
                " SET uid = excluded.uid, open = 1, allowed = excluded.allowed",
                (name, uid, None if allowed is None else json.dumps(allowed)),
            )

        return self._database.write(work)

    def close_mailbox(self, name: str) -> Future[None]:
        return self._run("UPDATE mailboxes SET open = 0, lease = '' WHERE name = ?", (name,))

    def statuses(self) -> dict[str, str]:
        return {row.name: row.status for row in self._all("SELECT name, status FROM mailboxes")}

    def set_status(self, name: str, text: str) -> Future[None]:
        return self._run("UPDATE mailboxes SET status = ? WHERE name = ?", (text, name))

    def holds(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self._all("SELECT agent, reason FROM holds ORDER BY reason"):
            found.setdefault(row.agent, []).append(row.reason)
        return found

    def set_hold(self, agent: str, reason: str, held: bool) -> Future[None]:
        if held:
            return self._run("INSERT OR IGNORE INTO holds (agent, reason) VALUES (?, ?)", (agent, reason))
        return self._run("DELETE FROM holds WHERE agent = ? AND reason = ?", (agent, reason))

    # ---- leases

    def take_lease(self, agent: str, resume: str, attempts_max: int) -> Future[tuple[str, list[Receipt]]]:
        """The lease of this harness. A new one gives back what the last one had, or ends it after too many tries;
        the receipts that changed by it come with it."""

        def work(c: Connection) -> tuple[str, list[Receipt]]:
            row = c.exec_driver_sql("SELECT lease FROM mailboxes WHERE name = ?", (agent,)).one()
            if resume and row.lease == resume:
                return resume, []
            if resume:
                raise StaleLease("another harness has taken this mailbox over")
            lease = new_id()
            c.exec_driver_sql("UPDATE mailboxes SET lease = ? WHERE name = ?", (lease, agent))
            rows = c.exec_driver_sql(
                "UPDATE mail SET state = CASE WHEN attempts >= ? THEN 'dead' ELSE 'stored' END, lease = '',"
                " reason = CASE WHEN attempts >= ? THEN 'offered ' || attempts || ' times and never acknowledged' ELSE '' END"
                f" WHERE recipient = ? AND state IN ('offered', 'seen') RETURNING {MAIL_COLUMNS}",
                (attempts_max, attempts_max, agent),
            ).all()
            return lease, [receipt_from(row) for row in rows]

        return self._database.write(work)

    def check_lease(self, agent: str, lease: str) -> None:
        self._database.read(lambda c: _check_lease(c, agent, lease))

    # ---- mail

    def add(self, draft: Draft, now: int) -> Future[list[Receipt]]:
        """Stores it for each recipient, or finds that it was stored before. Raises NotFound when it answers a message
        that its sender neither sent nor got."""
        return self._database.write(lambda c: _add(c, draft, now))

    def has_mail(self, agent: str) -> bool:
        query = f"SELECT 1 FROM {_OPEN_MAIL} WHERE recipient = ? AND state = 'stored' AND {_OPEN} LIMIT 1"
        return bool(self._all(query, (agent,)))

    def offer(self, agent: str, lease: str, limit: int, now: int) -> Future[list[Mail]]:
        """Gives the oldest stored mail to the lease."""

        def work(c: Connection) -> list[Mail]:
            _check_lease(c, agent, lease)
            rows = c.exec_driver_sql(
                "UPDATE mail SET state = 'offered', attempts = attempts + 1, lease = ?, offered_ms = ? WHERE seq IN"
                f" (SELECT seq FROM {_OPEN_MAIL} WHERE recipient = ? AND state = 'stored' AND {_OPEN} ORDER BY seq LIMIT ?)"
                f" RETURNING {MAIL_COLUMNS}",
                (lease, now, agent, limit),
            ).all()
            return [mail_from(row) for row in sorted(rows, key=lambda row: int(row.seq))]

        return self._database.write(work)

    def mark_seen(
        self, agent: str, lease: str, ids: Sequence[str], turn: str, now: int
    ) -> Future[list[Receipt]]:
        query = "UPDATE mail SET state = 'seen', seen_ms = ?, turn = ? WHERE id = ? AND recipient = ? AND state = 'offered'"
        return self._advance(agent, lease, ids, query, (now, turn))

    def ack(self, agent: str, lease: str, ids: Sequence[str], now: int) -> Future[list[Receipt]]:
        """Only what this lease was offered; what is acknowledged already stays so."""
        query = (
            "UPDATE mail SET state = 'acked', acked_ms = ?, seen_ms = CASE WHEN seen_ms = 0 THEN ? ELSE seen_ms END"
            " WHERE id = ? AND recipient = ? AND state IN ('offered', 'seen')"
        )
        return self._advance(agent, lease, ids, query, (now, now))

    def ack_inbox(self, ids: Sequence[str], now: int) -> Future[list[Receipt]]:
        query = (
            "UPDATE mail SET state = 'acked', acked_ms = ?, seen_ms = CASE WHEN seen_ms = 0 THEN ? ELSE seen_ms END,"
            f" attempts = 1 WHERE id = ? AND recipient = ? AND {_OPEN}"
        )
        return self._advance(OPERATOR, None, ids, query, (now, now))

    def sequence(self, agent: str) -> int:
        """How many messages ever came to this mailbox, as its newest one's number."""
        row = self._all("SELECT max(seq) AS seq FROM mail WHERE recipient = ?", (agent,))[0]
        return int(row.seq or 0)

    def unacked_counts(self) -> dict[str, int]:
        rows = self._all(
            f"SELECT recipient, count(*) AS n FROM {_OPEN_MAIL} WHERE {_OPEN} GROUP BY recipient"
        )
        return {row.recipient: row.n for row in rows}

    def unacked(self, agent: str, limit: int) -> list[Receipt]:
        query = (
            f"SELECT {MAIL_COLUMNS} FROM {_OPEN_MAIL} WHERE recipient = ? AND {_OPEN} ORDER BY seq LIMIT ?"
        )
        return [receipt_from(row) for row in self._all(query, (agent, limit))]

    def newest(self, agent: str, limit: int) -> list[Receipt]:
        query = f"SELECT {MAIL_COLUMNS} FROM mail WHERE recipient = ? ORDER BY seq DESC LIMIT ?"
        return [receipt_from(row) for row in reversed(self._all(query, (agent, limit)))]

    def receipts(self, id: str) -> list[Receipt]:
        return [
            receipt_from(row)
            for row in self._all(f"SELECT {MAIL_COLUMNS} FROM mail WHERE id = ? ORDER BY seq", (id,))
        ]

    def history(self, agent: str, before: str, limit: int) -> list[Receipt]:
        """The newest first, before the message `before`; paged by key, so that a page does not move."""
        query = (
            f"SELECT {MAIL_COLUMNS} FROM mail WHERE (? = '' OR sender = ? OR recipient = ?)"
            " AND seq < coalesce((SELECT min(seq) FROM mail WHERE id = ?), 9223372036854775807) ORDER BY seq DESC LIMIT ?"
        )
        return [receipt_from(row) for row in self._all(query, (agent, agent, agent, before, limit))]

    def replies(self, message: str) -> list[Receipt]:
        query = f"SELECT {MAIL_COLUMNS} FROM mail WHERE in_reply_to = ? AND recipient = ? ORDER BY seq"
        return [receipt_from(row) for row in self._all(query, (message, OPERATOR))]

    # ---- questions

    def ask(self, draft: Draft, default: str, now: int) -> Future[tuple[Question, list[Receipt]]]:
        def work(c: Connection) -> tuple[Question, list[Receipt]]:
            receipts = _add(c, draft, now)
            c.exec_driver_sql(
                "INSERT OR IGNORE INTO questions (id, asker, recipient, text, choices, state, asked_ms, deadline_ms,"
                " default_answer) VALUES (?, ?, ?, ?, ?, 'open', ?, ?, ?)",
                (
                    *(draft.id, draft.sender, draft.recipients[0], draft.body, json.dumps(draft.choices)),
                    *(now, draft.deadline_ms, default),
                ),
            )
            question = _question(c, draft.id)
            assert question is not None
            return question, receipts

        return self._database.write(work)

    def answer(
        self, id: str, question: str, caller: str, text: str, now: int
    ) -> Future[tuple[Question, list[Receipt]]]:
        """The first accepted answer wins: it and the mail that tells the asker are one transaction."""

        def work(c: Connection) -> tuple[Question, list[Receipt]]:
            if c.exec_driver_sql(
                "SELECT 1 FROM questions WHERE id = ? AND answer_id = ?", (question, id)
            ).first():
                return _question_of(c, question), []
            found = rules.check_answer(_question(c, question), caller, text)
            draft = Draft(
                id=id,
                sender=caller,
                recipients=[found.asker],
                kind="answer",
                body=text,
                in_reply_to=question,
                question=question,
            )
            return _close_question(c, draft, "answered", now)

        return self._database.write(work)

    def expire(self, question: Question, now: int) -> Future[tuple[Question, list[Receipt]] | None]:
        """The deadline has passed: the asker gets the default, once; None when an answer came first."""

        def work(c: Connection) -> tuple[Question, list[Receipt]] | None:
            if _question_of(c, question.id).state != "open":
                return None
            draft = Draft(
                id=new_id(),
                sender="hive",
                recipients=[question.asker],
                kind="answer",
                body=rules.expiry_text(question),
                question=question.id,
                details={"expired": "true", "default": question.default},
            )
            return _close_question(c, draft, "expired", now)

        return self._database.write(work)

    def questions(self, open_only: bool, limit: int) -> list[Question]:
        where = "WHERE state = 'open'" if open_only else ""
        rows = self._all(
            f"SELECT {QUESTION_COLUMNS} FROM questions {where} ORDER BY asked_ms DESC LIMIT ?", (limit,)
        )
        return [question_from(row) for row in rows]

    def overdue(self, now: int) -> list[Question]:
        query = (
            f"SELECT {QUESTION_COLUMNS} FROM questions WHERE state = 'open' AND deadline_ms BETWEEN 1 AND ?"
        )
        return [question_from(row) for row in self._all(query, (now,))]

    # ---- reminders

    def remind(self, reminder: Reminder) -> Future[Reminder]:
        def work(c: Connection) -> Reminder:
            c.exec_driver_sql(
                "INSERT OR IGNORE INTO reminders (id, agent, text, due_ms, created_ms, state) VALUES (?, ?, ?, ?, ?, 'pending')",
                (reminder.id, reminder.agent, reminder.text, reminder.due_ms, reminder.created_ms),
            )
            return _reminder(c, reminder.id)

        return self._database.write(work)

    def cancel(self, agent: str, id: str) -> Future[Reminder]:
        """Raises NotFound for a reminder of somebody else, Conflict when it has fired. The operator may cancel any."""

        def work(c: Connection) -> Reminder:
            row = c.exec_driver_sql("SELECT agent, state FROM reminders WHERE id = ?", (id,)).first()
            if row is None or agent not in (row.agent, OPERATOR):
                raise NotFound("there is no such reminder of yours")
            if row.state == "fired":
                raise Conflict("this reminder has fired already")
            c.exec_driver_sql("UPDATE reminders SET state = 'cancelled' WHERE id = ?", (id,))
            return _reminder(c, id)

        return self._database.write(work)

    def fire(self, reminder: Reminder, now: int) -> Future[list[Receipt]]:
        """The reminder and its mail are one transaction: it fires once whatever ends the process."""

        def work(c: Connection) -> list[Receipt]:
            changed = c.exec_driver_sql(
                "UPDATE reminders SET state = 'fired' WHERE id = ? AND state = 'pending'", (reminder.id,)
            )
            if changed.rowcount == 0:
                return []
            draft = Draft(
                id=new_id(),
                sender=reminder.agent,
                recipients=[reminder.agent],
                kind="reminder",
                body=reminder.text,
            )
            return _add(c, draft, now)

        return self._database.write(work)

    def reminders(self, agent: str = "") -> list[Reminder]:
        query = f"SELECT {_REMINDER} FROM reminders WHERE state = 'pending' AND (? = '' OR agent = ?) ORDER BY due_ms"
        return [reminder_from(row) for row in self._all(query, (agent, agent))]

    def due(self, now: int) -> list[Reminder]:
        query = f"SELECT {_REMINDER} FROM reminders WHERE state = 'pending' AND due_ms <= ? ORDER BY due_ms"
        return [reminder_from(row) for row in self._all(query, (now,))]

    def next_due(self) -> int | None:
        """The next instant at which a reminder fires or a question expires."""
        query = (
            "SELECT min(at) AS at FROM (SELECT min(due_ms) AS at FROM reminders WHERE state = 'pending' UNION ALL"
            " SELECT min(deadline_ms) FROM questions WHERE state = 'open' AND deadline_ms > 0)"
        )
        at = self._all(query)[0].at
        return None if at is None else int(at)

    # ---- the rest is how it is done

    def _all(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        return list(self._database.read(lambda c: c.exec_driver_sql(query, values).all()))

    def _run(self, query: str, values: tuple[Any, ...]) -> Future[None]:
        def work(c: Connection) -> None:
            c.exec_driver_sql(query, values)

        return self._database.write(work)

    def _advance(
        self, agent: str, lease: str | None, ids: Sequence[str], query: str, values: tuple[Any, ...]
    ) -> Future[list[Receipt]]:
        def work(c: Connection) -> list[Receipt]:
            if lease is not None:
                _check_lease(c, agent, lease)
            changed: list[Receipt] = []
            for id in ids:
                rows = c.exec_driver_sql(f"{query} RETURNING {MAIL_COLUMNS}", (*values, id, agent)).all()
                changed.extend(receipt_from(row) for row in rows)
            return changed

        return self._database.write(work)


def _check_lease(c: Connection, agent: str, lease: str) -> None:
    row = c.exec_driver_sql("SELECT lease FROM mailboxes WHERE name = ?", (agent,)).first()
    if row is None or not row.lease or row.lease != lease:
        raise StaleLease("another harness has taken this mailbox over")


def _add(c: Connection, draft: Draft, now: int) -> list[Receipt]:
    if driver(c).execute("SELECT 1 FROM mail WHERE id = ? LIMIT 1", (draft.id,)).fetchone():
        return _repeated(c, draft)
    root, hops = _thread(c, draft)
    driver(c).executemany(
        "INSERT INTO mail (id, recipient, sender, kind, body, in_reply_to, root, hops, question, choices, deadline_ms,"
        " details, state, stored_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'stored', ?)",
        [
            (
                *(
                    draft.id,
                    recipient,
                    draft.sender,
                    draft.kind,
                    draft.body,
                    draft.in_reply_to,
                    root,
                    hops,
                    draft.question,
                ),
                *(json.dumps(draft.choices), draft.deadline_ms, json.dumps(draft.details), now),
            )
            for recipient in draft.recipients
        ],
    )
    return [receipt_of(draft, recipient, now) for recipient in draft.recipients]


def _repeated(c: Connection, draft: Draft) -> list[Receipt]:
    have = c.exec_driver_sql(f"SELECT {MAIL_COLUMNS} FROM mail WHERE id = ? ORDER BY seq", (draft.id,)).all()
    if have[0].sender != draft.sender or have[0].kind != draft.kind:
        raise Conflict("this id was used for something else")
    return [receipt_from(row) for row in have]


def _thread(c: Connection, draft: Draft) -> tuple[str, int]:
    """The message that all this began with, and how many answers lie between."""
    if not draft.in_reply_to:
        return draft.id, 0
    parent = c.exec_driver_sql(
        "SELECT root, hops FROM mail WHERE id = ? AND (sender = ? OR recipient = ?) LIMIT 1",
        (draft.in_reply_to, draft.sender, draft.sender),
    ).first()
    if parent is None:
        raise NotFound(
            f"there is no message {draft.in_reply_to!r:.80} of yours to answer",
            "leave out in_reply_to, or check it",
        )
    return parent.root, parent.hops + 1


def _question(c: Connection, id: str) -> Question | None:
    row = c.exec_driver_sql(f"SELECT {QUESTION_COLUMNS} FROM questions WHERE id = ?", (id,)).first()
    return question_from(row) if row else None


def _question_of(c: Connection, id: str) -> Question:
    question = _question(c, id)
    if question is None:
        raise NotFound("there is no such question")
    return question


def _close_question(c: Connection, draft: Draft, state: str, now: int) -> tuple[Question, list[Receipt]]:
    c.exec_driver_sql(
        "UPDATE questions SET state = ?, answer = ?, answered_by = ?, answered_ms = ?, answer_id = ? WHERE id = ?",
        (state, draft.body, draft.sender, now, draft.id, draft.question),
    )
    receipts = _add(c, draft, now)
    rows = c.exec_driver_sql(  # the operator need not read a question that is closed
        f"UPDATE mail SET state = 'acked', acked_ms = ?, seen_ms = ? WHERE id = ? AND recipient = ? AND {_OPEN}"
        f" RETURNING {MAIL_COLUMNS}",
        (now, now, draft.question, OPERATOR),
    ).all()
    return _question_of(c, draft.question), receipts + [receipt_from(row) for row in rows]


def _reminder(c: Connection, id: str) -> Reminder:
    row = c.exec_driver_sql(
        "SELECT id, agent, text, due_ms, created_ms FROM reminders WHERE id = ?", (id,)
    ).one()
    return reminder_from(row)
