"""A mailbox that goes for ever, and what of it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from libhive.messages import broker as say
from libhive.problems import Conflict, NotFound, UnknownRecipient
from libhive.testing.hive import Hive

MANY = 130
"""More than one write removes."""


@pytest.fixture
async def hive() -> AsyncIterator[Hive]:
    async with Hive() as made:
        await made.start("broker")
        for name in ("iris", "ben"):
            await made.open_mailbox(name)
        yield made


async def test_all_that_is_its_own_goes_and_nothing_else(hive: Hive) -> None:
    iris, ben = await hive.join("iris"), await hive.join("ben")
    for number in range(MANY):
        await hive.send("operator", "iris", f"zebra {number}")
    assert len(await iris.recv(limit=5)) == 5  # in its hands
    await iris.send(["ben", "operator"], "from iris")
    asked = await ben.door.call(say.Ask(to="iris", question="red?"))
    asking = await iris.door.call(say.Ask(to="operator", question="blue?"))
    await hive.operator.remind("iris", "later", after_seconds=1_000)
    await hive.operator.remind("ben", "later", after_seconds=1_000)
    await hive.operator.set_hold("iris", "operator", True)
    with pytest.raises(Conflict, match="is open"):
        await hive.broker.purge_mailbox("iris")
    await hive.broker.close_mailbox("iris")

    gone = await hive.broker.purge_mailbox("iris")
    assert (gone.messages, gone.questions, gone.reminders) == (MANY + 2, 2, 1)
    left = await hive.operator.history(limit=500)
    assert "iris" not in {mail.recipient for mail in left}
    assert {mail.recipient for mail in left if mail.sender == "iris"} == {"ben", "operator"}
    assert [one.agent for one in await hive.operator.reminders()] == ["ben"]
    assert not [
        one for one in await hive.operator.questions(open_only=False) if one.id in (asked.id, asking.id)
    ]
    assert (await hive.operator.search("zebra")).receipts == []
    assert [mail.kind for mail in await ben.recv()] == ["message", "answer"]  # nobody is left to answer it
    with pytest.raises(UnknownRecipient):
        await hive.send("operator", "iris", "still there?")
    with pytest.raises(NotFound):
        await hive.operator.answer(asking.id, "yes")


async def test_a_mailbox_of_the_same_name_begins_empty(hive: Hive) -> None:
    for number in range(3):
        await hive.send("operator", "iris", f"old {number}")
    await hive.broker.close_mailbox("iris")
    await hive.broker.purge_mailbox("iris")
    assert (await hive.broker.purge_mailbox("iris")).messages == 0
    await hive.open_mailbox("iris")
    await hive.send("operator", "iris", "new")
    iris = await hive.join("iris")
    assert [mail.body for mail in await iris.recv()] == ["new"]
    await hive.stop("broker")
    await hive.start("broker")
    assert [mail.body for mail in await hive.operator.history("iris")] == ["new"]
