"""An agent that goes for ever: real services, killed at each step of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from libhive.clients.updater import Updater
from libhive.messages import lifecycle
from libhive.messages.updater import Purge
from libhive.names import MANAGER, AgentName, agent_name
from libhive.problems import BadRequest, Conflict, NotAllowed, NotFound, Unavailable
from libhive.spec import AgentSpec
from tests.lifecycle.conftest import LifecycleHive

SERVICES = ("broker", "gateway", "lifecycle", "approvals", "updater")
POINTS = (
    ("updater", "purge:asked"),
    ("updater", "purge:destroyed"),
    ("updater", "purge:mail"),
    ("updater", "purge:usage"),
    ("approvals", "archived:after-move"),
    ("updater", "purge:archived"),
    ("lifecycle", "lifecycle.removed"),
    ("updater", "purge:purged"),
)


@pytest.fixture
async def hive() -> AsyncIterator[LifecycleHive]:
    async with LifecycleHive(forked=True) as made:
        await made.start(*SERVICES)
        yield made


async def test_killed_at_any_step_it_goes_on(hive: LifecycleHive) -> None:
    for number, (service, point) in enumerate(POINTS):
        name = agent_name(f"iris{number}")
        await life(hive, name)
        await hive.stop(service)
        hive.environ["HIVE_FAULT"] = point
        await hive.start(service)
        del hive.environ["HIVE_FAULT"]
        process = hive.processes.pop(service)
        begun = asyncio.create_task(purge(hive, name))
        assert await asyncio.to_thread(process.wait, 20) == -signal.SIGKILL, point
        await hive.start(service)
        await begun
        await nothing_is_left(hive, name)
    agents = [agent.name for agent in await hive.lifecycle.agents()]
    assert agents == [MANAGER]
    assert len(list(hive.paths.archive.iterdir())) == len(POINTS)


async def purge(hive: LifecycleHive, name: AgentName) -> Purge:
    id = f"purge-{name}"
    for _ in range(200):
        try:
            await hive.updater.purge(name, name, id=id)
            for one in await hive.updater.purges():
                if (one.agent, one.step) == (name, "purged"):
                    return one
        except NotFound:  # its last step was done, and it had not been noted: the journal says so
            assert [one.agent for one in await hive.updater.purges()].count(name) == 1
        except Unavailable:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError(hive.logs())


async def life(hive: LifecycleHive, name: AgentName) -> None:
    await hive.lifecycle.apply(name, 0, AgentSpec())
    for _ in range(100):
        if name in [mailbox.name for mailbox in await hive.broker.mailboxes()]:
            break
        await asyncio.sleep(0.05)
    await hive.send("operator", name, "hello")
    await hive.operator.remind(name, "later", after_seconds=1_000)
    await hive.approvals.spawn(name, "You draw.")
    assert (await hive.running(name)).cage == "running"


async def nothing_is_left(hive: LifecycleHive, name: AgentName) -> None:
    paths = hive.paths
    assert name not in [mailbox.name for mailbox in await hive.broker.mailboxes()]
    assert not await hive.operator.history(name)
    assert not [reminder for reminder in await hive.operator.reminders() if reminder.agent == name]
    for place in (
        paths.agent_state(name),
        paths.cage(name),
        paths.page_dir(name),
        paths.doors(name),
        paths.config(name),
    ):
        assert not place.exists(), place
    (proposal,) = [one for one in await hive.approvals.list() if one.agent == name]
    assert (proposal.state, proposal.reason) == ("stale", f"{name} was purged")
    assert len(list(paths.archive.glob(f"{name}-*.git"))) == 1


async def test_who_may_and_what_it_asks_for(hive: LifecycleHive) -> None:
    await life(hive, agent_name("iris"))
    with pytest.raises(BadRequest, match="type the agent's name"):
        await hive.updater.purge("iris", "isis")
    with pytest.raises(NotFound):
        await hive.updater.purge("ghost", "ghost")
    with pytest.raises(NotAllowed, match="cannot be purged"):
        await hive.updater.purge(MANAGER, MANAGER)
    with pytest.raises(NotAllowed, match="only the operator"):
        await Updater(hive.hive_link).purge("iris", "iris")
    assert (await hive.running("iris")).desired == "running"
    assert await hive.updater.purges() == []


async def test_none_of_the_services_removes_what_is_not_destroyed(hive: LifecycleHive) -> None:
    await life(hive, agent_name("iris"))
    with pytest.raises(Conflict, match="is open"):
        await hive.broker.purge_mailbox("iris")
    with pytest.raises(Conflict, match="not destroyed"):
        await hive.hive_link.call("lifecycle", lifecycle.Forget(name="iris"))
    with pytest.raises(NotAllowed):
        await hive.approvals.archive_config("iris")
    assert (await hive.running("iris")).desired == "running"
    assert len(await hive.operator.history("iris")) == 1


async def test_a_number_is_never_given_twice(hive: LifecycleHive) -> None:
    await life(hive, agent_name("iris"))
    before = await hive.running("iris")
    await purge(hive, agent_name("iris"))
    after = await hive.lifecycle.apply("ben", 0, AgentSpec())
    assert after.uid > before.uid or before.uid == after.uid < 524_288  # an ordinary user has but one
