"""A message that is stored, or about to be: its rows, the numbers that order all mail, and the ids that it has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from libhive.messages.broker import Receipt
from libhive.redo import Value
from services.broker.budgets import Pause
from services.broker.ids import GREATEST, Ids
from services.broker.mail import Draft

INSERT = (
    "INSERT INTO mail (seq, id, recipient, sender, kind, body, in_reply_to, root, hops, question, choices,"
    " deadline_ms, details, stored_ms, pause, reason, state, acked_ms, seen_ms, attempts, lease, offered_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
APPEND = f"{INSERT} ON CONFLICT (id, recipient) DO NOTHING"
"""From the redo log: should it ever come a second time, it does no harm."""
AS_STORED = ("stored", 0, 0, 0, "", 0)
"""The last columns of INSERT: what changes as it is delivered."""
AS_SENT = ("", "", *AS_STORED)
"""These, and before them the columns of what holds it back: nothing does."""
NEWEST = "SELECT seq FROM sqlite_sequence WHERE name = 'mail'"


class Numbers:
    """Each row of mail has the next one. A number that a rolled back transaction had taken is not given again."""

    def __init__(self) -> None:
        self._last: int | None = None
        self.ids = Ids()

    @property
    def known(self) -> bool:
        return self._last is not None

    def find(self, look: Callable[[str], Any]) -> None:
        """Begins after the newest row, if they have not begun yet. `look` gives the first row that a statement finds, of
        all that is stored."""
        if self._last is None:
            newest, (greatest,) = look(NEWEST), look(GREATEST)
            self._last = int(newest[0]) if newest else 0
            self.ids.begin(greatest or "")

    def take(self, id: str, count: int) -> list[int]:
        """For the rows of a message, whose id is known from now on."""
        assert self._last is not None
        first = self._last + 1
        self._last += count
        self.ids.add(id)
        return list(range(first, first + count)) if count > 1 else [first]


class Posted(msgspec.Struct, kw_only=True):
    """What `add` did. `receipts` are of its own rows, made only when somebody wants to know."""

    draft: Draft
    now: int
    root: str
    hops: int
    seqs: list[int]
    paused: list[Pause | None]
    repeated: list[Receipt] = []
    """When the same command had come before: what is known of it. Nothing was changed then."""

    def rows(self) -> list[tuple[Value, ...]]:
        """For INSERT."""
        draft = self.draft
        said = draft.sender, draft.kind, draft.body, draft.in_reply_to, self.root, self.hops, draft.question
        choices = json.dumps(draft.choices) if draft.choices else "[]"
        details = json.dumps(draft.details) if draft.details else "{}"
        whole = *said, choices, draft.deadline_ms, details, self.now
        return [
            (seq, draft.id, recipient, *whole)
            + ((pause.question, pause.reason, "held", *AS_STORED[1:]) if pause else AS_SENT)
            for recipient, seq, pause in zip(draft.recipients, self.seqs, self.paused, strict=True)
        ]

    def receipts(self) -> list[Receipt]:
        return [self._receipt(index) for index in range(len(self.draft.recipients))]

    def pauses(self) -> list[Pause]:
        """Each once: what pauses a whole conversation holds the message back from all of its recipients."""
        if not any(self.paused):
            return []
        return list({pause.question: pause for pause in self.paused if pause}.values())

    def question(self) -> str:
        """The operator's question about a conversation that went over its budget by this."""
        pauses = self.pauses()
        return pauses[0].question if pauses else ""

    def _receipt(self, index: int) -> Receipt:
        draft, pause = self.draft, self.paused[index]
        return Receipt(
            id=draft.id,
            sender=draft.sender,
            recipient=draft.recipients[index],
            kind=draft.kind,
            state="stored",
            attempts=0,
            stored_ms=self.now,
            reason=pause.reason if pause else "",
            body=draft.body,
            in_reply_to=draft.in_reply_to,
            root=self.root,
            hops=self.hops,
            question=draft.question,
            seq=self.seqs[index],
        )
