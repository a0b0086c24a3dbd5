"""The story again, with each of the six services and each harness killed in the middle of it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from libhive.names import AgentName
from tests.system.conftest import TOGETHER, Story
from tests.system.test_story import nothing_was_lost_or_doubled

pytestmark = TOGETHER


async def test_whatever_is_killed_in_mid_story_the_story_ends_the_same(story: Story) -> None:
    hive = story.hive
    await hive.send("operator", "hm1nd", "spawn an agent called iris who draws")
    await in_turn(story, "hm1nd")
    await hive.kill_and_see_it_back("gateway")  # the model's answer breaks off
    kill_harness(story, await cage_pid(story, "hm1nd"))  # its turn breaks off
    await hive.kill_and_see_it_back("approvals")
    (proposal,) = await story.until("the proposal", hive.approvals.list)
    assert proposal.number == 1

    await story.admin("approve", "1")
    await asyncio.gather(  # in the middle of the deploy
        hive.kill_and_see_it_back("updater"),
        hive.kill_and_see_it_back("lifecycle"),
        hive.kill_and_see_it_back("dashboard"),
    )
    await story.mail_to_operator("hm1nd", "iris is up")
    assert {"proposal/1", "approved/1", "building/1", "deployed/1"} <= await story.tags("iris")

    gate = "until [ -e /state/go ]; do sleep 0.1; done"  # the turn is not over before its harness is killed
    hello = await hive.send("operator", "iris", f"run: {gate}; echo hello from the cage")

    async def seen() -> bool:
        (receipt,) = await hive.operator.message_status(hello)
        return receipt.state == "seen"

    await story.until("the turn", seen)  # from then on it is on disk who has it
    await hive.kill_and_see_it_back("broker")
    kill_harness(story, await cage_pid(story, "iris"))
    (hive.paths.agent_state(AgentName("iris")) / "go").touch()
    await story.mail_to_operator("iris", "hello from the cage")
    (receipt,) = await hive.operator.message_status(hello)
    assert receipt.attempts == 2
    await nothing_was_lost_or_doubled(story)


async def test_a_killed_claude_is_started_again_by_its_harness(story: Story) -> None:
    await story.hive.send("operator", "hm1nd", "run: sleep 2; echo still here")
    await in_turn(story, "hm1nd")
    harness = harness_of(await cage_pid(story, "hm1nd"))
    claude = min(  # a child that it has just made still has its command line
        pid for pid in below(harness) if "claude" in command(pid) and "-p" in command(pid).split("\0")
    )
    os.kill(claude, signal.SIGKILL)
    await story.mail_to_operator("hm1nd", "still here")
    assert harness_of(await cage_pid(story, "hm1nd")) == harness
    await nothing_was_lost_or_doubled(story)


async def in_turn(story: Story, name: str) -> None:
    async def running() -> bool:
        peer = await story.hive.operator.peer(name)
        return peer is not None and peer.state == "running"

    await story.until(f"{name}'s turn", running, every_seconds=0.01)  # a turn may take less than a tenth


async def cage_pid(story: Story, name: str) -> int:
    agent = await story.hive.lifecycle.agent(AgentName(name))
    assert agent is not None
    return agent.pid


def kill_harness(story: Story, cage: int) -> None:
    os.kill(harness_of(cage), signal.SIGKILL)


def harness_of(cage: int) -> int:
    (harness, *_) = [pid for pid in [cage, *below(cage)] if "libhive.harness" in command(pid).split("\0")]
    return harness


def below(pid: int) -> list[int]:
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += [int(child), *below(int(child))]
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
