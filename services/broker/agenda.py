"""The table of reminders. What changes something runs inside a transaction of whoever calls it.

While an agent is destroyed its reminders wait: they are not due before its mailbox is open again.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection

from libhive.cron import parse
from libhive.messages.broker import Reminder
from libhive.names import OPERATOR
from libhive.problems import BadRequest, Conflict, NotAllowed, NotFound, TooMany, UnknownRecipient
from libhive.sqlite import driver, rows
from services.broker.recurrence import Firing, Span, next_due

DAY_MS = 86_400_000
REALIGNED_AT_ONCE = 100
"""In one transaction, while everybody else waits."""
COLUMNS = "id, agent, text, due_ms, created_ms, cron, zone, catch_up, set_by, fired, last_ms"
WAITING = "FROM reminders r JOIN mailboxes m ON m.name = r.agent AND m.open = 1 WHERE r.state = 'pending'"


def keep(c: Connection, reminder: Reminder, limit: int) -> tuple[Reminder, bool]:
    """The reminder as it is kept, and whether it is new: a repeated command finds what it made the first time."""
    if row := _row(c, reminder.id):
        if (row["agent"], _set_by(row)) != (reminder.agent, reminder.set_by):
            raise Conflict("this id was used for something else")
        return _reminder(row), False
    if not rows(c, "SELECT 1 FROM mailboxes WHERE name = ? AND open = 1", (reminder.agent,)):
        raise UnknownRecipient(f"there is no agent {reminder.agent!r}")
    _check_room(c, reminder, limit)
    driver(c).execute(
        f"INSERT INTO reminders ({COLUMNS}, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 'pending')",
        (
            *(reminder.id, reminder.agent, reminder.text, reminder.due_ms, reminder.created_ms),
            *(reminder.cron, reminder.zone, reminder.catch_up, reminder.set_by),
        ),
    )
    note_clock(c, reminder.created_ms)
    return reminder, True


def _check_room(c: Connection, reminder: Reminder, limit: int) -> None:
    """What an agent sets and what the operator sets for it are counted apart: neither takes the other's room."""
    query = "SELECT agent, set_by FROM reminders WHERE agent = ? AND state = 'pending'"
    taken = [_set_by(row) for row in rows(c, query, (reminder.agent,))].count(reminder.set_by)
    if limit and taken >= limit:
        raise TooMany(f"{taken} reminders of {reminder.agent} wait already", "cancel one, or let one recur")


def cancel(c: Connection, id: str, caller: str, is_agent: bool) -> Reminder | None:
    """None when it was cancelled before. An agent's own are those that it has set itself."""
    row = _row(c, id)
    if row is None or (is_agent and row["agent"] != caller):
        raise NotFound("there is no such reminder of yours")
    if is_agent and _set_by(row) != caller:
        raise NotAllowed(f"{_set_by(row)} has set this reminder", f"ask the {OPERATOR} to cancel it")
    if row["state"] == "fired":
        raise Conflict("this reminder has fired already")
    if row["state"] == "cancelled":
        return None
    driver(c).execute("UPDATE reminders SET state = 'cancelled' WHERE id = ?", (id,))
    return _reminder(row)


def pending(c: Connection, agent: str) -> list[Reminder]:
    """The next first; of everybody without `agent`."""
    query = f"SELECT {COLUMNS} FROM reminders WHERE state = 'pending'"
    found = rows(c, f"{query} AND agent = ?", (agent,)) if agent else rows(c, query)
    return sorted((_reminder(row) for row in found), key=lambda reminder: (reminder.due_ms, reminder.id))


def first_due(c: Connection) -> int | None:
    found = rows(c, f"SELECT r.due_ms {WAITING} ORDER BY r.due_ms LIMIT 1")
    return int(found[0]["due_ms"]) if found else None


def due(c: Connection, now: int, limit: int) -> list[str]:
    query = f"SELECT r.id {WAITING} AND r.due_ms <= ? ORDER BY r.due_ms LIMIT ?"
    return [str(row["id"]) for row in rows(c, query, (now, limit))]


def if_due(c: Connection, id: str, now: int) -> tuple[Reminder, list[Span]] | None:
    """It, and what of it has fired."""
    row = _row(c, id)
    if row is None or row["state"] != "pending" or row["due_ms"] > now:
        return None
    return _reminder(row), _spans(row)


def advance(c: Connection, reminder: Reminder, firing: Firing, now: int) -> Reminder:
    driver(c).execute(
        "UPDATE reminders SET state = ?, due_ms = ?, fired = fired + ?, last_ms = ?, spans = ? WHERE id = ?",
        (
            *("fired" if firing.due_ms is None else "pending", firing.due_ms or reminder.due_ms),
            *(len(firing.instants), now if firing.instants else reminder.last_ms),
            *(json.dumps(firing.fired), reminder.id),
        ),
    )
    note_clock(c, now)
    return _reminder(_row(c, reminder.id))


def realign(now: int, after: str, c: Connection) -> tuple[list[Reminder], str]:
    """Of the next few after the id `after`, those whose next firing is now earlier; and the last id it has looked at, empty
    when there are no more. What comes within a day comes soon enough."""
    query = (
        f"SELECT {COLUMNS}, spans FROM reminders WHERE state = 'pending' AND cron <> '' AND due_ms > ? AND id > ?"
        " ORDER BY id LIMIT ?"
    )
    found = rows(c, query, (now + DAY_MS, after, REALIGNED_AT_ONCE))
    changed = [reminder for row in found if (reminder := _realigned(c, row, now))]
    return changed, str(found[-1]["id"]) if len(found) == REALIGNED_AT_ONCE else ""


def _realigned(c: Connection, row: Any, now: int) -> Reminder | None:
    try:
        due = next_due(parse(row["cron"], row["zone"]), _spans(row), now)
    except BadRequest:
        return None  # told when it comes due
    if due is None or due >= row["due_ms"]:
        return None
    driver(c).execute("UPDATE reminders SET due_ms = ? WHERE id = ?", (due, row["id"]))
    return _reminder(_row(c, row["id"]))


def latest_ms(c: Connection) -> int:
    """So late it has been before, as far as what was stored says."""
    mail = rows(c, "SELECT stored_ms AS at FROM mail ORDER BY seq DESC LIMIT 1")
    clock = rows(c, "SELECT upto AS at FROM progress WHERE what = 'clock'")
    return max((int(row["at"]) for row in (*mail, *clock)), default=0)


def note_clock(c: Connection, now: int) -> None:
    driver(c).execute("INSERT OR REPLACE INTO progress (what, upto) VALUES ('clock', ?)", (now,))


def _row(c: Connection, id: str) -> Any:
    found = rows(c, f"SELECT {COLUMNS}, spans, state FROM reminders WHERE id = ?", (id,))
    return found[0] if found else None


def _set_by(row: Any) -> str:
    """Empty in what was set before anybody but the agent itself could."""
    return str(row["set_by"] or row["agent"])


def _spans(row: Any) -> list[Span]:
    return [(first, last) for first, last in json.loads(row["spans"] or "[]")]


def _reminder(row: Any) -> Reminder:
    return Reminder(
        id=row["id"],
        agent=row["agent"],
        text=row["text"],
        due_ms=row["due_ms"],
        created_ms=row["created_ms"],
        cron=row["cron"],
        zone=row["zone"],
        catch_up=row["catch_up"],
        set_by=_set_by(row),
        fired=row["fired"],
        last_ms=row["last_ms"],
    )
