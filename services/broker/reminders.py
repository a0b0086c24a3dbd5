"""Reminders: of an agent to itself, or of the operator to an agent; at an instant, after a delay, or by a cron line.

A firing and its mail are one transaction, and a recurring one is set to its next firing in that same one: whatever ends
the process, each firing makes its mail once.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Literal, NamedTuple

from sqlalchemy import Connection

from libhive.clock import iso
from libhive.daemon import Call
from libhive.messages import broker as say
from libhive.messages.base import Done
from libhive.names import HIVE, OPERATOR, new_id
from libhive.problems import BadRequest, NoSpace, NotAllowed
from services.broker import agenda, recurrence
from services.broker.core import Core
from services.broker.mail import Draft
from services.broker.posted import Posted
from services.broker.recurrence import Firing, Span
from services.broker.rules import fitting
from services.broker.timers import BATCH, JUMP_MS, Jump, all_of

log = logging.getLogger("hive.broker")

What = Literal["fired", "skipped", "cancelled"]


class Fired(NamedTuple):
    reminder: say.Reminder
    what: What
    posted: list[Posted]


class Reminders:
    def __init__(self, core: Core) -> None:
        self.core, self.database = core, core.database

    # ---- handlers

    async def on_remind(self, call: Call, m: say.Remind) -> say.Reminded:
        now, limit = self.core.clock(), self.core.settings.pending_reminders_max
        reminder = say.Reminder(
            id=call.id,
            agent=self._whom(call, m.agent),
            text=m.text,
            due_ms=recurrence.first_due(m, now),
            created_ms=now,
            cron=" ".join(m.cron.split()),
            zone=m.zone,
            catch_up=m.catch_up,
            set_by=call.caller,
        )
        kept, _ = await self.database.write(lambda c: agenda.keep(c, reminder, limit), self._set)
        return say.Reminded(id=kept.id, due_ms=recurrence.answered_due(kept))

    async def on_cancel_reminder(self, call: Call, m: say.CancelReminder) -> Done:
        await self.database.write(
            lambda c: agenda.cancel(c, m.id, call.caller, call.is_agent), self._cancelled
        )
        return Done()

    def on_reminders(self, call: Call, m: say.Reminders) -> say.ReminderList:
        if call.is_agent and m.agent not in ("", call.caller):
            raise NotAllowed("an agent sees its own reminders", "leave out `agent`")
        found = self.pending(call.caller if call.is_agent else m.agent)
        return say.ReminderList(reminders=fitting(found, reminder_text, self.core.settings.list_bytes_max))

    # ---- for the timers, and for loose ends

    def pending(self, agent: str = "") -> list[say.Reminder]:
        return self.core.read(lambda c: agenda.pending(c, agent))

    def next_due(self) -> int | None:
        return self.core.read(agenda.first_due)

    async def run_due(self, now: int) -> None:
        """A batch of what is due. Raises what hindered one of them, after the others."""
        ids = self.core.read(lambda c: agenda.due(c, now, BATCH))
        await all_of([self.database.write(partial(self._fire, id, now), self._fired) for id in ids])

    async def start(self) -> None:
        """Before the timers run: the clock may have gone back while the broker was down."""
        now, latest = self.core.clock(), self.core.read(agenda.latest_ms)
        try:
            if latest - now > JUMP_MS:
                await self.clock_jumped(Jump(latest, now))
            elif latest > now:
                await self._realign(now)
        except NoSpace as problem:  # what is there can be read all the same
            log.warning("the reminders are as they were", extra={"why": problem.message})

    async def clock_jumped(self, jump: Jump) -> None:
        await self._realign(jump.now_ms)
        draft = _report(jump)
        await self.database.write(lambda c: self.core.mailroom.add(c, draft, jump.now_ms), self.core.posted)

    # ---- the rest is how it is done

    def _whom(self, call: Call, agent: str) -> str:
        if call.is_agent:
            if agent not in ("", call.caller):
                raise NotAllowed("you can remind nobody but yourself", "send a message instead")
            return call.caller
        if not agent:
            raise BadRequest("whom to remind is missing", "name an agent")
        return self.core.settings.manager if agent == "manager" else agent

    def _fire(self, id: str, now: int, c: Connection) -> Fired | None:
        """None when it was cancelled meanwhile."""
        found = agenda.if_due(c, id, now)
        if found is None:
            return None
        reminder, spans = found
        firing, drafts = _drafts(reminder, spans, now)
        posted = [self.core.mailroom.add(c, draft, now) for draft in drafts]
        return Fired(agenda.advance(c, reminder, firing, now), _what(firing), posted)

    async def _realign(self, now: int) -> None:
        """What recurs is due from now on, not only when the time comes again that the clock once had."""
        after, more = "", True
        while more:
            changed, after = await self.database.write(partial(agenda.realign, now, after))
            for reminder in changed:
                self._set((reminder, True))
            more = bool(after)
        await self.database.write(lambda c: agenda.note_clock(c, now))

    def _set(self, kept: tuple[say.Reminder, bool]) -> tuple[say.Reminder, bool]:
        reminder, is_new = kept
        if is_new:
            self.core.publish(say.ReminderChanged(reminder=reminder, what="set"))
            self.core.timers_changed()
        return kept

    def _cancelled(self, reminder: say.Reminder | None) -> None:
        if reminder:
            self.core.publish(say.ReminderChanged(reminder=reminder, what="cancelled"))

    def _fired(self, fired: Fired | None) -> None:
        if fired is None:
            return
        for posted in fired.posted:
            self.core.posted(posted)
        self.core.publish(say.ReminderChanged(reminder=fired.reminder, what=fired.what))


def reminder_text(reminder: say.Reminder) -> str:
    return reminder.text


def _drafts(reminder: say.Reminder, spans: list[Span], now: int) -> tuple[Firing, list[Draft]]:
    try:
        firing = recurrence.fire(reminder, spans, now)
    except BadRequest as problem:  # an update of the time zones, or of the library, took it away
        log.warning("a reminder ends", extra={"reminder": reminder.id, "why": problem.message})
        last = recurrence.last_text(reminder, problem.message)
        return Firing(instants=[reminder.due_ms]), [_draft(reminder, last, reminder.due_ms)]
    drafts = [_draft(reminder, reminder.text, instant) for instant in firing.instants]
    if firing.left_out_from:
        told = recurrence.left_out_text(reminder, firing)
        drafts.insert(0, _draft(reminder, told, firing.left_out_from))
    return firing, drafts


def _draft(reminder: say.Reminder, body: str, instant: int) -> Draft:
    """From whoever set it: a prompt that the operator schedules is hers."""
    return Draft(
        id=new_id(),
        sender=reminder.set_by,
        recipients=[reminder.agent],
        kind="reminder",
        body=body[: say.BODY_CHARACTERS_MAX],
        details={"reminder": reminder.id, "due": iso(instant)},
    )


def _what(firing: Firing) -> What:
    if firing.instants:
        return "fired"
    return "skipped" if firing.due_ms else "cancelled"


def _report(jump: Jump) -> Draft:
    body = (
        f"The clock of this host has jumped from {iso(jump.expected_ms)} to {iso(jump.now_ms)}. What was due in between has"
        " come due; recurring reminders go on from the new time, the others keep the instant they were set to."
    )
    details = {"what": "clock_jumped", "before": iso(jump.expected_ms), "after": iso(jump.now_ms)}
    return Draft(id=new_id(), sender=HIVE, recipients=[OPERATOR], kind="news", body=body, details=details)
