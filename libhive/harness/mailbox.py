"""The lease on the agent's mail, and everything the harness owes the broker.

What is owed (replies, what was seen, acknowledgements, the newest state) is delivered by one task, in that order,
again and again by the same ids until it comes through: a broker that is down delays and loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from libhive.door_client import DoorClient
from libhive.harness.settings import Settings
from libhive.harness.status import Status
from libhive.harness.transcript import Transcript
from libhive.messages.base import Ping, Request
from libhive.messages.broker import Ack, Hello, LooseEnds, Mail, Recv, Seen
from libhive.names import OPERATOR, new_id
from libhive.problems import NoSpace, Problem, StaleLease, Unavailable
from libhive.release import package_version

log = logging.getLogger("hive.harness")

RETRY_SECONDS = 0.2
RETRY_SECONDS_MAX = 5.0
EMPTY_SECONDS_MIN = 0.5
"""Between two empty answers, should the broker not wait as it was asked to."""
RECV_SLACK_SECONDS = 5.0
AWAY = (Unavailable, NoSpace)
"""What passes, and is waited for: nothing that the agent has said or done gets lost by it."""
KNOWN_MAX = 4_096
"""Messages of one lease whose ids are remembered: several times what a broker lets one have in hand."""


class Mailbox:
    def __init__(self, door: DoorClient, settings: Settings, transcript: Transcript, status: Status) -> None:
        self.door, self._settings, self._transcript, self._status = door, settings, transcript, status
        self.incarnation, self.lease = new_id(), ""
        self.holds: list[str] = []
        self.in_hand: Callable[[], set[str]] = set
        """The mail that the turn loop has; set by it."""
        self.on_holds: Callable[[], None] = lambda: None
        self._known: dict[str, None] = {}
        """What this lease was given."""
        self._seen: list[tuple[str, list[str]]] = []
        self._receiving: asyncio.Task[list[Mail]] | None = None
        self._due, self._paid, self._leased = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._leasing = asyncio.Lock()
        self._report_due = True
        self._doubtful = False
        door.on_connect(self._greet)
        status.listeners.append(self._state_changed)

    async def next(self) -> list[Mail]:
        """Waits for mail. Being cancelled loses nothing: what arrives meanwhile is kept for the next call."""
        while True:
            if self._receiving is None:
                self._receiving = asyncio.get_running_loop().create_task(self._recv(), name="recv")
            receiving = self._receiving
            await asyncio.wait({receiving})
            if receiving.cancelled():
                continue  # what it waited for was given back
            if self._receiving is receiving:
                self._receiving = None
            if mails := receiving.result():
                return mails

    async def give_back(self) -> None:
        """Hands everything that is not acknowledged back to the broker, which offers it again and counts that."""
        await self.settle()
        async with self._leasing:
            await self._lease_anew()

    def saw(self, mails: Sequence[str], turn: str) -> None:
        if mails:
            self._seen.append((turn, list(mails)))
            self._due.set()

    def owe(self) -> None:
        """The transcript owes something new."""
        self._due.set()

    async def settle(self) -> None:
        """Waits until nothing is owed."""
        self._paid.clear()
        self._due.set()
        await self._paid.wait()

    async def pay(self) -> None:
        """The delivering task. Ends only by being cancelled, or by StaleLease: another harness has the mailbox."""
        wait = RETRY_SECONDS
        self._due.set()
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                async with self._leasing:
                    await self._pay_all()
                wait = RETRY_SECONDS
            except AWAY as problem:
                log.warning("the broker is away: %s", problem.message)
                self._due.set()
                await asyncio.sleep(wait)
                wait = min(wait * 2, RETRY_SECONDS_MAX)
            if not self._due.is_set():
                self._paid.set()

    async def questions_to_operator(self) -> set[str]:
        """The open ones; empty when the broker cannot be asked now."""
        with contextlib.suppress(*AWAY):
            ends = await self._call(LooseEnds())
            return {question.id for question in ends.asked_by_me if question.recipient == OPERATOR}
        return set()

    async def close(self) -> None:
        self._drop_receiving()
        await self.door.close()

    # ---- receiving

    async def _recv(self) -> list[Mail]:
        settings, loop = self._settings, asyncio.get_running_loop()
        await self._leased.wait()
        begun = loop.time()
        request = Recv(lease=self.lease, wait_ms=settings.recv_wait_ms, limit=settings.batch_mails_max)
        try:
            seconds = settings.recv_wait_ms / 1000 + RECV_SLACK_SECONDS
            received = await self.door.call(request, timeout_seconds=seconds)
        except AWAY:
            self.door.hang_up()  # else the broker, once it can, gives mail to this call that nobody waits for
            self._doubt()
            return []
        except StaleLease:
            if await self._renewed_since(request.lease):
                return []
            raise
        self._note_holds(received.holds)
        if not received.mail:
            await asyncio.sleep(max(0.0, EMPTY_SECONDS_MIN - (loop.time() - begun)))
        return self._news_to_us(received.mail)

    def _news_to_us(self, mails: list[Mail]) -> list[Mail]:
        """A broker that was killed right after it had handed mail out does so again, to the same lease: we have it."""
        fresh = [mail for mail in mails if mail.id not in self._known]
        self._known |= dict.fromkeys(mail.id for mail in fresh)
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]
        return fresh

    def _note_holds(self, holds: list[str]) -> None:
        if holds != self.holds:
            self.holds = holds
            self.on_holds()

    def _drop_receiving(self) -> None:
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.cancel()

    # ---- the lease

    async def _greet(self) -> None:
        """On each connection, before anything else: go on with the lease we have, or take one."""
        resumed = bool(self.lease)
        welcome = await self.door.call(
            self._hello(self.lease), timeout_seconds=self._settings.door_seconds_max
        )
        self._take(welcome.lease)
        if resumed:
            self._doubt()

    async def _renewed_since(self, lease: str) -> bool:
        """Whether it was we ourselves that ended this lease."""
        async with self._leasing:
            return self.lease != lease

    async def _lease_anew(self) -> None:
        self._leased.clear()
        self._drop_receiving()
        self._seen.clear()
        self.lease = ""  # should the connection break meanwhile, its greeting must not resume what we give up
        while True:
            try:
                welcome = await self._call(self._hello(""))
            except AWAY:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._take(welcome.lease)
            return

    def _take(self, lease: str) -> None:
        if lease != self.lease:
            self._known.clear()
        self.lease = lease
        self._leased.set()
        self._state_changed()

    def _hello(self, resume: str) -> Hello:
        return Hello(
            generation=self._settings.generation,
            incarnation=self.incarnation,
            version=package_version(),
            resume=resume,
        )

    def _doubt(self) -> None:
        """An answer may have got lost, with mail in it that the broker believes is here."""
        self._doubtful = True
        self._due.set()

    async def _clear_doubt(self) -> None:
        """Only while no mail is in hand: then whatever the broker believes is here got lost on its way."""
        if not self._doubtful or self.in_hand() or (self._receiving is not None and self._receiving.done()):
            return
        self._doubtful = False
        ends = await self._call(LooseEnds())
        if any(receipt.state in ("offered", "seen") for receipt in ends.unacked) and not self.in_hand():
            log.warning("mail got lost on its way here; taking it again")
            await self._lease_anew()

    # ---- paying

    def _state_changed(self) -> None:
        self._report_due = True
        self._due.set()

    async def _pay_all(self) -> None:
        if not self.lease:
            await self._call(Ping())  # makes the connection, and that the lease
        for id, reply in self._transcript.owed_replies():
            await self._deliver(reply, id)
            await self._transcript.replied(id)
        await self._pay_seen()
        while mails := self._transcript.owed_acks():
            await self._deliver(Ack(lease=self.lease, ids=mails))
            await self._transcript.acked(mails)
        await self._pay_report()
        await self._clear_doubt()

    async def _pay_seen(self) -> None:
        while self._seen:
            turn, mails = self._seen[0]
            await self._deliver(Seen(lease=self.lease, ids=mails, turn=turn))
            self._seen.pop(0)

    async def _pay_report(self) -> None:
        while self._report_due:
            self._report_due = False
            try:
                await self._deliver(self._status.now.report(self.lease))
            except AWAY:
                self._report_due = True
                raise

    async def _deliver(self, request: Request[Any], id: str | None = None) -> None:
        """What the broker refuses for good is logged and dropped: no repetition would change its mind."""
        try:
            await self._call(request, id)
        except (StaleLease, *AWAY):
            raise
        except Problem as problem:
            log.error(
                "the broker refused: %s", problem.message, extra={"code": problem.code, "kind": request.KIND}
            )

    async def _call(self, request: Request[Any], id: str | None = None) -> Any:
        return await self.door.call(request, id=id, timeout_seconds=self._settings.door_seconds_max)
