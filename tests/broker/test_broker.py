"""The broker as a process, through its doors and the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from libhive.messages import broker as say
from libhive.names import new_id
from libhive.problems import (
    BadRequest,
    Conflict,
    NotAllowed,
    NotFound,
    StaleLease,
    UnknownRecipient,
)
from libhive.testing.hive import Hive


@pytest.fixture
async def hive() -> AsyncIterator[Hive]:
    async with Hive() as hive:
        await hive.start("broker")
        for name in ("alice", "bob"):
            await hive.open_mailbox(name)
        yield hive


async def test_a_message_goes_from_stored_to_acked(hive: Hive) -> None:
    alice, bob = await hive.join("alice"), await hive.join("bob")
    sent = await alice.send("bob", "hi")
    assert [receipt.state for receipt in await hive.operator.message_status(sent.id)] == ["stored"]
    (mail,) = await bob.recv()
    assert (mail.sender, mail.body, mail.attempts) == ("alice", "hi", 1)
    await bob.seen(mail.id, turn="t1")
    (receipt,) = await hive.operator.message_status(sent.id)
    assert (receipt.state, receipt.turn) == ("seen", "t1")
    await bob.ack(mail.id)
    (receipt,) = await hive.operator.message_status(sent.id)
    assert receipt.state == "acked"
    assert receipt.stored_ms <= receipt.offered_ms <= receipt.seen_ms <= receipt.acked_ms
    assert await bob.recv() == []


async def test_a_waiting_recv_is_woken_by_the_message(hive: Hive) -> None:
    bob = await hive.join("bob")
    waiting = asyncio.create_task(bob.recv(wait_ms=20_000))
    await asyncio.sleep(0)
    await hive.send("operator", "bob", "wake up")
    assert [mail.body for mail in await waiting] == ["wake up"]


async def test_an_unknown_recipient_refuses_the_whole_message(hive: Hive) -> None:
    alice, bob = await hive.join("alice"), await hive.join("bob")
    with pytest.raises(UnknownRecipient, match="carol"):
        await alice.send(["bob", "carol"], "hi")
    assert await bob.recv() == []


async def test_repeating_a_command_by_its_id_stores_it_once(hive: Hive) -> None:
    alice, bob = await hive.join("alice"), await hive.join("bob")
    id = new_id()
    assert await alice.send("bob", "once", id=id) == await alice.send("bob", "once", id=id)
    assert len(await bob.recv()) == 1
    with pytest.raises(Conflict):
        await bob.send("alice", "somebody else's id", id=id)


async def test_mail_is_offered_again_when_the_harness_died_and_only_the_new_lease_counts(hive: Hive) -> None:
    first = await hive.join("bob")
    await hive.send("operator", "bob", "hi")
    (mail,) = await first.recv()
    second = await hive.join("bob")
    (again,) = await second.recv()
    assert (again.id, again.attempts) == (mail.id, 2)
    with pytest.raises(StaleLease):
        await first.ack(mail.id)
    await second.ack(mail.id)


async def test_a_harness_that_reconnects_keeps_its_lease(hive: Hive) -> None:
    bob = await hive.join("bob")
    await hive.send("operator", "bob", "hi")
    (mail,) = await bob.recv()
    await bob.seen(mail.id)  # what was offered is on disk by this, at the latest
    await hive.kill("broker")
    await hive.start("broker")
    assert (await bob.hello(resume=bob.lease)).resumed
    assert await bob.recv() == []
    await bob.ack(mail.id)
    assert [receipt.state for receipt in await hive.operator.message_status(mail.id)] == ["acked"]


async def test_after_five_offers_a_message_is_dead_and_the_operator_is_told(hive: Hive) -> None:
    id = await hive.send("operator", "bob", "poison")
    for _ in range(5):
        bob = await hive.join("bob")
        assert len(await bob.recv()) == 1
    bob = await hive.join("bob")
    assert await bob.recv() == []
    (receipt,) = await hive.operator.message_status(id)
    assert receipt.state == "dead"
    assert "5 times" in receipt.reason
    (news,) = await hive.operator.inbox()
    assert "poison" in news.body


async def test_what_was_answered_survives_a_kill(hive: Hive) -> None:
    alice = await hive.join("alice")
    ids = [(await alice.send("bob", f"number {n}")).id for n in range(20)]
    await hive.kill("broker")
    await hive.start("broker")
    bob = await hive.join("bob")
    assert [mail.id for mail in await bob.recv(limit=64)] == ids


async def test_a_held_agent_is_offered_nothing_until_it_is_let_go(hive: Hive) -> None:
    bob = await hive.join("bob")
    await hive.broker.set_hold("bob", "update", True)
    await hive.send("operator", "bob", "hi")
    assert await bob.recv() == []
    waiting = asyncio.create_task(bob.recv(wait_ms=20_000))
    await hive.broker.set_hold("bob", "update", False)
    assert [mail.body for mail in await waiting] == ["hi"]


async def test_a_question_is_answered_once_by_the_one_who_was_asked(hive: Hive) -> None:
    alice, bob = await hive.join("alice"), await hive.join("bob")
    asked = await alice.door.call(say.Ask(to="bob", question="red or blue?", choices=["red", "blue"]))
    (question,) = await bob.recv()
    assert (question.kind, question.question, question.choices) == ("question", asked.id, ["red", "blue"])
    with pytest.raises(NotFound):
        await hive.operator.answer(asked.id, "red")
    with pytest.raises(BadRequest, match="choices"):
        await bob.door.call(say.Answer(question=asked.id, text="green"))
    id = new_id()
    await bob.door.call(say.Answer(question=asked.id, text="red"), id=id)
    await bob.door.call(say.Answer(question=asked.id, text="red"), id=id)
    with pytest.raises(Conflict, match="bob has answered"):
        await bob.door.call(say.Answer(question=asked.id, text="blue"))
    (answer,) = await alice.recv()
    assert (answer.kind, answer.body, answer.in_reply_to) == ("answer", "red", asked.id)


async def test_an_unanswered_question_ends_with_its_default(hive: Hive) -> None:
    alice = await hive.join("alice")
    await alice.door.call(say.Ask(to="operator", question="go on?", deadline_seconds=1, default="yes"))
    (answer,) = await alice.recv(wait_ms=20_000)
    assert (answer.kind, answer.body, answer.details["expired"]) == ("answer", "yes", "true")
    assert await hive.operator.questions() == []


async def test_a_reminder_fires_once_even_when_the_broker_was_down_at_that_instant(hive: Hive) -> None:
    alice = await hive.join("alice")
    reminded = await alice.door.call(say.Remind(text="stretch", after_seconds=1))
    await hive.kill("broker")
    await asyncio.sleep(1.2)
    await hive.start("broker")
    await alice.hello(resume=alice.lease)
    (mail,) = await alice.recv(wait_ms=20_000)
    assert (mail.kind, mail.body) == ("reminder", "stretch")
    assert mail.sent_ms >= reminded.due_ms
    assert await hive.operator.reminders() == []


async def test_allowed_recipients_bind_and_the_operator_is_always_one(hive: Hive) -> None:
    await hive.open_mailbox("carol", allowed=["bob"])
    carol = await hive.join("carol")
    with pytest.raises(NotAllowed):
        await carol.send("alice", "hi")
    await carol.send(["bob", "operator"], "hi")
    assert (await carol.send("all", "hi")).recipients == ["bob"]


async def test_the_reply_to_a_message_can_be_awaited(hive: Hive) -> None:
    bob = await hive.join("bob")
    id = await hive.send("operator", "bob", "hello")
    waiting = asyncio.create_task(hive.operator.await_reply(id, wait_ms=20_000))
    await bob.send("operator", "hello yourself", in_reply_to=id)
    assert [receipt.body for receipt in await waiting] == ["hello yourself"]
    (inbox,) = await hive.operator.inbox()
    await hive.operator.ack_inbox([inbox.id])
    assert await hive.operator.inbox() == []


async def test_a_reply_to_a_message_of_others_is_not_found(hive: Hive) -> None:
    alice, bob = await hive.join("alice"), await hive.join("bob")
    await hive.open_mailbox("carol")
    sent = await alice.send("bob", "between us")
    with pytest.raises(NotFound):
        await (await hive.join("carol")).send("bob", "me too", in_reply_to=sent.id)
    with pytest.raises(NotFound):
        await bob.door.call(say.MessageStatus(id=new_id()))


async def test_peers_tell_who_is_connected_and_what_it_says_of_itself(hive: Hive) -> None:
    bob = await hive.join("bob")
    await bob.door.call(say.ReportState(lease=bob.lease, state="idle", model="haiku"))
    await bob.door.call(say.SetStatus(text="drawing"))
    peers = {peer.name: peer for peer in await hive.operator.peers()}
    assert (peers["bob"].connected, peers["bob"].state, peers["bob"].status) == (True, "idle", "drawing")
    assert (peers["alice"].connected, peers["alice"].state) == (False, "unknown")
    await bob.close()
    for _ in range(100):
        if not (peer := await hive.operator.peer("bob")) or not peer.connected:
            break
        await asyncio.sleep(0.02)
    assert peer is not None
    assert peer.state == "unknown"


async def test_history_is_paged_by_key(hive: Hive) -> None:
    alice = await hive.join("alice")
    ids = [(await alice.send("bob", f"{n}")).id for n in range(5)]
    page = await hive.operator.history(limit=2)
    assert [receipt.id for receipt in page] == [ids[4], ids[3]]
    await alice.send("bob", "newer")
    page = await hive.operator.history(before=page[-1].id, limit=2)
    assert [receipt.id for receipt in page] == [ids[2], ids[1]]


async def test_an_agent_cannot_take_the_id_of_mail_that_the_broker_makes(hive: Hive) -> None:
    """A reminder and a question make mail later: whatever ids an agent has used meanwhile, that must not fail."""
    alice = await hive.join("alice")
    for number in range(3):
        reminded, asked = new_id(), new_id()
        for taken in (f"{reminded}-due", f"{asked}-expired"):
            await alice.send("bob", "taken", id=taken)
        await alice.door.call(say.Remind(text=f"stretch {number}", after_seconds=1), id=reminded)
        await alice.door.call(
            say.Ask(to="operator", question="?", deadline_seconds=1, default="yes"), id=asked
        )
    got: list[str] = []
    while len(got) < 6:
        got += [mail.body for mail in await alice.recv(wait_ms=10_000)]
    assert sorted(got) == ["stretch 0", "stretch 1", "stretch 2", "yes", "yes", "yes"]
    assert hive.processes["broker"].poll() is None


async def test_a_dead_message_with_the_longest_id_is_told_too(hive: Hive) -> None:
    await hive.operator_link.call("broker", say.Send(to=["bob"], body="poison"), id="x" * 64)
    for _ in range(6):
        bob = await hive.join("bob")
        await bob.recv()
    (news,) = await hive.operator.inbox()
    assert "poison" in news.body


async def test_no_agent_can_fill_a_list_so_that_the_operator_sees_nothing(hive: Hive) -> None:
    await hive.stop("broker")
    hive.environ["HIVE_BROKER_PAIR_PER_MINUTE_MAX"] = "0"
    await hive.start("broker")
    alice = await hive.join("alice")
    body = "\U0001f600" * 60_000
    for _ in range(45):
        await alice.send("operator", body)
        await alice.door.call(say.Ask(to="operator", question=body))
        await alice.door.call(say.Remind(text=body, after_seconds=86_400))
    page = await hive.operator.history(limit=500)
    assert 10 < len(page) < 90
    assert await hive.operator.history(before=page[-1].id, limit=500)
    assert await hive.operator.inbox(limit=500)
    assert await hive.operator.questions()
    assert await hive.operator.reminders()
    assert (await alice.door.call(say.LooseEnds())).asked_by_me
