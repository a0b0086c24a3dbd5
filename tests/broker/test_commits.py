"""What several commands do to each other when one commit holds them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pysqlite3.dbapi2 import OperationalError
from sqlalchemy import Connection

from libhive.daemon import Call
from libhive.messages import broker as say
from libhive.names import OPERATOR, new_id
from libhive.problems import NoSpace, NotFound, StaleLease
from libhive.sqlite import LOG_BYTES, Database, driver
from libhive.transactions import Transactions
from services.broker.mailroom import check_lease
from services.broker.service import Broker
from services.broker.settings import Settings
from services.broker.store import MIGRATIONS
from services.broker.timers import BATCH

ALICE, BOB = "alice", "bob"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(
        Database.open(tmp_path / "broker" / "broker.sqlite", MIGRATIONS, keeps_redo=True), Settings()
    )
    for name in (ALICE, BOB):
        broker.core.database.write(
            lambda c, name=name: c.exec_driver_sql(  # type: ignore[misc]
                "INSERT INTO mailboxes (name, uid, open) VALUES (?, 0, 1)", (name,)
            )
        )
    await broker.core.database.write(lambda c: None)
    broker.mailboxes._reload()
    yield broker
    await broker.stop()


def call(name: str) -> Call:
    return Call(name, new_id())


def hello(broker: Broker) -> asyncio.Future[say.Welcome]:
    return broker.post.on_hello(call(BOB), say.Hello(generation=1, incarnation="i", version="v"))


def recv(broker: Broker, lease: str, wait_ms: int = 0) -> asyncio.Future[say.Received]:
    return broker.post.on_recv(call(BOB), say.Recv(lease=lease, wait_ms=wait_ms, limit=64))


def send(broker: Broker, body: str) -> asyncio.Future[say.Sent]:
    return broker.post.on_send(call(ALICE), say.Send(to=[BOB], body=body))


async def test_an_offer_that_is_written_after_a_new_lease_undoes_nothing(broker: Broker) -> None:
    old = (await hello(broker)).lease
    await send(broker, "hi")
    assert len((await recv(broker, old)).mail) == 1
    greeting = hello(broker)
    broker.post._write_offers()  # its time has come in the same commit
    lease = (await greeting).lease
    (mail,) = (await recv(broker, lease)).mail
    assert (mail.body, mail.attempts) == ("hi", 2)


async def test_who_waits_by_a_lease_that_ends_gets_nothing_of_the_same_commit(broker: Broker) -> None:
    old = (await hello(broker)).lease
    waiting = recv(broker, old, wait_ms=5_000)
    sent, greeting = send(broker, "hi"), hello(broker)
    await sent
    with pytest.raises(StaleLease):
        await waiting
    (mail,) = (await recv(broker, (await greeting).lease)).mail
    assert mail.attempts == 1


async def test_what_is_dropped_in_the_commit_that_wakes_its_reader_is_not_handed_out(broker: Broker) -> None:
    lease = (await hello(broker)).lease
    first = await send(broker, "dropped")
    dropping = broker.post.on_drop_mail(call("operator"), say.DropMail(id=first.id, recipient=BOB))
    sent = send(broker, "kept")
    await asyncio.gather(dropping, sent)
    assert [mail.body for mail in (await recv(broker, lease)).mail] == ["kept"]


async def test_several_messages_of_one_commit_come_once_each(broker: Broker) -> None:
    lease = (await hello(broker)).lease
    waiting = recv(broker, lease, wait_ms=5_000)
    await asyncio.gather(*(send(broker, str(number)) for number in range(5)))
    assert [mail.body for mail in (await waiting).mail] == ["0", "1", "2", "3", "4"]
    assert (await recv(broker, lease)).mail == []


async def test_one_command_that_fails_after_it_has_changed_something_takes_nobody_with_it(
    broker: Broker,
) -> None:
    database = broker.core.database

    def half(c: object) -> None:
        check_lease(c, BOB, "")  # type: ignore[arg-type]

    def changes_and_fails(c: object) -> None:
        c.exec_driver_sql("UPDATE mailboxes SET status = 'half' WHERE name = 'bob'")  # type: ignore[attr-defined]
        raise ValueError("planned")

    before, failing, after = send(broker, "before"), database.write(changes_and_fails), send(broker, "after")
    refused = database.write(half)
    outcomes = await asyncio.gather(before, failing, refused, after, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [say.Sent, ValueError, StaleLease, say.Sent]
    broker.mailboxes._reload()
    assert broker.mailboxes.peer(BOB).status == ""
    lease = (await hello(broker)).lease
    assert [mail.body for mail in (await recv(broker, lease)).mail] == ["before", "after"]


SLOW = {"OpenEphemeral", "OpenAutoindex", "SorterOpen"}
"""Of SQLite's bytecode: what makes a table for one execution of a statement, as `IN` with three values does."""


async def test_what_every_message_costs_makes_no_table_of_its_own(broker: Broker) -> None:
    connection = driver(broker.core.database._writer)
    lease = (await hello(broker)).lease
    said: list[str] = []
    connection.set_trace_callback(said.append)
    sent = [await send(broker, body) for body in ("one", "two")]
    broker.core.database.settle()
    assert len((await recv(broker, lease)).mail) == 2
    broker.post._write_offers()
    for one in sent:
        await broker.post.on_ack(call(BOB), say.Ack(lease=lease, ids=[one.id]))
        broker.core.database.settle()
    connection.set_trace_callback(None)
    made = {text for text in said if text.startswith(("SELECT", "INSERT INTO mail ", "UPDATE"))}
    assert {text.split()[0] for text in made} == {"SELECT", "INSERT", "UPDATE"}
    for text in made:
        assert SLOW.isdisjoint(row[1] for row in connection.execute(f"EXPLAIN {text}")), text


