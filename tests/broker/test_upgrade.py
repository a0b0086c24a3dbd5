"""A store that an older version has written is brought up to date with all that is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from libhive.daemon import Call
from libhive.messages import broker as say
from libhive.sqlite import Database
from services.broker.service import Broker
from services.broker.settings import Settings
from services.broker.store import MIGRATIONS

BOX = "INSERT INTO mailboxes (name, uid, open) VALUES ('bob', 0, 1)"
MAIL = (
    "INSERT INTO mail (id, recipient, sender, kind, body, in_reply_to, root, hops, question, choices, deadline_ms, details,"
    " state, stored_ms) VALUES (?1, 'bob', 'alice', 'message', ?1, '', ?1, 0, '', '[]', 0, '{}', ?2, 1)"
)
STATES = ("acked", "stored", "offered", "dead", "stored", "seen", "expired")


@pytest.mark.parametrize("schema", range(1, len(MIGRATIONS)))
async def test_what_was_open_is_delivered_and_nothing_else(tmp_path: Path, schema: int) -> None:
    path = tmp_path / "broker" / "broker.sqlite"
    old = Database.open(path, MIGRATIONS[:schema])
    await old.write(lambda c: c.exec_driver_sql(BOX))
    for number, state in enumerate(STATES):
        await old.write(lambda c, row=(f"m{number}", state): c.exec_driver_sql(MAIL, row))  # type: ignore[misc]
    old.close()
    broker = Broker(Database.open(path, MIGRATIONS, keeps_redo=True), Settings())
    call = Call("bob", "first")
    lease = (await broker.post.on_hello(call, say.Hello(generation=1, incarnation="i", version="v"))).lease
    mail = (await broker.post.on_recv(call, say.Recv(lease=lease, wait_ms=0, limit=64))).mail
    assert [one.body for one in mail] == ["m1", "m2", "m4", "m5"]
    await broker.stop()
