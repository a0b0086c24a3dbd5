"""A mailbox that goes for ever: its mail, its questions and reminders, and what is known of it.

What the agent wrote to others is in their mailboxes and stays there. Mail goes in small writes, so that everybody else's
go on in between; the mailbox itself goes last, so that a purge that was cut short is found unfinished and done again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection

from libhive.daemon import Call
from libhive.messages import broker as say
from libhive.names import agent_name
from libhive.problems import Conflict
from libhive.sqlite import driver
from services.broker.core import Core
from services.broker.mailboxes import Mailboxes
from services.broker.questions import Questions

BATCH_ROWS: Final = 50
PAUSE_SECONDS: Final = 0.002


class Purge:
    def __init__(self, core: Core, mailboxes: Mailboxes, questions: Questions) -> None:
        self.core, self.mailboxes, self.questions = core, mailboxes, questions

    async def on_purge_mailbox(self, call: Call, m: say.PurgeMailbox) -> say.Purged:
        name, messages = agent_name(m.name), 0
        self._check(name)
        await self.questions.end_all_of(name)
        while name in self.mailboxes.directory:
            self._check(name)
            count = await self.core.database.write(partial(_remove_mail, name=name))
            self.core.boxes.released(name)
            messages += count
            if count < BATCH_ROWS:
                questions, reminders = await self.core.database.write(
                    partial(_remove_rest, name=name), lambda gone: self._gone(name, gone)
                )
                return say.Purged(messages=messages, questions=questions, reminders=reminders)
            await asyncio.sleep(PAUSE_SECONDS)
        return say.Purged(messages=0, questions=0, reminders=0)

    def _check(self, name: str) -> None:
        entry = self.mailboxes.directory.get(name)
        if entry is not None and entry.open:
            raise Conflict(
                f"the mailbox of {name} is open", f"destroy the agent first: hive-admin destroy {name}"
            )

    def _gone(self, name: str, gone: tuple[int, int]) -> tuple[int, int]:
        self.core.boxes.released(name)
        self.core.boxes.of(name).held = False
        self.mailboxes.forget(name)
        self.core.timers_changed()
        self.core.publish(say.MailboxPurged(name=name))
        return gone


def _remove_mail(c: Connection, name: str) -> int:
    db: Any = driver(c)
    query = "SELECT seq FROM mail INDEXED BY mail_by_recipient WHERE recipient = ? LIMIT ?"
    rows = db.execute(query, (name, BATCH_ROWS)).fetchall()
    db.executemany("DELETE FROM mail_words WHERE rowid = ?", rows)
    db.executemany("DELETE FROM mail WHERE seq = ?", rows)
    return len(rows)


def _remove_rest(c: Connection, name: str) -> tuple[int, int]:
    db: Any = driver(c)
    questions = db.execute("DELETE FROM questions WHERE asker = ? OR recipient = ?", (name, name)).rowcount
    reminders = db.execute("DELETE FROM reminders WHERE agent = ?", (name,)).rowcount
    db.execute("DELETE FROM holds WHERE agent = ?", (name,))
    db.execute("DELETE FROM mailboxes WHERE name = ?", (name,))
    return questions, reminders
