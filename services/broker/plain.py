"""The plain case of sending and acknowledging, which is nearly all of it: decided in memory when it comes, made durable as a
record of the redo log, and in SQLite a little later.

What is not plain takes the way through a transaction, in mailroom.py, which decides the same by looking into the store:
a repeated command, a conversation that goes over its budget or that the operator has decided about, what was handed out
before the broker's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from libhive.redo import Change
from libhive.sqlite import Database
from services.broker.boxes import Boxes, Offer
from services.broker.budgets import Budgets
from services.broker.mail import ACKED, OPEN, Draft
from services.broker.posted import APPEND, AS_STORED, Numbers, Posted

KNOWN = "SELECT 1 FROM mail WHERE id = ? LIMIT 1"
PARENT = "SELECT root, hops FROM mail WHERE id = ? AND (sender = ? OR recipient = ?) LIMIT 1"
OFFERED = (
    "UPDATE mail SET state = 'offered', attempts = ?1, lease = ?2, offered_ms = ?3 WHERE seq = ?4"
    " AND state = 'stored' AND ?2 = (SELECT lease FROM mailboxes WHERE name = recipient)"
)
"""What has become of it since stays, as does what a new lease was given back."""
ACK = f"UPDATE mail SET {ACKED}, attempts = ?2, lease = ?3, offered_ms = ?4 WHERE seq = ?5 AND {OPEN}"


class Thread(msgspec.Struct, frozen=True):
    """Where a message stands: what it all began with, how many answers lie between, and who may answer it."""

    root: str
    hops: int
    who: tuple[str, ...]


class Plain:
    def __init__(self, boxes: Boxes, budgets: Budgets, numbers: Numbers) -> None:
        self._boxes, self._budgets, self._numbers = boxes, budgets, numbers
        self._fresh: dict[str, Thread] = {}
        """Messages that were appended, and that SQLite does not have yet, by their ids."""

    # ---- deciding

    def send(self, database: Database, draft: Draft, now: int) -> tuple[Posted, list[Change]] | None:
        """What `Mailroom.add` would do, as changes; None for what is not plain. Only while the database takes changes."""
        id, numbers = draft.id, self._numbers
        if not numbers.known:
            if database.is_behind:
                return None  # what SQLite does not have yet may have the newest number
            numbers.find(lambda query: database.look(query, ()))
        if not numbers.ids.is_new(id) and (id in self._fresh or database.look(KNOWN, (id,))):
            return None
        thread = self._thread(database, draft) if draft.in_reply_to else (id, 0)
        if thread is None or not self._budgets.lets(draft, *thread, now):
            return None
        root, hops = thread
        count = len(draft.recipients)
        seqs = numbers.take(id, count)
        posted = Posted(draft=draft, now=now, root=root, hops=hops, seqs=seqs, paused=[None] * count)
        self._fresh[id] = Thread(root, hops, (draft.sender, *draft.recipients))
        return posted, [(APPEND, row) for row in posted.rows()]

    def ack(self, agent: str, lease: str, ids: Sequence[str], now: int) -> list[Change] | None:
        """What `Mailroom.ack` would do; None when one of them is not in hand, as far as the memory knows."""
        in_hand = self._boxes.of(agent).in_hand
        changes: list[Change] = []
        for id in ids:
            if (offer := in_hand.get(id)) is None:
                return None
            changes.append((ACK, (now, offer.attempts, lease, offer.offered_ms, offer.seq)))
        return changes

    def _thread(self, database: Database, draft: Draft) -> tuple[str, int] | None:
        if fresh := self._fresh.get(draft.in_reply_to):
            return (fresh.root, fresh.hops + 1) if draft.sender in fresh.who else None
        parent = database.look(PARENT, (draft.in_reply_to, draft.sender, draft.sender))
        return (str(parent[0]), int(parent[1]) + 1) if parent else None

    # ---- what becomes of it

    @staticmethod
    def fold(changes: list[Change]) -> list[Change]:
        """A message that was acknowledged before SQLite has it is stored as acknowledged."""
        found: list[Change] = []
        places: dict[Any, int] = {}
        for change in changes:
            statement, values = change
            if statement is APPEND:
                places[values[0]] = len(found)
            elif statement is ACK and (place := places.get(values[-1])) is not None:
                now, attempts, lease, offered_ms, _ = values
                row = found[place][1]
                if row[-len(AS_STORED)] == "stored":
                    acked = ("acked", now, now, attempts, lease, offered_ms)
                    found[place] = (APPEND, (*row[: -len(AS_STORED)], *acked))
                continue
            found.append(change)
        return found

    def applied(self, changes: Sequence[Change]) -> None:
        for statement, values in changes:
            if statement is APPEND:
                self._fresh.pop(str(values[1]), None)

    def undone(self, changes: Sequence[Change]) -> None:
        self.applied(changes)
        for statement, values in changes:
            if statement is APPEND:
                self._budgets.uncount(sender=str(values[3]), recipient=str(values[2]))


def offered(offers: Sequence[Offer]) -> list[Change]:
    """That these were handed out."""
    return [(OFFERED, (offer.attempts, offer.lease, offer.offered_ms, offer.seq)) for offer in offers]
