"""Killed between any two steps: what was begun is finished by the next start, once, and git finds nothing
wrong."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from libhive.clients.approvals import Approvals
from libhive.messages.approvals import Proposal, ProposalDetail, ProposalState
from libhive.names import MANAGER, new_id
from libhive.problems import Problem, Unavailable
from libhive.testing.hive import Hive
from services.approvals.story import NEXT, ORDER, parse_tag
from tests.approvals.conftest import (
    PROMPT,
    approve,
    assert_sound,
    git,
    killed_in,
    restart_with,
    spawn_iris,
    tags,
)

T = TypeVar("T")


async def inbox(hive: Hive) -> list[str]:
    return [receipt.body for receipt in await hive.operator.inbox(all=True)]


async def told_once(hive: Hive, *words: str) -> None:
    """The operator, who asked, has one letter for each of these words, and no other."""
    async with asyncio.timeout(10):
        while len(await inbox(hive)) < len(words):
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    bodies = await inbox(hive)
    assert len(bodies) == len(words)
    for body, word in zip(bodies, words, strict=True):
        assert word in body


@pytest.mark.parametrize("point", ["manager:after-main", "manager:after-tag"])
async def test_the_first_start(point: str) -> None:
    async with Hive({"HIVE_FAULT": point}, forked=True) as hive:
        with pytest.raises(RuntimeError):
            await hive.start("approvals")
        await restart_with(hive)
        config = await hive.approvals.read_config(MANAGER)
        assert tags(hive, MANAGER) == {"deployed/0"}
        assert git(hive, MANAGER, "rev-list", "main") == config.commit
        assert_sound(hive)


@pytest.mark.parametrize("step", ["after-commit", "after-tag", "after-row"])
async def test_proposing(hive: Hive, step: str) -> None:
    await hive.stop("approvals")
    await restart_with(hive, f"proposed:{step}")
    id = new_id()
    await killed_in(hive, spawn_iris(hive, id=id))
    await restart_with(hive)
    if step != "after-commit":
        (proposal,) = await hive.approvals.list()
        assert (proposal.requester, proposal.kind, proposal.message) == (
            "operator",
            "create_agent",
            "A new agent: iris",
        )
    assert await spawn_iris(hive, id=id) == 1
    assert len(await hive.approvals.list()) == 1
    assert tags(hive, "iris") == {"proposal/1"}
    await approve(hive, 1)
    assert_sound(hive)


@pytest.mark.parametrize("step", ["after-tag", "after-main", "after-row"])
async def test_approving(hive: Hive, step: str) -> None:
    await spawn_iris(hive)
    digest = (await hive.approvals.show(1)).digest
    await hive.stop("approvals")
    await restart_with(hive, f"approved:{step}")
    id = new_id()
    await killed_in(hive, hive.approvals.approve(1, digest, id=id))
    await restart_with(hive)
    (proposal,) = await hive.approvals.list()
    assert (proposal.state, proposal.decided_by) == ("approved", "operator")
    assert (
        git(hive, "iris", "rev-parse", "main")
        == proposal.commit
        == (await hive.approvals.read_config("iris")).commit
    )
    assert await hive.approvals.approve(1, digest, id=id) == proposal
    with pytest.raises(Problem):
        await hive.approvals.approve(1, digest)
    assert tags(hive, "iris") == {"proposal/1", "approved/1"}
    await told_once(hive, "is approved by operator")
    assert_sound(hive)


@pytest.mark.parametrize("step", ["after-tag", "after-row"])
async def test_denying(hive: Hive, step: str) -> None:
    await spawn_iris(hive)
    await hive.stop("approvals")
    await restart_with(hive, f"denied:{step}")
    id = new_id()
    await killed_in(hive, hive.approvals.deny(1, "no\nnot now", id=id))
    await restart_with(hive)
    denied = await hive.approvals.deny(1, "no\nnot now", id=id)
    assert (denied.state, denied.reason, denied.tags) == ("denied", "no\nnot now", ["denied/1", "proposal/1"])
    assert git(hive, "iris", "for-each-ref", "refs/heads") == ""
    await told_once(hive, "is denied by operator: no")
    assert_sound(hive)


@pytest.mark.parametrize(("end", "step"), [("deployed", "after-tag"), ("failed", "after-row")])
async def test_recording_a_deploy(hive: Hive, end: str, step: str) -> None:
    await approve(hive, await spawn_iris(hive))
    updater = Approvals(hive.hive_link)
    for state in ("building", end):
        await hive.stop("approvals")
        await restart_with(hive, f"{state}:{step}")
        await killed_in(hive, updater.record_deploy(1, state, "no jq here"))  # type: ignore[arg-type]
        await restart_with(hive)
        await updater.record_deploy(1, state, "no jq here")  # type: ignore[arg-type]
        assert (await hive.approvals.show(1)).proposal.state == state
    assert tags(hive, "iris") == {"proposal/1", "approved/1", "building/1", f"{end}/1"}
    await told_once(hive, "approved", "is deployed" if end == "deployed" else "no jq here")
    assert_sound(hive)


async def test_news_wait_for_a_broker_that_is_away(hive: Hive) -> None:
    await spawn_iris(hive)
    await hive.kill("broker")
    await approve(hive, 1)
    await hive.kill("approvals")
    await restart_with(hive)
    await asyncio.sleep(1)
    await hive.start("broker")
    await told_once(hive, "is approved")


async def test_news_for_somebody_who_is_gone_do_not_hold_up_the_others(hive: Hive) -> None:
    manager = await hive.join(MANAGER)
    await spawn_iris(hive)
    await hive.broker.close_mailbox(MANAGER)
    await hive.stop("approvals")
    await restart_with(hive)
    await hive.approvals.deny(1, "no")
    await told_once(hive, "is denied")
    await manager.close()


async def test_lost_rows_are_made_again_from_the_tags(hive: Hive) -> None:
    updater = Approvals(hive.hive_link)
    await approve(hive, await spawn_iris(hive, rationale="why not"))
    for state in ("building", "deployed"):
        await updater.record_deploy(1, state)  # type: ignore[arg-type]
    await approve(hive, (await hive.approvals.propose("iris", {"prompt.md": "two\n"}, "Two")).number)
    await hive.approvals.deny((await hive.approvals.propose("iris", {"prompt.md": "3\n"}, "3")).number, "no")
    await hive.approvals.propose("iris", {"prompt.md": "four\n"}, "Four")
    await hive.approvals.propose(MANAGER, {"prompt.md": "five\n"}, "Five")
    await told_once(hive, "approved", "deployed", "approved", "denied")
    before = [await hive.approvals.show(proposal.number) for proposal in await hive.approvals.list()]
    configs = [await hive.approvals.read_config(agent) for agent in (MANAGER, "iris")]
    await hive.stop("approvals")
    for file in hive.paths.own("approvals").iterdir():
        file.unlink()
    await restart_with(hive)
    assert [await hive.approvals.show(proposal.number) for proposal in await hive.approvals.list()] == before
    assert [await hive.approvals.read_config(agent) for agent in (MANAGER, "iris")] == configs
    await told_once(hive, "approved", "deployed", "approved", "denied")
    await approve(hive, 4)
    assert_sound(hive)


async def test_what_a_write_that_was_cut_short_left_is_no_obstacle(hive: Hive) -> None:
    await spawn_iris(hive)
    await hive.stop("approvals")
    path = hive.paths.config("iris")  # type: ignore[arg-type]
    for leftover in ("refs/heads/main.lock", "refs/tags/approved/1.lock", "objects/pack/x.lock"):
        (path / leftover).parent.mkdir(exist_ok=True)
        (path / leftover).write_text("half")
    (path.parent / ".new-ben.git").mkdir()
    await restart_with(hive)
    await approve(hive, 1)
    await hive.approvals.spawn("ben", PROMPT)
    assert_sound(hive)


@pytest.mark.parametrize("seed", [int(os.environ.get("HIVE_SEED", "1"))])
async def test_killed_again_and_again_in_a_busy_story(hive: Hive, seed: int) -> None:
    """Whatever was answered is so; every story is legal; everybody who asked is told of each end, once."""
    source = random.Random(seed)
    updater = Approvals(hive.hive_link)
    answered: dict[int, Proposal] = {}
    story = asyncio.create_task(busy(hive, updater, source, answered))
    try:
        for kills in range(1, 7):
            await asyncio.sleep(source.uniform(0.1, 0.6))
            while len(answered) < kills:  # a slow machine gets as far as a fast one
                await asyncio.sleep(0.05)
            await hive.kill("approvals")
            await hive.start("approvals")
    finally:
        story.cancel()
    await asyncio.gather(story, return_exceptions=True)
    proposals = {proposal.number: proposal for proposal in await hive.approvals.list(limit=500)}
    assert len(proposals) > 5, f"seed {seed}"
    assert sorted(proposals) == list(range(1, len(proposals) + 1)), f"seed {seed}"
    for number, was in answered.items():
        assert ORDER.index(proposals[number].state) >= ORDER.index(was.state), f"seed {seed}"
        assert proposals[number].commit == was.commit
    check_stories(hive, proposals, seed)
    assert_sound(hive)


async def busy(hive: Hive, updater: Approvals, source: random.Random, answered: dict[int, Proposal]) -> None:
    """Proposes, decides and deploys without end, and repeats by its id what was not answered."""
    for turn in range(10_000):
        number = await repeat(propose, hive, f"a{source.randrange(3)}", turn)
        detail = await repeat(show, hive, number)
        if source.random() < 0.3:
            answered[number] = await repeat(hive.approvals.deny, number, "no")
            continue
        answered[number] = await repeat(hive.approvals.approve, number, detail.digest)
        for state in ("building", source.choice(["deployed", "failed"])):
            await repeat(updater.record_deploy, number, state, "x")


async def show(hive: Hive, number: int, id: str) -> ProposalDetail:
    return await hive.approvals.show(number)


async def propose(hive: Hive, agent: str, turn: int, id: str) -> int:
    try:
        return (
            await hive.approvals.propose(agent, {"prompt.md": f"turn {turn}\n"}, f"turn {turn}", id=id)
        ).number
    except Unavailable:
        raise
    except Problem:
        return (await hive.approvals.spawn(agent, f"turn {turn}", id=id)).number


async def repeat(command: Callable[..., Awaitable[T]], *args: Any) -> T:
    id = new_id()
    while True:
        try:
            return await command(*args, id=id)
        except Unavailable:
            continue


def check_stories(hive: Hive, proposals: dict[int, Proposal], seed: int) -> None:
    for agent in {proposal.agent for proposal in proposals.values()}:
        found: dict[int, list[ProposalState]] = {}
        for name in tags(hive, agent):
            parsed = parse_tag(name)
            assert parsed, f"seed {seed}"
            found.setdefault(parsed[1], []).append(parsed[0])
        for number, states in found.items():
            states.sort(key=ORDER.index)
            assert states[0] == "proposed", f"seed {seed}"
            assert states[-1] == proposals[number].state, f"seed {seed}"
            assert all(after in NEXT[before] for before, after in pairwise(states)), f"seed {seed}"
        approved = [number for number, states in found.items() if "approved" in states]
        expected = proposals[max(approved)].commit if approved else ""
        assert git(hive, agent, "for-each-ref", "--format=%(objectname)", "refs/heads/main") == expected
