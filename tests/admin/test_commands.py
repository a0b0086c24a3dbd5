"""Every command: what it asks of whom, what it prints, what it exits with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libhive import clock
from libhive.admin.agents import added
from libhive.admin.commands import COMMANDS
from libhive.admin.events import story
from libhive.messages import approvals, base, broker, dashboard, gateway, lifecycle, updater
from libhive.problems import Conflict, NotFound, UnknownRecipient
from libhive.spec import Egress, resolve
from tests.admin import samples
from tests.admin.conftest import SERVICES, Stage

ID = samples.ID
DONE = base.Done()
LOG = lifecycle.LogText(text="one\ntwo\n")
EXECUTED = lifecycle.Executed(exit_code=7, output="hi\n")
LEFT = lifecycle.Leftovers(
    leftovers=[
        lifecycle.Leftover(
            kind="state", agent="ghost", path="/x/agents/ghost", why="no agent", bytes=1_234_567
        )
    ]
)
PURGED = updater.Purge(
    id=ID,
    agent="iris",
    step="purged",
    started_ms=1,
    updated_ms=2,
    archive="/x/archive/iris-20260101T000000Z.git",
)

PLAIN: list[tuple[list[str], type[Any], Any, Any]] = [
    (["answer", ID, "blue"], broker.Answer, DONE, broker.Answer(question=ID, text="blue")),
    (
        ["deny", "2", "--reason", "no"],
        approvals.Deny,
        samples.proposal(),
        approvals.Deny(number=2, reason="no"),
    ),
    (["destroy", "iris", "--yes"], lifecycle.Destroy, samples.agent(), lifecycle.Destroy(name="iris")),
    (["gc"], lifecycle.CollectGarbage, LEFT, lifecycle.CollectGarbage()),
    (["gc", "--apply"], lifecycle.CollectGarbage, LEFT, lifecycle.CollectGarbage(apply=True)),
    (["link"], dashboard.MakeLink, dashboard.Link(url="http://x", expires_ms=1), dashboard.MakeLink()),
    (["logout"], gateway.Logout, DONE, gateway.Logout()),
    (["logs", "iris", "-n", "5"], lifecycle.Logs, LOG, lifecycle.Logs(name="iris", lines=5)),
    (
        ["purge", "iris", "--yes"],
        updater.PurgeAgent,
        PURGED,
        updater.PurgeAgent(agent="iris", confirm="iris"),
    ),
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
    assert [asked for asked in stage.asked if type(asked) is kind] == [request_]


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
    ended = await stage.whole(*DEAD[service], stdin="sk-ant-api03-whatever")
    assert (ended.code, ended.out) == (3, "")
    assert f"{service} does not answer (unavailable)" in ended.err
    assert ended.seconds < 10  # the bound itself is CALL_SECONDS; this only says it is no hang


def test_every_command_that_calls_a_service_names_it_first() -> None:
    assert [command.name for command in COMMANDS if not command.needs] == [
        "doctor",
        "logs",
        "restore",
        "status",
    ]


@pytest.mark.parametrize(
    "argv", [["status"], ["send", "iris", "hi"], ["approve", "1"], ["events", "--follow"]]
)
async def test_no_hive_at_all_is_told_at_once(stage: Stage, argv: list[str]) -> None:
    ended = await stage.admin(*argv, environ={"HIVE_RUN_DIR": "/tmp/no-hive-here"})
    assert (ended.code, ended.out) == (3, "")
    assert "make up" in ended.err
    assert "/tmp/no-hive-here" in ended.err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["answer", ""],
        ["answer", "", "blue"],
        ["answer", "ABCD", "blue"],
        ["dance"],
        ["destroy", "iris"],
        ["destroy", "iris", "--json"],
        ["purge", "iris"],
        ["exec", "iris", "ls", "-la"],
        ["proposals", "--al"],
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
    stage.actors["broker"].publish(broker.PeerChanged(peer=samples.peer("bob")))  # nobody listens yet
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
    waited, acked = (one for one in stage.asked if isinstance(one, broker.AwaitReply | broker.AckInbox))
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
    assert stage.asked[0] == broker.Send(to=["iris"], body="two\nlines\n")


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


async def test_roots_and_what_is_in_one(stage: Stage) -> None:
    root = lifecycle.Root(
        key="debian-3f2a", builder="debian", state="ready", size_bytes=200 << 20, built_ms=1, agents=["iris"]
    )
    building = lifecycle.Root(
        key="debian-77", builder="debian", state="building", detail="extracting archives"
    )
    whole = msgspec.structs.replace(root, packages={"jq": "1.6-2"})
    stage.says = {
        lifecycle.Roots: lambda m: lifecycle.RootList(roots=[whole] if m.key else [building, root]),
    }
    said = (await stage.admin("roots")).out
    assert "200 MiB" in said
    assert "iris" in said
    assert "extracting archives" in said
    said = (await stage.admin("roots", "debian-3")).out
    assert "1.6-2" in said
    assert (await stage.admin("roots", "debian-3", "--json")).json["roots"][0]["packages"] == {"jq": "1.6-2"}
    stage.says = {lifecycle.Roots: lifecycle.RootList(roots=[])}
    assert "host's own /usr" in (await stage.admin("roots")).out


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


@pytest.mark.parametrize(
    ("down", "said", "unsaid"),
    [
        ((), "nothing waits for you", "not known"),
        (("broker",), "what waits is not known: broker is down", "nothing waits"),
        (("approvals", "broker"), "what waits is not known: approvals, broker are down", "nothing waits"),
        (("gateway",), "nothing waits for you", "not known"),
    ],
    ids=str,
)
async def test_status_says_that_nothing_waits_only_when_it_knows(
    stage: Stage, down: tuple[str, ...], said: str, unsaid: str
) -> None:
    everything(stage)
    stage.says |= {
        approvals.Proposals: approvals.ProposalList(proposals=[]),
        broker.Inbox: broker.ReceiptList(receipts=[]),
        broker.Questions: broker.QuestionList(questions=[]),
    }
    if down:
        stage.stop(*down)
    shown = (await stage.admin("status")).out
    assert said in shown
    assert unsaid not in shown


async def test_what_is_known_is_counted_beside_what_is_not(stage: Stage) -> None:
    everything(stage)
    stage.stop("broker")
    shown = (await stage.admin("status")).out
    assert "1 proposal for you" in shown
    assert "what else waits is not known: broker is down" in shown
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("iris")]
    assert row[:4] == ["iris", "running", "unknown", "?"]


async def test_agents_warns_that_the_broker_says_nothing(stage: Stage) -> None:
    everything(stage)
    assert (await stage.admin("agents")).err == ""
    stage.stop("broker")
    ended = await stage.admin("agents")
    assert "iris" in ended.out
    assert "broker does not answer" in ended.err


async def test_a_question_is_counted_once(stage: Stage) -> None:
    everything(stage)
    stage.says[broker.Inbox] = broker.ReceiptList(receipts=[samples.receipt(kind="question")])
    shown = (await stage.admin("status")).out
    assert "1 question for you" in shown
    assert "message for you" not in shown


async def test_an_open_question_is_shown_with_its_terms_and_stays_in_the_inbox(stage: Stage) -> None:
    everything(stage)
    mail = [samples.receipt("Which colour?", kind="question"), samples.receipt(id=samples.OTHER_ID)]
    asked = samples.question(deadline_ms=clock.now_ms() + 1_199_000)
    stage.says[broker.Inbox] = broker.ReceiptList(receipts=mail)
    stage.says[broker.Questions] = broker.QuestionList(questions=[asked])
    shown = (await stage.admin("inbox")).out
    assert "2) blue" in shown
    assert "(in 19 min)" in shown
    assert stage.asked[-1] == broker.AckInbox(ids=[samples.OTHER_ID])
    stage.says[broker.Questions] = broker.QuestionList(questions=[])
    await stage.admin("inbox")
    assert stage.asked[-1] == broker.AckInbox(ids=[ID, samples.OTHER_ID])


@pytest.mark.parametrize(
    ("choices", "typed", "told"),
    [
        (["red", "blue"], "2", "blue"),
        (["red", "blue"], "blue", "blue"),
        (["red", "blue"], "3", "3"),
        (["red", "blue"], "0", "0"),
        (["1", "2", "3"], "2", "2"),
        (["2", "1"], "2", "2"),
        ([], "2", "2"),
    ],
)
async def test_a_number_stands_for_a_choice_unless_it_is_one(
    stage: Stage, choices: list[str], typed: str, told: str
) -> None:
    stage.says = {
        broker.Questions: broker.QuestionList(questions=[samples.question(choices=choices)]),
        broker.Answer: DONE,
    }
    assert (await stage.admin("answer", ID, typed)).code == 0
    assert stage.asked[-1] == broker.Answer(question=ID, text=told)


@pytest.mark.parametrize(
    ("argv", "hint"), [(["zzz", "blue"], "hive-admin answer"), ([ID, ""], "the question stays open")]
)
async def test_an_answer_to_nothing_or_of_nothing_is_refused(
    stage: Stage, argv: list[str], hint: str
) -> None:
    stage.says = {broker.Questions: broker.QuestionList(questions=[samples.question()])}
    ended = await stage.admin("answer", *argv)
    assert (ended.code, ended.out) == (1, "")
    assert hint in ended.err
    assert not any(isinstance(asked, broker.Answer) for asked in stage.asked)


@pytest.mark.parametrize(
    ("state", "decided", "states"),
    [
        ("proposed", {}, ["proposed"]),
        ("deployed", {"decided_ms": 1_795_000_009_000}, ["proposed", "approved"]),
        ("denied", {"decided_ms": 1_795_000_009_000, "reason": "no"}, ["proposed", "denied"]),
        ("expired", {"decided_ms": 1_795_000_009_000}, ["proposed", "expired"]),
    ],
)
def test_a_proposal_is_an_event_when_it_is_made_and_one_when_it_is_decided(
    state: str, decided: dict[str, Any], states: list[str]
) -> None:
    found = list(story(samples.proposal(state=state, **decided)))
    assert [happened.body["proposal"]["state"] for happened in found] == states
    assert [happened.at_ms for happened in found] == [1_795_000_000_000, 1_795_000_009_000][: len(states)]
    assert found[0].body["proposal"]["reason"] == ""


async def test_events_of_a_new_hive_say_that_there_are_none(stage: Stage) -> None:
    everything(stage)
    stage.says[broker.History] = broker.ReceiptList(receipts=[])
    stage.says[approvals.Proposals] = approvals.ProposalList(proposals=[])
    assert (await stage.admin("events")).out == "nothing has happened yet\n"
    assert (await stage.admin("events", "--json")).out == ""
    stage.stop("updater")
    assert "updater does not answer" in (await stage.admin("events")).err


@pytest.mark.parametrize("wait", [[], ["--wait", "0.3"]], ids=str)
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"desired": "stopped", "cage": "stopped"}, "iris is stopped: hive-admin start iris\n"),
        ({"cage": "broken"}, "iris is broken; why: hive-admin logs iris\n"),
        ({}, ""),
    ],
    ids=str,
)
async def test_send_says_who_will_not_read_it_now(
    stage: Stage, changed: dict[str, Any], said: str, wait: list[str]
) -> None:
    stage.says = {
        broker.Send: broker.Sent(id=ID, recipients=["iris"]),
        broker.AwaitReply: broker.ReceiptList(receipts=[]),
        lifecycle.Agents: lifecycle.AgentList(agents=[samples.agent(**changed), samples.agent("rex")]),
    }
    ended = await stage.admin("send", "iris", "hello", *wait)
    assert ended.err.startswith(said)
    assert "rex" not in ended.err
    assert "hive-admin inbox" in ended.out + " ".join(wait and ["hive-admin inbox"])


GONE = samples.agent(desired="destroyed", cage="absent")


@pytest.mark.parametrize(
    ("argv", "kind", "problem"),
    [
        (["start", "iris"], lifecycle.Start, Conflict("iris is destroyed", "hive-admin spawn iris")),
        (["rebuild", "iris"], updater.Rebuild, NotFound("there is no agent iris to rebuild")),
        (["exec", "iris", "--", "true"], lifecycle.Exec, Conflict("no cage", "hive-admin start iris")),
        (["send", "iris", "hi"], broker.Send, UnknownRecipient("the agent 'iris' was destroyed")),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_the_hint_for_a_destroyed_agent_is_a_command_that_works(
    stage: Stage, argv: list[str], kind: type[Any], problem: Any
) -> None:
    stage.says = {kind: problem, lifecycle.Agents: lifecycle.AgentList(agents=[GONE])}
    ended = await stage.admin(*argv)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.endswith("\n  bring it back: hive-admin spawn iris --prompt TEXT\n")


async def test_agents_calls_what_is_destroyed_destroyed(stage: Stage) -> None:
    everything(stage)
    stage.says[lifecycle.Agents] = lifecycle.AgentList(agents=[GONE])
    row = (await stage.admin("agents")).out.splitlines()[-1].split()
    assert row[:4] == ["iris", "destroyed", "-", "-"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["stauts"], "did you mean status?"),
        (["proposals", "--al"], "usage: hive-admin proposals"),
        (["exec", "iris", "ls", "-la"], "hive-admin exec iris -- COMMAND"),
        (["destroy", "iris"], "hive-admin destroy iris --yes"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_wrong_usage_is_told_what_was_meant(stage: Stage, argv: list[str], said: str) -> None:
    ended = await stage.admin(*argv)
    assert (ended.code, ended.out, stage.asked) == (2, "", [])
    assert said in ended.err


async def test_a_service_named_as_an_agent_is_told_where_its_log_is(stage: Stage) -> None:
    stage.says = {lifecycle.Logs: NotFound("there is no agent 'broker'", "who there is: hive-admin agents")}
    assert "hive-admin logs broker --service" in (await stage.admin("logs", "broker")).err
    assert "who there is" in (await stage.admin("logs", "iris")).err


async def test_a_command_that_was_cut_off_says_so(stage: Stage) -> None:
    stage.says = {lifecycle.Exec: lifecycle.Executed(exit_code=-1, output="so far\n")}
    ended = await stage.admin("exec", "iris", "--timeout", "2", "--", "sleep", "5")
    assert (ended.code, ended.out, ended.err) == (124, "so far\n", "hive-admin: cut off after 2 s\n")


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("wait", "code"), [("0.3", 1), ("0", 0)])
async def test_a_deploy_that_has_not_ended_is_no_success(
    stage: Stage, wait: str, code: int, as_json: bool
) -> None:
    building = samples.proposal(state="building")
    shown = [samples.detail()]
    stage.says = {
        approvals.ShowProposal: lambda _: shown.pop() if shown else samples.detail(proposal=building),
        approvals.Approve: building,
    }
    ended = await stage.admin("approve", "1", "--wait", wait, *(["--json"] if as_json else []))
    assert (ended.code, "proposal 1 is building" in ended.err) == (code, code == 1)
    assert not as_json or ended.json["state"] == "building"


@pytest.mark.parametrize(("state", "shown"), [("proposed", True), ("deployed", False), ("denied", False)])
async def test_only_what_waits_for_a_decision_is_said_to_be_blocked(
    stage: Stage, state: str, shown: bool
) -> None:
    detail = samples.detail(proposal=samples.proposal(state=state), blocked=f"it is {state}")
    stage.says = {approvals.ShowProposal: detail}
    assert ("cannot be approved" in (await stage.admin("proposal", "1")).out) == shown


async def test_a_purge_is_followed_to_its_end_and_says_where_the_configuration_is(stage: Stage) -> None:
    begun = msgspec.structs.replace(PURGED, step="mail", archive="")
    stage.says = {updater.PurgeAgent: begun, updater.Purges: updater.PurgeList(purges=[PURGED])}
    ended = await stage.admin("purge", "iris", "--yes")
    assert (ended.code, ended.out) == (0, f"iris is purged; its configuration is kept in {PURGED.archive}\n")
    waits = msgspec.structs.replace(begun, detail="waiting: gateway does not answer")
    stage.says = {updater.PurgeAgent: waits, updater.Purges: updater.PurgeList(purges=[waits])}
    ended = await stage.admin("purge", "iris", "--yes", "--wait", "0")
    assert ended.code == 1
    assert "is being purged: waiting: gateway does not answer; it goes on without you" in ended.out


async def test_what_is_left_over_is_told_with_its_size_and_what_removes_it(stage: Stage) -> None:
    stage.says = {lifecycle.CollectGarbage: LEFT}
    ended = await stage.admin("gc")
    assert "/x/agents/ghost" in ended.out
    assert "1.23 MB" in ended.out
    assert "hive-admin gc --apply" in ended.out
    kept = msgspec.structs.replace(LEFT.leftovers[0], problem="busy")
    stage.says = {lifecycle.CollectGarbage: lifecycle.Leftovers(leftovers=[kept])}
    assert (await stage.admin("gc", "--apply")).code == 1
    stage.says = {lifecycle.CollectGarbage: lifecycle.Leftovers(leftovers=[])}
    assert "nothing is left over" in (await stage.admin("gc")).out


async def test_a_way_out_is_shown_with_what_was_used(stage: Stage) -> None:
    stage.says = {gateway.EgressStatus: samples.way_out()}
    ended = await stage.admin("egress", "iris", "-n", "7")
    assert ended.code == 0
    assert stage.asked == [gateway.EgressStatus(agent="iris", limit=7)]
    assert "it learns" in ended.out
    assert "github.com:443" in ended.out
    assert "refused" in ended.out
    assert "hive-admin egress iris --propose" in ended.out
    assert "\x1b" not in ended.out
    as_json = await stage.admin("egress", "iris", "--json")
    assert as_json.json["learned"] == ["github.com:443", "pypi.org:443"]


async def test_learning_ends_in_one_proposal(stage: Stage) -> None:
    toml = 'model = "opus" # dear\n\n[egress]\nmode = "learn"\nallow = ["old.org:443"]\n'
    files = {"agent.toml": toml, "prompt.md": "You draw.\n"}
    config = approvals.Config(agent="iris", revision=3, commit="c" * 40, files=files, spec=resolve(files))
    stage.says = {
        gateway.EgressStatus: samples.way_out(),
        approvals.ReadConfig: config,
        approvals.Propose: approvals.Proposed(number=4),
        approvals.ShowProposal: samples.detail(proposal=samples.proposal(number=4)),
    }
    ended = await stage.admin("egress", "iris", "--propose")
    assert ended.code == 0, ended.err
    assert "hive-admin approve 4" in ended.out
    (proposed,) = [asked for asked in stage.asked if isinstance(asked, approvals.Propose)]
    after = resolve(files | proposed.files)
    assert after.egress == Egress(mode="allow", allow=["github.com:443", "pypi.org:443"])
    assert 'model = "opus" # dear' in proposed.files["agent.toml"]
    assert list(proposed.files) == ["agent.toml"]


async def test_who_does_not_learn_has_nothing_to_propose(stage: Stage) -> None:
    files = {"agent.toml": "", "prompt.md": ""}
    config = approvals.Config(agent="iris", revision=3, commit="c" * 40, files=files, spec=resolve(files))
    stage.says = {gateway.EgressStatus: samples.way_out(mode="none"), approvals.ReadConfig: config}
    ended = await stage.admin("egress", "iris", "--propose")
    assert ended.code == 1
    assert "does not learn" in ended.err
