"""Mail that is dead is tried again or dropped; what nobody reads in time expires; who may have what in hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from libhive.link import Gap
from libhive.messages import broker as say
from libhive.names import new_id
from libhive.problems import BadRequest, Conflict, NotFound, StaleLease, TooMany
from libhive.testing.hive import Guest, Hive
from services.broker.boxes import IN_HAND_MAX, READY_MAX


@pytest.fixture
async def hive() -> AsyncIterator[Hive]:
    async with Hive({"HIVE_BROKER_PAIR_PER_MINUTE_MAX": "0"}) as hive:
        await hive.start("broker")
        for name in ("alice", "bob"):
            await hive.open_mailbox(name)
        yield hive


async def dead(hive: Hive) -> str:
    id = await hive.send("operator", "bob", "poison")
    for _ in range(6):
        bob = await hive.join("bob")
        await bob.recv()
    assert (await receipt(hive, id)).state == "dead"
    return id


async def receipt(hive: Hive, id: str) -> say.Receipt:
    (found,) = await hive.operator.message_status(id)
    return found


async def retry(hive: Hive, id: str) -> None:
    await hive.operator_link.call("broker", say.RetryMail(id=id, recipient="bob"))


async def drop(hive: Hive, id: str, reason: str = "") -> None:
    await hive.operator_link.call("broker", say.DropMail(id=id, recipient="bob", reason=reason))


async def test_a_dead_message_can_be_tried_again(hive: Hive) -> None:
    id = await dead(hive)
    assert (await receipt(hive, id)).ended_ms > 0
    bob = await hive.join("bob")
    waiting = asyncio.create_task(bob.recv(wait_ms=5_000))
    await retry(hive, id)
    (mail,) = await waiting
    assert (mail.id, mail.attempts) == (id, 1)
    await retry(hive, id)  # it is on its way: nothing to do
    await bob.ack(id)
    with pytest.raises(Conflict, match="acked"):
        await retry(hive, id)
    with pytest.raises(NotFound):
        await retry(hive, new_id())


async def test_a_dead_message_can_be_dropped(hive: Hive) -> None:
    id = await dead(hive)
    await drop(hive, id, "it is broken")
    found = await receipt(hive, id)
    assert (found.state, found.reason) == ("expired", "dropped by the operator: it is broken")
    await drop(hive, id)
    assert (await receipt(hive, id)).reason == found.reason
    with pytest.raises(Conflict):
        await retry(hive, id)


async def test_what_was_not_offered_yet_can_be_dropped_and_what_is_in_hand_cannot(hive: Hive) -> None:
    first, second = [await hive.send("operator", "bob", body) for body in ("first", "second")]
    bob = await hive.join("bob")
    assert [mail.id for mail in await bob.recv(limit=1)] == [first]
    with pytest.raises(Conflict, match="offered"):
        await drop(hive, first)  # the store does not know yet that it was handed out
    await drop(hive, second)
    assert await bob.recv() == []
    await bob.ack(first)
    with pytest.raises(Conflict):
        await drop(hive, first)


async def test_a_question_that_was_not_read_in_time_is_not_offered_any_more(hive: Hive) -> None:
    alice = await hive.join("alice")
    asked = await alice.door.call(say.Ask(to="bob", question="now?", deadline_seconds=1, default="no"))
    (answer,) = await alice.recv(wait_ms=5_000)
    assert (answer.kind, answer.body, answer.details["expired"]) == ("answer", "no", "true")
    found = await receipt(hive, asked.id)
    assert (found.state, found.reason) == ("expired", "its deadline passed before it was read")
    assert await (await hive.join("bob")).recv() == []


async def test_a_backlog_beyond_what_is_ready_in_memory_comes_whole_and_in_order(hive: Hive) -> None:
    alice, bob = await hive.join("alice"), await hive.join("bob")
    sent = []
    for start in range(0, 2 * READY_MAX + 100, 50):
        batch = await asyncio.gather(*(alice.send("bob", f"{start + i:05}") for i in range(50)))
        sent += [one.id for one in batch]
    got: list[say.Mail] = []
    while mails := await bob.recv(limit=64):
        got += mails
        if len(got) % 3 == 0:
            await alice.send("bob", f"{99_000 + len(got)}")
        await bob.ack(*(mail.id for mail in mails))
    assert [mail.body for mail in got] == sorted(mail.body for mail in got)
    assert set(sent) <= {mail.id for mail in got}
    assert len({mail.id for mail in got}) == len(got)


async def test_a_lease_has_so_much_in_hand_and_no_more(hive: Hive) -> None:
    alice, bob = await hive.join("alice"), await hive.join("bob")
    for _ in range(0, IN_HAND_MAX + 100, 100):
        await asyncio.gather(*(alice.send("bob", "hi") for _ in range(100)))
    got: list[say.Mail] = []
    while mails := await bob.recv(limit=64):
        got += mails
    assert len(got) == IN_HAND_MAX
    waiting = asyncio.create_task(bob.recv(wait_ms=5_000))
    await bob.ack(got[0].id)
    assert len(await waiting) == 1


async def test_who_waits_by_an_old_lease_gets_nothing(hive: Hive) -> None:
    old = await hive.join("bob")
    waiting = asyncio.create_task(old.recv(wait_ms=5_000))
    await asyncio.sleep(0.1)
    bob = await hive.join("bob")
    with pytest.raises(StaleLease):
        await waiting
    await hive.send("operator", "bob", "hi")
    assert len(await bob.recv()) == 1
    with pytest.raises(StaleLease):
        await old.recv()


async def test_each_step_is_an_event_with_its_turn(hive: Hive) -> None:
    events = hive.operator_link.events("broker")
    assert isinstance(await anext(events), Gap)
    await asyncio.sleep(0.2)
    bob = await hive.join("bob")
    id = await hive.send("operator", "bob", "hi")
    await bob.recv()
    await bob.seen(id, turn="turn 7")
    await bob.ack(id)
    steps: list[tuple[str, str]] = []
    async with asyncio.timeout(5):
        while len(steps) < 4:
            event = await anext(events)
            if isinstance(event, say.MessageStored) and event.receipt.id == id:
                steps.append(("stored", ""))
            if isinstance(event, say.ReceiptChanged) and event.id == id:
                steps.append((event.state, event.turn))
    assert steps == [("stored", ""), ("offered", ""), ("seen", "turn 7"), ("acked", "")]
    found = await receipt(hive, id)
    assert found.turn == "turn 7"
    assert 0 < found.stored_ms <= found.offered_ms <= found.seen_ms <= found.acked_ms


async def test_an_agent_has_so_many_open_questions_and_no_more(hive: Hive) -> None:
    alice = await hive.join("alice")

    async def ask(guest: Guest) -> say.Asked:
        return await guest.door.call(say.Ask(to="operator", question="may I?"))

    asked = [await ask(alice) for _ in range(64)]
    with pytest.raises(TooMany):
        await ask(alice)
    again = await alice.door.call(say.Ask(to="operator", question="may I?"), id=asked[0].id)
    assert again == asked[0], "a repetition finds the first one"
    await hive.operator.answer(asked[0].id, "yes")
    await ask(alice)


async def test_a_default_that_is_no_choice_is_refused(hive: Hive) -> None:
    alice = await hive.join("alice")
    with pytest.raises(BadRequest):
        await alice.door.call(say.Ask(to="operator", question="?", choices=["a", "b"], default="c"))
