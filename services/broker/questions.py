"""Questions: asked of one, answered once; a deadline answers for whoever does not.

The first accepted answer, or the deadline, closes a question; that and the mail which tells the asker are one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from libhive.daemon import Call
from libhive.messages import broker as say
from libhive.messages.base import Done
from libhive.messages.broker import Question, Receipt
from libhive.names import HIVE, OPERATOR, new_id
from libhive.problems import NotFound, TooMany
from libhive.promise import Promise
from libhive.sqlite import driver, rows
from services.broker import rules
from services.broker.budgets import CONTINUE
from services.broker.core import Core
from services.broker.mail import (
    ACKED,
    OPEN,
    QUESTION_COLUMNS,
    RECEIPT_COLUMNS,
    Draft,
    question_from,
    question_text,
    receipt_from,
)
from services.broker.mailboxes import Mailboxes
from services.broker.mailroom import insert_question
from services.broker.posted import Posted
from services.broker.timers import BATCH, all_of

LOOSE_ENDS_MAX = 200


class Closed(msgspec.Struct):
    """What closing a question did: the mail it made, and the mail whose state it changed."""

    question: Question
    posted: list[Posted] = []
    resumed: list[Receipt] = []
    changed: list[Receipt] = []


class Questions:
    def __init__(self, core: Core, mailboxes: Mailboxes) -> None:
        self.core, self.mailboxes = core, mailboxes
        self.mailroom, self.database = core.mailroom, core.database

    # ---- handlers

    def on_ask(self, call: Call, m: say.Ask) -> Promise[say.Asked]:
        rules.check_default(m.default, m.choices)
        now = self.core.clock()
        question = Question(
            id=call.id,
            asker=call.caller,
            recipient=self.mailboxes.recipient(call.caller, m.to),
            text=m.question,
            choices=m.choices,
            state="open",
            asked_ms=now,
            deadline_ms=rules.deadline(m.deadline_seconds, now),
            default=m.default,
        )
        return self.database.write(lambda c: self._ask(c, question), self._asked)

    def on_answer(self, call: Call, m: say.Answer) -> Promise[Done]:
        now = self.core.clock()
        return self.database.write(lambda c: self._answer(c, call, m, now), self._closed)

    def on_questions(self, call: Call, m: say.Questions) -> say.QuestionList:
        where = "WHERE state = 'open'" if m.open_only else ""
        found = self.core.read(lambda c: _questions(c, f"{where} ORDER BY asked_ms DESC LIMIT ?", (m.limit,)))
        return say.QuestionList(
            questions=rules.fitting(found, question_text, self.core.settings.list_bytes_max)
        )

    def of(self, name: str) -> list[Question]:
        """The open ones that it asked or is asked."""
        where = "WHERE state = 'open' AND (asker = ? OR recipient = ?) ORDER BY asked_ms DESC LIMIT ?"
        return self.core.read(lambda c: _questions(c, where, (name, name, LOOSE_ENDS_MAX)))

    # ---- deadlines

    def next_due(self) -> int | None:
        query = "SELECT min(deadline_ms) FROM questions WHERE state = 'open' AND deadline_ms > 0"
        at = self.core.read(lambda c: driver(c).execute(query).fetchone()[0])
        return None if at is None else int(at)

    async def run_due(self, now: int) -> None:
        """A batch of what is due. Raises what hindered one of them, after the others."""
        where = "WHERE state = 'open' AND deadline_ms BETWEEN 1 AND ? ORDER BY deadline_ms LIMIT ?"
        found = self.core.read(lambda c: _questions(c, where, (now, BATCH)))
        await all_of([self._expire(question, now) for question in found])

    async def end_all_of(self, name: str) -> None:
        """Nobody is left to ask or to answer: as if each had come to its deadline."""
        while found := self.of(name):
            for question in found:
                await self._expire(question, self.core.clock())

    def _expire(self, question: Question, now: int) -> Promise[None]:
        def work(c: Connection) -> Closed | None:
            if _question(c, question.id).state != "open":
                return None
            draft = Draft(
                id=new_id(),
                sender=HIVE,
                recipients=[question.asker],
                kind="answer",
                body=rules.expiry_text(question),
                question=question.id,
                details={"expired": "true", "default": question.default},
            )
            closed = self._close(c, draft, "expired", now)
            closed.changed += self.mailroom.expire(
                c, question.id, question.recipient, "its deadline passed before it was read", now
            )
            return closed

        def then(closed: Closed | None) -> None:
            if closed:
                self._closed(closed)

        return self.database.write(work, then)

    # ---- in the transaction

    def _ask(self, c: Connection, question: Question) -> tuple[Question, Posted]:
        draft = Draft(
            id=question.id,
            sender=question.asker,
            recipients=[question.recipient],
            kind="question",
            body=question.text,
            question=question.id,
            choices=question.choices,
            deadline_ms=question.deadline_ms,
        )
        self._check_room(c, question)
        posted = self.mailroom.add(c, draft, question.asked_ms)
        insert_question(c, question)
        return _question(c, question.id), posted

    def _check_room(self, c: Connection, question: Question) -> None:
        query = "SELECT count(*), max(id = ?) FROM questions WHERE asker = ? AND state = 'open'"
        count, repeated = driver(c).execute(query, (question.id, question.asker)).fetchone()
        if question.asker != OPERATOR and count >= self.core.settings.open_questions_max and not repeated:
            raise TooMany(
                f"{count} of your questions are open already",
                "wait for answers, or ask with a deadline and a default",
            )

    def _answer(self, c: Connection, call: Call, m: say.Answer, now: int) -> Closed:
        query = "SELECT 1 FROM questions WHERE id = ? AND answer_id = ?"
        if driver(c).execute(query, (m.question, call.id)).fetchone():
            return Closed(_question(c, m.question))  # the same command again
        found = rules.check_answer(_find(c, m.question), call.caller, m.text)
        draft = Draft(
            id=call.id,
            sender=call.caller,
            recipients=[found.asker],
            kind="answer",
            body=m.text,
            in_reply_to=m.question,
            question=m.question,
        )
        if found.asker == HIVE:
            return self._decide(c, found, draft, now)
        return self._close(c, draft, "answered", now)

    def _close(self, c: Connection, draft: Draft, state: say.QuestionState, now: int) -> Closed:
        changed = _settle(c, draft, state, now)
        posted = self.mailroom.add(c, draft, now)
        return Closed(_question(c, draft.question), [posted], [], changed)

    def _decide(self, c: Connection, question: Question, draft: Draft, now: int) -> Closed:
        """The operator's decision about a paused conversation. Nobody waits for it by mail."""
        go_on = draft.body == CONTINUE
        self.core.budgets.answered(c, question.id, go_on, now)
        changed, posted, resumed = _settle(c, draft, "answered", now), [], []
        if go_on:
            resumed = self.mailroom.resume(c, question.id)
        else:
            for receipt in self.mailroom.held(c, question.id):
                changed += self.mailroom.expire(
                    c, receipt.id, receipt.recipient, "the operator stopped this conversation", now
                )
                posted.append(self.mailroom.add(c, _stopped(receipt), now))
        return Closed(_question(c, question.id), posted, resumed, changed)

    # ---- after the commit

    def _asked(self, done: tuple[Question, Posted]) -> say.Asked:
        question, posted = done
        self.core.posted(posted)
        self.core.publish(say.QuestionChanged(question=question))
        self.core.timers_changed()
        return say.Asked(id=question.id)

    def _closed(self, closed: Closed) -> Done:
        for posted in closed.posted:
            self.core.posted(posted)
        self.core.returned([*closed.resumed, *closed.changed])
        self.core.publish(say.QuestionChanged(question=closed.question))
        return Done()


