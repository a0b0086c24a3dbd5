"""Bugs that somebody could write. Each patches the broker within its own process, before it runs; a test named after it
sees the run of calls, or of kills, find it."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio import Future
from collections.abc import Callable
from concurrent.futures import Executor
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection

from libhive import redo
from libhive.daemon import Call
from libhive.messages import broker as say
from libhive.messages.base import Done
from libhive.names import new_id
from libhive.sqlite import Database, driver
from libhive.transactions import Transactions
from services.broker import (
    agenda,
    boxes,
    finder,
    mailboxes,
    mailroom,
    plain,
    post,
    questions,
    reminders,
    rules,
    service,
)

SOON_SECONDS = 0.01


def _instead(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Puts a function in the place of another one, which it gets as its first argument."""
    right = getattr(owner, name)

    def put(wrong: Callable[..., Any]) -> None:
        setattr(owner, name, lambda *values, **named: wrong(right, *values, **named))

    return put


# ---- confirmed too early


def ack_confirmed_before_its_commit() -> None:
    @_instead(post.Post, "on_ack")
    def on_ack(right: Any, self: post.Post, call: Call, m: say.Ack) -> Done:
        mailroom.check_lease(self.core.database._writer, call.caller, m.lease)
        asyncio.get_running_loop().call_later(SOON_SECONDS, right, self, call, m)
        return Done()


def send_confirmed_before_its_commit() -> None:
    @_instead(post.Post, "on_send")
    def on_send(right: Any, self: post.Post, call: Call, m: say.Send) -> say.Sent:
        to = self.mailboxes.recipients(call.caller, m.to)
        asyncio.get_running_loop().call_later(SOON_SECONDS, right, self, call, m)
        return say.Sent(id=call.id, recipients=to)


# ---- the redo log and SQLite


def the_redo_log_is_kept_in_memory() -> None:
    nowhere = {**vars(os), "pwrite": lambda descriptor, data, at: len(data)}
    redo.os = SimpleNamespace(**nowhere)  # type: ignore[assignment]


def what_is_in_the_redo_log_is_forgotten_at_a_start() -> None:
    @_instead(redo.RedoLog, "recover")
    def recover(right: Any, self: redo.RedoLog, upto: int, salt: int) -> redo.Runs:
        right(self, upto, salt)
        return []


def the_redo_log_begins_anew_before_the_commit() -> None:
    @_instead(Transactions, "apply")
    def apply(right: Any, self: Transactions) -> None:
        right(self)
        if self.log:
            self.log.settled(self.log.number)

    @_instead(Transactions, "hand_over")
    def hand_over(right: Any, self: Transactions, executor: Executor) -> Any:
        aside = right(self, executor)
        if self.log:
            self.log.settled(self.log.number)
        return aside


def an_acknowledgement_is_folded_away() -> None:
    @_instead(plain.Plain, "fold")
    def fold(right: Any, self: plain.Plain, changes: list[redo.Change]) -> list[redo.Change]:
        return [change for change in changes if change[0] is not plain.ACK]


# ---- repeated commands


def a_repeated_send_is_stored_again() -> None:
    @_instead(mailroom.Mailroom, "add")
    def add(right: Any, self: mailroom.Mailroom, c: Connection, draft: Any, now: int) -> Any:
        posted = right(self, c, draft, now)
        return right(self, c, _renamed(draft), now) if posted.repeated else posted


def repeated_commands_are_known_only_until_a_restart() -> None:
    known: set[str] = set()

    @_instead(plain.Plain, "send")
    def send(right: Any, self: plain.Plain, database: Database, draft: Any, now: int) -> Any:
        decided = right(self, database, draft, now)
        known.update({draft.id} if decided else ())
        return decided

    @_instead(mailroom.Mailroom, "add")
    def add(right: Any, self: mailroom.Mailroom, c: Connection, draft: Any, now: int) -> Any:
        posted = right(self, c, draft, now)
        if posted.repeated and draft.id not in known:
            posted = right(self, c, _renamed(draft), now)
        known.add(draft.id)
        return posted


def _renamed(draft: Any) -> Any:
    return type(draft)(**{**{name: getattr(draft, name) for name in draft.__struct_fields__}, "id": new_id()})


# ---- leases


