"""Finds messages, the newest first, on a connection of its own: it runs in a thread, so that nobody's mail waits for it.

A search goes from the newest row down in chunks: candidates from the index that narrows most, then their rows, which are
checked for all that was asked. What is not in the index of words yet is matched here, so that no result depends on how far
that index has come. `mail_spans` says for stretches of rows which instants lie in them: a clock may have jumped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import pysqlite3.dbapi2

from libhive.messages.broker import Found, Receipt, Search
from libhive.problems import TooMany
from services.broker.mail import RECEIPT_COLUMNS, receipt_from
from services.broker.rules import ITEM_BYTES
from services.broker.words import Scratch

CHUNK_ROWS: Final = 500
UNINDEXED_ROWS: Final = 50
"""As many are matched between two looks at the time."""
INTERRUPT_EVERY_STEPS: Final = 20_000
SEQ_MAX: Final = (1 << 63) - 1

_CANDIDATES_OF_WORDS = (
    "SELECT rowid FROM mail_words WHERE mail_words MATCH :words AND rowid BETWEEN :low AND :high"
    " ORDER BY rowid DESC LIMIT :chunk"
)
_CANDIDATES_OF_AGENT = (
    "SELECT seq FROM (SELECT seq FROM mail WHERE sender = :agent AND seq BETWEEN :low AND :high ORDER BY seq DESC LIMIT :chunk)"
    " UNION SELECT seq FROM (SELECT seq FROM mail WHERE recipient = :agent AND seq BETWEEN :low AND :high ORDER BY seq DESC"
    " LIMIT :chunk) ORDER BY seq DESC LIMIT :chunk"
)
_CANDIDATES_OF_ROOT = (
    "SELECT seq FROM mail WHERE id = :root AND seq BETWEEN :low AND :high"
    " UNION SELECT seq FROM mail INDEXED BY mail_thread WHERE root = :root AND hops > 0 AND seq BETWEEN :low AND :high"
    " ORDER BY seq DESC LIMIT :chunk"
)
_CANDIDATES = "SELECT seq FROM mail WHERE seq BETWEEN :low AND :high ORDER BY seq DESC LIMIT :chunk"
_ROWS = (
    f"SELECT {RECEIPT_COLUMNS} FROM mail WHERE seq IN (SELECT value FROM json_each(:seqs))"
    " AND (:agent = '' OR sender = :agent OR recipient = :agent) AND (:root = '' OR root = :root)"
    " AND stored_ms >= :since AND (:until = 0 OR stored_ms < :until) ORDER BY seq DESC"
)
_TEXTS = "SELECT seq, body FROM mail WHERE seq IN (SELECT value FROM json_each(:seqs))"
_SPANS = (
    "SELECT first, last FROM mail_spans WHERE first <= :high AND newest_ms >= :since"
    " AND (:until = 0 OR oldest_ms < :until) ORDER BY last DESC"
)


class Stretch(NamedTuple):
    """Rows to look at, both ends included."""

    low: int
    high: int
    indexed: bool


@dataclass(slots=True)
class Page:
    """What is found so far, and when that is enough for one reply."""

    limit: int
    bytes_left: int
    receipts: list[Receipt] = field(default_factory=list)

    def takes(self, receipt: Receipt) -> bool:
        self.bytes_left -= len(receipt.body.encode()) + ITEM_BYTES
        if len(self.receipts) == self.limit or (self.receipts and self.bytes_left < 0):
            return False
        self.receipts.append(receipt)
        return True


def opened(path: str) -> Any:
    """A connection that can only read."""
    connection = pysqlite3.dbapi2.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
    connection.row_factory = pysqlite3.dbapi2.Row
    return connection


def find(path: str, asked: Search, words: str, bytes_max: int, seconds_max: float) -> Found:
    """A page of what was asked for. It is shorter than that when the time is up: `before` then goes on from there.

    Raises TooMany when the time was not enough for anything at all.
    """
    with closing(opened(path)) as connection:
        return Finder(connection, asked, words).page(bytes_max, time.monotonic() + seconds_max)


class Finder:
    def __init__(self, connection: Any, asked: Search, words: str) -> None:
        self._connection, self._asked, self._words = connection, asked, words
        self._scratch = Scratch(connection)
        self._root = self._root_of(asked.root)
        self._values = {
            "words": words,
            "agent": asked.agent,
            "root": self._root,
            "since": asked.since_ms,
            "until": asked.until_ms,
        }

    def page(self, bytes_max: int, until: float) -> Found:
        page = Page(self._asked.limit, bytes_max)
        looked = start = (self._asked.before or SEQ_MAX + 1) - 1
        self._connection.set_progress_handler(lambda: time.monotonic() > until, INTERRUPT_EVERY_STEPS)
        try:
            for stretch in self._stretches(start):
                looked = stretch.high
                while looked >= stretch.low:
                    if looked < start and time.monotonic() > until:
                        return Found(receipts=page.receipts, before=looked + 1)
                    chunk = UNINDEXED_ROWS if self._has_to_match(stretch) else CHUNK_ROWS
                    seqs = self._candidates(stretch, looked, chunk)
                    for receipt in self._rows(seqs, stretch):
                        if not page.takes(receipt):
                            return Found(receipts=page.receipts, before=page.receipts[-1].seq)
                        looked = receipt.seq - 1
                    looked = seqs[-1] - 1 if len(seqs) == chunk else -1
        except pysqlite3.dbapi2.OperationalError as error:
            if "interrupt" not in str(error):
                raise
            if looked == start:
                raise TooMany("this search takes too long", "give whole words, or a shorter time") from None
            return Found(receipts=page.receipts, before=looked + 1)
        return Found(receipts=page.receipts)

    def _root_of(self, id: str) -> str:
        """The conversation that this message is in: any of its messages names it."""
        row = self._connection.execute("SELECT root FROM mail WHERE id = ? LIMIT 1", (id,)).fetchone()
        return str(row["root"]) if row else id

    def _stretches(self, high: int) -> Iterator[Stretch]:
        """From the newest down: first what is not in the index of words, then what is."""
        row = self._connection.execute("SELECT upto FROM progress WHERE what = 'search'").fetchone()
        upto = row["upto"] if row else 0
        if high > upto:
            yield Stretch(upto + 1, high, indexed=False)
        top = min(high, upto)
        if top and not (self._asked.since_ms or self._asked.until_ms):
            yield Stretch(1, top, indexed=True)
        elif top:
            rows = self._connection.execute(_SPANS, {**self._values, "high": top}).fetchall()
            yield from joined([(row["first"], min(top, row["last"])) for row in rows])

    def _has_to_match(self, stretch: Stretch) -> bool:
        """Whether the candidates need not have the words."""
        return bool(self._words) and (bool(self._root) or not stretch.indexed)

    def _candidates(self, stretch: Stretch, high: int, chunk: int) -> list[int]:
        query = _CANDIDATES
        if self._root:
            query = _CANDIDATES_OF_ROOT
        elif self._words and stretch.indexed:
            query = _CANDIDATES_OF_WORDS
        elif self._asked.agent:
            query = _CANDIDATES_OF_AGENT
        values = {**self._values, "low": stretch.low, "high": high, "chunk": chunk}
        return [row[0] for row in self._connection.execute(query, values)]

    def _rows(self, seqs: list[int], stretch: Stretch) -> Iterator[Receipt]:
        """Those of the candidates that are what was asked for; one by one, since a body may be long."""
        if self._has_to_match(stretch):
            seqs = self._scratch.matching(_TEXTS, {"seqs": json.dumps(seqs)}, self._words)
        for row in self._connection.execute(_ROWS, {**self._values, "seqs": json.dumps(seqs)}):
            yield receipt_from(row)


def joined(spans: list[tuple[int, int]]) -> Iterator[Stretch]:
    """Neighbours as one, from the highest down."""
    low = high = 0
    for first, last in spans:
        if low and last == low - 1:
            low = first
            continue
        if low:
            yield Stretch(low, high, indexed=True)
        low, high = first, last
    if low:
        yield Stretch(low, high, indexed=True)
