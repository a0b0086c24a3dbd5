"""The broker, put together: which part answers what, who takes a lease, and what comes due."""

from __future__ import annotations

import asyncio

from libhive.clock import Clock, now_ms
from libhive.daemon import Call, Daemon, Handlers
from libhive.messages import broker as say
from libhive.names import agent_name
from libhive.sqlite import Database
from services.broker import rules
from services.broker.core import Core
from services.broker.mail import question_text, receipt_text
from services.broker.mailboxes import Mailboxes
from services.broker.post import Post
from services.broker.purge import Purge
from services.broker.questions import Questions
from services.broker.reminders import Reminders
from services.broker.search import Search
from services.broker.settings import Settings
from services.broker.timers import Timers

UNACKED_LISTED_MAX = 100


class Broker:
    name = "broker"

    def __init__(self, database: Database, settings: Settings, clock: Clock = now_ms) -> None:
        self.core = core = Core(database, settings, clock)
        self.mailboxes = Mailboxes(core)
        self.post = Post(core, self.mailboxes)
        self.questions = Questions(core, self.mailboxes)
        self.purge = Purge(core, self.mailboxes, self.questions)
        self.reminders = Reminders(core)
        self.search = Search(core)
        self.timers = Timers(
            self._next_due, self._run_due, clock, settings.timer_seconds_max, self.reminders.clock_jumped
        )
        core.timers_changed = self.timers.changed
        self._tasks: list[asyncio.Task[None]] = []

    def bus_handlers(self) -> Handlers:
        return {
            say.AckInbox: self.post.on_ack_inbox,
            say.Answer: self.questions.on_answer,
            say.Ask: self.questions.on_ask,
            say.AwaitReply: self.post.on_await_reply,
            say.CancelReminder: self.reminders.on_cancel_reminder,
            say.CloseMailbox: self.mailboxes.on_close_mailbox,
            say.DropMail: self.post.on_drop_mail,
            say.History: self.post.on_history,
            say.Inbox: self.post.on_inbox,
            say.Mailboxes: self.mailboxes.on_mailboxes,
            say.MessageStatus: self.post.on_message_status,
            say.News: self.post.on_news,
            say.OpenMailbox: self.mailboxes.on_open_mailbox,
            say.Peers: self.mailboxes.on_peers,
            say.PurgeMailbox: self.purge.on_purge_mailbox,
            say.Questions: self.questions.on_questions,
            say.Remind: self.reminders.on_remind,
            say.Reminders: self.reminders.on_reminders,
            say.Retain: self.search.on_retain,
            say.RetryMail: self.post.on_retry_mail,
            say.Search: self.search.on_search,
            say.Send: self.post.on_send,
            say.SetHold: self.mailboxes.on_set_hold,
        }

    def door_handlers(self) -> Handlers:
        return {
            say.Ack: self.post.on_ack,
            say.Answer: self.questions.on_answer,
            say.Ask: self.questions.on_ask,
            say.CancelReminder: self.reminders.on_cancel_reminder,
            say.Hello: self.post.on_hello,
            say.LooseEnds: self.on_loose_ends,
            say.MessageStatus: self.post.on_message_status,
            say.Peers: self.mailboxes.on_peers,
            say.Recv: self.post.on_recv,
            say.Remind: self.reminders.on_remind,
            say.Reminders: self.reminders.on_reminders,
            say.ReportState: self.mailboxes.on_report_state,
            say.Seen: self.post.on_seen,
            say.Send: self.post.on_send,
            say.SetStatus: self.mailboxes.on_set_status,
        }

    async def start(self, daemon: Daemon) -> None:
        self.core.daemon = daemon
        daemon.before_snapshot(self.core.database.settle)
        daemon.doors.on_gone = self.mailboxes.gone
        for entry in self.mailboxes.directory.values():
            if entry.open:
                await daemon.doors.open(agent_name(entry.name), entry.uid)
        await self.reminders.start()
        self._tasks = [
            daemon.spawn(self.timers.run(), "timers"),
            daemon.spawn(self.search.run(), "search"),
        ]

    async def stop(self) -> None:
        if self.core.daemon:
            self.core.daemon.doors.on_gone = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.post.close()
        self.core.database.close()

    # ---- what concerns more than one part

    def on_loose_ends(self, call: Call, m: say.LooseEnds) -> say.LooseEndList:
        questions, share = self.questions.of(call.caller), self.core.settings.list_bytes_max // 4
        of_me = [question for question in questions if question.recipient == call.caller]
        by_me = [question for question in questions if question.asker == call.caller]
        unacked = self.core.read(lambda c: self.core.mailroom.unacked(c, call.caller, UNACKED_LISTED_MAX))
        return say.LooseEndList(
            asked_of_me=rules.fitting(of_me, question_text, share),
            asked_by_me=rules.fitting(by_me, question_text, share),
            reminders=rules.fitting(
                self.reminders.pending(call.caller), lambda reminder: reminder.text, share
            ),
            unacked=rules.fitting(unacked, receipt_text, share),
        )

    def _next_due(self) -> int | None:
        return min(
            (due for due in (self.reminders.next_due(), self.questions.next_due()) if due is not None),
            default=None,
        )

    async def _run_due(self, now: int) -> None:
        await self.reminders.run_due(now)
        await self.questions.run_due(now)
