"""What goes wrong around a turn: the right state is shown, the right wait is kept, and no mail is lost or acked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.harness.api import bash, error, text, tool
from tests.harness.rig import Rig, end, until


@pytest.mark.parametrize(
    ("status", "state", "tries"),
    [
        (401, "needs-login", 4),
        (404, "failed", 2),
        (429, "limited", 1),
        (500, "limited", 4),
        (529, "limited", 4),
    ],
)
async def test_an_error_of_the_api_keeps_the_mail_until_it_is_over(
    rig: Rig, status: int, state: str, tries: int
) -> None:
    rig.more_environ["HIVE_TEST_HASTE"] = "20"
    await rig.start_harness()
    rig.api.script = [error(status, **({"retry-after": "100"} if status == 429 else {}))] * tries
    sent = await rig.send("hello")
    await rig.until_state(state)
    assert (await rig.receipt(sent)).state in ("offered", "seen")
    rig.api.script = [*rig.api.script, text("There again.")]
    receipt = await rig.until_acked(sent)
    assert receipt.attempts == 1, "it was not the mail's fault"
    assert 'attempt="2"' in "\n".join(rig.api.prompts())
    await rig.until_state("idle")
    assert (await rig.page("GET", "/api/state"))["last_error"].split(":")[0] in (
        "needs-login",
        "no-model",
        "limited",
        "overloaded",
    )


async def test_while_it_is_limited_no_request_is_made(rig: Rig) -> None:
    await rig.start_harness()
    rig.api.script = [error(429, **{"retry-after": "100"})]
    sent = await rig.send("hello")
    peer = await rig.until_state("limited")
    assert "next try at 20" in peer.detail
    state = await rig.page("GET", "/api/state")
    assert state["until_ms"] > 0
    assert state["unsettled"] == [sent]
    assert len(rig.api.requests) == 1
    assert rig.claude_pids() == [] or await until("the CLI stopped", lambda: not rig.claude_pids())
    # another model may have another limit: choosing one is a reason to try again
    assert await rig.page("POST", "/model", json={"model": "sonnet"}) == {"model": "sonnet"}
    await rig.until_acked(sent)
    assert "sonnet" in rig.api.requests[-1]["model"]


async def test_a_model_that_hangs_is_cut_and_asked_again(rig: Rig) -> None:
    rig.limits["silence_seconds_max"] = 1.0
    await rig.start_harness()
    rig.api.script = [text("never", stall=asyncio.Event()), text("This time.")]
    sent = await rig.send("hello")
    await rig.until_acked(sent)
    assert [reply.body for reply in await until("a reply", rig.inbox)] == ["This time."]


async def test_a_gateway_that_is_away_delays_and_loses_nothing(rig: Rig) -> None:
    await rig.start_harness()
    await rig.api.stop()
    sent = await rig.send("hello")
    await rig.until_state("running")
    from tests.harness.api import ScriptedApi

    rig.api = ScriptedApi(rig.paths.door(rig.agent, "gateway"))
    await rig.api.start()
    assert (await rig.until_acked(sent)).attempts == 1


async def test_a_lost_session_is_replaced_by_one_that_is_told(rig: Rig) -> None:
    await rig.start_harness()
    rig.api.script = [text("The tree is blue.")]
    await rig.until_acked(await rig.send("which colour has the tree?"))
    before = json.loads((rig.state / "session.json").read_bytes())["id"]
    await rig.kill_harness()
    for transcript in rig.state.glob("claude/projects/*/*.jsonl"):
        transcript.write_text("spoilt\n" * 3)
    await rig.start_harness()
    sent = await rig.send("and now?")
    await rig.until_acked(sent)
    prompt = "\n".join(rig.api.prompts())
    assert "Your earlier session could not be continued" in prompt
    assert "The tree is blue." in prompt
    kept = json.loads((rig.state / "session.json").read_bytes())
    assert kept["id"] != before
    assert kept["handover"] == ""
    await rig.until_acked(await rig.send("again"))
    assert "\n".join(rig.api.prompts()).count("<handover>") == 1


async def test_a_cli_that_is_killed_after_one_that_ended_in_a_retry_forgets_nothing(rig: Rig) -> None:
    """A fault of the CLI that `Session.mend` makes up for."""
    await rig.start_harness()
    rig.api.script = [error(500)] * 10
    first = await rig.send("number 0")
    await until("a retry", lambda: len(rig.api.requests) > 1)
    assert rig.harness is not None
    rig.harness.terminate()
    await rig.harness.wait()
    rig.api.script = []
    await rig.start_harness(wait=False)
    await rig.until_acked(first)
    await rig.until_acked(await rig.send("the tree is blue"))
    rig.api.script = [bash("sleep 600")]
    last = await rig.send("number 2")
    await until("the command", lambda: not rig.api.script)
    for pid in rig.claude_pids():
        os.kill(pid, signal.SIGKILL)
    await rig.until_acked(last)
    assert "the tree is blue" in "\n".join(rig.api.prompts())


async def test_a_mail_that_breaks_the_cli_each_time_ends_as_dead(rig: Rig) -> None:
    rig.more_environ["HIVE_TEST_HASTE"] = "100"
    await rig.start_harness()
    rig.api.script = [bash("kill -9 $PPID")] * 10
    sent = await rig.send("a curse")

    async def dead() -> bool:
        return (await rig.receipt(sent)).state == "dead"

    await until("dead", dead)
    assert (await rig.receipt(sent)).attempts == 5
    rig.api.script = []
    await rig.until_acked(await rig.send("a kind word"))


async def test_a_request_that_is_refused_again_and_again_gets_a_fresh_session(rig: Rig) -> None:
    rig.more_environ["HIVE_TEST_HASTE"] = "100"
    await rig.start_harness()
    await rig.until_acked(await rig.send("hello"))
    session = (await rig.page("GET", "/api/state"))["session"]
    rig.api.script = [error(400)] * 100  # the CLI tries some variations of its own before it gives up
    sent = await rig.send("go on")

    async def renewed() -> bool:
        return bool((await rig.page("GET", "/api/state"))["session"] != session)

    await until("another session", renewed)
    rig.api.script = []
    assert (await rig.until_acked(sent)).attempts == 3
    assert "<handover>" in "\n".join(rig.api.prompts())


async def test_two_megabytes_in_one_line(rig: Rig) -> None:
    await rig.start_harness()
    rig.api.script = [text("x" * 2_000_000)]
    sent = await rig.send("a long one")
    await rig.until_acked(sent)
    (reply,) = await until("a reply", rig.inbox)
    assert len(reply.body) == 60_000
    entries = await rig.transcript("assistant")
    assert "2000000 characters" in json.dumps(entries)
    assert len(json.dumps(entries)) < 200_000


async def test_a_line_that_is_too_long_ends_the_cli_and_not_the_harness(rig: Rig) -> None:
    rig.limits["line_bytes_max"] = 200_000
    rig.more_environ["HIVE_TEST_HASTE"] = "100"
    await rig.start_harness()
    rig.api.script = [text("x" * 1_000_000), text("Short.")]
    receipt = await rig.until_acked(await rig.send("a long one"))
    assert receipt.attempts == 2


async def test_without_its_tools_it_does_not_begin(rig: Rig) -> None:
    rig.more_environ |= {"HIVE_TEST_HASTE": "100", "HIVE_TEST_DEAF": "4"}
    await rig.start_harness(wait=False)
    sent = await rig.send("hello")
    await rig.until_acked(sent)
    assert "tools-missing" in rig.log
    assert len(rig.api.requests) == 1


async def test_another_version_of_the_cli_is_refused(rig: Rig) -> None:
    fake = rig.root / "claude"
    fake.write_text("#!/bin/sh\necho '9.9.9 (Claude Code)'\n")
    fake.chmod(0o755)
    rig.claude = fake
    await rig.start_harness(wait=False)
    assert rig.harness is not None
    assert await asyncio.wait_for(rig.harness.wait(), 20) == 2
    assert "is version 9.9.9; this harness is written for 2.1.330" in rig.log


async def test_only_one_harness_holds_an_agents_state(rig: Rig) -> None:
    rig.limits["lock_seconds_max"] = 0.2
    await rig.start_harness()
    first = rig.harness
    await rig.start_harness(wait=False)
    assert rig.harness is not None
    assert await asyncio.wait_for(rig.harness.wait(), 20) == 2
    assert "another harness runs on" in rig.log
    rig.harness, rig.generation = first, 1
    await rig.until_acked(await rig.send("still there?"))


async def test_nothing_of_the_harness_reaches_the_cli_or_its_commands(rig: Rig) -> None:
    canaries = {f"HIVE_SECRET_{n}": f"canary-{n}" for n in range(10)}
    canaries |= {
        "ANTHROPIC_API_KEY": "canary-key",
        "AWS_SECRET_ACCESS_KEY": "canary-aws",
        "LD_DEBUG": "canary-ld",
    }
    rig.more_environ |= canaries
    rig.spec = type(rig.spec)(prompt="", env={"PALETTE": "blue"})
    await rig.start_harness()
    out = rig.state / "env.txt"
    rig.api.script = [bash(f"env > {out}; tr '\\0' '\\n' < /proc/$PPID/environ >> {out}"), text("ok")]
    await rig.until_acked(await rig.send("look"))
    (pid,) = rig.claude_pids()
    seen = Path(f"/proc/{pid}/environ").read_bytes().decode() + out.read_text()
    assert "canary" not in seen
    assert "PALETTE=blue" in seen
    names = {
        entry.partition("=")[0]
        for entry in Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        if entry
    }
    assert names <= {
        "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS", "CLAUDE_CODE_MAX_RETRIES",
        "CLAUDE_CODE_TMPDIR", "CLAUDE_CONFIG_DIR", "DISABLE_AUTOUPDATER", "HIVE_TENANT", "HOME", "HTTPS_PROXY", "HTTP_PROXY",
        "IS_SANDBOX", "LANG", "NO_PROXY", "PALETTE", "PATH", "XDG_RUNTIME_DIR", "http_proxy", "https_proxy", "no_proxy",
    }  # fmt: skip
    assert "Bearer" not in Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    assert "Bearer" not in json.dumps(await rig.transcript())


async def test_orphans_of_a_pid_1_harness_are_reaped_and_its_own_children_are_not(rig: Rig) -> None:
    await rig.start_harness("--as-pid-1")
    rig.api.script = [bash("(setsid sleep 0.2 &) ; true"), text("ok")]
    await rig.until_acked(await rig.send("leave an orphan"))
    await rig.until_acked(await rig.send("still alive?"))
    assert rig.harness is not None
    rig.harness.terminate()
    assert await asyncio.wait_for(rig.harness.wait(), 20) == 0
    assert rig.claude_pids() == []


async def test_a_tool_waits_for_a_broker_that_restarts(rig: Rig) -> None:
    await rig.start_harness()
    hold = asyncio.Event()
    rig.api.script = [tool("send", {"to": "bob", "text": "hi"}, hold=hold), text("ok")]
    sent = await rig.send("greet bob")
    await until("the request", lambda: rig.api.requests)
    await rig.kill_broker()
    hold.set()
    await rig.start_broker()
    await rig.until_acked(sent)
    assert len(await rig.inbox("bob")) == 1


async def test_no_event_of_a_strange_cli_is_fatal(rig: Rig) -> None:
    rig.claude = rig.root / "claude"
    strange = Path(__file__).parent / "strange_cli.py"
    rig.claude.write_text(f'#!/bin/sh\nPYTHONSAFEPATH=1 exec {sys.executable} {strange} "$@"\n')
    rig.claude.chmod(0o755)
    await rig.start_harness()
    for _ in range(2):
        receipt = await rig.until_acked(await rig.send("hello"))
        assert receipt.attempts == 1

    async def both() -> bool:
        return [reply.body for reply in await rig.inbox()] == ["strange but true"] * 2

    await until("a reply to each", both)
    kinds = {entry["kind"] for entry in await rig.transcript()}
    assert {"from_the_future", "unreadable", "system.None", "3"} <= kinds


async def test_a_spoilt_transcript_is_put_aside(rig: Rig) -> None:
    rig.state.joinpath("transcript.sqlite").write_bytes(b"this is not a database" * 100)
    await rig.start_harness()
    await rig.until_acked(await rig.send("hello"))
    assert rig.state.joinpath("transcript.sqlite.spoilt").exists()


async def test_mail_whose_offer_got_lost_on_its_way_is_taken_again(rig: Rig) -> None:
    door = rig.paths.door(rig.agent, "broker")
    real = door.with_name("real.sock")
    door.rename(real)
    lost = asyncio.Event()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if b"easily lost" in data and not lost.is_set():
                lost.set()
                break
            writer.write(data)
        writer.close()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(str(real))
        await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_unix_server(between, str(door))
    await rig.start_harness()
    sent = await rig.send("easily lost")
    receipt = await rig.until_acked(sent)
    assert lost.is_set()
    assert receipt.attempts == 2
    server.close()
    await end(rig.harness)
