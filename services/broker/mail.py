"""Rows of the broker's tables as what is said about them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from libhive.messages.broker import Mail, MailKind, Question, Receipt

RECEIPT_COLUMNS = (
    "seq, id, recipient, sender, kind, body, in_reply_to, root, hops, question, state, attempts, turn, reason,"
    " stored_ms, offered_ms, seen_ms, acked_ms, ended_ms"
)
MAIL_COLUMNS = (
    "seq, id, recipient, sender, kind, body, in_reply_to, root, hops, question, choices, deadline_ms, details, attempts,"
    " stored_ms"
)
QUESTION_COLUMNS = (
    "id, asker, recipient, text, choices, state, asked_ms, deadline_ms, default_answer,"
    " answer, answered_by, answered_ms"
)

ACKED = "state = 'acked', acked_ms = ?1, seen_ms = iif(seen_ms, seen_ms, ?1)"
OPEN = "(state = 'stored' OR state = 'offered' OR state = 'seen')"
"""Not IN: for three or more SQLite fills a table of them at each execution, which takes longer than the rest of it."""
OPEN_MAIL = "mail INDEXED BY mail_open"
"""By name: without statistics the planner may walk all that a mailbox ever got to find what is open in it."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message before it is stored: one row for each recipient. (A Struct: it is made for every message, and a frozen
    dataclass takes five times as long to make.)"""

    id: str
    sender: str
    recipients: list[str]
    kind: MailKind
    body: str
    in_reply_to: str = ""
    question: str = ""
    choices: list[str] = []
    deadline_ms: int = 0
    details: dict[str, str] = {}


def mail_of(draft: Draft, recipient: str, root: str, hops: int, now: int) -> Mail:
    """As it is offered the first time."""
    return Mail(
        id=draft.id,
        sender=draft.sender,
        recipient=recipient,
        kind=draft.kind,
        body=draft.body,
        sent_ms=now,
        attempts=1,
        in_reply_to=draft.in_reply_to,
        root=root,
        hops=hops,
        question=draft.question,
        choices=draft.choices,
        deadline_ms=draft.deadline_ms,
        details=draft.details,
    )


def mail_from(row: Any) -> Mail:
    """As it is offered the next time."""
    return Mail(
        id=row["id"],
        sender=row["sender"],
        recipient=row["recipient"],
        kind=row["kind"],
        body=row["body"],
        sent_ms=row["stored_ms"],
        attempts=row["attempts"] + 1,
        in_reply_to=row["in_reply_to"],
        root=row["root"],
        hops=row["hops"],
        question=row["question"],
        choices=json.loads(row["choices"]),
        deadline_ms=row["deadline_ms"],
        details=json.loads(row["details"]),
    )


def receipt_from(row: Any) -> Receipt:
    return Receipt(
        id=row["id"],
        sender=row["sender"],
        recipient=row["recipient"],
        kind=row["kind"],
        state="stored" if row["state"] == "held" else row["state"],
        attempts=row["attempts"],
        stored_ms=row["stored_ms"],
        offered_ms=row["offered_ms"],
        seen_ms=row["seen_ms"],
        acked_ms=row["acked_ms"],
        ended_ms=row["ended_ms"],
        turn=row["turn"],
        reason=row["reason"],
        body=row["body"],
        in_reply_to=row["in_reply_to"],
        root=row["root"],
        hops=row["hops"],
        question=row["question"],
        seq=row["seq"],
    )


def question_from(row: Any) -> Question:
    return Question(
        id=row["id"],
        asker=row["asker"],
        recipient=row["recipient"],
        text=row["text"],
        choices=json.loads(row["choices"]),
        state=row["state"],
        asked_ms=row["asked_ms"],
        deadline_ms=row["deadline_ms"],
        default=row["default_answer"],
        answer=row["answer"],
        answered_by=row["answered_by"],
        answered_ms=row["answered_ms"],
    )


def receipt_text(receipt: Receipt) -> str:
    return receipt.body


def question_text(question: Question) -> str:
    return question.text + question.answer