def _stopped(receipt: Receipt) -> Draft:
    body = f"The operator has stopped your conversation with {receipt.recipient}: your last message was not delivered."
    details = {"what": "conversation_stopped", "agent": receipt.recipient, "message": receipt.id}
    return Draft(
        id=new_id(), sender=HIVE, recipients=[receipt.sender], kind="news", body=body, details=details
    )


def _settle(c: Connection, draft: Draft, state: say.QuestionState, now: int) -> list[Receipt]:
    """Closes it, and ends the operator's mail about it: she need not read a question that is closed."""
    driver(c).execute(
        "UPDATE questions SET state = ?, answer = ?, answered_by = ?, answered_ms = ?, answer_id = ? WHERE id = ?",
        (state, draft.body, draft.sender, now, draft.id, draft.question),
    )
    query = f"UPDATE mail SET {ACKED} WHERE id = ?2 AND recipient = ?3 AND {OPEN} RETURNING {RECEIPT_COLUMNS}"
    return [receipt_from(row) for row in rows(c, query, (now, draft.question, OPERATOR))]


def _questions(c: Connection, rest: str, values: Sequence[object]) -> list[Question]:
    return [question_from(row) for row in rows(c, f"SELECT {QUESTION_COLUMNS} FROM questions {rest}", values)]


def _find(c: Connection, id: str) -> Question | None:
    found = _questions(c, "WHERE id = ?", (id,))
    return found[0] if found else None


def _question(c: Connection, id: str) -> Question:
    if (question := _find(c, id)) is None:
        raise NotFound("there is no such question")
    return question
