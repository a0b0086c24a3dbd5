"""Every command: what it asks of whom, what it prints, what it exits with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libhive.admin.agents import added
from libhive.admin.commands import COMMANDS
from libhive.messages import approvals, base, broker, dashboard, gateway, lifecycle, updater
from libhive.problems import Conflict, NotFound, UnknownRecipient
from tests.admin import samples
from tests.admin.conftest import SERVICES, Stage

ID = samples.ID
DONE = base.Done()
LOG = lifecycle.LogText(text="one\ntwo\n")
EXECUTED = lifecycle.Executed(exit_code=7, output="hi\n")

PLAIN: list[tuple[list[str], type[Any], Any, Any]] = [
    (["answer", ID, "blue"], broker.Answer, DONE, broker.Answer(question=ID, text="blue")),
    (
        ["deny", "2", "--reason", "no"],
        approvals.Deny,
        samples.proposal(),
        approvals.Deny(number=2, reason="no"),
    ),
    (["destroy", "iris"], lifecycle.Destroy, samples.agent(), lifecycle.Destroy(name="iris")),
    (["link"], dashboard.MakeLink, dashboard.Link(url="http://x", expires_ms=1), dashboard.MakeLink()),
    (["logout"], gateway.Logout, DONE, gateway.Logout()),
    (["logs", "iris", "-n", "5"], lifecycle.Logs, LOG, lifecycle.Logs(name="iris", lines=5)),
    (["rebuild", "iris"], updater.Rebuild, samples.deploy(), updater.Rebuild(agent="iris")),
    (["restart", "iris"], lifecycle.Restart, samples.agent(), lifecycle.Restart(name="iris")),
    (
        ["send", "iris", "hello", "there"],
        broker.Send,
        broker.Sent(id=ID, recipients=["iris"]),
        broker.Send(to=["iris"], body="hello there"),
    ),
    (["start", "iris"], lifecycle.Start, samples.agent(), lifecycle.Start(name="iris")),
    (["stop", "iris"], lifecycle.Stop, samples.agent(), lifecycle.Stop(name="iris")),
]


@pytest.mark.parametrize(("argv", "kind", "reply", "request_"), PLAIN, ids=lambda value: str(value)[:30])
async def test_a_plain_command_asks_one_thing(
    stage: Stage, argv: list[str], kind: type[Any], reply: Any, request_: Any
) -> None:
    stage.says = {kind: reply, broker.Questions: broker.QuestionList(questions=[])}
    ended = await stage.admin(*argv)
    assert (ended.code, ended.err if argv != ["link"] else "") == (0, "")
    assert ended.out
    assert stage.asked[-1] == request_


@pytest.mark.parametrize(("argv", "kind", "reply", "request_"), PLAIN, ids=lambda value: str(value)[:30])
async def test_a_refusal_exits_1_with_its_code(
    stage: Stage, argv: list[str], kind: type[Any], reply: Any, request_: Any
) -> None:
    stage.says = {
        kind: Conflict("not now", "try later"),
        broker.Questions: broker.QuestionList(questions=[]),
    }
    ended = await stage.admin(*argv)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "not now (conflict)\n  try later\n"
    as_json = await stage.admin(*argv[:1], "--json", *argv[1:])
    assert (as_json.code, as_json.json["problem"]["code"]) == (1, "conflict")


DEAD = {
    "approvals": ["spawn", "iris", "--prompt", "x"],
    "broker": ["send", "iris", "hi", "--wait", "60"],
    "dashboard": ["link"],
    "gateway": ["login", "--stdin"],
    "lifecycle": ["exec", "iris", "--", "true"],
    "updater": ["rebuild", "iris"],
}


@pytest.mark.parametrize("service", DEAD)
async def test_a_dead_service_is_told_within_two_seconds(stage: Stage, service: str) -> None:
    """Its socket is there, as after a SIGKILL, and nobody answers."""
    stage.stop(service)
    stage.paths.bus(service).touch()
    ended = await stage.admin(*DEAD[service], stdin="sk-ant-api03-whatever")
    assert (ended.code, ended.out) == (3, "")
    assert f"{service} does not answer (unavailable)" in ended.err
    assert ended.seconds < 2.5, "two seconds, and what a machine that runs tests adds to a start"


def test_every_command_that_calls_a_service_names_it_first() -> None:
    assert [command.name for command in COMMANDS if not command.needs] == ["doctor", "logs", "status"]


@pytest.mark.parametrize(
    "argv", [["status"], ["send", "iris", "hi"], ["approve", "1"], ["events", "--follow"]]
)
async def test_no_hive_at_all_is_told_at_once(stage: Stage, argv: list[str]) -> None:
    ended = await stage.admin(*argv, environ={"HIVE_RUN_DIR": "/tmp/no-hive-here"})
    assert (ended.code, ended.out) == (3, "")
    assert "make up" in ended.err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["dance"],
        ["start"],
        ["start", "../etc"],
        ["start", "Iris"],
        ["start", "operator"],
        ["start", "a" * 32],
        ["start", "iris\n"],
        ["approve", "one"],
        ["approve", "-1"],
        ["approve", "9" * 12],
        ["deny", "1"],
        ["message", "short"],
        ["message", "UPPER-CASE-ID"],
        ["send", "iris"],
        ["send", "iris", "hi", "--wait", "nan"],
        ["send", "iris", "hi", "--wait", "-1"],
        ["spawn", "iris"],
        ["spawn", "iris", "--prompt", "x", "--prompt-file", "y"],
        ["spawn", "iris", "--prompt", "x", "--package", "rm -rf"],
        ["spawn", "iris", "--prompt", "x", "--model", "../x"],
        ["logs", "iris", "-n", "0"],
        ["login", "--kind", "password"],
        ["exec", "iris", "--timeout", "0", "--", "true"],
    ],
    ids=" ".join,
)
async def test_wrong_usage_exits_2_and_asks_nobody(stage: Stage, argv: list[str]) -> None:
    ended = await stage.admin(*argv)
    assert (ended.code, ended.out, stage.asked) == (2, "", [])
    assert "usage:" in ended.err


def everything(stage: Stage) -> None:
    stage.says |= {
        approvals.Proposals: approvals.ProposalList(proposals=[samples.proposal()]),
        approvals.ShowProposal: samples.detail(),
        broker.AckInbox: DONE,
        broker.History: broker.ReceiptList(receipts=[samples.receipt()]),
        broker.Inbox: broker.ReceiptList(receipts=[samples.receipt()]),
        broker.MessageStatus: broker.ReceiptList(receipts=[samples.receipt()]),
        broker.Peers: broker.PeerList(peers=[samples.peer()]),
        broker.Questions: broker.QuestionList(questions=[samples.question()]),
        gateway.GatewayStatus: samples.report(),
        lifecycle.Agents: lifecycle.AgentList(agents=[samples.agent()]),
        lifecycle.Exec: EXECUTED,
        lifecycle.Logs: LOG,
        updater.Deploys: updater.DeployList(deploys=[]),
    }


JSON = {
    "agents": ({"agents", "peers"}, ["agents"]),
    "answer": ({"questions"}, ["answer"]),
    "doctor": ({"findings"}, ["doctor"]),
    "exec": ({"exit_code", "output", "truncated"}, ["exec", "iris", "--json", "--", "x"]),
    "inbox": ({"receipts"}, ["inbox"]),
    "logs": ({"text"}, ["logs", "iris"]),
    "message": ({"receipts"}, ["message", ID]),
    "proposal": (set(approvals.ProposalDetail.__struct_fields__), ["proposal", "1"]),
    "proposals": ({"proposals"}, ["proposals"]),
    "status": (
        {"services", "model", "agents", "peers", "proposals", "questions", "unread"},
        ["status"],
    ),
}


@pytest.mark.parametrize("name", JSON)
async def test_reading_commands_have_stable_json(stage: Stage, name: str) -> None:
    everything(stage)
    fields, argv = JSON[name]
    argv = argv if "--json" in argv else [*argv, "--json"]
    ended = await stage.admin(*argv)
    assert set(ended.json) == fields
    if name == "proposal":
        assert ended.json == msgspec.to_builtins(samples.detail())


async def test_events_are_one_json_object_a_line(stage: Stage) -> None:
    everything(stage)
    ended = await stage.admin("events", "--json")
    lines = [msgspec.json.decode(line) for line in ended.out.splitlines()]
    assert {line["kind"] for line in lines} == {"broker.message_stored", "approvals.proposal_changed"}
    assert all(set(line) == {"at_ms", "service", "kind", "body"} for line in lines)


async def test_events_follow_what_is_published_until_interrupted(stage: Stage) -> None:
    everything(stage)
    process = await stage.popen("events", "--follow")
    assert process.stdout
    assert process.stderr
    for _ in range(2):
        await process.stdout.readline()
    published = asyncio.create_task(publishing(stage))
    assert b"carol" in await asyncio.wait_for(process.stdout.readline(), 10)
    published.cancel()
    process.send_signal(2)
    assert await asyncio.wait_for(process.wait(), 10) == 130
    assert await process.stderr.read() == b""


async def publishing(stage: Stage) -> None:
    """Again and again: nobody can say when a subscription has arrived."""
    while True:
        stage.actors["broker"].publish(broker.PeerChanged(peer=samples.peer("carol")))
        await asyncio.sleep(0.05)


async def test_a_reader_that_has_seen_enough_is_no_error(stage: Stage) -> None:
    everything(stage)
    stage.says[lifecycle.Logs] = lifecycle.LogText(text="line\n" * 20_000)
    process = await stage.popen("logs", "iris")
    assert process.stdout
    assert process.stderr
    await process.stdout.readline()
    process.stdout._transport.close()  # type: ignore[attr-defined]
    assert await asyncio.wait_for(process.wait(), 10) == 0
    assert await process.stderr.read() == b""


async def test_status_says_that_the_rehearsal_is_on_and_how_to_log_in(stage: Stage) -> None:
    everything(stage)
    ended = await stage.admin("status")
    assert ended.code == 0
    assert "rehearsal model is on" in ended.out
    assert "hive-admin login" in ended.out
    assert "1 proposal for you" in ended.out
    stage.says[gateway.GatewayStatus] = samples.report(mode="api_key", upstream="https://model.example")
    assert "rehearsal" not in (await stage.admin("status")).out


async def test_status_shows_what_it_can_and_exits_3_when_a_service_is_down(stage: Stage) -> None:
    everything(stage)
    stage.stop("gateway")
    ended = await stage.admin("status", "--json")
    assert ended.code == 3
    assert [line["name"] for line in ended.json["services"] if not line["up"]] == ["gateway"]
    assert ended.json["model"] is None
    assert ended.json["agents"][0]["name"] == "iris"
    human = await stage.admin("status")
    assert human.code == 3
    assert "down: gateway" in human.out


async def test_send_waits_for_the_reply_prints_it_and_marks_it_read(stage: Stage) -> None:
    reply = samples.receipt("hello yourself", id=samples.OTHER_ID)
    stage.says = {
        broker.Send: broker.Sent(id=ID, recipients=["iris"]),
        broker.AwaitReply: broker.ReceiptList(receipts=[reply]),
        broker.AckInbox: DONE,
    }
    ended = await stage.admin("send", "iris", "hello", "--wait", "60")
    assert (ended.code, ended.out, ended.err) == (0, "hello yourself\n", "")
    waited, acked = stage.asked[1:]
    assert (waited.message, acked.ids) == (ID, [samples.OTHER_ID])  # type: ignore[attr-defined]


async def test_send_that_got_no_reply_says_so_and_exits_1(stage: Stage) -> None:
    stage.says = {
        broker.Send: broker.Sent(id=ID, recipients=["iris"]),
        broker.AwaitReply: broker.ReceiptList(receipts=[]),
    }
    ended = await stage.admin("send", "iris", "hello", "--wait", "0.3")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"no reply within 0.3 s; where it is: hive-admin message {ID}\n"


async def test_send_to_nobody_known_is_refused(stage: Stage) -> None:
    stage.says = {broker.Send: UnknownRecipient("there is no agent called irsi")}
    ended = await stage.admin("send", "irsi", "hello", "--wait", "60")
    assert ended.code == 1
    assert "unknown-recipient" in ended.err


async def test_a_message_can_come_from_standard_input(stage: Stage) -> None:
    stage.says = {broker.Send: broker.Sent(id=ID, recipients=["iris"])}
    assert (await stage.admin("send", "iris", "-", stdin="two\nlines\n")).code == 0
    assert stage.asked == [broker.Send(to=["iris"], body="two\nlines\n")]


async def test_the_inbox_is_acknowledged_unless_one_only_peeks(stage: Stage) -> None:
    everything(stage)
    assert "hello" in (await stage.admin("inbox", "--peek")).out
    assert not any(isinstance(asked, broker.AckInbox) for asked in stage.asked)
    assert "hello" in (await stage.admin("inbox")).out
    assert stage.asked[-1] == broker.AckInbox(ids=[ID])


async def test_what_was_read_is_not_acknowledged_again(stage: Stage) -> None:
    read = samples.receipt(state="acked")
    stage.says = {broker.Inbox: broker.ReceiptList(receipts=[read])}
    assert (await stage.admin("inbox", "--all")).code == 0
    assert stage.asked == [broker.Inbox(all=True)]


async def test_a_question_is_answered_by_the_end_of_its_id(stage: Stage) -> None:
    other = samples.question(id=samples.OTHER_ID)
    stage.says = {
        broker.Questions: broker.QuestionList(questions=[samples.question(), other]),
        broker.Answer: DONE,
    }
    assert (await stage.admin("answer", "wxyz", "light", "blue")).code == 0
    assert stage.asked[-1] == broker.Answer(question=samples.OTHER_ID, text="light blue")
    listed = await stage.admin("answer")
    assert "Which colour?" in listed.out
    assert "2) blue" in listed.out


async def test_an_ending_that_two_questions_share_is_refused(stage: Stage) -> None:
    twin = samples.question(id="01m0000000000000000009abcd")
    stage.says = {broker.Questions: broker.QuestionList(questions=[samples.question(), twin])}
    ended = await stage.admin("answer", "abcd", "blue")
    assert ended.code == 1
    assert "bad-request" in ended.err


async def test_a_proposal_shows_effect_then_diff_then_the_agents_own_words(stage: Stage) -> None:
    stage.says = {approvals.ShowProposal: samples.detail()}
    shown = (await stage.admin("proposal", "1")).out
    effect, diff, words = (shown.index(text) for text in ("haiku", '+model = "haiku"', "because you asked"))
    assert effect < diff < shown.index("own words, which nobody has checked") < words


async def test_approve_is_bound_to_what_was_shown_and_watches_the_deploy(stage: Stage) -> None:
    states = iter(["approved", "building", "deployed"])
    shown = [samples.detail()]

    def show(request: approvals.ShowProposal) -> approvals.ProposalDetail:
        return shown.pop() if shown else samples.detail(proposal=samples.proposal(state=next(states)))

    stage.says = {
        approvals.ShowProposal: show,
        approvals.Approve: samples.proposal(state="approved"),
    }
    ended = await stage.admin("approve", "1")
    assert ended.code == 0, ended
    assert ended.out.splitlines()[-1] == "deployed: iris runs revision 1"
    assert approvals.Approve(number=1, digest="d" * 64) in stage.asked


async def test_what_is_blocked_is_not_even_tried(stage: Stage) -> None:
    stage.says = {approvals.ShowProposal: samples.detail(blocked="its base has moved")}
    ended = await stage.admin("approve", "1")
    assert ended.code == 1
    assert "its base has moved" in ended.err
    assert not any(isinstance(asked, approvals.Approve) for asked in stage.asked)


async def test_a_deploy_that_fails_exits_1(stage: Stage) -> None:
    failed = samples.proposal(state="failed", reason="never healthy")
    stage.says = {approvals.ShowProposal: samples.detail(), approvals.Approve: failed}
    ended = await stage.admin("approve", "1")
    assert ended.code == 1
    assert "never healthy" in ended.err


async def test_spawn_only_proposes_unless_told_yes(stage: Stage, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.md"
    prompt.write_text("You draw.\n")
    stage.says = {
        approvals.Spawn: approvals.Proposed(number=1),
        approvals.ShowProposal: samples.detail(),
        approvals.Approve: samples.proposal(state="deployed"),
    }
    argv = ["spawn", "iris", "--prompt-file", str(prompt), "--package", "jq", "--package", "curl"]
    ended = await stage.admin(*argv)
    assert ended.code == 0
    assert "hive-admin approve 1" in ended.out
    assert stage.asked[0] == approvals.Spawn(agent="iris", prompt="You draw.\n", packages=["jq", "curl"])
    assert not any(isinstance(asked, approvals.Approve) for asked in stage.asked)
    assert "deployed" in (await stage.admin(*argv, "--yes")).out


async def test_a_prompt_file_that_is_not_there_is_refused(stage: Stage) -> None:
    ended = await stage.admin("spawn", "iris", "--prompt-file", "/nowhere/prompt.md")
    assert ended.code == 1
    assert "bad-request" in ended.err


async def test_exec_prints_and_exits_as_the_command_did(stage: Stage) -> None:
    everything(stage)
    ended = await stage.admin("exec", "iris", "--", "ls", "--color", "-la")
    assert (ended.code, ended.out) == (7, "hi\n")
    assert stage.asked == [lifecycle.Exec(name="iris", argv=["ls", "--color", "-la"])]
    stage.says[lifecycle.Exec] = lifecycle.Executed(exit_code=-1, output="")
    assert (await stage.admin("exec", "iris", "sleep", "99")).code == 124


async def test_a_service_log_is_read_from_its_file(stage: Stage) -> None:
    stage.paths.logs.mkdir(parents=True)
    (stage.paths.logs / "broker.log").write_text("one\ntwo\nthr\x1bee\n")
    ended = await stage.admin("logs", "broker", "--service", "-n", "2")
    assert (ended.code, ended.out) == (0, "two\nthr<U+001B>ee\n")
    assert (await stage.admin("logs", "iris", "--service")).code == 1
    assert (await stage.admin("logs", "updater", "--service")).code == 1


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        ("", "a\n", "a\n"),
        ("a\nb\n", "a\nb\n", ""),
        ("a\nb\n", "a\nb\nc\n", "c\n"),
        ("a\nb\n", "b\nc\n", "c\n"),
        ("a\n", "x\ny\n", "x\ny\n"),
        ("a\na\n", "a\na\na\n", "a\n"),
        ("a\nb", "a\nbc\n", "c\n"),
    ],
)
def test_following_a_log_prints_each_line_once(before: str, after: str, new: str) -> None:
    assert added(before, after) == new


async def test_a_message_nobody_knows(stage: Stage) -> None:
    stage.says = {broker.MessageStatus: NotFound("there is no such message")}
    assert (await stage.admin("message", ID)).code == 1


async def test_doctor_names_what_is_down_and_how_to_mend_it(stage: Stage) -> None:
    stage.stop("updater")
    ended = await stage.admin("doctor", "--json")
    found = {finding["check"]: finding for finding in ended.json["findings"]}
    assert ended.code == 1
    assert set(SERVICES) < set(found)
    assert (found["updater"]["ok"], found["broker"]["ok"], found["python"]["ok"]) == (False, True, True)
    assert all(finding["mend"] for finding in found.values() if not finding["ok"])


def test_commands_stand_in_alphabetical_order() -> None:
    names = [command.name for command in COMMANDS]
    assert names == sorted(names)
