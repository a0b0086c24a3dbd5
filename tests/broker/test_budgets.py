"""Runaway conversations: paused alone, the operator asked, and whatever she decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from libhive.messages import broker as say
from libhive.problems import ConversationPaused, NotAllowed
from libhive.testing.hive import Guest, Hive
from services.broker.settings import Settings

LIMITS = {
    "HIVE_BROKER_HOPS_MAX": "4",
    "HIVE_BROKER_ROOT_MESSAGES_MAX": "6",
    "HIVE_BROKER_PAIR_PER_MINUTE_MAX": "8",
}


@pytest.fixture
async def hive() -> AsyncIterator[Hive]:
    async with Hive(LIMITS) as hive:
        await hive.start("broker")
        for name in ("alice", "bob", "carol"):
            await hive.open_mailbox(name)
        yield hive


async def ping_pong(left: Guest, right: Guest, times: int) -> say.Sent:
    """Polite agents: each answers what the other said. Returns the last thing that was sent."""
    sent = await left.send(right.name, "hello")
    for _ in range(times):
        (mail,) = await right.recv(wait_ms=2_000)
        await right.ack(mail.id)
        sent = await right.send(left.name, "thank you", in_reply_to=mail.id)
        if sent.paused:
            return sent
        left, right = right, left
    return sent


async def paused(hive: Hive) -> say.Question:
    (question,) = await hive.operator.questions()
    assert (question.asker, question.recipient, question.choices) == (
        "hive",
        "operator",
        ["continue", "stop"],
    )
    return question


async def test_two_polite_agents_are_paused_and_everybody_else_goes_on(hive: Hive) -> None:
    alice, bob, carol = await hive.join("alice"), await hive.join("bob"), await hive.join("carol")
    last = await ping_pong(alice, bob, 10)
    question = await paused(hive)
    assert last.paused == question.id
    assert "back and forth 5 times; 4 is the limit" in question.text
    assert [mail.question for mail in await hive.operator.inbox()] == [question.id]
    (receipt,) = await hive.operator.message_status(last.id)
    assert receipt.state == "stored"
    assert receipt.reason.startswith("paused")
    with pytest.raises(ConversationPaused):
        await alice.send("bob", "are you there?", in_reply_to=last.id)
    await carol.send(["alice", "bob"], "unaffected")
    assert [mail.body for guest in (alice, bob) for mail in await guest.recv()] == ["unaffected"] * 2
    await alice.send("bob", "about something else")


async def test_it_goes_on_with_its_whole_budget(hive: Hive) -> None:
    alice, bob = await hive.join("alice"), await hive.join("bob")
    last = await ping_pong(alice, bob, 10)
    await hive.operator.answer(last.paused, "continue")
    assert await hive.operator.questions() == []
    receiver, sender = (alice, bob) if last.recipients == ["alice"] else (bob, alice)
    for hop in range(1, 5):
        (mail,) = await receiver.recv(wait_ms=2_000)
        await receiver.ack(mail.id)
        receiver, sender = sender, receiver
        sent = await sender.send(receiver.name, f"after {hop}", in_reply_to=mail.id)
        assert bool(sent.paused) == (hop == 4), "that many once more, and then she is asked again"


async def test_it_is_stopped_and_whoever_waits_is_told(hive: Hive) -> None:
    alice, bob = await hive.join("alice"), await hive.join("bob")
    last = await ping_pong(alice, bob, 10)
    await hive.operator.answer(last.paused, "stop")
    (receipt,) = await hive.operator.message_status(last.id)
    assert (receipt.state, receipt.reason) == ("expired", "the operator stopped this conversation")
    sender = bob if last.recipients == ["alice"] else alice
    (news,) = await sender.recv(wait_ms=2_000)
    assert (news.kind, news.details["what"], news.details["message"]) == (
        "news",
        "conversation_stopped",
        last.id,
    )
    with pytest.raises(NotAllowed):
        await sender.send(last.recipients[0], "but", in_reply_to=last.id)


async def test_a_message_that_leads_to_too_many(hive: Hive) -> None:
    """Each answer goes to two, so that hops are few and messages many."""
    alice, bob = await hive.join("alice"), await hive.join("bob")
    first = await alice.send(["bob", "carol"], "what do you think?")
    await bob.recv(wait_ms=2_000)
    await bob.send(["alice", "carol"], "one", in_reply_to=first.id)
    fourth = await bob.send(["alice", "carol"], "two", in_reply_to=first.id)
    assert not fourth.paused
    assert (await bob.send("alice", "three", in_reply_to=first.id)).paused
    assert "led to 7 messages; 6 is the limit" in (await paused(hive)).text


async def test_what_goes_to_several_is_held_back_from_all_and_asked_about_once(hive: Hive) -> None:
    alice, bob = await hive.join("alice"), await hive.join("bob")
    first = await alice.send("bob", "what do you think?")
    await bob.recv(wait_ms=2_000)
    for _ in range(2):
        await bob.send(["alice", "carol"], "this", in_reply_to=first.id)
    over = await bob.send(["alice", "carol"], "and that", in_reply_to=first.id)
    assert over.paused == (await paused(hive)).id
    assert [r.reason[:6] for r in await hive.operator.message_status(over.id)] == ["paused", "paused"]


async def test_of_what_comes_at_once_the_first_that_goes_over_is_asked_about_and_no_other(hive: Hive) -> None:
    alice = await hive.join("alice")
    outcomes = await asyncio.gather(
        *(alice.send("bob", str(number)) for number in range(20)), return_exceptions=True
    )
    assert sum(isinstance(outcome, ConversationPaused) for outcome in outcomes) == 11
    assert sum(isinstance(outcome, say.Sent) and bool(outcome.paused) for outcome in outcomes) == 1
    await paused(hive)


async def test_a_storm_pauses_its_pair_alone(hive: Hive) -> None:
    alice = await hive.join("alice")
    sent = [await alice.send("bob", f"storm {number}") for number in range(8)]
    assert not any(one.paused for one in sent)
    over = await alice.send(["bob", "carol"], "one more")
    assert over.paused == (await paused(hive)).id
    assert [receipt.reason[:6] for receipt in await hive.operator.message_status(over.id)] == ["paused", ""]
    with pytest.raises(ConversationPaused):
        await alice.send("bob", "and more")
    await alice.send("carol", "fine")
    bob = await hive.join("bob")
    assert len(await bob.recv(limit=64)) == 8
    await bob.send("alice", "the other way is another pair")


async def test_it_is_paused_across_a_restart_and_its_repetition_says_so_again(hive: Hive) -> None:
    alice, bob = await hive.join("alice"), await hive.join("bob")
    last = await ping_pong(alice, bob, 10)
    await hive.kill("broker")
    await hive.start("broker")
    sender = bob if last.recipients == ["alice"] else alice
    again = await sender.send(last.recipients[0], "thank you", in_reply_to=last.id[:0], id=last.id)
    assert (again.id, again.paused) == (last.id, last.paused)
    with pytest.raises(ConversationPaused):
        await sender.send(last.recipients[0], "more", in_reply_to=last.id)


async def test_the_operator_and_the_hive_have_no_budget_and_renew_that_of_others(hive: Hive) -> None:
    alice = await hive.join("alice")
    id = await hive.send("operator", "alice", "go on")
    for number in range(12):
        if number <= 6:
            assert len(await alice.recv(wait_ms=2_000)) == 1
        reply = await alice.send("operator", f"answer {number}", in_reply_to=id)
        if number < 6:
            assert not reply.paused
            id = (await hive.operator.send("alice", "go on", in_reply_to=reply.id)).id
    for _ in range(20):
        await hive.send("operator", "bob", "as often as she likes")


async def test_a_limit_of_0_is_none() -> None:
    async with Hive(dict.fromkeys(LIMITS, "0")) as hive:
        await hive.start("broker")
        for name in ("alice", "bob"):
            await hive.open_mailbox(name)
        alice, bob = await hive.join("alice"), await hive.join("bob")
        assert not (await ping_pong(alice, bob, 80)).paused


def test_a_limit_that_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(Exception, match="HIVE_BROKER_HOPS_MAX"):
        Settings.from_environment({"HIVE_BROKER_HOPS_MAX": "many"})
    assert Settings.from_environment({"HIVE_BROKER_HOPS_MAX": "7"}).hops_max == 7
