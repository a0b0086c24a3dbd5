"""What is over and old goes, conversation by conversation; what is not acknowledged never does.

Which conversations those are is found by reading, in a thread; they are removed by small writes, each of which looks
again. A dry run is the same without the writes. The file does not shrink: what becomes free in it is used again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from libhive.clock import Clock
from libhive.messages.broker import Retained
from libhive.problems import NoSpace
from libhive.sqlite import Database, driver
from services.broker.finder import opened

DAY_MS: Final = 86_400_000
LOOK_ROWS: Final = 2_000
REMOVE_ROWS: Final = 50
"""In one transaction: a removed row costs as much as a stored one."""
PAUSE_SECONDS: Final = 0.01
CHECK_SECONDS: Final = 600.0

_ENDED = "state IN ('acked', 'dead', 'expired')"
_BEGINNINGS = (
    f"SELECT id FROM mail AS one WHERE seq BETWEEN :low AND :high AND hops = 0 AND {_ENDED} AND stored_ms < :cutoff"
    " AND NOT EXISTS (SELECT 1 FROM mail WHERE id = one.id AND seq < one.seq) ORDER BY seq"
)
"""Of conversations that may be over, each once: a message to several has several rows."""
_CONVERSATION = (
    "SELECT {columns} FROM mail WHERE id = :root AND hops = 0"
    " UNION ALL SELECT {columns} FROM mail INDEXED BY mail_thread WHERE root = :root AND hops > 0"
)
_STAYS = (
    f"NOT {_ENDED} OR max(stored_ms, acked_ms, ended_ms) >= :cutoff OR question <> '' AND EXISTS"
    " (SELECT 1 FROM questions WHERE id = one.question AND (state = 'open' OR answered_ms >= :cutoff))"
)
_WEIGHT = (
    "SELECT count(*), sum(octet_length(body)), min(stored_ms), max(stored_ms),"
    " (SELECT count(*) FROM questions WHERE id IN (SELECT id FROM ({ids})))"
    f" FROM ({{rows}}) AS one HAVING sum({_STAYS}) = 0"
).format(
    ids=_CONVERSATION.format(columns="id"),
    rows=_CONVERSATION.format(columns="body, question, state, stored_ms, acked_ms, ended_ms"),
)
_OLD_REMINDERS = "state <> 'pending' AND max(created_ms, due_ms, last_ms) < ?"

log = logging.getLogger("hive.broker")


class Weight(NamedTuple):
    """Of conversations that go."""

    messages: int = 0
    bytes: int = 0
    oldest_ms: int = 0
    newest_ms: int = 0
    questions: int = 0


class Retention:
    def __init__(self, database: Database, path: str, days: int, clock: Clock) -> None:
        self._database, self._path, self._days, self._clock = database, path, days, clock
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Once a day, if the settings say so; after a restart only when the day is over."""
        while self._days:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.apply_if_due()
            except NoSpace as problem:
                log.warning("no room to remove old messages in", extra={"why": problem.message})

    async def apply_if_due(self) -> Retained | None:
        last = self._database.read(_last)
        if self._clock() - last < DAY_MS and last <= self._clock():
            return None
        done = await self.retain(0, apply=True)
        await self._database.write(partial(_remember, now=self._clock()))
        log.info("removed old messages", extra={"messages": done.messages, "days": done.days})
        return done

    async def retain(self, days: int, *, apply: bool) -> Retained:
        days = days or self._days
        if not days:
            return Retained(days=0, messages=0, applied=apply)
        async with self._one_at_a_time:
            total = await self._sweep(self._clock() - days * DAY_MS, apply)
        return Retained(days=days, applied=apply, **total._asdict())

    async def _sweep(self, cutoff: int, apply: bool) -> Weight:
        total = Weight()
        for low, high in await asyncio.to_thread(_stretches, self._path, cutoff):
            found = await asyncio.to_thread(_look, self._path, low, high, cutoff)
            if not apply:
                total = sum_of([total, *found.values()])
                continue
            for roots in _batches(found):
                removed = await self._database.write(partial(_remove, roots=roots, cutoff=cutoff))
                total = sum_of([total, removed])
                await asyncio.sleep(PAUSE_SECONDS)
        if apply:
            await self._database.write(partial(_remove_reminders, cutoff=cutoff))
        return total


def sum_of(weights: Sequence[Weight]) -> Weight:
    full = [weight for weight in weights if weight.messages]
    return Weight(
        messages=sum(weight.messages for weight in full),
        bytes=sum(weight.bytes for weight in full),
        oldest_ms=min((weight.oldest_ms for weight in full), default=0),
        newest_ms=max((weight.newest_ms for weight in full), default=0),
        questions=sum(weight.questions for weight in full),
    )


# ---- reading, in a thread


def _stretches(path: str, cutoff: int) -> list[tuple[int, int]]:
    """Where to look: not in the stretches of rows that are all too young, as far as the indexer has noted them."""
    with closing(opened(path)) as c:
        spans = c.execute(
            "SELECT first, last FROM mail_spans WHERE oldest_ms < ? ORDER BY last", (cutoff,)
        ).fetchall()
        noted, newest = c.execute(
            "SELECT (SELECT max(last) FROM mail_spans), (SELECT max(seq) FROM mail)"
        ).fetchone()
    rest = range((noted or 0) + 1, (newest or 0) + 1, LOOK_ROWS)
    return [*((first, last) for first, last in spans), *((low, low + LOOK_ROWS - 1) for low in rest)]


def _look(path: str, low: int, high: int, cutoff: int) -> dict[str, Weight]:
    """The conversations that begin here and that go."""
    with closing(opened(path)) as c:
        c.row_factory = None
        roots = c.execute(_BEGINNINGS, {"low": low, "high": high, "cutoff": cutoff}).fetchall()
        return {root: found for (root,) in roots if (found := _weight(c, root, cutoff))}


def _weight(c: Any, root: str, cutoff: int) -> Weight | None:
    """What goes with this conversation; None when something in it makes it stay."""
    row = c.execute(_WEIGHT, {"root": root, "cutoff": cutoff}).fetchone()
    return Weight(*row) if row else None


def _batches(found: dict[str, Weight]) -> Iterator[list[str]]:
    batch, rows = [], 0
    for root, weight in found.items():
        batch.append(root)
        rows += weight.messages
        if rows >= REMOVE_ROWS:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


# ---- writing


def _remove(c: Connection, roots: Sequence[str], cutoff: int) -> Weight:
    """Those of them that still may go: somebody may have answered since."""
    db: Any = driver(c)
    gone = []
    for root in roots:
        if weight := _weight(db, root, cutoff):
            gone.append(weight)
            rows = db.execute(_CONVERSATION.format(columns="seq, id"), {"root": root}).fetchall()
            for seq, id in rows:
                db.execute("DELETE FROM mail_words WHERE rowid = ?", (seq,))
                db.execute("DELETE FROM questions WHERE id = ?", (id,))
                db.execute("DELETE FROM mail WHERE seq = ?", (seq,))
            db.execute("DELETE FROM conversations WHERE key = ?", (f"root:{root}",))
    return sum_of(gone)


def _remove_reminders(c: Connection, cutoff: int) -> None:
    driver(c).execute(f"DELETE FROM reminders WHERE {_OLD_REMINDERS}", (cutoff,))


def _last(c: Connection) -> int:
    row = driver(c).execute("SELECT upto FROM progress WHERE what = 'retention'").fetchone()
    return int(row[0]) if row else 0


def _remember(c: Connection, now: int) -> None:
    driver(c).execute("INSERT OR REPLACE INTO progress (what, upto) VALUES ('retention', ?)", (now,))
