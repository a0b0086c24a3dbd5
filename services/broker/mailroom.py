"""The mail table. Functions that take a connection run inside a transaction; what they do is durable once it is committed.

What was handed out in the last few milliseconds the store does not know yet (see boxes.py): whatever depends on that asks
the boxes too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from libhive.messages.broker import Question, Receipt
from libhive.names import OPERATOR, new_id
from libhive.problems import Conflict, NotFound, StaleLease
from libhive.sqlite import driver, rows
from services.broker.boxes import READY_MAX, Boxes, Offer, Ready
from services.broker.budgets import Budgets, Pause
from services.broker.mail import (
    ACKED,
    MAIL_COLUMNS,
    OPEN,
    OPEN_MAIL,
    RECEIPT_COLUMNS,
    Draft,
    mail_from,
    receipt_from,
)
from services.broker.plain import ACK, KNOWN, OFFERED, PARENT, offered
from services.broker.posted import INSERT, Numbers, Posted

UNACKED_COUNTED_MAX = 1_000
"""Where counting somebody's open mail stops: counting a million costs as much as sending hundreds."""


class Mailroom:
    def __init__(self, boxes: Boxes, budgets: Budgets) -> None:
        self.boxes, self.budgets = boxes, budgets
        self.numbers = Numbers()

    # ---- storing

    def add(self, c: Connection, draft: Draft, now: int) -> Posted:
        """Stores it for each recipient, or finds that it was stored before. Raises NotFound when it answers a message
        that its sender neither sent nor got, and ConversationPaused."""
        if driver(c).execute(KNOWN, (draft.id,)).fetchone():
            return self._repeated(c, draft, now)
        root, hops = _thread(c, draft)
        paused = self.budgets.judge(c, draft, root, hops, now)
        posted = self._insert(c, draft, root, hops, paused, now)
        for pause in posted.pauses():
            if pause.fresh:
                self._ask_operator(c, pause, now)
        return posted

    def _insert(
        self, c: Connection, draft: Draft, root: str, hops: int, paused: list[Pause | None], now: int
    ) -> Posted:
        self.numbers.find(lambda query: driver(c).execute(query).fetchone())
        seqs = self.numbers.take(draft.id, len(draft.recipients))
        posted = Posted(draft=draft, now=now, root=root, hops=hops, seqs=seqs, paused=paused)
        driver(c).executemany(INSERT, posted.rows())
        return posted

    def _repeated(self, c: Connection, draft: Draft, now: int) -> Posted:
        have = rows(c, f"SELECT {RECEIPT_COLUMNS}, pause FROM mail WHERE id = ? ORDER BY seq", (draft.id,))
        if have[0]["sender"] != draft.sender or have[0]["kind"] != draft.kind:
            raise Conflict("this id was used for something else")
        as_was = msgspec.structs.replace(draft, recipients=[row["recipient"] for row in have])
        return Posted(
            draft=as_was,
            now=now,
            root=have[0]["root"],
            hops=have[0]["hops"],
            seqs=[],
            paused=[Pause(question=row["pause"]) if row["pause"] else None for row in have],
            repeated=[receipt_from(row) for row in have],
        )

    def _ask_operator(self, c: Connection, pause: Pause, now: int) -> None:
        question = pause.as_question(now)
        insert_question(c, question)
        draft = Draft(
            id=question.id,
            sender=question.asker,
            recipients=[OPERATOR],
            kind="question",
            body=question.text,
            question=question.id,
            choices=question.choices,
        )
        pause.asked = self._insert(c, draft, question.id, 0, [None], now)

    # ---- leases

    def take_lease(
        self, c: Connection, agent: str, resume: str, attempts_max: int, now: int
    ) -> tuple[str, list[Receipt]]:
        """The lease of this harness. A new one gives back what the last one had, or ends it after too many tries;
        the receipts that changed by it come with it."""
        row = rows(c, "SELECT lease FROM mailboxes WHERE name = ?", (agent,))[0]
        if resume and row["lease"] == resume:
            return resume, []
        if resume:
            raise taken_over()
        lease = new_id()
        self.write_offers(c, self.boxes.unwritten(agent))
        driver(c).execute("UPDATE mailboxes SET lease = ? WHERE name = ?", (lease, agent))
        given_back = rows(
            c,
            "UPDATE mail SET state = CASE WHEN attempts >= ?1 THEN 'dead' ELSE 'stored' END, lease = '',"
            " ended_ms = CASE WHEN attempts >= ?1 THEN ?2 ELSE 0 END,"
            " reason = CASE WHEN attempts >= ?1 THEN 'offered ' || attempts || ' times and never acknowledged' ELSE '' END"
            f" WHERE seq IN (SELECT seq FROM {OPEN_MAIL} WHERE recipient = ?3 AND {OPEN} AND state <> 'stored')"
            f" RETURNING {RECEIPT_COLUMNS}",
            (attempts_max, now, agent),
        )
        return lease, [receipt_from(row) for row in given_back]

    # ---- what becomes of it

    def ready(self, c: Connection, agent: str) -> tuple[list[Ready], bool]:
        """The oldest stored mail that nobody was offered, and whether that is all of it."""
        skipped = {offer.seq for offer in self.boxes.unwritten(agent)}
        limit = READY_MAX + len(skipped)
        found = rows(
            c,
            f"SELECT {MAIL_COLUMNS} FROM {OPEN_MAIL} WHERE recipient = ? AND state = 'stored' AND {OPEN}"
            " ORDER BY seq LIMIT ?",
            (agent, limit),
        )
        fresh = [Ready(row["seq"], mail_from(row)) for row in found if row["seq"] not in skipped]
        return fresh, len(found) < limit

    def write_offers(self, c: Connection, offers: list[Offer]) -> list[Offer]:
        """That these were handed out."""
        driver(c).executemany(OFFERED, [values for _, values in offered(offers)])
        return offers

    def mark_seen(
        self, c: Connection, agent: str, lease: str, ids: Sequence[str], turn: str, now: int
    ) -> list[Receipt]:
        check_lease(c, agent, lease)
        self.write_offers(c, self.boxes.unwritten(agent))
        query = (  # stored: handed out right before the broker was killed
            "UPDATE mail SET state = 'seen', seen_ms = ?, turn = ?, attempts = max(attempts, 1)"
            " WHERE id = ? AND recipient = ? AND state IN ('stored', 'offered')"
        )
        return _advance(c, query, (now, turn), agent, ids)

    def ack(self, c: Connection, agent: str, lease: str, ids: Sequence[str], now: int) -> list[str]:
        """What the lease has in hand; what is acknowledged already stays so. Returns the ids that changed."""
        check_lease(c, agent, lease)
        in_hand = self.boxes.of(agent).in_hand
        known = [(id, in_hand[id]) for id in ids if id in in_hand]
        driver(c).executemany(
            ACK,
            [(now, offer.attempts, lease, offer.offered_ms, offer.seq) for _, offer in known],
        )
        query = (  # handed out before the broker's start; perhaps too shortly before for it to be written
            f"UPDATE mail SET {ACKED}, attempts = max(attempts, 1) WHERE id = ?2 AND recipient = ?3 AND {OPEN}"
        )
        older = _advance(c, query, (now,), agent, [id for id in ids if id not in in_hand])
        return [id for id, _ in known] + [receipt.id for receipt in older]

    def ack_inbox(self, c: Connection, ids: Sequence[str], now: int) -> list[Receipt]:
        query = f"UPDATE mail SET {ACKED}, attempts = 1 WHERE id = ?2 AND recipient = ?3 AND {OPEN}"
        return _advance(c, query, (now,), OPERATOR, ids)

    def retry(self, c: Connection, id: str, recipient: str) -> list[Receipt]:
        """Raises NotFound, or Conflict when it is not dead. Repeating it changes nothing more."""
        state = self._state_of(c, id, recipient)
        if state in ("stored", "offered", "seen"):
            return []
        if state != "dead":
            raise Conflict(f"this message is {state}, not dead", "only a dead message can be tried again")
        query = "UPDATE mail SET state = 'stored', attempts = 0, ended_ms = 0, reason = '' WHERE id = ? AND recipient = ?"
        return _advance(c, query, (), recipient, [id])

    def drop(self, c: Connection, id: str, recipient: str, reason: str, now: int) -> list[Receipt]:
        """Raises NotFound, or Conflict when somebody has it in hand or it has ended well."""
        state = self._state_of(c, id, recipient)
        if state == "expired":
            return []
        if state not in ("dead", "stored", "held"):
            raise Conflict(
                f"this message is {state}", "only one that is dead or not yet offered can be dropped"
            )
        return self.expire(c, id, recipient, f"dropped by the operator{': ' if reason else ''}{reason}", now)

    def expire(self, c: Connection, id: str, recipient: str, reason: str, now: int) -> list[Receipt]:
        """Ends it unread, if nobody has it in hand."""
        if self._state_of(c, id, recipient) == "offered":
            return []
        query = (
            "UPDATE mail SET state = 'expired', ended_ms = ?, reason = ?, pause = '' WHERE id = ? AND recipient = ?"
            " AND state IN ('dead', 'stored', 'held')"
        )
        return _advance(c, query, (now, reason), recipient, [id])

    def resume(self, c: Connection, pause: str) -> list[Receipt]:
        """What the conversation's pause held back goes on its way."""
        query = (
            "UPDATE mail SET state = 'stored', pause = '', reason = '' WHERE pause = ? AND state = 'held'"
            f" RETURNING {RECEIPT_COLUMNS}"
        )
        return [receipt_from(row) for row in rows(c, query, (pause,))]

    def held(self, c: Connection, pause: str) -> list[Receipt]:
        query = f"SELECT {RECEIPT_COLUMNS} FROM mail WHERE pause = ? AND state = 'held' ORDER BY seq"
        return [receipt_from(row) for row in rows(c, query, (pause,))]

    def _state_of(self, c: Connection, id: str, recipient: str) -> str:
        query = "SELECT seq, state FROM mail WHERE id = ? AND recipient = ?"
        row = driver(c).execute(query, (id, recipient)).fetchone()
        if row is None:
            raise NotFound(f"there is no message {id!r:.80} to {recipient}")
        return "offered" if self.boxes.is_unwritten(row[0]) else str(row[1])

    # ---- looking

    def sequence(self, c: Connection, agent: str) -> int:
        """How many messages ever came to this mailbox, as its newest one's number."""
        row = driver(c).execute("SELECT max(seq) FROM mail WHERE recipient = ?", (agent,)).fetchone()
        return int(row[0] or 0)

    def unacked_count(self, c: Connection, agent: str) -> int:
        """Up to UNACKED_COUNTED_MAX."""
        query = f"SELECT count(*) FROM (SELECT 1 FROM {OPEN_MAIL} WHERE recipient = ? AND {OPEN} LIMIT ?)"
        return int(driver(c).execute(query, (agent, UNACKED_COUNTED_MAX)).fetchone()[0])

    def unacked(self, c: Connection, agent: str, limit: int) -> list[Receipt]:
        where = f"FROM {OPEN_MAIL} WHERE recipient = ? AND {OPEN} ORDER BY seq LIMIT ?"
        return self._receipts(c, where, (agent, limit))

    def newest(self, c: Connection, agent: str, limit: int) -> list[Receipt]:
        return self._receipts(c, "FROM mail WHERE recipient = ? ORDER BY seq DESC LIMIT ?", (agent, limit))[
            ::-1
        ]

    def receipts(self, c: Connection, id: str) -> list[Receipt]:
        return self._receipts(c, "FROM mail WHERE id = ? ORDER BY seq", (id,))

    def history(self, c: Connection, agent: str, before: str, limit: int) -> list[Receipt]:
        """The newest first, before the message `before`; paged by key, so that a page does not move."""
        bound = "seq < coalesce((SELECT min(seq) FROM mail WHERE id = ?), 9223372036854775807)"
        if not agent:
            return self._receipts(c, f"FROM mail WHERE {bound} ORDER BY seq DESC LIMIT ?", (before, limit))
        half = f"SELECT * FROM (SELECT seq FROM mail WHERE {{}} = ? AND {bound} ORDER BY seq DESC LIMIT ?)"
        both = f"{half.format('sender')} UNION {half.format('recipient')}"
        values = (agent, before, limit)
        return self._receipts(
            c, f"FROM mail WHERE seq IN ({both}) ORDER BY seq DESC LIMIT ?", (*values, *values, limit)
        )

    def _receipts(self, c: Connection, rest: str, values: Sequence[Any]) -> list[Receipt]:
        return [
            self._as_now(receipt_from(row)) for row in rows(c, f"SELECT {RECEIPT_COLUMNS} {rest}", values)
        ]

    def _as_now(self, receipt: Receipt) -> Receipt:
        offer = self.boxes.is_unwritten(receipt.seq)
        if offer is None or receipt.state != "stored":
            return receipt
        return msgspec.structs.replace(
            receipt, state="offered", attempts=offer.attempts, offered_ms=offer.offered_ms
        )

    def replies(self, c: Connection, message: str) -> list[Receipt]:
        return self._receipts(
            c, "FROM mail WHERE in_reply_to = ? AND recipient = ? ORDER BY seq", (message, OPERATOR)
        )


