from __future__ import annotations

import json
from typing import Any

import pytest

from services.gateway.metering import LINE_BYTES_MAX, Meter


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 20,
    "cache_read_input_tokens": 30,
    "output_tokens": 1,
}
STREAM = (
    event("message_start", message={"model": "claude-haiku-5-5", "usage": USAGE})
    + event(
        "content_block_delta",
        delta={"type": "text_delta", "text": '{"type":"message_delta","usage":{"output_tokens":9}} \\n'},
    )
    + event("ping")
    + event("message_delta", usage={"output_tokens": 44, "input_tokens": 12})
    + event("message_stop")
)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_a_stream_cut_anywhere(size: int) -> None:
    meter = Meter()
    meter.begin("text/event-stream; charset=utf-8")
    for start in range(0, len(STREAM), size):
        meter.feed(STREAM[start : start + size])
    meter.end()
    tokens = meter.tokens
    assert (tokens.input, tokens.cache_write, tokens.cache_read, tokens.output) == (12, 20, 30, 44)
    assert (tokens.given, meter.model, meter.error) == (62, "claude-haiku-5-5", "")


def test_a_stream_with_crlf() -> None:
    meter = Meter()
    meter.begin("text/event-stream")
    meter.feed(STREAM.replace(b"\n", b"\r\n"))
    assert meter.tokens.output == 44


def test_an_answer_in_one_piece() -> None:
    meter = Meter()
    meter.begin("application/json")
    meter.feed(json.dumps({"type": "message", "model": "m", "usage": USAGE}).encode())
    meter.end()
    assert meter.tokens.given == 60


def test_an_error_in_mid_stream() -> None:
    meter = Meter()
    meter.begin("text/event-stream")
    meter.feed(event("error", error={"type": "overloaded_error", "message": "Overloaded"}))
    assert meter.error == "overloaded_error: Overloaded"


@pytest.mark.parametrize(
    "data",
    [b"[]", b"{", b"3", b'{"type":"message","usage":[]}', b'{"type":"message","usage":{"input_tokens":"x"}}', b'{"type":"error"}',
     b'{"type":"message","usage":{"input_tokens":-1,"output_tokens":1e99}}', b"[" * 100_000, b"\xff\xfe"],
)  # fmt: skip
def test_odd_answers_count_nothing(data: bytes) -> None:
    for kind in ("application/json", "text/event-stream"):
        meter = Meter()
        meter.begin(kind)
        meter.feed(b'data: "usage"' + data + b"\n")
        meter.feed(data)
        meter.end()
        assert meter.tokens.given == 0


def test_an_endless_line_is_not_kept() -> None:
    meter = Meter()
    meter.begin("text/event-stream")
    for _ in range(40):
        meter.feed(b"x" * (LINE_BYTES_MAX // 8))
        assert len(meter._kept) <= LINE_BYTES_MAX
    meter.feed(b"\n" + STREAM)
    assert meter.tokens.output == 44
