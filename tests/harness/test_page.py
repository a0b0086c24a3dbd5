"""The agent's page: what the dashboard and lifecycle read from page.sock."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import httpx

from tests.harness.api import bash, text
from tests.harness.rig import Rig, until


async def test_the_state_says_how_things_are(rig: Rig) -> None:
    await rig.start_harness()
    hold = asyncio.Event()
    rig.api.script = [text("ok", hold=hold)]
    sent = await rig.send("hello")
    await rig.until_state("running")
    state = await rig.page("GET", "/api/state")
    assert (state["agent"], state["state"], state["unsettled"], state["attempts"]) == (
        "iris",
        "running",
        [sent],
        1,
    )
    assert state["turn"]["mail"] == [sent]
    assert state["model"] == {"current": "haiku", "option": "haiku"}
    hold.set()
    await rig.until_acked(sent)
    await rig.until_state("idle")
    state = await rig.page("GET", "/api/state")
    assert (state["turn"], state["unsettled"]) == (None, [])
    assert state["usage"]["turns"] == 1
    assert state["usage"]["output_tokens"] == 20
    assert state["sequence"] > 5


async def test_the_transcript_is_paged_by_number(rig: Rig) -> None:
    await rig.start_harness()
    await rig.until_acked(await rig.send("hello"))
    await rig.until_state("idle")
    newest = (await rig.page("GET", "/api/state"))["sequence"]
    whole = (await rig.page("GET", "/api/transcript", params={"limit": 500}))["entries"]
    numbers = [entry["seq"] for entry in whole]
    assert numbers == sorted(numbers)
    assert {"system.init", "assistant", "user", "result", "command_lifecycle"} <= {
        entry["kind"] for entry in whole
    }
    after = (await rig.page("GET", "/api/transcript", params={"after": newest - 3}))["entries"]
    assert [entry["seq"] for entry in after] == [newest - 2, newest - 1, newest]
    before = (await rig.page("GET", "/api/transcript", params={"before": newest, "limit": 2}))["entries"]
    assert [entry["seq"] for entry in before] == [newest - 2, newest - 1]
    assert (await rig.page("GET", "/api/transcript", params={"after": "x"}))["code"] == "bad-request"


async def test_the_stream_goes_on_where_it_broke_off(rig: Rig) -> None:
    await rig.start_harness()
    first = asyncio.create_task(read_stream(rig, "", lambda seen: any(e["kind"] == "result" for e in seen)))
    await until("the stream", lambda: not first.done())
    await asyncio.sleep(0.2)
    await rig.until_acked(await rig.send("hello"))
    seen = await asyncio.wait_for(first, 20)
    middle = seen[len(seen) // 2]["seq"]
    newest = (await rig.page("GET", "/api/state"))["sequence"]
    rest = await read_stream(rig, str(middle), lambda seen: seen[-1]["seq"] >= newest)
    assert [entry["seq"] for entry in rest] == list(range(middle + 1, newest + 1))


async def test_the_model_is_switched_and_the_choice_kept_until_the_option_changes(rig: Rig) -> None:
    await rig.start_harness()
    assert await rig.page("POST", "/model", json={"model": "sonnet"}) == {"model": "sonnet"}
    assert (await rig.page("POST", "/model", json={"model": "../x"}))["code"] == "bad-request"
    await rig.until_acked(await rig.send("hello"))
    assert "sonnet" in rig.api.requests[-1]["model"]
    assert (await rig.until_state("idle")).model == "sonnet"
    await rig.kill_harness()
    await rig.start_harness()
    assert (await rig.page("GET", "/api/state"))["model"] == {"current": "sonnet", "option": "haiku"}
    await rig.until_acked(await rig.send("hello"))
    assert "sonnet" in rig.api.requests[-1]["model"]
    await rig.kill_harness()
    rig.spec = type(rig.spec)(model="opus")
    await rig.start_harness()
    await rig.until_acked(await rig.send("hello"))
    assert "opus" in rig.api.requests[-1]["model"]


async def test_an_interrupt_cuts_the_turn_and_settles_its_mail(rig: Rig) -> None:
    await rig.start_harness()
    assert await rig.page("POST", "/interrupt") == {"interrupted": False}
    rig.api.script = [bash("sleep 600")]
    sent = await rig.send("wait for long")
    await until("the command", lambda: rig.api.requests)
    await rig.until_state("running")
    assert await rig.page("POST", "/interrupt") == {"interrupted": True}
    await rig.until_acked(sent)
    await rig.until_state("idle")
    assert await rig.inbox() == []
    await rig.until_acked(await rig.send("and now this"))


async def test_a_command_runs_for_the_host(rig: Rig) -> None:
    rig.more_environ["HIVE_SECRET"] = "canary"
    await rig.start_harness()
    ran = await rig.page(
        "POST", "/exec", json={"argv": ["sh", "-c", "echo out; echo err >&2; pwd; env; exit 3"]}
    )
    assert (ran["exit_code"], ran["truncated"]) == (3, False)
    assert ran["output"].startswith(f"out\nerr\n{os.path.realpath(rig.state)}\n")
    assert "canary" not in ran["output"]
    long = await rig.page("POST", "/exec", json={"argv": ["sh", "-c", "yes | head -c 300000"]})
    assert (long["exit_code"], len(long["output"]), long["truncated"]) == (0, 200_000, True)
    slow = await rig.page(
        "POST", "/exec", json={"argv": ["sh", "-c", "echo first; sleep 60"], "timeout_seconds": 1}
    )
    assert (slow["exit_code"], slow["output"]) == (-1, "first\n")
    none = await rig.page("POST", "/exec", json={"argv": ["no-such-program"]})
    assert none["exit_code"] == 127
    for bad in ({"argv": []}, {"argv": ["x"], "more": 1}, {"argv": ["a\0b"]}, ["x"]):
        assert (await rig.page("POST", "/exec", json=bad))["code"] == "bad-request"


async def read_stream(rig: Rig, last: str, enough: Any) -> list[Any]:
    """The transcript's events from the stream, until there are enough of them."""
    transport = httpx.AsyncHTTPTransport(uds=str(rig.paths.page(rig.agent)))
    headers = {"last-event-id": last} if last else {}
    seen: list[Any] = []
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://page", timeout=30, trust_env=False) as client,
        client.stream("GET", "/events/stream", headers=headers) as response,
    ):
        kind = ""
        async for line in response.aiter_lines():
            kind = line.removeprefix("event: ") if line.startswith("event: ") else kind
            if line.startswith("data: ") and kind == "transcript":
                seen.append(json.loads(line.removeprefix("data: ")))
                if enough(seen):
                    break
    return seen
