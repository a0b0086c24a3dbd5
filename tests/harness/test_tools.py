"""Every tool through the real CLI, the agent's against a real broker, the manager's against doors of the real kind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from libhive import wire
from libhive.doorway import Doorway
from libhive.messages import approvals, lifecycle
from libhive.messages.base import Reply
from libhive.messages.broker import Ask, Questions, Send
from libhive.names import MANAGER, AgentName
from libhive.spec import AgentSpec
from tests.harness.api import text, tool
from tests.harness.rig import Rig, until


def results(rig: Rig) -> list[tuple[str, bool]]:
    """What the tools of the newest turn answered the model."""
    found: list[tuple[str, bool]] = []
    for message in rig.api.requests[-1]["messages"]:
        for block in message["content"] if isinstance(message["content"], list) else []:
            if block.get("type") == "tool_result":
                content = block["content"]
                words = content if isinstance(content, str) else "".join(part["text"] for part in content)
                found.append((words, bool(block.get("is_error"))))
    return found


async def play(rig: Rig, *calls: tuple[str, dict[str, Any]], mail: str = "do it") -> list[Any]:
    """One turn that makes these calls; their answers, errors as text."""
    rig.api.script = [*(tool(name, arguments) for name, arguments in calls), text("done")]
    await rig.until_acked(await rig.send(mail))
    found = results(rig)[-len(calls) :]
    return [words if is_error else json.loads(words) for words, is_error in found]


async def test_the_tools_of_every_agent(rig: Rig) -> None:
    await rig.start_harness()
    door = rig.door("bob")
    question = (await door.call(Ask(to="iris", question="tea or coffee?", choices=["tea", "coffee"]))).id
    await until("the question's turn", lambda: rig.api.requests)
    assert f'question="{question}"' in "\n".join(rig.api.prompts())
    sent, asked, answered, reminded, at, status, peers, ends, received = await play(
        rig,
        ("send", {"to": ["bob", "operator"], "text": "both of you"}),
        (
            "ask",
            {
                "to": "operator",
                "question": "which colour?",
                "choices": ["red", "blue"],
                "deadline_seconds": 3_600,
            },
        ),
        ("answer", {"question": question, "text": "tea"}),
        ("remind", {"text": "water the tree", "after_seconds": 3_600}),
        ("remind", {"text": "sleep", "at": "2099-01-01T00:00:00Z"}),
        ("status", {"text": "painting"}),
        ("peers", {}),
        ("loose_ends", {}),
        ("recv", {}),
    )
    assert sent["recipients"] == ["bob", "operator"]
    assert answered == {"id": question}
    assert at["due_ms"] == 4_070_908_800_000
    assert reminded["id"] != at["id"]
    assert status == {"status": "painting"}
    assert [peer["name"] for peer in peers["peers"]] == ["bob"]
    assert {reminder["text"] for reminder in ends["reminders"]} == {"water the tree", "sleep"}
    assert received["mail"] == []
    peer = await rig.until_state("waiting-operator")
    assert peer.status == "painting"
    (open_one,) = (await rig.operator.call("broker", Questions())).questions
    assert (open_one.id, open_one.choices) == (asked["id"], ["red", "blue"])


async def test_a_recurring_reminder_is_set_listed_and_cancelled(rig: Rig) -> None:
    await rig.start_harness()
    line = {"text": "water the tree", "cron": "0 9 * * MON-FRI", "zone": "Europe/Berlin", "catch_up": "skip"}
    reminded, listed = await play(rig, ("remind", line), ("reminders", {}))
    assert listed["reminders"] == [{"id": reminded["id"], "due": reminded["due"], "set_by": "iris", **line}]
    cancelled, none = await play(rig, ("cancel_reminder", {"id": reminded["id"]}), ("reminders", {}))
    assert (cancelled, none) == ({"cancelled": reminded["id"]}, {"reminders": []})


async def test_bad_input_to_a_tool_is_told_to_the_model(rig: Rig) -> None:
    await rig.start_harness()
    answers = await play(
        rig,
        ("send", {"to": "nobody-here", "text": "x"}),
        ("send", {"to": "bob", "text": ""}),
        ("send", {"to": "Bob!", "text": "x"}),
        ("send", {"to": "bob", "text": "x", "loud": True}),
        ("send", {"text": "x"}),
        ("send", {"to": "bob", "text": "x", "in_reply_to": "nonsense"}),
        ("remind", {"text": "x"}),
        ("remind", {"text": "x", "at": "tomorrow"}),
        ("remind", {"text": "x", "cron": "every day"}),
        ("remind", {"text": "x", "cron": "0 9 * * *", "zone": "Mars"}),
        ("remind", {"text": "x", "cron": "0 9 * * *", "after_seconds": 9}),
        ("cancel_reminder", {"id": "01m0000000000000000000zzzz"}),
        ("answer", {"question": "01m0000000000000000000zzzz", "text": "x"}),
        ("ask", {"to": "all", "question": "x"}),
    )
    assert all(isinstance(answer, str) for answer in answers), answers
    codes = [answer.partition(":")[0] for answer in answers]
    bad = "bad-request"
    assert codes == [
        "unknown-recipient",
        bad,
        bad,
        bad,
        bad,
        "not-found",
        *[bad] * 5,
        "not-found",
        "not-found",
        bad,
    ]
    assert "(who is there" in answers[0]
    assert await rig.inbox("bob") == []


async def test_the_sender_sees_where_its_message_is_and_nobody_elses(rig: Rig) -> None:
    await rig.start_harness()
    (sent,) = await play(rig, ("send", {"to": ["bob", "operator"], "text": "both of you"}))
    others = (await rig.door("bob").call(Send(to=["operator"], body="between us"))).id
    (status, refused) = await play(
        rig, ("message_status", {"id": sent["id"]}), ("message_status", {"id": others})
    )
    assert [(one["to"], one["state"]) for one in status["receipts"]] == [
        ("bob", "stored"),
        ("operator", "stored"),
    ]
    assert all(re.fullmatch(r"20..-..-..T..:..:..Z", one["stored"]) for one in status["receipts"])
    assert "body" not in status["receipts"][0]
    assert refused.startswith("not-found")


async def test_an_ordinary_agent_has_no_tools_of_the_managers(rig: Rig) -> None:
    await rig.start_harness()
    await rig.until_acked(await rig.send("hello"))
    tools = {entry["name"] for entry in rig.api.requests[0]["tools"]}
    ours = {name.removeprefix("mcp__hive__") for name in tools if name.startswith("mcp__hive__")}
    assert ours == {
        *(
            "answer",
            "ask",
            "cancel_reminder",
            "loose_ends",
            "message_status",
            "peers",
            "recv",
            "remind",
            "reminders",
            "send",
            "status",
        )
    }
    assert {"Bash", "Edit", "Glob", "Grep", "Read", "Write"} <= tools
    assert "WebFetch" not in tools


async def test_the_tools_of_the_manager(rig: Rig) -> None:
    rig.agent = MANAGER
    rig.generation = 0
    await open_for_manager(rig)
    said: list[Any] = []
    doors = [await door(rig, service, said) for service in ("approvals", "lifecycle")]
    await rig.start_harness()
    answers = await play(
        rig,
        ("read_config", {"agent": "iris"}),
        (
            "propose_config",
            {"agent": "iris", "files": {"prompt.md": "Paint."}, "message": "shorter", "rationale": "why not"},
        ),
        ("request_spawn", {"name": "otto", "prompt": "You sing.", "packages": ["sox"]}),
        ("agents", {}),
        ("start", {"name": "iris"}),
        ("stop", {"name": "iris"}),
        ("restart", {"name": "iris"}),
        ("logs", {"name": "iris", "lines": 3}),
        ("request_spawn", {"name": "operator", "prompt": "You cheat."}),
    )
    config, proposed, spawned, agents, started, stopped, restarted, logs, refused = answers
    assert config["files"] == {"prompt.md": "You paint."}
    assert (proposed, spawned) == ({"number": 7}, {"number": 8})
    assert agents["agents"][0]["name"] == started["name"] == stopped["name"] == restarted["name"] == "iris"
    assert logs == {"text": "three lines"}
    assert refused == "not-allowed: 'operator' is taken (choose another)"
    assert approvals.Spawn(agent="otto", prompt="You sing.", packages=["sox"]) in said
    for one in doors:
        await one.close()


async def test_equal_calls_of_one_turn_are_different_commands(rig: Rig) -> None:
    await rig.start_harness()
    call = ("send", {"to": "bob", "text": "knock"})
    first, second = await play(rig, call, call)
    assert first["id"] != second["id"]
    assert len(await rig.inbox("bob")) == 2


async def test_an_answer_ends_the_waiting_for_the_operator(rig: Rig) -> None:
    from libhive.messages.broker import Answer

    await rig.start_harness()
    (asked,) = await play(rig, ("ask", {"to": "operator", "question": "which colour?"}))
    await rig.until_state("waiting-operator")
    await rig.operator.call("broker", Answer(question=asked["id"], text="green"))
    await until("the answer", lambda: 'kind="answer"' in "\n".join(rig.api.prompts()))
    await rig.until_state("idle")
    assert f'question="{asked["id"]}"' in "\n".join(rig.api.prompts())


async def open_for_manager(rig: Rig) -> None:
    import os

    from libhive.clients.broker import Broker
    from tests.harness.api import ScriptedApi

    rig.paths.page_dir(MANAGER).mkdir(parents=True)
    rig.state.mkdir(parents=True)
    await Broker(rig.link).open_mailbox(MANAGER, os.geteuid(), None)
    await rig.api.stop()
    rig.api = ScriptedApi(rig.paths.door(MANAGER, "gateway"))
    await rig.api.start()


IRIS = lifecycle.Agent(
    name="iris", desired="running", cage="running", cage_kind="process", revision=1, generation=1, uid=0, page_port=8100,
    spec=AgentSpec(),
)  # fmt: skip
REPLIES: dict[str, Reply] = {
    "approvals.read_config": approvals.Config(
        agent="iris", revision=1, commit="c", files={"prompt.md": "You paint."}, spec=AgentSpec()
    ),
    "approvals.propose": approvals.Proposed(number=7),
    "approvals.spawn": approvals.Proposed(number=8),
    "lifecycle.agents": lifecycle.AgentList(agents=[IRIS]),
    "lifecycle.logs": lifecycle.LogText(text="three lines"),
    "lifecycle.restart": IRIS,
    "lifecycle.start": IRIS,
    "lifecycle.stop": IRIS,
}
KINDS = {
    kind.KIND: kind
    for kind in (
        *(approvals.Propose, approvals.ReadConfig, approvals.Spawn, lifecycle.Agents, lifecycle.Logs),
        *(lifecycle.Restart, lifecycle.Start, lifecycle.Stop),
    )
}


async def door(rig: Rig, service: str, said: list[Any]) -> Doorway:
    """A door that speaks the real wire, with answers that are made up."""
    from libhive.problems import NotAllowed

    def serve(agent: AgentName, frame: bytes, reply: Callable[[bytes], None]) -> None:
        envelope = wire.unpack_request(frame)
        request = wire.understand(envelope, KINDS[envelope.kind])
        said.append(request)
        if isinstance(request, approvals.Spawn) and request.agent == "operator":
            reply(wire.pack_problem(envelope.id, NotAllowed("'operator' is taken", "choose another")))
        else:
            reply(wire.pack_reply(envelope.id, REPLIES[envelope.kind]))

    import os

    opened = Doorway(MANAGER, os.geteuid(), rig.paths.door(MANAGER, service), serve)
    await opened.open()
    return opened
