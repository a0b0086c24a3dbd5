"""The turn loop on a real broker, with the real CLI and a scripted model."""

from __future__ import annotations

import asyncio
import os
import signal

from libhive.messages.broker import Hello
from tests.harness.api import bash, text, tool
from tests.harness.rig import Rig, until


async def test_one_turn_is_seen_acked_and_answered(rig: Rig) -> None:
    await rig.start_harness()
    rig.api.script = [text("Hello, dear operator.")]
    sent = await rig.send("hello")
    receipt = await rig.until_acked(sent)
    assert receipt.attempts == 1
    assert receipt.seen_ms > 0
    assert receipt.turn
    (reply,) = await until("a reply", rig.inbox)
    assert (reply.body, reply.in_reply_to, reply.sender) == ("Hello, dear operator.", sent, "iris")
    assert f'<message id="{sent}" from="operator" kind="message"' in "\n".join(rig.api.prompts())
    await rig.until_state("idle")
    assert len(rig.api.requests) == 1
    assert "You paint." in str(rig.api.requests[0]["system"])


async def test_mail_that_comes_while_a_tool_runs_joins_the_turn(rig: Rig) -> None:
    await rig.start_harness()
    go = rig.state / "go"
    rig.api.script = [bash(f"while [ ! -e {go} ]; do sleep 0.1; done"), text("Both done.")]
    first = await rig.send("paint a tree")
    await rig.until_state("running")
    second = await rig.send("and a house", sender="bob")

    async def queued() -> bool:
        events = await rig.transcript("command_lifecycle")
        return sum(entry["body"]["state"] == "queued" for entry in events) == 2

    await until("the second in the CLI's queue", queued)
    assert (await rig.receipt(second)).state == "offered"
    go.touch()
    one, two = await rig.until_acked(first), await rig.until_acked(second)
    assert one.turn == two.turn
    assert len(rig.api.requests) == 2
    assert "and a house" in "\n".join(rig.api.prompts())
    replies = await until("the reply", rig.inbox)
    assert [reply.in_reply_to for reply in replies] == [first]


async def test_mail_that_comes_while_the_model_speaks_has_a_turn_of_its_own(rig: Rig) -> None:
    await rig.start_harness()
    speak_on, hold = asyncio.Event(), asyncio.Event()
    rig.api.script = [
        text("A long story.", pieces=["A long ", speak_on, "story."]),
        text("Second.", hold=hold),
    ]
    first = await rig.send("tell me a story")
    await until("the first request", lambda: rig.api.requests)
    second = await rig.send("another question")
    await until("the second offered", lambda: rig.receipt_in(second, "offered"))
    speak_on.set()
    one = await rig.until_acked(first)
    await until("the second seen", lambda: rig.receipt_in(second, "seen"))
    assert (await rig.receipt(second)).state == "seen"  # its own turn still runs
    hold.set()
    two = await rig.until_acked(second)
    assert one.turn != two.turn
    replies = await until("two replies", lambda: _at_least(rig, 2))
    assert [(reply.body, reply.in_reply_to) for reply in replies] == [
        ("A long story.", first),
        ("Second.", second),
    ]


async def test_a_turn_that_sends_to_the_operator_has_no_second_reply(rig: Rig) -> None:
    await rig.start_harness()
    rig.api.script = [tool("send", {"to": "operator", "text": "It is done."}), text("(said so)")]
    sent = await rig.send("paint")
    await rig.until_acked(sent)
    await rig.until_state("idle")
    (reply,) = await rig.inbox()
    assert (reply.body, reply.in_reply_to) == ("It is done.", sent)


async def test_what_others_caused_is_not_told_to_the_operator(rig: Rig) -> None:
    await rig.start_harness()
    rig.api.script = [tool("send", {"to": "bob", "text": "Blue."}), text("I told bob.")]
    sent = await rig.send("which colour?", sender="bob")
    await rig.until_acked(sent)
    await rig.until_state("idle")
    assert await rig.inbox() == []
    (reply,) = await rig.inbox("bob")
    assert (reply.body, reply.in_reply_to) == ("Blue.", sent)