async def test_questions_that_expire_together_share_their_commits(broker: Broker) -> None:
    """One after the other they would keep the reminders waiting, and fall behind what is asked."""
    ask = broker.questions.on_ask
    await asyncio.gather(
        *(
            ask(call(OPERATOR), say.Ask(to=BOB, question=f"{n}?", deadline_seconds=1))
            for n in range(BATCH + 1)
        )
    )
    commits, database = list[None](), broker.core.database
    then = database.on_commit
    database.on_commit = lambda: (commits.append(None), then())[1]
    later = broker.core.clock() + 2_000
    await broker.questions.run_due(later)
    assert len(commits) == 1
    assert len(broker.questions.of(OPERATOR)) == 1
    await broker.questions.run_due(later)
    assert broker.questions.of(OPERATOR) == []


async def test_a_log_is_made_long_once(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "store.sqlite", MIGRATIONS)
    log = tmp_path / "store.sqlite-wal"
    begun = log.read_bytes()
    for _ in range(2):
        database.grow_log()
        assert log.stat().st_size == LOG_BYTES
        assert log.read_bytes() == begun.ljust(LOG_BYTES, b"\0")
    database.close()


async def test_a_message_that_was_refused_for_want_of_room_cannot_be_answered(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hello(broker)
    first = await send(broker, "first")

    def full(self: Transactions, changes: object) -> bool:
        raise OperationalError("database or disk is full")

    with monkeypatch.context() as while_full:
        while_full.setattr(Transactions, "append", full)
        refused = call(ALICE)
        with pytest.raises(NoSpace):
            await broker.post.on_send(refused, say.Send(to=[BOB], body="refused"))
    answer = say.Send(to=[ALICE], body="what?", in_reply_to=refused.id)
    with pytest.raises(NotFound):
        await broker.post.on_send(call(BOB), answer)
    again = await broker.post.on_send(refused, say.Send(to=[BOB], body="refused"))
    assert (again.id, broker.core.database.is_behind) == (refused.id, True)
    await broker.post.on_send(call(BOB), answer)
    (receipt,) = broker.core.read(lambda c: broker.core.mailroom.receipts(c, refused.id))
    assert receipt.seq > broker.core.read(lambda c: broker.core.mailroom.receipts(c, first.id))[0].seq


async def test_an_answer_to_what_sqlite_does_not_have_yet_is_in_its_conversation(broker: Broker) -> None:
    first = await send(broker, "first")
    second = call(BOB)
    await broker.post.on_send(second, say.Send(to=[ALICE], body="second", in_reply_to=first.id))
    third = call(ALICE)
    await broker.post.on_send(third, say.Send(to=[BOB], body="third", in_reply_to=second.id))
    assert broker.core.database.is_behind
    (receipt,) = broker.core.read(lambda c: broker.core.mailroom.receipts(c, third.id))
    assert (receipt.root, receipt.hops) == (first.id, 2)


async def test_what_is_acknowledged_before_sqlite_has_it_is_stored_as_acknowledged(broker: Broker) -> None:
    lease = (await hello(broker)).lease
    sent = [await send(broker, body) for body in ("one", "two")]
    assert len((await recv(broker, lease)).mail) == 2
    await broker.post.on_ack(call(BOB), say.Ack(lease=lease, ids=[sent[0].id]))
    assert broker.core.database.is_behind
    one, two = broker.core.read(lambda c: broker.core.mailroom.newest(c, BOB, 2))
    assert (one.state, one.attempts, one.seen_ms, one.acked_ms) == ("acked", 1, one.acked_ms, one.seen_ms)
    assert one.stored_ms <= one.offered_ms <= one.acked_ms
    assert (two.state, two.attempts) == ("offered", 1)


async def test_a_batch_that_runs_again_takes_nothing_off_the_budgets(tmp_path: Path) -> None:
    """Else an agent that makes one fail now and then, as anybody can, would write without end."""
    path, settings = tmp_path / "broker" / "broker.sqlite", Settings(pair_per_minute_max=5)
    broker = Broker(Database.open(path, MIGRATIONS, keeps_redo=True), settings, lambda: 1_700_000_000_000)
    for name in (ALICE, BOB):
        await broker.core.database.write(
            lambda c, name=name: driver(c).execute(  # type: ignore[misc]
                "INSERT INTO mailboxes (name, uid, open) VALUES (?, 0, 1)", (name,)
            )
        )
    broker.mailboxes._reload()

    def changes_and_fails(c: Connection) -> None:
        driver(c).execute("UPDATE mailboxes SET status = 'half'")
        raise ValueError("planned")

    paused = []
    for number in range(6):
        sending = send(broker, str(number))
        failing = broker.core.database.write(changes_and_fails)
        paused.append((await sending).paused != "")
        with pytest.raises(ValueError, match="planned"):
            await failing
    assert paused == [False] * 5 + [True]
    await broker.stop()
