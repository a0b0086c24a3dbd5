"""What the broker's parts share: its database and mail, and what follows from a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from libhive.clock import Clock
from libhive.daemon import Daemon
from libhive.messages import broker as say
from libhive.messages.base import Event
from libhive.redo import Change
from libhive.sqlite import Database
from services.broker import rules
from services.broker.boxes import Boxes
from services.broker.budgets import Budgets
from services.broker.mail import mail_of, receipt_text
from services.broker.mailroom import Mailroom
from services.broker.plain import Plain
from services.broker.posted import Posted
from services.broker.settings import Settings

T = TypeVar("T")


class Core:
    def __init__(self, database: Database, settings: Settings, clock: Clock) -> None:
        self.database, self.settings, self.clock = database, settings, clock
        self.boxes = Boxes()
        self.budgets = Budgets(settings)
        self.mailroom = Mailroom(self.boxes, self.budgets)
        self.plain = Plain(self.boxes, self.budgets, self.mailroom.numbers)
        self.daemon: Daemon | None = None
        self.timers_changed: Callable[[], None] = lambda: None
        self.on_mail: list[Callable[[str], None]] = []
        """Called with the name of each mailbox that has got mail."""
        database.read(self.budgets.load)
        database.on_commit, database.on_settled = self._committed, self._settled
        transactions = database.transactions
        transactions.on_rollback, transactions.on_applied = self._rolled_back, self.plain.applied
        database.on_broken = lambda error: self.fail("storing", error)
        transactions.on_caught_up = self._caught_up
        transactions.fold = self.plain.fold
        self.hand_out: Callable[[str], None] = lambda name: None
        """Gives whoever waits at this mailbox what is ready."""
        self._settling = False
        self._changed_boxes: dict[str, None] = {}

    def read(self, work: Callable[[Connection], T]) -> T:
        return self.database.read(work)

    def look(self, name: str) -> None:
        """There may be something for whoever waits at this mailbox. While a commit's consequences are being drawn it waits for
        the last of them, which may be that somebody else has the lease, or that the message is dropped."""
        if self._settling:
            self._changed_boxes[name] = None
        else:
            self.hand_out(name)

    def publish(self, event: Event) -> None:
        if self.daemon:
            self.daemon.publish(event)

    def fail(self, what: str, error: BaseException) -> None:
        """A bug, or a disk that cannot be trusted any more: end the process, and let the next one recover."""
        if self.daemon:
            self.daemon.fail(what, error)

    def posted(self, posted: Posted) -> None:
        """After the commit: tell of it."""
        if posted.repeated:
            return
        for pause in posted.pauses():
            if pause.asked:
                self.publish(say.QuestionChanged(question=pause.as_question(posted.now)))
                self.posted(pause.asked)
        draft = posted.draft
        if self.heard(len(draft.recipients)):
            for receipt in posted.receipts():
                self.publish(say.MessageStored(receipt=receipt))
        for recipient, seq, paused in zip(draft.recipients, posted.seqs, posted.paused, strict=True):
            if not paused:
                self.boxes.stored(
                    recipient, seq, mail_of(draft, recipient, posted.root, posted.hops, posted.now)
                )
                self.look(recipient)
            for hear in self.on_mail:
                hear(recipient)

    def returned(self, receipts: Sequence[say.Receipt]) -> None:
        """After the commit: these may be offered again, or never."""
        for name in {receipt.recipient for receipt in receipts}:
            self.boxes.forget(name)
        self.changed(receipts)
        for name in {receipt.recipient for receipt in receipts}:
            self.look(name)

    def changed(self, receipts: Sequence[say.Receipt]) -> None:
        for receipt in receipts:
            self.publish(
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

    def offered(self, mail: Sequence[say.Mail]) -> None:
        if self.heard(len(mail)):
            for item in mail:
                self._step(item.id, item.recipient, "offered", item.attempts)

    def acked(self, recipient: str, ids: Sequence[str]) -> None:
        if self.heard(len(ids)):
            for id in ids:
                self._step(id, recipient, "acked", 0)

    def listed(self, found: Sequence[say.Receipt]) -> say.ReceiptList:
        """As many as one reply carries."""
        return say.ReceiptList(receipts=rules.fitting(found, receipt_text, self.settings.list_bytes_max))

    def _step(self, id: str, recipient: str, state: say.ReceiptState, attempts: int) -> None:
        self.publish(
            say.ReceiptChanged(id=id, recipient=recipient, state=state, at_ms=self.clock(), attempts=attempts)
        )

    def heard(self, events: int) -> bool:
        """Whether anybody listens. If not, that many events are counted as missed, and need not even be made."""
        return self.daemon is not None and self.daemon.heard(events)

    def _committed(self) -> None:
        self._settling = True
        self.budgets.committed()

    def _rolled_back(self, changes: Sequence[Change]) -> None:
        self.budgets.rolled_back()
        self.plain.undone(changes)

    def _caught_up(self) -> None:
        """What was asked for while SQLite had not got everything may have been answered without that."""
        asyncio.get_running_loop().call_soon(self._look_everywhere)

    def _look_everywhere(self) -> None:
        for name in self.boxes.names():
            self.boxes.forget(name)
            self.boxes.of(name).sequence = None
            self.look(name)

    def _settled(self) -> None:
        self._settling = False
        changed, self._changed_boxes = self._changed_boxes, {}
        for name in changed:
            self.hand_out(name)
        if self.daemon:
            self.daemon.doors.flush()
