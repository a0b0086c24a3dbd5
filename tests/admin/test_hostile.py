"""Text of agents on the operator's terminal: nothing in it acts, nothing in it hides; 80 columns and pipes hold."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
import unicodedata

import pytest

from libhive.messages import approvals, broker, gateway, lifecycle, updater
from tests.admin import samples
from tests.admin.conftest import Stage

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\u200b\r\x00[red]not markup[/red] :smile: \ud7ff"
COMMANDS = [
    ["agents"],
    ["answer"],
    ["events"],
    ["exec", "iris", "--", "cat", "evil"],
    ["inbox", "--peek"],
    ["logs", "iris"],
    ["message", samples.ID],
    ["proposal", "1"],
    ["proposals"],
    ["search", "x"],
    ["send", "iris", "hi", "--wait", "5"],
    ["status"],
]


def evil_hive(stage: Stage) -> None:
    evil = samples.receipt(EVIL, sender=EVIL, reason=EVIL, in_reply_to=EVIL)
    effect = approvals.EffectLine(field=EVIL, risk="high", before=EVIL, after=EVIL, note=EVIL)
    diff = approvals.FileDiff(path=EVIL, change="added", lines=["+" + EVIL], warnings=[EVIL])
    proposal = samples.proposal(message=EVIL, requester=EVIL, agent=EVIL, reason=EVIL, tags=[EVIL])
    detail = samples.detail(proposal=proposal, effect=[effect], diff=[diff], rationale=EVIL, blocked=EVIL)
    question = samples.question(text=EVIL, choices=[EVIL], default=EVIL, deadline_ms=1, asker=EVIL)
    stage.says = {
        approvals.Proposals: approvals.ProposalList(proposals=[proposal]),
        approvals.ShowProposal: detail,
        broker.AwaitReply: broker.ReceiptList(receipts=[evil]),
        broker.AckInbox: broker.Done(),
        broker.History: broker.ReceiptList(receipts=[evil]),
        broker.Inbox: broker.ReceiptList(receipts=[evil]),
        broker.MessageStatus: broker.ReceiptList(receipts=[evil]),
        broker.Peers: broker.PeerList(peers=[samples.peer(status=EVIL, model=EVIL, holds=[EVIL])]),
        broker.Questions: broker.QuestionList(questions=[question]),
        broker.Search: broker.Found(receipts=[evil]),
        broker.Send: broker.Sent(id=samples.ID, recipients=["iris"]),
        gateway.GatewayStatus: samples.report(last_error=EVIL),
        lifecycle.Agents: lifecycle.AgentList(agents=[samples.agent(detail=EVIL)]),
        lifecycle.Exec: lifecycle.Executed(exit_code=0, output=EVIL),
        lifecycle.Logs: lifecycle.LogText(text=EVIL),
        updater.Deploys: updater.DeployList(deploys=[samples.deploy(detail=EVIL)]),
    }


def acting(text: str) -> set[str]:
    return {char for char in text if unicodedata.category(char) in ("Cc", "Cf") and char != "\n"}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: argv[0])
async def test_nothing_acts_on_the_terminal(stage: Stage, argv: list[str], as_json: bool) -> None:
    evil_hive(stage)
    ended = await stage.admin(argv[0], *(["--json"] if as_json else []), *argv[1:])
    assert ended.code == 0, ended
    assert acting(ended.out + ended.err) == set()
    if not as_json:
        assert "<U+001B>" in ended.out
    if argv[0] in ("inbox", "send") and not as_json:
        assert "[red]not markup[/red] :smile:" in ended.out


async def test_an_effect_is_shown_whole_however_long_and_cannot_fake_a_line(stage: Stage) -> None:
    after = "carol\nstate: deployed\n" + "x" * 3_000 + "mallory"
    effect = approvals.EffectLine(field="allowed_recipients", risk="high", before="bob", after=after)
    detail = samples.detail(effect=[effect], blocked="look first")
    stage.says = {approvals.ShowProposal: detail}
    for shown in ((await stage.admin("proposal", "1")).out, await on_terminal(stage, "proposal", "1")):
        assert "mallory" in shown.replace("\n", "")
        assert "state: deployed" not in [line.strip() for line in shown.splitlines()]


async def on_terminal(stage: Stage, *argv: str, columns: int = 80) -> str:
    """What a person with a terminal of this width is shown, colours taken off."""
    leader, follower = pty.openpty()
    environment = stage.environment() | {"COLUMNS": str(columns), "TERM": "dumb"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "libhive.admin", *argv),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
    )
    os.close(follower)
    shown = await asyncio.to_thread(read_all, leader)
    assert await process.wait() == 0
    return shown


def read_all(leader: int) -> str:
    data = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:
            break
        if not chunk:
            break
        data += chunk
    os.close(leader)
    return data.decode().replace("\r\n", "\n")


def long_hive(stage: Stage) -> None:
    name = "a" * 31
    words = "many words that go on and on " * 8
    stage.says = {
        approvals.Proposals: approvals.ProposalList(proposals=[samples.proposal(agent=name, message=words)]),
        broker.MessageStatus: broker.ReceiptList(
            receipts=[samples.receipt("short", recipient=name, reason=words)]
        ),
        broker.Peers: broker.PeerList(peers=[samples.peer(name, status=words, model="claude-sonnet-5-5")]),
        lifecycle.Agents: lifecycle.AgentList(agents=[samples.agent(name)]),
    }


@pytest.mark.parametrize(
    "argv", [["agents"], ["proposals"], ["message", samples.ID]], ids=lambda argv: argv[0]
)
async def test_tables_fit_80_columns(stage: Stage, argv: list[str]) -> None:
    long_hive(stage)
    shown = await on_terminal(stage, *argv)
    assert "a" * 31 in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("argv", [["agents"], ["proposals"]], ids=lambda argv: argv[0])
async def test_a_pipe_gets_one_line_a_row_without_colours(stage: Stage, argv: list[str]) -> None:
    long_hive(stage)
    ended = await stage.admin(*argv, environ={"COLUMNS": "40", "FORCE_COLOR": "1", "TERM": "xterm-256color"})
    head, row = ended.out.splitlines()
    assert "many words that go on and on many words" in row
    assert "\x1b" not in head + row


@pytest.mark.parametrize(("typed", "code"), [(b"iris\n", 0), (b"yes\n", 1), (b"\n", 1), (b"\x04", 1)])
async def test_destroying_is_confirmed_by_the_name(stage: Stage, typed: bytes, code: int) -> None:
    gone = samples.agent(desired="destroyed", cage="absent")
    stage.says = {lifecycle.Destroy: gone}
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "libhive.admin", "destroy", "iris"),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=stage.environment() | {"TERM": "dumb"},
    )
    os.close(follower)
    os.write(leader, typed)
    shown = await asyncio.to_thread(read_all, leader)
    assert await process.wait() == code
    assert "type its name" in shown
    assert stage.asked == ([lifecycle.Destroy(name="iris")] if code == 0 else [])
    assert ("hive-admin spawn iris" in shown) == (code == 0)
