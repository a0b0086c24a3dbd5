from __future__ import annotations

import json
from typing import Any

from services.gateway.rehearsal import api


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_text_streams(hive: Any, talk: Any) -> None:
    await hive.start()
    answer = await hive.ask(talk("iris").mail("what?").body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["request-id"].startswith("req_")
    events = events_of(answer.text)
    names = [name for name, _ in events]
    assert names == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * (len(names) - 5),
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert all(name == data["type"] for name, data in events)
    start = events[0][1]["message"]
    assert (start["role"], start["model"], start["content"], start["stop_reason"]) == (
        "assistant",
        "claude-haiku-5-5",
        [],
        None,
    )
    text = "".join(data["delta"]["text"] for name, data in events if name == "content_block_delta")
    assert "I am iris" in text
    assert events[-2][1]["delta"]["stop_reason"] == "end_turn"
    assert events[-2][1]["usage"]["output_tokens"] > 1


async def test_a_tool_call_streams(hive: Any, talk: Any) -> None:
    await hive.start()
    events = events_of((await hive.ask(talk("iris").mail("run: echo hi").body)).text)
    block = events[1][1]["content_block"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "Bash", {})
    spoken = "".join(data["delta"]["partial_json"] for name, data in events if name == "content_block_delta")
    assert json.loads(spoken)["command"] == "echo hi"
    assert events[-2][1]["delta"]["stop_reason"] == "tool_use"


async def test_an_answer_in_one_piece(hive: Any, talk: Any) -> None:
    await hive.start()
    answer = await hive.ask({**talk("iris").mail("run: echo hi").body, "stream": False})
    message = answer.json()
    assert (message["type"], message["stop_reason"]) == ("message", "tool_use")
    assert message["content"][0]["input"]["command"] == "echo hi"
    assert message["usage"]["input_tokens"] > 0


async def test_tokens_are_counted(hive: Any, talk: Any) -> None:
    await hive.start()
    client = await hive.client()
    answer = await client.post("/v1/messages/count_tokens", json=talk("iris").mail("hello").body)
    assert answer.json()["input_tokens"] > 100


async def test_the_door_says_who_is_asked(hive: Any, talk: Any) -> None:
    """Nothing in a body can make one agent speak as another."""
    await hive.start()
    body = {**talk("hm1nd").mail("what?").body, "stream": False, "metadata": {"user_id": "hm1nd"}}
    assert "I am iris" in (await hive.ask(body, "iris")).json()["content"][0]["text"]
    assert "I am hm1nd" in (await hive.ask(body, "hm1nd")).json()["content"][0]["text"]


async def test_what_is_rehearsed_is_counted_apart(hive: Any, talk: Any, upstream: Any, canary: str) -> None:
    await hive.start(HIVE_UPSTREAM_URL=upstream.url)
    await hive.ask(talk("iris").mail("hello").body)
    rehearsed = (await hive.gateway.status()).usage
    assert [(usage.agent, usage.requests) for usage in rehearsed] == [("iris", 1)]
    await hive.gateway.login("api_key", canary)
    assert (await hive.gateway.status()).usage == []


def test_a_summary_for_compaction(talk: Any) -> None:
    told = talk("iris").mail("hello")
    told.messages.append(
        {
            "role": "user",
            "content": "Your task is to create a detailed summary of the conversation so far, ...",
        }
    )
    assert told.step().text == api.SUMMARY
