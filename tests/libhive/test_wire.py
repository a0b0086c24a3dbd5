from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest

from libhive import wire
from libhive.messages.base import Ping, Pong
from libhive.messages.broker import Send
from libhive.names import new_id
from libhive.problems import BadFrame, BadRequest, NotFound, UnsupportedVersion


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BOMBS = {
    "empty": b"",
    "not msgpack": b"\xc1",
    "half": msgpack.packb({"a": "b"})[:-1],
    "two": msgpack.packb({}) + msgpack.packb({}),
    "a list": msgpack.packb([1]),
    "a number": msgpack.packb(7),
    "1023 arrays deep": msgpack.packb({"a": nested(500)}),
    "17 levels": msgpack.packb({"a": nested(17)}),
    "100,000 empty maps": b"\x81\xa1a\xdd\x00\x01\x86\xa0" + b"\x80" * 100_000,
    "maps in small arrays": msgpack.packb({"a": [[{}] * 4_000] * 10}),
    "2 GiB announced": b"\x81\xa1a\xc6\x7f\xff\xff\xff",
    "array of 4 billion": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "extension": msgpack.packb({"a": msgpack.ExtType(4, b"x")}),
    "timestamp": b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",
    "number as key": b"\x81\x01\x02",
    "bytes as key": b"\x81\xc4\x01a\x02",
    "the same key twice": b"\x82\xa1a\x01\xa1a\x02",
    "nan": msgpack.packb({"a": math.nan}),
    "infinity": msgpack.packb({"a": math.inf}),
    "bad utf-8": b"\x81\xa1a\xa2\xff\xfe",
    "too long": msgpack.packb({"a": "x" * wire.FRAME_BYTES_MAX}),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_bombs_are_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        wire.unpack(data)
    assert wire.Reader([Ping, Send]).read(data) is None


def test_a_request_survives_the_wire() -> None:
    id = new_id()
    envelope = wire.unpack_request(wire.pack_request(Send(to=["bob"], body="hi"), id, "operator"))
    assert (envelope.id, envelope.kind, envelope.actor) == (id, "broker.send", "operator")
    assert wire.understand(envelope, Send) == Send(to=["bob"], body="hi")


BODIES: dict[str, dict[str, Any]] = {
    "unknown field": {"to": ["bob"], "body": "hi", "from": "operator"},
    "wrong type": {"to": ["bob"], "body": 7},
    "missing": {"to": ["bob"]},
    "empty body": {"to": ["bob"], "body": ""},
    "no recipient": {"to": [], "body": "hi"},
    "bad name": {"to": ["../bob"], "body": "hi"},
    "too long": {"to": ["bob"], "body": "x" * 60_001},
    "a bytes body": {"to": ["bob"], "body": b"hi"},
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_bodies_that_are_not_the_message_are_refused(body: dict[str, Any]) -> None:
    frame = msgpack.packb({"v": 1, "id": new_id(), "kind": "broker.send", "body": body})
    with pytest.raises(BadRequest):
        wire.understand(wire.unpack_request(frame), Send)


def test_another_protocol_is_told_apart_from_a_bad_frame() -> None:
    with pytest.raises(UnsupportedVersion):
        wire.unpack_request(msgpack.packb({"v": 2, "id": new_id(), "kind": "ping", "body": {}}))


def test_an_unknown_field_of_a_frame_is_refused_in_a_request_and_tolerated_in_a_reply() -> None:
    with pytest.raises(BadFrame):
        wire.unpack_request(
            msgpack.packb({"v": 1, "id": new_id(), "kind": "ping", "body": {}, "from": "operator"})
        )
    reply = msgpack.packb(
        {
            "v": 1,
            "re": "x",
            "new": 1,
            "body": {"service": "b", "version": "1", "pid": 1, "up_since_ms": 1, "more": 2},
        }
    )
    assert wire.answer_to(wire.unpack_answer(reply), Ping.REPLY).pid == 1


def test_a_problem_travels_with_its_code() -> None:
    with pytest.raises(NotFound, match="no such thing") as caught:
        wire.answer_to(
            wire.unpack_answer(wire.pack_problem("x", NotFound("no such thing", "look elsewhere"))), Pong
        )
    assert caught.value.hint == "look elsewhere"


def test_a_refusal_finds_the_one_who_waits() -> None:
    id = new_id()
    with pytest.raises(BadFrame) as caught:
        wire.unpack_request(msgpack.packb({"v": 1, "id": id, "kind": "ping", "body": 7}))
    assert caught.value.details["re"] == id
