"""What an image holds once SQLite has recovered it. The only place here that knows the broker's tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pysqlite3.dbapi2

from libhive import redo
from libhive.redo import RedoLog


class Mail(NamedTuple):
    sender: str
    kind: str
    body: str
    question: str


class Progress(NamedTuple):
    state: str
    attempts: int
    turn: str


class Question(NamedTuple):
    asker: str
    recipient: str
    text: str
    state: str
    answer: str
    answered_by: str


class Reminder(NamedTuple):
    agent: str
    text: str
    due_ms: int
    state: str


@dataclass(slots=True)
class State:
    """Mail by id and recipient; the others by id or name. `damage` is what SQLite itself says is wrong."""

    damage: str = ""
    mail: dict[tuple[str, str], Mail] = field(default_factory=dict)
    progress: dict[tuple[str, str], Progress] = field(default_factory=dict)
    questions: dict[str, Question] = field(default_factory=dict)
    reminders: dict[str, Reminder] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)


_TABLES = "SELECT count(*) FROM sqlite_schema WHERE name IN ('mail', 'questions', 'reminders', 'mailboxes')"


def read(database: Path) -> State:
    """A database that is not there, or has no tables yet, is an empty one."""
    state = State()
    connection = pysqlite3.dbapi2.connect(str(database), isolation_level=None)
    try:
        _finish(database, connection)
        state.damage = "; ".join(row[0] for row in connection.execute("PRAGMA integrity_check(5)"))
        state.damage = state.damage.removeprefix("ok")
        if connection.execute(_TABLES).fetchone()[0]:
            _fill(state, connection)
    except (pysqlite3.dbapi2.DatabaseError, TypeError) as error:  # or what cannot be there is
        state.damage = str(error)
    finally:
        connection.close()
    return state


def _finish(database: Path, connection: Any) -> None:
    """What the broker does first when it starts."""
    log, mark = RedoLog.open(database), redo.mark_of(connection)
    assert log
    if mark and (runs := log.recover(*mark)):
        connection.execute("BEGIN IMMEDIATE")
        redo.replay(connection, runs)
        connection.execute("COMMIT")
    log.close()


def _fill(state: State, connection: Any) -> None:
    query = "SELECT id, recipient, sender, kind, body, question, state, attempts, turn FROM mail"
    for id, recipient, *rest in connection.execute(query):
        key = (id, recipient)
        if key in state.mail:
            state.damage = f"{id} is there twice for {recipient}"
        state.mail[key] = Mail(*rest[:4])
        state.progress[key] = Progress(*rest[4:])
    query = "SELECT id, asker, recipient, text, state, answer, answered_by FROM questions"
    state.questions = {id: Question(*rest) for id, *rest in connection.execute(query)}
    query = "SELECT id, agent, text, due_ms, state FROM reminders"
    state.reminders = {id: Reminder(*rest) for id, *rest in connection.execute(query)}
    state.statuses = dict(connection.execute("SELECT name, status FROM mailboxes WHERE open"))