def an_old_lease_may_acknowledge() -> None:
    mailroom.check_lease = lambda c, agent, lease: None
    plain.Plain.ack = lambda self, agent, lease, ids, now: None  # type: ignore[method-assign]

    @_instead(mailboxes.Mailboxes, "check_lease")
    def check_lease(right: Any, self: mailboxes.Mailboxes, agent: str, lease: str) -> None:
        if sys._getframe(2).f_code.co_name != "on_ack":
            right(self, agent, lease)


def an_old_lease_may_receive() -> None:
    mailboxes.Mailboxes.check_lease = lambda self, agent, lease: None  # type: ignore[method-assign]


def everybody_gets_the_same_lease() -> None:
    mailroom.new_id = lambda: "the-one-and-only-lease"  # type: ignore[attr-defined]


def a_new_lease_leaves_what_the_old_one_had() -> None:
    @_instead(mailroom.Mailroom, "take_lease")
    def take_lease(
        right: Any, self: mailroom.Mailroom, c: Connection, agent: str, resume: str, most: int, now: int
    ) -> Any:
        if resume:
            return right(self, c, agent, resume, most, now)
        lease = new_id()
        self.write_offers(c, self.boxes.unwritten(agent))
        driver(c).execute("UPDATE mailboxes SET lease = ? WHERE name = ?", (lease, agent))
        return lease, []


# ---- offers


def the_newest_comes_first() -> None:
    @_instead(boxes.Boxes, "offer")
    def offer(right: Any, self: boxes.Boxes, name: str, *rest: Any) -> Any:
        self.of(name).ready.reverse()
        given = right(self, name, *rest)
        self.of(name).ready.reverse()
        return given


def offers_are_not_counted() -> None:
    @_instead(mailroom.Mailroom, "take_lease")
    def take_lease(right: Any, self: mailroom.Mailroom, c: Connection, agent: str, *rest: Any) -> Any:
        taken = right(self, c, agent, *rest)
        driver(c).execute("UPDATE mail SET attempts = 0 WHERE recipient = ? AND state = 'stored'", (agent,))
        return taken


def a_hold_is_ignored() -> None:
    @_instead(mailboxes.Mailboxes, "_load")
    def load(right: Any, self: mailboxes.Mailboxes, c: Connection) -> None:
        right(self, c)
        for box in self.core.boxes:
            box.held = False


# ---- acknowledgements


def an_ack_takes_everything() -> None:
    plain.Plain.ack = lambda self, agent, lease, ids, now: None  # type: ignore[method-assign]

    @_instead(mailroom.Mailroom, "ack")
    def ack(right: Any, self: mailroom.Mailroom, c: Connection, agent: str, **rest: Any) -> Any:
        changed = right(self, c, agent=agent, **rest)
        query = "UPDATE mail SET state = 'acked' WHERE recipient = ? AND state IN ('offered', 'seen')"
        driver(c).execute(query, (agent,))
        return changed


def seeing_is_taken_for_acknowledging() -> None:
    @_instead(mailroom.Mailroom, "mark_seen")
    def mark_seen(
        right: Any,
        self: mailroom.Mailroom,
        c: Connection,
        agent: str,
        lease: str,
        ids: Any,
        turn: str,
        now: int,
    ) -> Any:
        seen = right(self, c, agent, lease, ids, turn, now)
        self.ack(c, agent=agent, lease=lease, ids=ids, now=now)
        return seen


def dropping_does_nothing() -> None:
    post.Post.on_drop_mail = lambda self, call, m: Done()  # type: ignore[assignment, method-assign, return-value]


# ---- questions


def a_question_is_answered_twice() -> None:
    @_instead(rules, "check_answer")
    def check_answer(right: Any, question: Any, caller: str, text: str) -> Any:
        if question and caller == question.recipient and text:
            return question
        return right(question, caller, text)


def anybody_may_answer() -> None:
    @_instead(rules, "check_answer")
    def check_answer(right: Any, question: Any, caller: str, text: str) -> Any:
        return right(question, question.recipient if question else caller, text)


def a_question_expires_early() -> None:
    @_instead(rules, "deadline")
    def deadline(right: Any, seconds: int, now: int) -> int:
        return int(right(seconds, now - 500) if seconds else 0)


def an_answer_is_told_after_it_is_kept() -> None:
    """Two commits, where one says it all."""

    @_instead(questions.Questions, "_close")
    def close(right: Any, self: questions.Questions, c: Connection, draft: Any, state: Any, now: int) -> Any:
        changed = questions._settle(c, draft, state, now)
        loop = asyncio.get_running_loop()
        loop.call_later(SOON_SECONDS, _tell, self, draft, now)
        return questions.Closed(questions._question(c, draft.question), [], [], changed)

    def _tell(self: questions.Questions, draft: Any, now: int) -> Future[Any]:
        return self.database.write(lambda c: self.mailroom.add(c, draft, now), self.core.posted)


