"""Mail: sending, receiving, acknowledging, and where a message is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from sqlalchemy import Connection

from libhive.daemon import Call
from libhive.messages import broker as say
from libhive.messages.base import Done
from libhive.names import HIVE, OPERATOR, new_id
from libhive.problems import NoSpace, NotAllowed, NotFound
from libhive.promise import Promise
from services.broker import rules
from services.broker.boxes import UNWRITTEN_MS, Waiter
from services.broker.core import Core
from services.broker.mail import Draft
from services.broker.mailboxes import Mailboxes
from services.broker.mailroom import taken_over
from services.broker.plain import offered
from services.broker.posted import Posted

DONE = Done()
NO_SPACE_SECONDS = 1.0


class Post:
    def __init__(self, core: Core, mailboxes: Mailboxes) -> None:
        self.core, self.mailboxes = core, mailboxes
        self.mailroom, self.database = core.mailroom, core.database
        self._operators_mail = asyncio.Event()
        self._writing: asyncio.TimerHandle | None = None
        core.hand_out = self._hand_out
        core.on_mail.append(self._operator_got)

    def close(self) -> None:
        """Whoever waits gets what there is: nothing."""
        for box in self.core.boxes:
            for waiter in list(box.waiters):
                waiter.give([])
        self._operators_mail.set()
        if handed_out := self.core.boxes.unwritten():
            self.database.write(lambda c: self.mailroom.write_offers(c, handed_out), self.core.boxes.written)

    # ---- sending

    def on_send(self, call: Call, m: say.Send) -> Promise[say.Sent]:
        recipients = self.mailboxes.recipients(call.caller, m.to)
        rules.check_copies(recipients, m.body)
        draft = Draft(
            id=call.id,
            sender=call.caller,
            recipients=recipients,
            kind="message",
            body=m.body,
            in_reply_to=m.in_reply_to,
        )
        now = self.core.clock()
        if self.database.takes_changes and (plain := self.core.plain.send(self.database, draft, now)):
            posted, changes = plain
            return self.database.append(changes, lambda _: self._sent(posted))
        return self.database.write(lambda c: self.mailroom.add(c, draft, now), self._sent)

    def on_news(self, call: Call, m: say.News) -> Promise[Done]:
        if call.caller != HIVE:
            raise NotAllowed("news comes from the hive itself", "send a message instead")
        (to,) = self.mailboxes.recipients(HIVE, [m.to])
        return self.news(to, m.what, m.body, m.details, call.id)

    def news(self, to: str, what: str, body: str, details: Mapping[str, str], id: str = "") -> Promise[Done]:
        draft = Draft(
            id=id or new_id(),
            sender=HIVE,
            recipients=[to],
            kind="news",
            body=body,
            details={"what": what, **details},
        )
        now = self.core.clock()
        return self.database.write(lambda c: self.mailroom.add(c, draft, now), self._told)

    def _sent(self, posted: Posted) -> say.Sent:
        self.core.posted(posted)
        return say.Sent(id=posted.draft.id, recipients=posted.draft.recipients, paused=posted.question())

    def _told(self, posted: Posted) -> Done:
        self.core.posted(posted)
        return DONE

    # ---- receiving

    def on_hello(self, call: Call, m: say.Hello) -> Promise[say.Welcome]:
        name, now = call.caller, self.core.clock()

        def then(taken: tuple[str, list[say.Receipt]]) -> say.Welcome:
            lease, returned = taken
            self.mailboxes.took(name, lease)
            if not m.resume:
                self._took_over(name, lease)
            self.core.changed(returned)
            self._tell_of_dead(returned)
            self.mailboxes.presences.arrived(name, m.generation, m.incarnation, m.version, now)
            self.mailboxes.peer_changed(name)
            return say.Welcome(agent=name, lease=lease, resumed=bool(m.resume), sequence=self._sequence(name))

        attempts_max = self.core.settings.attempts_max
        return self.database.write(
            lambda c: self.mailroom.take_lease(c, name, m.resume, attempts_max, now), then
        )

    def on_recv(self, call: Call, m: say.Recv) -> Promise[say.Received]:
        self.mailboxes.check_lease(call.caller, m.lease)
        loop = asyncio.get_running_loop()
        name, box = call.caller, self.core.boxes.of(call.caller)
        waiter = Waiter(m.lease, m.limit, Promise(), partial(self._received, name))
        box.waiters.append(waiter)
        self.core.look(name)
        if not waiter.future.done():
            if m.wait_ms:
                waiter.timer = loop.call_later(m.wait_ms / 1000, waiter.give, [])
                waiter.future.add_done_callback(lambda future: box.drop(waiter))
            else:
                waiter.give([])
        return waiter.future

    def on_seen(self, call: Call, m: say.Seen) -> Promise[Done]:
        now = self.core.clock()

        def work(c: Connection) -> list[say.Receipt]:
            return self.mailroom.mark_seen(c, call.caller, m.lease, m.ids, m.turn, now)

        def then(changed: list[say.Receipt]) -> Done:
            self.core.boxes.took(call.caller, m.ids)
            return self._changed(changed)

        return self.database.write(work, then, lazy=True)

    def on_ack(self, call: Call, m: say.Ack) -> Promise[Done]:
        now = self.core.clock()

        def then(ids: list[str]) -> Done:
            self.core.boxes.acked(call.caller, ids)
            self.core.acked(call.caller, ids)
            self.core.look(call.caller)
            return DONE

        if self.database.takes_changes:
            self.mailboxes.check_lease(call.caller, m.lease)
            if changes := self.core.plain.ack(call.caller, m.lease, m.ids, now):
                return self.database.append(changes, lambda _: then(m.ids), lazy=True)
        ack = partial(self.mailroom.ack, agent=call.caller, lease=m.lease, ids=m.ids, now=now)
        return self.database.write(ack, then, lazy=True)

    def _received(self, name: str, mail: list[say.Mail]) -> say.Received:
        return say.Received(mail=mail, sequence=self._sequence(name), holds=self.mailboxes.holds(name))

    def _sequence(self, name: str) -> int:
        box = self.core.boxes.of(name)
        if box.sequence is None:
            box.sequence = self.core.read(lambda c: self.mailroom.sequence(c, name))
        return box.sequence

    def _hand_out(self, name: str) -> None:
        """Gives what is ready to whoever waits."""
        box = self.core.boxes.of(name)
        while waiter := box.waiter():
            if not box.ready and not box.complete:
                found = self.core.read(lambda c: self.mailroom.ready(c, name))
                if self.database.is_behind:
                    return  # the disk is full, and this not all: it is looked at again
                self.core.boxes.refill(name, *found)
            mail = self.core.boxes.offer(name, waiter.lease, waiter.limit, self.core.clock())
            if not mail:
                return
            self.core.offered(mail)
            waiter.give(mail)
            self._write_offers_in(UNWRITTEN_MS / 1000)

    def _took_over(self, name: str, lease: str) -> None:
        """After the commit: whoever waits by an older lease gets nothing any more."""
        box = self.core.boxes.of(name)
        self.core.boxes.released(name)
        for waiter in list(box.waiters):
            if waiter.lease != lease:
                waiter.refuse(taken_over())

    def _write_offers(self) -> None:
        """What was handed out a while ago and is not acknowledged yet."""
        self._writing = None
        boxes, now = self.core.boxes, self.core.clock()
        if due := boxes.unwritten_since(now):
            if self.database.takes_changes:
                changes = offered(due)
                writing = self.database.append(changes, lambda _: boxes.written(due))
            else:
                writing = self.database.write(lambda c: self.mailroom.write_offers(c, due), boxes.written)
            writing.add_done_callback(self._wrote_offers)
        elif boxes.unwritten():
            self._write_offers_in(UNWRITTEN_MS / 1000)

    def _wrote_offers(self, future: Promise[None]) -> None:
        """A full disk is tried again later. Anything else ends the process, as it would in a handler."""
        error = None if future.cancelled() else future.exception()
        if error is not None and not isinstance(error, NoSpace):
            self.core.fail("writing what was handed out", error)
        elif self.core.boxes.unwritten():
            self._write_offers_in(NO_SPACE_SECONDS if error else UNWRITTEN_MS / 1000)

    def _write_offers_in(self, seconds: float) -> None:
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(seconds, self._write_offers)

    # ---- where it is

    def on_message_status(self, call: Call, m: say.MessageStatus) -> say.ReceiptList:
        receipts = self.core.read(lambda c: self.mailroom.receipts(c, m.id))
        if call.is_agent:
            receipts = [receipt for receipt in receipts if call.caller in (receipt.sender, receipt.recipient)]
        if not receipts:
            raise NotFound(f"there is no message {m.id!r:.80}")
        return say.ReceiptList(receipts=receipts)

    def on_history(self, call: Call, m: say.History) -> say.ReceiptList:
        return self.core.listed(
            self.core.read(lambda c: self.mailroom.history(c, m.agent, m.before, m.limit))
        )

    def on_retry_mail(self, call: Call, m: say.RetryMail) -> Promise[Done]:
        return self.database.write(lambda c: self.mailroom.retry(c, m.id, m.recipient), self._returned)

    def on_drop_mail(self, call: Call, m: say.DropMail) -> Promise[Done]:
        now = self.core.clock()
        return self.database.write(
            lambda c: self.mailroom.drop(c, m.id, m.recipient, m.reason, now), self._returned
        )

    def _tell_of_dead(self, receipts: Sequence[say.Receipt]) -> None:
        for receipt in receipts:
            if receipt.state == "dead":
                body = f"A message from {receipt.sender} to {receipt.recipient} is dead: {receipt.reason}.\n\n{receipt.body}"
                details = {"agent": receipt.recipient, "message": receipt.id}
                self.news(OPERATOR, "message_dead", body, details)

    # ---- the operator's own

    def on_inbox(self, call: Call, m: say.Inbox) -> say.ReceiptList:
        look = self.mailroom.newest if m.all else self.mailroom.unacked
        return self.core.listed(self.core.read(lambda c: look(c, OPERATOR, m.limit)))

    def on_ack_inbox(self, call: Call, m: say.AckInbox) -> Promise[Done]:
        now = self.core.clock()
        return self.database.write(lambda c: self.mailroom.ack_inbox(c, m.ids, now), self._changed)

    async def on_await_reply(self, call: Call, m: say.AwaitReply) -> say.ReceiptList:
        until = self.core.clock() + m.wait_ms
        while True:
            arrival = self._operators_mail
            if found := self.core.read(lambda c: self.mailroom.replies(c, m.message)):
                return self.core.listed(found)
            if not await _within(arrival, until - self.core.clock()):
                return say.ReceiptList(receipts=[])

    def _operator_got(self, name: str) -> None:
        if name == OPERATOR:
            self._operators_mail.set()
            self._operators_mail = asyncio.Event()

    def _returned(self, receipts: list[say.Receipt]) -> Done:
        self.core.returned(receipts)
        return DONE

    def _changed(self, receipts: list[say.Receipt]) -> Done:
        self.core.changed(receipts)
        return DONE


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