async def test_a_killed_harness_is_followed_by_one_that_does_nothing_twice(rig: Rig) -> None:
    await rig.start_harness()
    never = asyncio.Event()
    call = {"to": "bob", "text": "Hi bob, iris here."}
    rig.api.script = [tool("send", call), text("never said", hold=never)]
    sent = await rig.send("greet bob")
    await until("bob's mail", lambda: rig.inbox("bob"))
    await until("the second request", lambda: len(rig.api.requests) == 2)
    await rig.kill_harness()
    assert (await rig.receipt(sent)).state == "seen"
    rig.api.script = [tool("send", call), text("Greeted.")]
    await rig.start_harness(wait=False)
    receipt = await rig.until_acked(sent)
    assert receipt.attempts == 2
    assert len(await rig.inbox("bob")) == 1
    assert 'attempt="2"' in "\n".join(rig.api.prompts())
    resumed = rig.api.headers[-1]["x-claude-code-session-id"]
    assert resumed == rig.api.headers[0]["x-claude-code-session-id"]
    assert [reply.body for reply in await until("a reply", rig.inbox)] == ["Greeted."]
    assert len(rig.claude_pids()) == 1


async def test_a_killed_cli_is_restarted_and_prompted_again(rig: Rig) -> None:
    await rig.start_harness()
    call = {"text": "look at the tree", "after_seconds": 3_600}
    rig.api.script = [tool("remind", call), bash("sleep 600")]
    sent = await rig.send("remind yourself")
    await until("the sleeping command", lambda: len(rig.api.requests) == 2)
    (pid,) = rig.claude_pids()
    rig.api.script = [tool("remind", call), text("Reminded.")]
    os.kill(pid, signal.SIGKILL)
    receipt = await rig.until_acked(sent)
    assert receipt.attempts == 2
    assert "operator" in "\n".join(rig.api.prompts())
    await rig.until_state("idle")
    ends = await rig.door("iris").call(_loose_ends())
    assert [reminder.text for reminder in ends.reminders] == ["look at the tree"]
    assert rig.claude_pids() != [pid]


async def test_what_is_owed_outlives_both_the_broker_and_the_harness(rig: Rig) -> None:
    """The turn ends while the broker is away; then the harness dies. Nothing is asked of the model again."""
    await rig.start_harness()
    hold = asyncio.Event()
    rig.api.script = [text("Done while you were away.", hold=hold)]
    sent = await rig.send("paint")
    await until("seen", lambda: rig.receipt_in(sent, "seen"))
    await rig.kill_broker()
    hold.set()

    async def ended() -> bool:
        return bool(await rig.transcript("result"))

    await until("the turn's end", ended)
    await rig.kill_harness()
    await rig.start_broker()
    await rig.start_harness()
    await rig.until_acked(sent)
    assert [reply.body for reply in await until("a reply", rig.inbox)] == ["Done while you were away."]
    assert len(rig.api.requests) == 1


async def test_a_broker_that_is_restarted_in_mid_turn_is_told_everything(rig: Rig) -> None:
    await rig.start_harness()
    hold = asyncio.Event()
    rig.api.script = [text("Here I am.", hold=hold)]
    sent = await rig.send("hello")
    await until("seen", lambda: rig.receipt_in(sent, "seen"))
    await rig.kill_broker()
    await rig.start_broker()
    assert (await rig.until_state("running")).turn
    hold.set()
    assert (await rig.until_acked(sent)).attempts == 1
    again = await rig.send("and again")
    await rig.until_acked(again)