# ---- reminders


def a_reminder_that_has_fired_is_remembered_only_in_memory() -> None:
    fired: set[str] = set()

    @_instead(agenda, "advance")
    def advance(right: Any, c: Connection, reminder: say.Reminder, firing: Any, now: int) -> say.Reminder:
        right(c, reminder, firing, now)
        driver(c).execute("UPDATE reminders SET state = 'pending' WHERE id = ?", (reminder.id,))
        fired.add(reminder.id)
        return reminder

    @_instead(agenda, "due")
    def due(right: Any, c: Connection, now: int, limit: int) -> list[str]:
        return [id for id in right(c, now, 10_000) if id not in fired][:limit]

    reminders.Reminders.next_due = lambda self: _next(self, fired)  # type: ignore[method-assign]


def _next(self: reminders.Reminders, fired: set[str]) -> int | None:
    return min((each.due_ms for each in self.pending() if each.id not in fired), default=None)


def a_reminder_fires_early() -> None:
    @_instead(service.Broker, "_next_due")
    def next_due(right: Any, self: service.Broker) -> int | None:
        due = right(self)
        return None if due is None else due - 150

    @_instead(reminders.Reminders, "run_due")
    async def run_due(right: Any, self: reminders.Reminders, now: int) -> None:
        await right(self, now + 150)


def a_cancelled_reminder_fires() -> None:
    @_instead(agenda, "cancel")
    def cancel(right: Any, c: Connection, id: str, *who: Any) -> say.Reminder:
        return agenda._reminder(agenda._row(c, id))


def a_reminder_and_its_mail_are_two_commits() -> None:
    @_instead(reminders.Reminders, "_fire")
    def fire(right: Any, self: reminders.Reminders, id: str, now: int, c: Connection) -> Any:
        found = agenda.if_due(c, id, now)
        if found is None:
            return None
        firing, drafts = reminders._drafts(*found, now)
        loop = asyncio.get_running_loop()
        for draft in drafts:
            loop.call_later(SOON_SECONDS, _tell, self, draft, now)
        return reminders.Fired(agenda.advance(c, found[0], firing, now), "fired", [])

    def _tell(self: reminders.Reminders, draft: Any, now: int) -> Future[Any]:
        return self.database.write(lambda c: self.core.mailroom.add(c, draft, now), self.core.posted)


# ---- searches


def a_search_finds_only_what_is_indexed() -> None:
    @_instead(finder.Finder, "_stretches")
    def stretches(right: Any, self: finder.Finder, high: int) -> list[finder.Stretch]:
        return [stretch for stretch in right(self, high) if stretch.indexed]


BUGS: dict[Callable[[], None], str] = {
    ack_confirmed_before_its_commit: "returned",
    send_confirmed_before_its_commit: "lost",
    the_redo_log_is_kept_in_memory: "lost",
    what_is_in_the_redo_log_is_forgotten_at_a_start: "lost",
    the_redo_log_begins_anew_before_the_commit: "lost",
    an_acknowledgement_is_folded_away: "returned",
    a_repeated_send_is_stored_again: "doubled",
    repeated_commands_are_known_only_until_a_restart: "doubled",
    an_old_lease_may_acknowledge: "stale",
    an_old_lease_may_receive: "stale",
    everybody_gets_the_same_lease: "doubled",
    a_new_lease_leaves_what_the_old_one_had: "stuck",
    the_newest_comes_first: "order",
    offers_are_not_counted: "attempts",
    a_hold_is_ignored: "held",
    an_ack_takes_everything: "unasked",
    seeing_is_taken_for_acknowledging: "unasked",
    dropping_does_nothing: "returned",
    a_question_is_answered_twice: "doubled",
    anybody_may_answer: "wrong",
    a_question_expires_early: "early",
    an_answer_is_told_after_it_is_kept: "half",
    a_reminder_that_has_fired_is_remembered_only_in_memory: "doubled",
    a_reminder_fires_early: "early",
    a_cancelled_reminder_fires: "undone",
    a_reminder_and_its_mail_are_two_commits: "stuck",
    a_search_finds_only_what_is_indexed: "lost",
}
"""Each with the kind of finding that has to show it."""
BY_NAME = {bug.__name__: bug for bug in BUGS}