def taken_over() -> StaleLease:
    return StaleLease("another harness has taken this mailbox over")


def check_lease(c: Connection, agent: str, lease: str) -> None:
    row = driver(c).execute("SELECT lease FROM mailboxes WHERE name = ?", (agent,)).fetchone()
    if row is None or not row[0] or row[0] != lease:
        raise taken_over()


def insert_question(c: Connection, question: Question) -> None:
    driver(c).execute(
        "INSERT OR IGNORE INTO questions (id, asker, recipient, text, choices, state, asked_ms, deadline_ms,"
        " default_answer) VALUES (?, ?, ?, ?, ?, 'open', ?, ?, ?)",
        (
            *(question.id, question.asker, question.recipient, question.text, json.dumps(question.choices)),
            *(question.asked_ms, question.deadline_ms, question.default),
        ),
    )


def _advance(
    c: Connection, query: str, values: Sequence[Any], recipient: str, ids: Sequence[str]
) -> list[Receipt]:
    changed: list[Receipt] = []
    for id in ids:
        found = rows(c, f"{query} RETURNING {RECEIPT_COLUMNS}", (*values, id, recipient))
        changed += [receipt_from(row) for row in found]
    return changed


def _thread(c: Connection, draft: Draft) -> tuple[str, int]:
    """The message that all this began with, and how many answers lie between."""
    if not draft.in_reply_to:
        return draft.id, 0
    parent = driver(c).execute(PARENT, (draft.in_reply_to, draft.sender, draft.sender)).fetchone()
    if parent is None:
        raise NotFound(
            f"there is no message {draft.in_reply_to!r:.80} of yours to answer",
            "leave out in_reply_to, or check it",
        )
    return str(parent[0]), int(parent[1]) + 1
