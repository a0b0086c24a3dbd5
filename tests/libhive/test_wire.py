from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from msgspec import inspect

from libhive import wire
from libhive.messages.approvals import Spawn
from libhive.messages.base import Ping, Pong, Request
from libhive.messages.broker import Send
from libhive.messages.registry import REQUESTS
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
    "timestamps": b"\x81\xa1a\x92\xd7\xff" + bytes(8) + b"\xc7\x0c\xff" + bytes(12),
    "250,000 empty lists": b"\x81\xa1a\xdc\x00\x0d" + (b"\xdc\x4a\x38" + b"\x90" * 19_000) * 13,
    "a lone surrogate": b"\x81\xa1a\xa3\xed\xa0\x80",
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


# ---- the quick way and the careful one


def test_what_is_only_packed_otherwise_takes_the_careful_way_to_the_same() -> None:
    reader, id = wire.Reader([Send]), new_id()
    plain = {"to": ["bob"], "body": "hi", "in_reply_to": ""}
    assert reader.read(msgpack.packb({"v": 1, "id": id, "kind": "broker.send", "body": plain})) == (
        id,
        Send(to=["bob"], body="hi"),
    )
    for body in ({"body": "hi", "to": ["bob"], "in_reply_to": ""}, {"to": ["bob"], "body": "hi"}):
        frame = msgpack.packb({"v": 1, "id": id, "kind": "broker.send", "body": body})
        assert reader.read(frame) is None
        assert wire.understand(wire.unpack_request(frame), Send) == Send(to=["bob"], body="hi")


def test_a_key_that_stands_twice_does_not_take_the_quick_way() -> None:
    frame = wire.pack_request(Send(to=["bob"], body="hi"), "a" * 8)
    fields = b"\xa4body\xa2hi"
    twice = frame.replace(fields, fields * 2).replace(b"\x83\xa2to", b"\x84\xa2to")
    assert wire.Reader([Send]).read(frame)
    assert wire.Reader([Send]).read(twice) is None
    with pytest.raises(BadFrame):
        wire.unpack_request(twice)


def test_a_list_without_an_end_of_its_own_ends_at_the_cap() -> None:
    for count in (wire.VALUES_MAX - 40, wire.VALUES_MAX):
        spawn = Spawn(agent="iris", prompt="x", packages=["aa"] * count)
        frame = wire.pack_request(spawn, new_id())
        assert (wire.Reader([Spawn]).read(frame) is None) == (count == wire.VALUES_MAX)
    with pytest.raises(BadFrame):
        wire.unpack_request(frame)


PLAIN_TYPES = (inspect.StrType, inspect.IntType, inspect.BoolType, inspect.NoneType, inspect.LiteralType)


def is_plain(type: inspect.Type, depth: int = 2) -> bool:
    """Whether it holds nothing for which the careful way looks beyond types: floats, anything, or without end."""
    if depth > wire.DEPTH_MAX:
        return False
    if isinstance(type, inspect.StructType):
        return all(is_plain(field.type, depth + 1) for field in type.fields)
    if isinstance(type, inspect.ListType):
        return is_plain(type.item_type, depth + 1)
    if isinstance(type, inspect.DictType):
        return isinstance(type.key_type, inspect.StrType) and is_plain(type.value_type, depth + 1)
    if isinstance(type, inspect.UnionType):
        return all(is_plain(one, depth) for one in type.types)
    return isinstance(type, PLAIN_TYPES)


@pytest.mark.parametrize("kind", REQUESTS.values(), ids=REQUESTS.keys())
def test_the_types_of_a_message_say_all_that_the_quick_way_needs(kind: type[Request[Any]]) -> None:
    assert is_plain(inspect.type_info(kind))


def test_the_dearest_frames_are_given_up_early() -> None:
    """However many containers a frame has, we look at no more of them than there may be."""
    looked = 0
    plain_map = wire._plain_map

    def counting(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        nonlocal looked
        looked += 1
        return plain_map(pairs)

    frame = b"\x81\xa1a\xdc\x00\x0d" + (b"\xdc\x4a\x38" + b"\x80" * 19_000) * 13
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_plain_map", counting)
        with pytest.raises(BadFrame, match="values"):
            wire.unpack(frame)
    assert 0 < looked <= wire.VALUES_MAX
