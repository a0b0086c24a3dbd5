"""What the broker keeps in memory of each mailbox: who waits, what is ready for them, and what they have in hand.

Mail is handed out from memory, right after the commit that stored it. That it was handed out is written a few
milliseconds later, unless it has been acknowledged by then, which says it all. When the broker is killed within these
milliseconds the store does not know of the offer: the message is offered again, to the same lease, which tells by the
id that it has it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile

import msgspec

from libhive.messages.broker import Mail, Received
from libhive.promise import Promise

READY_MAX = 256
"""Messages of one mailbox that are ready in memory; what is beyond stays in the store until there is room."""
READY_BYTES_MAX = 1 << 20
ALL_READY_BYTES_MAX = 32 << 20
IN_HAND_MAX = 1_024
"""Unacknowledged mail that a lease may have; it gets more when it has acknowledged some."""
UNWRITTEN_MS = 25


@dataclass(eq=False, slots=True)
class Waiter:
    """One `recv`."""

    lease: str
    limit: int
    future: Promise[Received]
    make: Callable[[list[Mail]], Received]
    timer: asyncio.TimerHandle | None = None

    def give(self, mail: list[Mail]) -> None:
        if not self.future.done():
            self.future.set_result(self.make(mail))

    def refuse(self, problem: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(problem)


class Ready(msgspec.Struct, frozen=True):
    """A message as it will be offered: the next attempt is counted already. (A Struct, as is Offer: a NamedTuple takes three
    times as long to make.)"""

    seq: int
    mail: Mail


class Offer(msgspec.Struct, frozen=True):
    """One message in somebody's hand."""

    seq: int
    recipient: str
    lease: str
    attempts: int
    offered_ms: int


class Box:
    """One mailbox. `ready` is the oldest of its stored mail that nobody was offered; all of it, when `complete`."""

    __slots__ = ("complete", "held", "in_hand", "ready", "ready_bytes", "sequence", "waiters")

    def __init__(self) -> None:
        self.waiters: deque[Waiter] = deque()
        self.ready: deque[Ready] = deque()
        self.ready_bytes = 0
        self.complete = False
        self.in_hand: dict[str, Offer] = {}
        """By the message's id; what was offered before the broker's start is not in it."""
        self.held = False
        self.sequence: int | None = None
        """The number of its newest message; None while that is not known."""

    def waiter(self) -> Waiter | None:
        """Who is to get the next mail."""
        while self.waiters and self.waiters[0].future.done():
            self.waiters.popleft()
        return self.waiters[0] if self.waiters and not self.held else None

    def drop(self, waiter: Waiter) -> None:
        if waiter.timer:
            waiter.timer.cancel()
        if waiter in self.waiters:
            self.waiters.remove(waiter)


class Boxes:
    def __init__(self) -> None:
        self._boxes: dict[str, Box] = {}
        self._bytes = 0
        self._unwritten: dict[int, Offer] = {}

    def of(self, name: str) -> Box:
        box = self._boxes.get(name)
        if box is None:
            box = self._boxes[name] = Box()
        return box

    def __iter__(self) -> Iterator[Box]:
        return iter(list(self._boxes.values()))

    def names(self) -> list[str]:
        return list(self._boxes)

    # ---- what is ready

    def stored(self, name: str, seq: int, mail: Mail) -> None:
        """After the commit: it is the newest."""
        box = self.of(name)
        box.sequence = seq
        if box.complete and not self._keep(box, seq, mail):
            box.complete = False

    def refill(self, name: str, found: list[Ready], complete: bool) -> None:
        """What the store has, the oldest first."""
        box = self.of(name)
        self.forget(name)
        kept = all(
            self._keep(box, ready.seq, ready.mail) for ready in found
        )  # up to the first that does not fit
        box.complete = complete and kept

    def forget(self, name: str) -> None:
        """The store has changed otherwise than by new mail: look again."""
        box = self.of(name)
        box.ready.clear()
        self._bytes -= box.ready_bytes
        box.ready_bytes, box.complete = 0, False

    def offer(self, name: str, lease: str, limit: int, now: int) -> list[Mail]:
        """Hands out the oldest that is ready."""
        box = self.of(name)
        given: list[Mail] = []
        while box.ready and len(given) < limit and len(box.in_hand) < IN_HAND_MAX:
            ready = box.ready.popleft()
            seq, mail = ready.seq, ready.mail
            size = _size(mail)
            box.ready_bytes -= size
            self._bytes -= size
            box.in_hand[mail.id] = self._unwritten[seq] = Offer(seq, name, lease, mail.attempts, now)
            given.append(mail)
        return given

    def _keep(self, box: Box, seq: int, mail: Mail) -> bool:
        size = _size(mail)
        full = len(box.ready) >= READY_MAX or box.ready_bytes + size > max(READY_BYTES_MAX, size)
        if full or (box.ready and self._bytes + size > ALL_READY_BYTES_MAX):
            return False
        box.ready.append(Ready(seq, mail))
        box.ready_bytes += size
        self._bytes += size
        return True

    # ---- what is in hand

    def unwritten(self, name: str = "") -> list[Offer]:
        """Offers that the store does not know of; of one mailbox, or of all."""
        return [offer for offer in self._unwritten.values() if name in ("", offer.recipient)]

    def unwritten_since(self, now: int) -> list[Offer]:
        """Those that have to be written now."""
        return list(takewhile(lambda offer: offer.offered_ms <= now - UNWRITTEN_MS, self._unwritten.values()))

    def is_unwritten(self, seq: int) -> Offer | None:
        return self._unwritten.get(seq)

    def written(self, offers: list[Offer]) -> None:
        for offer in offers:
            if self._unwritten.get(offer.seq) == offer:
                del self._unwritten[offer.seq]

    def acked(self, name: str, ids: list[str]) -> None:
        box = self.of(name)
        for id in ids:
            if offer := box.in_hand.pop(id, None):
                self._unwritten.pop(offer.seq, None)
            else:
                self.forget(name)  # it was handed out before the broker's start, and may be ready again

    def took(self, name: str, ids: list[str]) -> None:
        """Somebody has these, and may have been given them before the broker's start: they are not ready any more."""
        if any(id not in self.of(name).in_hand for id in ids):
            self.forget(name)

    def released(self, name: str) -> None:
        """A new lease: nothing is in hand."""
        self.written(self.unwritten(name))
        self.of(name).in_hand.clear()
        self.forget(name)


def _size(mail: Mail) -> int:
    return len(mail.body) + 512
