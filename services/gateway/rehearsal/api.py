"""The rehearsal model as a Messages API: the step in the API's words, streaming or whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from services.gateway.exchange import Exchange, Refused
from services.gateway.rehearsal import player, reading
from services.gateway.rehearsal.player import Step
from services.gateway.rules import Route
from services.gateway.settings import Settings

DELTA_CHARACTERS = 48
BYTES_PER_TOKEN = 4
_SUMMARY_WANTED = (
    "create a detailed summary of the conversation",
    "create a detailed summary of our conversation",
)
SUMMARY = (
    "<summary>A rehearsal: what was open is in the mail, and what was written down is in /state.</summary>"
)


async def answer(exchange: Exchange, route: Route, settings: Settings) -> None:
    """Raises Refused for a body that the Messages API would not take either."""
    raw = await _whole(exchange, settings)
    body = _understood(raw)
    given = len(raw) // BYTES_PER_TOKEN + 1
    if route == "count_tokens":
        await exchange.answer(200, msgspec.json.encode({"input_tokens": given}))
        return
    step = step_for(exchange.agent, body)
    message = message_of(step, body, given)
    if body.get("stream") is True:
        await _stream(exchange, message)
    else:
        await exchange.answer(200, msgspec.json.encode(message), [("request-id", _request_id(message))])


def step_for(agent: str, body: dict[str, Any]) -> Step:
    if any(wish in reading.last_text(body) for wish in _SUMMARY_WANTED):
        return Step(SUMMARY)
    return player.next_step(agent, reading.read(body))


def message_of(step: Step, body: dict[str, Any], given: int) -> dict[str, Any]:
    block = player.as_block(step)
    spoken = json.dumps(block)
    digest = hashlib.sha256((spoken + str(given)).encode()).hexdigest()
    return {
        "id": f"msg_rehearsal_{digest[:20]}",
        "type": "message",
        "role": "assistant",
        "model": str(body.get("model") or "rehearsal")[:100],
        "content": [block],
        "stop_reason": "tool_use" if step.call else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": given,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": len(spoken) // BYTES_PER_TOKEN + 1,
        },
    }


def events(message: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The message as the events of its stream."""
    started = {
        **message,
        "content": [],
        "stop_reason": None,
        "usage": {**message["usage"], "output_tokens": 1},
    }
    yield "message_start", {"message": started}
    for index, block in enumerate(message["content"]):
        yield "content_block_start", {"index": index, "content_block": _empty(block)}
        for delta in _deltas(block):
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": ended, "usage": {"output_tokens": message["usage"]["output_tokens"]}}
    yield "message_stop", {}


async def _stream(exchange: Exchange, message: dict[str, Any]) -> None:
    headers = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
    await exchange.begin(200, [*headers, ("request-id", _request_id(message))])
    for name, data in events(message):
        await exchange.write(f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode())
    await exchange.end()


async def _whole(exchange: Exchange, settings: Settings) -> bytes:
    body = exchange.body(bytes_max=settings.rehearsal_bytes_max, seconds_max=settings.upload_seconds_max)
    return b"".join([part async for part in body])


def _understood(raw: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(400, "the request's body is not JSON") from None
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        raise Refused(400, "messages: at least one message is required")
    return body


def _empty(block: dict[str, Any]) -> dict[str, Any]:
    return {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, str]]:
    if block["type"] == "text":
        for part in _parts(block["text"]):
            yield {"type": "text_delta", "text": part}
    else:
        for part in _parts(json.dumps(block["input"])):
            yield {"type": "input_json_delta", "partial_json": part}


def _parts(text: str) -> Iterator[str]:
    for start in range(0, len(text), DELTA_CHARACTERS):
        yield text[start : start + DELTA_CHARACTERS]


def _request_id(message: dict[str, Any]) -> str:
    return "req_" + str(message["id"]).removeprefix("msg_")
