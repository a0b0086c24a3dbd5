"""SIGKILL at every durable step: a thousand deaths at the fault points under load, and each command at each of them.

The points are read from the code. As in `test_kills`, everything is real but the birth by fork.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from libhive.messages import broker as say
from libhive.testing.hive import Hive
from tests.proofs.players import Agent
from tests.proofs.runs import SEED, kill_at_points, points, report, verdict
from tests.proofs.world import World

RUNS, KILLS = range(8), 126


@pytest.mark.parametrize("run", RUNS)
async def test_killed_at_each_step_under_load(run: int) -> None:
    async with Hive() as hive:
        world = World(hive, f"{SEED} points {run}")
        try:
            world.found()
            world.live(0.01)
            kill_at_points(world, KILLS)
            found = verdict(world)
            assert not found, report(world, found)
            assert all(world.killed_at[point] for point in points()), world.killed_at
            assert sum(world.killed_at[point] for point in points()) == KILLS
        finally:
            world.close()


@pytest.mark.parametrize("point", points())
async def test_each_command_is_killed_at(point: str) -> None:
    """Repeated by its id afterwards, as a harness does it."""
    async with Hive() as hive:
        world = World(hive, f"{SEED} {point}")
        try:
            for player in world.players:
                player.working = False
            world.found()
            world.live(0.05)
            acts = APPENDED if point.startswith("redo.") else ACTS
            for act in acts:
                world.strike(point, act)
            found = verdict(world)
            assert not found, report(world, found)
            assert world.killed_at[point] == len(acts), world.killed_at
        finally:
            world.close()


# ---- one command each, after the `yield`; what it needs, before


def _send(world: World) -> Iterator[None]:
    yield
    _say(world.agents[0], say.Send(to=["bob", "cleo"], body=world.agents[0].text()))


def _recv(world: World) -> Iterator[None]:
    """Dies when it writes down what it has handed out."""
    _mail_for_bob(world)
    yield
    world.agents[1].recv_now()
    world.agents[1].line.flush()


def _seen(world: World) -> Iterator[None]:
    bob = yield from _bob_with_mail(world)
    _say(bob, say.Seen(lease=bob.lease, ids=list(bob.in_hand), turn="turn"))


def _ack(world: World) -> Iterator[None]:
    bob = yield from _bob_with_mail(world)
    _say(bob, say.Ack(lease=bob.lease, ids=list(bob.in_hand)))


def _hello(world: World) -> Iterator[None]:
    bob = yield from _bob_with_mail(world)
    bob.hello()
    bob.line.flush()


def _ask(world: World) -> Iterator[None]:
    yield
    _say(world.agents[0], say.Ask(to="bob", question=world.agents[0].text()))


def _answer(world: World) -> Iterator[None]:
    ada, bob = world.agents[:2]
    call = _say(ada, say.Ask(to="bob", question=ada.text()))
    world.rest()
    yield
    _say(bob, say.Answer(question=call, text="yes"))


def _expiry(world: World) -> Iterator[None]:
    ada = world.agents[0]
    _say(ada, say.Ask(to="bob", question=ada.text(), deadline_seconds=1))
    yield


def _reminder(world: World) -> Iterator[None]:
    ada = world.agents[0]
    _say(ada, say.Remind(text=ada.text(), at_ms=world.now_ms() + 200))
    yield


def _remind(world: World) -> Iterator[None]:
    yield
    _say(world.agents[0], say.Remind(text=world.agents[0].text(), at_ms=world.now_ms() + 200))


def _cancel(world: World) -> Iterator[None]:
    ada = world.agents[0]
    call = _say(ada, say.Remind(text=ada.text(), at_ms=world.now_ms() + 100_000))
    world.rest()
    yield
    _say(ada, say.CancelReminder(id=call))


def _drop(world: World) -> Iterator[None]:
    id = _mail_for_bob(world)
    yield
    world.operator.call(say.DropMail(id=id, recipient="bob"))


def _retry(world: World) -> Iterator[None]:
    id, bob = _mail_for_bob(world), world.agents[1]
    for _ in range(5):
        world.rest()
        bob.recv_now()
        bob.line.flush()
        world.rest()
        bob.hello()
        bob.line.flush()
    world.rest()
    yield
    world.operator.call(say.RetryMail(id=id, recipient="bob"))


def _hold(world: World) -> Iterator[None]:
    yield
    world.operator.call(say.SetHold(agent="cleo", reason="operator", held=True))


def _say(
    agent: Agent,
    request: say.Send | say.Ask | say.Seen | say.Ack | say.Answer | say.Remind | say.CancelReminder,
) -> str:
    call = agent.call(request)
    agent.line.flush()
    return call.id


def _mail_for_bob(world: World) -> str:
    id = _say(world.agents[0], say.Send(to=["bob"], body=world.agents[0].text()))
    world.rest()
    return id


def _bob_with_mail(world: World) -> Generator[None, None, Agent]:
    _mail_for_bob(world)
    bob = world.agents[1]
    bob.recv_now()
    bob.line.flush()
    yield
    return bob


APPENDED = (_send, _recv, _ack)
"""What needs no transaction of its own."""
ACTS = (
    *(_send, _recv, _seen, _ack, _hello, _ask, _answer, _expiry, _reminder),
    *(_remind, _cancel, _drop, _retry, _hold),
)
