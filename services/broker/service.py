"""One handler per message: load, decide, save, reply, publish."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from libhive.clock import Clock, now_ms
from libhive.daemon import Call, Daemon, Handlers
from libhive.messages import broker as say
from libhive.messages.base import Done
from libhive.names import HIVE, OPERATOR, agent_name, new_id
from libhive.problems import NotAllowed, NotFound
from services.broker import rules
from services.broker.mail import Draft, question_text, receipt_text, reminder_text
from services.broker.presence import Presences
from services.broker.settings import Settings
from services.broker.store import Store
from services.broker.timers import Timers


class Broker:
    name = "broker"

    def __init__(self, store: Store, settings: Settings, clock: Clock = now_ms) -> None:
        self.store, self.settings, self.clock = store, settings, clock
        self.directory = store.directory()
        self.holds = store.holds()
        self.statuses = store.statuses()
        self.presences = Presences()
        self.arrivals: dict[str, asyncio.Event] = {}
        self.timers = Timers(store.next_due, self._run_due, clock, settings.timer_seconds_max)

    def bus_handlers(self) -> Handlers:
        return {
            say.AckInbox: self.on_ack_inbox,
            say.Answer: self.on_answer,
            say.Ask: self.on_ask,
            say.AwaitReply: self.on_await_reply,
            say.CancelReminder: self.on_cancel_reminder,
            say.CloseMailbox: self.on_close_mailbox,
            say.History: self.on_history,
            say.Inbox: self.on_inbox,
            say.Mailboxes: self.on_mailboxes,
            say.MessageStatus: self.on_message_status,
            say.News: self.on_news,
            say.OpenMailbox: self.on_open_mailbox,
            say.Peers: self.on_peers,
            say.Questions: self.on_questions,
            say.Reminders: self.on_reminders,
            say.Send: self.on_send,
            say.SetHold: self.on_set_hold,
        }

    def door_handlers(self) -> Handlers:
        return {
            say.Ack: self.on_ack,
            say.Answer: self.on_answer,
            say.Ask: self.on_ask,
            say.CancelReminder: self.on_cancel_reminder,
            say.Hello: self.on_hello,
            say.LooseEnds: self.on_loose_ends,
            say.MessageStatus: self.on_message_status,
            say.Peers: self.on_peers,
            say.Recv: self.on_recv,
            say.Remind: self.on_remind,
            say.ReportState: self.on_report_state,
            say.Seen: self.on_seen,
            say.Send: self.on_send,
            say.SetStatus: self.on_set_status,
        }

    async def start(self, daemon: Daemon) -> None:
        self.daemon = daemon
        daemon.doors.on_gone = self._on_gone
        for entry in self.directory.values():
            if entry.open:
                await daemon.doors.open(agent_name(entry.name), entry.uid)
        daemon.spawn(self.timers.run(), "timers")

    async def stop(self) -> None:
        for arrival in self.arrivals.values():
            arrival.set()
        self.store.close()

    # ---- mail

    async def on_send(self, call: Call, m: say.Send) -> say.Sent:
        names = rules.recipients(call.caller, m.to, self.directory, self.settings.manager)
        draft = Draft(
            id=call.id,
            sender=call.caller,
            recipients=names,
            kind="message",
            body=m.body,
            in_reply_to=m.in_reply_to,
        )
        receipts = await self.store.add(draft, self.clock())
        self._stored(receipts)
        return say.Sent(id=call.id, recipients=[receipt.recipient for receipt in receipts])

    async def on_news(self, call: Call, m: say.News) -> Done:
        if call.caller != HIVE:
            raise NotAllowed("news comes from the hive itself", "send a message instead")
        names = rules.recipients(HIVE, [m.to], self.directory, self.settings.manager)
        details = {"what": m.what, **m.details}
        draft = Draft(id=call.id, sender=HIVE, recipients=names, kind="news", body=m.body, details=details)
        self._stored(await self.store.add(draft, self.clock()))
        return Done()

    async def on_recv(self, call: Call, m: say.Recv) -> say.Received:
        until = self.clock() + m.wait_ms
        while True:
            arrival = self._arrival(call.caller)
            self.store.check_lease(call.caller, m.lease)
            holds = self.holds.get(call.caller, [])
            if not holds and self.store.has_mail(call.caller):
                mail = await self.store.offer(call.caller, m.lease, m.limit, self.clock())
                self._offered(mail)
                return self._received(call.caller, mail)
            if not await _within(arrival, until - self.clock()):
                return self._received(call.caller, [])

    async def on_seen(self, call: Call, m: say.Seen) -> Done:
        self._changed(await self.store.mark_seen(call.caller, m.lease, m.ids, m.turn, self.clock()))
        return Done()

    async def on_ack(self, call: Call, m: say.Ack) -> Done:
        self._changed(await self.store.ack(call.caller, m.lease, m.ids, self.clock()))
        return Done()

    async def on_message_status(self, call: Call, m: say.MessageStatus) -> say.ReceiptList:
        receipts = self.store.receipts(m.id)
        if call.is_agent:
            receipts = [receipt for receipt in receipts if call.caller in (receipt.sender, receipt.recipient)]
        if not receipts:
            raise NotFound(f"there is no message {m.id!r:.80}")
        return say.ReceiptList(receipts=receipts)

    async def on_history(self, call: Call, m: say.History) -> say.ReceiptList:
        return self._receipts(self.store.history(m.agent, m.before, m.limit))

    async def on_inbox(self, call: Call, m: say.Inbox) -> say.ReceiptList:
        receipts = self.store.newest(OPERATOR, m.limit) if m.all else self.store.unacked(OPERATOR, m.limit)
        return self._receipts(receipts)

    async def on_ack_inbox(self, call: Call, m: say.AckInbox) -> Done:
        self._changed(await self.store.ack_inbox(m.ids, self.clock()))
        return Done()

    async def on_await_reply(self, call: Call, m: say.AwaitReply) -> say.ReceiptList:
        until = self.clock() + m.wait_ms
        while True:
            arrival = self._arrival(OPERATOR)
            if found := self.store.replies(m.message):
                return self._receipts(found)
            if not await _within(arrival, until - self.clock()):
                return say.ReceiptList(receipts=[])

    # ---- questions and reminders

    async def on_ask(self, call: Call, m: say.Ask) -> say.Asked:
        rules.check_default(m.default, m.choices)
        draft = Draft(
            id=call.id,
            sender=call.caller,
            recipients=[rules.recipient(call.caller, m.to, self.directory, self.settings.manager)],
            kind="question",
            body=m.question,
            question=call.id,
            choices=m.choices,
            deadline_ms=rules.deadline(m.deadline_seconds, self.clock()),
        )
        question, receipts = await self.store.ask(draft, m.default, self.clock())
        self._stored(receipts)
        self.daemon.publish(say.QuestionChanged(question=question))
        self.timers.changed()
        return say.Asked(id=call.id)

    async def on_answer(self, call: Call, m: say.Answer) -> Done:
        question, receipts = await self.store.answer(call.id, m.question, call.caller, m.text, self.clock())
        self._stored(receipts)
        self.daemon.publish(say.QuestionChanged(question=question))
        return Done()

    async def on_questions(self, call: Call, m: say.Questions) -> say.QuestionList:
        questions = self.store.questions(m.open_only, m.limit)
        return say.QuestionList(
            questions=rules.fitting(questions, question_text, self.settings.list_bytes_max)
        )

    async def on_remind(self, call: Call, m: say.Remind) -> say.Reminded:
        now = self.clock()
        reminder = say.Reminder(
            id=call.id, agent=call.caller, text=m.text, due_ms=rules.due(m, now), created_ms=now
        )
        kept = await self.store.remind(reminder)
        self.daemon.publish(say.ReminderChanged(reminder=kept, what="set"))
        self.timers.changed()
        return say.Reminded(id=kept.id, due_ms=kept.due_ms)

    async def on_cancel_reminder(self, call: Call, m: say.CancelReminder) -> Done:
        reminder = await self.store.cancel(call.caller, m.id)
        self.daemon.publish(say.ReminderChanged(reminder=reminder, what="cancelled"))
        return Done()

    async def on_reminders(self, call: Call, m: say.Reminders) -> say.ReminderList:
        reminders = self.store.reminders()
        return say.ReminderList(
            reminders=rules.fitting(reminders, reminder_text, self.settings.list_bytes_max)
        )

    async def on_loose_ends(self, call: Call, m: say.LooseEnds) -> say.LooseEndList:
        questions, share = self.store.questions(True, 500), self.settings.list_bytes_max // 4
        of_me = [question for question in questions if question.recipient == call.caller]
        by_me = [question for question in questions if question.asker == call.caller]
        return say.LooseEndList(
            asked_of_me=rules.fitting(of_me, question_text, share),
            asked_by_me=rules.fitting(by_me, question_text, share),
            reminders=rules.fitting(self.store.reminders(call.caller), reminder_text, share),
            unacked=rules.fitting(self.store.unacked(call.caller, 100), receipt_text, share),
        )

    # ---- mailboxes and who is there

    async def on_open_mailbox(self, call: Call, m: say.OpenMailbox) -> Done:
        name = agent_name(m.name)
        await self.store.open_mailbox(name, m.uid, m.allowed_recipients)
        self._reload()
        await self.daemon.doors.open(name, m.uid)
        self.daemon.publish(say.MailboxChanged(mailbox=self.directory[name].as_mailbox()))
        return Done()

    async def on_close_mailbox(self, call: Call, m: say.CloseMailbox) -> Done:
        name = agent_name(m.name)
        if name not in self.directory:
            raise NotFound(f"there is no mailbox {name!r}")
        await self.store.close_mailbox(name)
        self._reload()
        await self.daemon.doors.close(name)
        self.daemon.publish(say.MailboxChanged(mailbox=self.directory[name].as_mailbox()))
        return Done()

    async def on_mailboxes(self, call: Call, m: say.Mailboxes) -> say.MailboxList:
        return say.MailboxList(mailboxes=[entry.as_mailbox() for entry in self.directory.values()])

    async def on_hello(self, call: Call, m: say.Hello) -> say.Welcome:
        lease, returned = await self.store.take_lease(call.caller, m.resume, self.settings.attempts_max)
        self._changed(returned)
        await self._tell_of_dead([receipt for receipt in returned if receipt.state == "dead"])
        self.presences.arrived(call.caller, m.generation, m.incarnation, m.version, self.clock())
        self._peer_changed(call.caller)
        resumed = bool(m.resume)
        return say.Welcome(
            agent=call.caller, lease=lease, resumed=resumed, sequence=self.store.sequence(call.caller)
        )

    async def on_report_state(self, call: Call, m: say.ReportState) -> Done:
        self.store.check_lease(call.caller, m.lease)
        self.presences.reported(call.caller, m.state, m.detail, m.turn, m.model, self.clock())
        self._peer_changed(call.caller)
        return Done()

    async def on_set_status(self, call: Call, m: say.SetStatus) -> Done:
        await self.store.set_status(call.caller, m.text)
        self.statuses[call.caller] = m.text
        self._peer_changed(call.caller)
        return Done()

    async def on_set_hold(self, call: Call, m: say.SetHold) -> Done:
        if m.agent not in self.directory:
            raise NotFound(f"there is no agent {m.agent!r}")
        await self.store.set_hold(m.agent, m.reason, m.held)
        self.holds = self.store.holds()
        self._arrived(m.agent)
        self._peer_changed(m.agent)
        return Done()

    async def on_peers(self, call: Call, m: say.Peers) -> say.PeerList:
        unacked = self.store.unacked_counts()
        peers = [
            self._peer(name, unacked.get(name, 0)) for name, entry in self.directory.items() if entry.open
        ]
        return say.PeerList(peers=peers)

    # ---- what follows from a change

    def _stored(self, receipts: Sequence[say.Receipt]) -> None:
        for receipt in receipts:
            if receipt.state == "stored":
                self.daemon.publish(say.MessageStored(receipt=receipt))
                self._arrived(receipt.recipient)
            else:
                self._changed([receipt])

    def _offered(self, mail: Sequence[say.Mail]) -> None:
        for item in mail:
            self.daemon.publish(
                say.ReceiptChanged(
                    id=item.id,
                    recipient=item.recipient,
                    state="offered",
                    at_ms=self.clock(),
                    attempts=item.attempts,
                )
            )

    def _changed(self, receipts: Sequence[say.Receipt]) -> None:
        for receipt in receipts:
            self.daemon.publish(
                say.ReceiptChanged(
                    id=receipt.id,
                    recipient=receipt.recipient,
                    state=receipt.state,
                    at_ms=self.clock(),
                    attempts=receipt.attempts,
                    turn=receipt.turn,
                    reason=receipt.reason,
                )
            )

    async def _tell_of_dead(self, receipts: Sequence[say.Receipt]) -> None:
        for receipt in receipts:
            draft = Draft(
                id=new_id(),
                sender=HIVE,
                recipients=[OPERATOR],
                kind="news",
                body=f"A message from {receipt.sender} to {receipt.recipient} is dead: {receipt.reason}.\n\n{receipt.body}",
                details={"what": "message_dead", "agent": receipt.recipient, "message": receipt.id},
            )
            self._stored(await self.store.add(draft, self.clock()))

    async def _run_due(self, now: int) -> None:
        for reminder in self.store.due(now):
            self._stored(await self.store.fire(reminder, now))
            self.daemon.publish(say.ReminderChanged(reminder=reminder, what="fired"))
        for question in self.store.overdue(now):
            if closed := await self.store.expire(question, now):
                self._stored(closed[1])
                self.daemon.publish(say.QuestionChanged(question=closed[0]))

    def _on_gone(self, agent: str) -> None:
        self.presences.gone(agent, self.clock())
        self._peer_changed(agent)

    def _peer_changed(self, agent: str) -> None:
        self.daemon.publish(
            say.PeerChanged(peer=self._peer(agent, self.store.unacked_counts().get(agent, 0)))
        )

    def _peer(self, name: str, unacked: int) -> say.Peer:
        here = self.presences.of(name)
        return say.Peer(
            name=name,
            connected=here.connected,
            state=here.state,
            status=self.statuses.get(name, ""),
            detail=here.detail,
            turn=here.turn,
            model=here.model,
            generation=here.generation,
            incarnation=here.incarnation,
            version=here.version,
            unacked=unacked,
            holds=self.holds.get(name, []),
            since_ms=here.since_ms,
        )

    def _received(self, agent: str, mail: list[say.Mail]) -> say.Received:
        return say.Received(mail=mail, sequence=self.store.sequence(agent), holds=self.holds.get(agent, []))

    def _receipts(self, found: Sequence[say.Receipt]) -> say.ReceiptList:
        return say.ReceiptList(receipts=rules.fitting(found, receipt_text, self.settings.list_bytes_max))

    def _reload(self) -> None:
        self.directory = self.store.directory()

    def _arrival(self, name: str) -> asyncio.Event:
        """Set by the next mail for `name`; take it before looking, so that none slips in between."""
        return self.arrivals.setdefault(name, asyncio.Event())

    def _arrived(self, name: str) -> None:
        if arrival := self.arrivals.pop(name, None):
            arrival.set()


async def _within(event: asyncio.Event, wait_ms: int) -> bool:
    """Whether the event comes within the time."""
    if wait_ms <= 0:
        return False
    try:
        async with asyncio.timeout(wait_ms / 1000):
            await event.wait()
    except TimeoutError:
        return False
    return True
