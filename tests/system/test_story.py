"""The main job, end to end: six real services, the real CLI in real cages, the operator's terminal and browser."""

from __future__ import annotations

from collections import Counter

from tests.system.conftest import TOGETHER, Story

pytestmark = TOGETHER


async def test_the_story_by_terminal(story: Story) -> None:
    assert "rehearsal" in (await story.admin("status")).lower()
    await story.admin("send", "hm1nd", "spawn an agent called iris who draws")
    await story.until("the proposal", story.hive.approvals.list)
    (proposal,) = (await story.admin_json("proposals"))["proposals"]
    assert (proposal["number"], proposal["agent"], proposal["kind"]) == (1, "iris", "create_agent")
    shown = await story.admin("proposal", "1")
    assert "draws" in shown
    await story.admin("approve", "1")
    assert "iris" in await story.admin("send", "iris", "hello", "--wait", "60")
    assert {"proposal/1", "approved/1", "building/1", "deployed/1"} <= await story.tags("iris")
    await story.mail_to_operator("hm1nd", "iris is up")
    await agents_work_together(story)
    await the_operator_is_asked(story)
    await a_reminder_comes(story)
    await a_package_is_asked_for_and_approved(story)
    await nothing_was_lost_or_doubled(story)


async def agents_work_together(story: Story) -> None:
    await story.admin("spawn", "bob", "--prompt", "You are bob. You know about colours.", "--yes")
    await story.hive.wait_for_agent("bob")
    await story.admin("send", "iris", "ask bob what his favourite colour is")
    await story.mail_to_operator("iris", "bob")


async def the_operator_is_asked(story: Story) -> None:
    await story.admin("send", "iris", "ask me which colour you should use: red, green or blue")
    questions = await story.until("the question", story.hive.operator.questions)
    assert questions[0].choices == ["red", "green", "blue"]
    await story.admin("answer", questions[0].id, "purple", status=1)
    await story.admin("answer", questions[0].id, "green")
    await story.mail_to_operator("iris", "green")


async def a_reminder_comes(story: Story) -> None:
    await story.admin("send", "iris", "remind yourself in 1 second to stretch")
    await story.mail_to_operator("iris", "stretch")


async def a_package_is_asked_for_and_approved(story: Story) -> None:
    """`git` is on every host that runs this."""
    await story.admin("send", "iris", "you need the package git")

    async def proposed() -> list[int]:
        return [proposal.number for proposal in await story.hive.approvals.list(open_only=True)]

    (number,) = await story.until("the change of the configuration", proposed)
    detail = await story.admin_json("proposal", str(number))
    assert [line for line in detail["effect"] if line["field"] == "packages"]
    await story.admin("approve", str(number))

    async def deployed() -> bool:
        return f"deployed/{number}" in await story.tags("iris")

    await story.until("the deploy", deployed)


async def nothing_was_lost_or_doubled(story: Story) -> None:
    async def settled() -> bool:
        return not [
            peer for peer in await story.hive.operator.peers() if peer.unacked or peer.state != "idle"
        ]

    await story.until("rest", settled)
    mail = await story.hive.operator.history(limit=500)
    assert {item.state for item in mail if item.recipient != "operator"} == {"acked"}
    said = Counter((item.sender, item.recipient, item.kind, item.body, item.in_reply_to) for item in mail)
    assert [what for what, times in said.items() if times > 1] == []


async def test_bad_input_is_refused_with_a_code_and_loses_nothing(story: Story) -> None:
    before = await story.hive.operator.history(limit=500)
    for arguments in (
        ("send", "nobody-here", "hi"),
        ("approve", "99"),
        ("answer", "01m84ge2ectvs8bdw67fyjvfwe", "red"),
        ("start", "nobody-here"),
        ("message", "01m84ge2ectvs8bdw67fyjvfwe"),
    ):
        await story.admin(*arguments, status=1)
    await story.admin("send", "hm1nd", status=2)
    await story.admin("spawn", "operator", "--prompt", "x", "--yes", status=2)
    await story.admin("frobnicate", status=2)
    assert await story.hive.operator.history(limit=500) == before
