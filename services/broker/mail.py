"""Rows of the mail table as what is said about them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from libhive.messages.broker import Mail, MailKind, Question, Receipt, Reminder

MAIL_COLUMNS = (
    "seq, id, recipient, sender, kind, body, in_reply_to, root, hops, question, choices, deadline_ms, details, state,"
    " attempts, turn, reason, stored_ms, offered_ms, seen_ms, acked_ms"
)
QUESTION_COLUMNS = (
    "id, asker, recipient, text, choices, state, asked_ms, deadline_ms, default_answer,"
    " answer, answered_by, answered_ms"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message before it is stored: one row for each recipient."""

    id: str
    sender: str
    recipients: list[str]
    kind: MailKind
    body: str
    in_reply_to: str = ""
    question: str = ""
    choices: list[str] = field(default_factory=list)
    deadline_ms: int = 0
    details: dict[str, str] = field(default_factory=dict)


def mail_from(row: Row[Any]) -> Mail:
    return Mail(
        id=row.id,
        sender=row.sender,
        recipient=row.recipient,
        kind=row.kind,
        body=row.body,
        sent_ms=row.stored_ms,
        attempts=row.attempts,
        in_reply_to=row.in_reply_to,
        root=row.root,
        hops=row.hops,
        question=row.question,
        choices=json.loads(row.choices),
        deadline_ms=row.deadline_ms,
        details=json.loads(row.details),
    )


def receipt_of(draft: Draft, recipient: str, now: int) -> Receipt:
    """The receipt of what was stored just now."""
    return Receipt(
        id=draft.id,
        sender=draft.sender,
        recipient=recipient,
        kind=draft.kind,
        state="stored",
        attempts=0,
        stored_ms=now,
        body=draft.body,
        in_reply_to=draft.in_reply_to,
    )


def receipt_from(row: Row[Any]) -> Receipt:
    return Receipt(
        id=row.id,
        sender=row.sender,
        recipient=row.recipient,
        kind=row.kind,
        state=row.state,
        attempts=row.attempts,
        stored_ms=row.stored_ms,
        offered_ms=row.offered_ms,
        seen_ms=row.seen_ms,
        acked_ms=row.acked_ms,
        turn=row.turn,
        reason=row.reason,
        body=row.body,
        in_reply_to=row.in_reply_to,
    )


def question_from(row: Row[Any]) -> Question:
    return Question(
        id=row.id,
        asker=row.asker,
        recipient=row.recipient,
        text=row.text,
        choices=json.loads(row.choices),
        state=row.state,
        asked_ms=row.asked_ms,
        deadline_ms=row.deadline_ms,
        default=row.default_answer,
        answer=row.answer,
        answered_by=row.answered_by,
        answered_ms=row.answered_ms,
    )


def reminder_from(row: Row[Any]) -> Reminder:
    return Reminder(id=row.id, agent=row.agent, text=row.text, due_ms=row.due_ms, created_ms=row.created_ms)


def receipt_text(receipt: Receipt) -> str:
    return receipt.body


def question_text(question: Question) -> str:
    return question.text + question.answer


def reminder_text(reminder: Reminder) -> str:
    return reminder.text
