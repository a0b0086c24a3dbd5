"""When a reminder comes due, and what becomes of the firings that nobody was there for. No I/O.

A recurring reminder remembers which of its instants have fired, as spans: whatever the clock does, none fires twice, and
after a jump it goes on from where the clock is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from libhive.clock import iso
from libhive.cron import Cron, parse
from libhive.messages.broker import Remind, Reminder
from libhive.problems import BadRequest

HOUR_MS = 3_600_000
MISSED_MS = 60_000
"""Later than this a firing counts as missed: about as long as the timers may sleep."""
CATCH_UP_MAX = 100
"""Missed firings that `all` makes up for, the newest; the earlier ones are told in one mail."""
SPANS_MAX = 16

Span = tuple[int, int]
"""The first and the last of firings that follow each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """What a reminder that is due comes to."""

    instants: Sequence[int] = ()
    """One mail each."""
    left_out_from: int = 0
    """The first of those that are told in one mail; 0: there are none."""
    due_ms: int | None = None
    """None: it has fired for the last time."""
    fired: list[Span] = field(default_factory=list)


def first_due(remind: Remind, now: int) -> int:
    """An instant that has passed is due at once. Raises BadRequest."""
    given = [name for name in ("at_ms", "after_seconds", "cron") if getattr(remind, name)]
    if len(given) != 1:
        raise BadRequest(
            "a reminder is at an instant, after some seconds, or by a cron line",
            "give one of `at`, `after_seconds` and `cron`",
        )
    if not remind.cron and (remind.zone or remind.catch_up != "once"):
        raise BadRequest(
            "`zone` and `catch_up` belong to a recurring reminder", "leave them out, or give `cron`"
        )
    if not remind.cron:
        return remind.at_ms or now + remind.after_seconds * 1000
    due = parse(remind.cron, remind.zone).after(now)
    if due is None:
        raise BadRequest(f"{remind.cron!r:.120} never comes", "check the day against the month")
    return due


def answered_due(reminder: Reminder) -> int:
    """What was answered when it was set: a command that is repeated is answered the same."""
    if not reminder.cron:
        return reminder.due_ms
    return parse(reminder.cron, reminder.zone).after(reminder.created_ms) or reminder.due_ms


def fire(reminder: Reminder, fired: Sequence[Span], now: int) -> Firing:
    """What is due of it at `now`. Raises BadRequest when its cron line or zone is not known any more."""
    if not reminder.cron:
        return Firing(instants=[reminder.due_ms])
    cron = parse(reminder.cron, reminder.zone)
    wanted = CATCH_UP_MAX if reminder.catch_up == "all" else 1
    newest = _newest(cron, reminder.due_ms, now, wanted + 1)
    instants = newest[-wanted:]
    if reminder.catch_up == "skip" and now - instants[-1] > MISSED_MS:
        return Firing(due_ms=next_due(cron, fired, now), fired=list(fired))
    fresh = [instant for instant in instants if not _span_of(fired, instant)]
    spans = _with(cron, fired, (instants[0], instants[-1]))
    left_out = reminder.catch_up == "all" and len(newest) > wanted and bool(fresh)
    return Firing(
        instants=fresh,
        left_out_from=reminder.due_ms if left_out else 0,
        due_ms=next_due(cron, spans, now),
        fired=spans,
    )


def next_due(cron: Cron, fired: Sequence[Span], now: int) -> int | None:
    """The next instant after `now` that has not fired."""
    due = cron.after(now)
    while due is not None and (span := _span_of(fired, due)):
        due = cron.after(span[1])
    return due


def left_out_text(reminder: Reminder, firing: Firing) -> str:
    return (
        f"This reminder was also due from {iso(firing.left_out_from)} to before {iso(firing.instants[0])}, more often than"
        f" is made up for one by one:\n\n{reminder.text}"
    )


def last_text(reminder: Reminder, problem: str) -> str:
    return f"{reminder.text}\n\n(This reminder does not come again: {problem}.)"


def _newest(cron: Cron, due_ms: int, now: int, count: int) -> list[int]:
    """The last `count` of the firings from `due_ms` to `now`, in order. Looked for in ever longer times before now:
    after a jump by years there may be millions."""
    back = HOUR_MS
    while True:
        begin = max(due_ms - 1, now - back)
        found: deque[int] = deque(maxlen=count)
        for instant in cron.since(begin):
            if instant > now:
                break
            found.append(instant)
        if begin == due_ms - 1 or len(found) == count:
            return list(found) or [due_ms]
        back *= 2


def _span_of(spans: Sequence[Span], instant: int) -> Span | None:
    return next((span for span in spans if span[0] <= instant <= span[1]), None)


def _with(cron: Cron, spans: Sequence[Span], new: Span) -> list[Span]:
    """With `new` in it: spans that touch, with no firing between them, become one. Of too many the earliest go."""
    joined: list[Span] = []
    for first, last in sorted([*spans, new]):
        if joined and (first <= joined[-1][1] or cron.after(joined[-1][1]) == first):
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined[-SPANS_MAX:]
