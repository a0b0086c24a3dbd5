"""The broker's file, read by somebody who is not the broker."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from pysqlite3 import dbapi2 as sqlite

_OPEN = (  # one statement: what is due becomes mail in one transaction
    "SELECT (SELECT count(*) FROM mail WHERE state IN ('stored', 'offered', 'seen'))"
    " + (SELECT count(*) FROM reminders WHERE state = 'pending')"
    " + (SELECT count(*) FROM questions WHERE state = 'open' AND deadline_ms > 0) AS open"
)
_ENDLESS = "SELECT count(*) AS open FROM questions WHERE state = 'open' AND deadline_ms = 0"


class Mail(msgspec.Struct):
    seq: int
    id: str
    recipient: str
    sender: str
    kind: str
    body: str
    question: str
    details: dict[str, str]
    state: str
    attempts: int


class Question(msgspec.Struct):
    id: str
    state: str
    answer: str
    answered_by: str
    answer_id: str


class Reminder(msgspec.Struct):
    id: str
    state: str
    due_ms: int


class Store(msgspec.Struct):
    mail: list[Mail]
    questions: list[Question]
    reminders: list[Reminder]
    damage: str


def read(path: Path) -> Store:
    with _opened(path) as rows:
        damage = rows("PRAGMA integrity_check")[0]["integrity_check"]
        return Store(
            mail=[
                Mail(**{**row, "details": json.loads(row["details"])})
                for row in rows(f"SELECT {', '.join(Mail.__struct_fields__)} FROM mail ORDER BY seq")
            ],
            questions=[
                Question(**row)
                for row in rows(f"SELECT {', '.join(Question.__struct_fields__)} FROM questions")
            ],
            reminders=[
                Reminder(**row)
                for row in rows(f"SELECT {', '.join(Reminder.__struct_fields__)} FROM reminders")
            ],
            damage="" if damage == "ok" else damage,
        )


def open_mail(path: Path) -> int:
    """Messages that have not come to their end, and what is still to come due."""
    with watched(path) as left:
        return left()


@contextlib.contextmanager
def watched(path: Path) -> Iterator[Callable[[], int]]:
    """What `open_mail` says, for whoever asks often: to open the file costs more than to ask it."""
    with _opened(path) as rows:
        yield lambda: int(rows(_OPEN)[0]["open"])


def endless_questions(path: Path) -> int:
    """Open ones that no deadline will end."""
    with _opened(path) as rows:
        return int(rows(_ENDLESS)[0]["open"])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    connection = sqlite.connect(f"file:{path}?mode=ro", uri=True)
    connection.row_factory = sqlite.Row
    try:
        yield lambda query: [dict(row) for row in connection.execute(query)]
    finally:
        connection.close()