async def test_the_harness_leaves_when_another_takes_its_mailbox(rig: Rig) -> None:
    await rig.start_harness()
    assert rig.harness is not None
    await rig.door("iris").call(Hello(generation=9, incarnation="other", version="0"))
    assert await asyncio.wait_for(rig.harness.wait(), 20) == 0
    assert rig.claude_pids() == []


async def test_sigterm_in_mid_turn_gives_the_mail_to_the_next(rig: Rig) -> None:
    await rig.start_harness()
    rig.api.script = [bash("sleep 600")]
    sent = await rig.send("wait")
    await rig.until_state("running")
    await until("the command", lambda: len(rig.api.requests) == 1)
    assert rig.harness is not None
    rig.harness.terminate()
    assert await asyncio.wait_for(rig.harness.wait(), 20) == 0
    assert rig.claude_pids() == []
    rig.api.script = [text("Done now.")]
    await rig.start_harness(wait=False)
    assert (await rig.until_acked(sent)).attempts == 2


async def test_an_idle_cli_is_stopped_and_resumed_with_the_next_mail(rig: Rig) -> None:
    rig.limits["idle_seconds_max"] = 0.1
    await rig.start_harness()
    first = await rig.send("one")
    await rig.until_acked(first)
    await until("no CLI", lambda: not rig.claude_pids())
    await rig.until_state("idle")
    second = await rig.send("two")
    await rig.until_acked(second)
    assert "one" in "\n".join(rig.api.prompts())


async def test_a_held_agent_is_paused_and_goes_on(rig: Rig) -> None:
    from libhive.messages.broker import SetHold

    await rig.start_harness()
    await rig.operator.call("broker", SetHold(agent="iris", reason="operator", held=True))
    await rig.until_state("paused")
    sent = await rig.send("later")
    await rig.operator.call("broker", SetHold(agent="iris", reason="operator", held=False))
    await rig.until_acked(sent)
    await rig.until_state("idle")


async def test_the_recv_tool_takes_waiting_mail_into_the_turn(rig: Rig) -> None:
    await rig.start_harness()
    hold = asyncio.Event()
    rig.api.script = [tool("recv", {}, hold=hold), text("Got both.")]
    first = await rig.send("one")
    await until("the request", lambda: rig.api.requests)
    second = await rig.send("the second one")
    await until("offered", lambda: rig.receipt_in(second, "offered"))

    async def queued() -> bool:
        events = await rig.transcript("command_lifecycle")
        return sum(entry["body"]["state"] == "queued" for entry in events) == 2

    await until("queued", queued)
    hold.set()
    one, two = await rig.until_acked(first), await rig.until_acked(second)
    assert one.turn == two.turn
    assert len(rig.api.requests) == 2
    assert "\n".join(rig.api.prompts()).count("the second one") == 1


async def _at_least(rig: Rig, count: int) -> object:
    found = await rig.inbox()
    return found if len(found) >= count else None


def _loose_ends() -> object:
    from libhive.messages.broker import LooseEnds

    return LooseEnds()


async def test_tools_have_the_way_out_and_the_model_is_asked_past_it(rig: Rig) -> None:
    """The CLI has HTTP_PROXY in its own environment; only what it runs goes there."""
    heads: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0])
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 7\r\nConnection: close\r\n\r\nrefused")
        writer.close()

    server = await asyncio.start_unix_server(proxy, str(rig.paths.door(rig.agent, "proxy")))
    await rig.start_harness()
    rig.api.script = [
        bash(
            "curl -sS -m 5 http://there.example/x; curl -sS -m 5 https://there.example/; env | grep -ic _proxy="
        ),
        text("Done."),
    ]
    await rig.until_acked(await rig.send("look outside"))
    server.close()
    assert heads == ["GET http://there.example/x HTTP/1.1", "CONNECT there.example:443 HTTP/1.1"]
    assert len(rig.api.requests) == 2
    said = str(rig.api.requests[1]["messages"])
    assert "refused" in said
    assert "6" in said.rpartition("refused")[2]
