"""Bytes <-> messages. The only module that knows msgpack, and where outside bytes become plain values under caps.

Every frame is one map: `v` (protocol version), `id`, `kind`, `body`, and on the bus `actor`; a reply has `re` and
either `body` or `problem`. docs/protocol.md is the contract.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

import msgpack
import msgspec

from libhive.messages.base import Event, Reply, Request
from libhive.names import Id
from libhive.problems import BadFrame, BadRequest, Problem, UnsupportedVersion, problem_from

PROTOCOL_VERSION: Final = 1
FRAME_BYTES_MAX: Final = 256 * 1024
DEPTH_MAX: Final = 16
VALUES_MAX: Final = 20_000
BUS_FRAME_BYTES_MAX: Final = 8 * 1024 * 1024
"""Replies and events on the bus may hold whole lists; requests keep to FRAME_BYTES_MAX and VALUES_MAX."""
BUS_VALUES_MAX: Final = 2_000_000


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request as it came: whole, but its body not yet understood."""

    v: int
    id: Id
    kind: str
    body: dict[str, Any]
    actor: Literal["operator", "hive", ""] = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A reply as it came: `body`, which is not understood yet, or `problem`."""

    v: int
    re: str
    body: msgspec.Raw = msgspec.Raw()
    problem: dict[str, Any] | None = None


class News(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it came. `seq` counts the service's events since `epoch`, which changes with each of its starts."""

    v: int
    kind: str
    seq: int
    epoch: str
    body: dict[str, Any]


def _plain_decoder(kind: type[Request[Any]]) -> Callable[[bytes], Any]:
    """Of the frames of one kind, as they come through a door."""
    fields = [("v", Literal[1]), ("id", Id), ("kind", Literal[kind.KIND]), ("body", kind)]
    frame = msgspec.defstruct("Plain", fields, frozen=True, kw_only=True, forbid_unknown_fields=True)
    return msgspec.msgpack.Decoder(frame).decode


class Reader:
    """Requests of the kinds that one side serves, from frames.

    Almost every frame is, byte for byte, what our own encoder makes of the message that it holds. Such a one is decoded
    straight into that message: encoding it again and finding the same bytes shows that no key stands twice, and that
    it has the types and the depth of the message. Which message is guessed by the first bytes that look like a kind; a
    wrong guess does not fit. Any other frame is looked at value by value.
    """

    def __init__(self, kinds: Iterable[type[Request[Any]]]) -> None:
        self._decoders = {kind.KIND.encode(): _plain_decoder(kind) for kind in kinds}

    def read(self, frame: bytes) -> tuple[str, Request[Any]] | None:
        """The command's id and the message; None when the frame has to take the careful way."""
        if len(frame) > FRAME_BYTES_MAX:
            return None
        at = frame.find(_KIND, 0, KIND_BYTES_MAX) + len(_KIND)
        decode = self._decoders.get(frame[at + 1 : at + 1 + (frame[at] & 0x1F)]) if at < len(frame) else None
        if decode is None:
            return None
        try:
            plain = decode(frame)
            if len(frame) > VALUES_MAX:  # else it has not the room for too many
                _check(msgspec.msgpack.decode(frame), VALUES_MAX)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, BadFrame):
            return None
        return (plain.id, plain.body) if _encode(plain) == frame else None


def pack_request(request: Request[Any], id: str, actor: str = "") -> bytes:
    frame = {"v": PROTOCOL_VERSION, "id": id, "kind": request.KIND, "body": request}
    if actor:
        frame["actor"] = actor
    return _pack(frame, FRAME_BYTES_MAX)


def pack_reply(re: str, reply: Reply) -> bytes:
    return _pack({"v": PROTOCOL_VERSION, "re": re, "body": reply}, BUS_FRAME_BYTES_MAX)


def pack_problem(re: str, problem: Problem) -> bytes:
    said = {
        "code": problem.code,
        "message": problem.message,
        "hint": problem.hint,
        "details": problem.details,
    }
    return _pack({"v": PROTOCOL_VERSION, "re": re, "problem": said}, BUS_FRAME_BYTES_MAX)


def pack_event(event: Event, seq: int, epoch: str) -> bytes:
    frame = {
        "v": PROTOCOL_VERSION,
        "kind": event.KIND,
        "seq": seq,
        "epoch": epoch,
        "body": event,
    }
    return _pack(frame, BUS_FRAME_BYTES_MAX)


def unpack_request(data: bytes) -> Envelope:
    """Raises BadFrame for bytes that are not a frame, UnsupportedVersion for another protocol's; `details["re"]` is the
    frame's id where it has one, so that its refusal finds the one who waits."""
    value = unpack(data)
    details = {"re": _id_in(value)}
    if isinstance(value.get("v"), int) and value["v"] != PROTOCOL_VERSION:
        said = f"this side speaks protocol {PROTOCOL_VERSION}, not {value['v']}"
        raise UnsupportedVersion(said, "update the older side", details)
    try:
        return msgspec.convert(value, Envelope)
    except msgspec.ValidationError as error:
        raise BadFrame(f"not a request: {error}", details=details) from None


def _id_in(value: dict[str, Any]) -> str:
    try:
        return msgspec.convert(value.get("id"), Id)
    except msgspec.ValidationError:
        return ""


def understand(envelope: Envelope, kind: type[Request[Any]]) -> Request[Any]:
    """The body as the message that its kind names; raises BadRequest on an unknown field or a wrong type."""
    try:
        request: Request[Any] = msgspec.convert(envelope.body, kind)
        return request
    except msgspec.ValidationError as error:
        raise BadRequest(f"{envelope.kind}: {error}", "the messages are in docs/protocol.md") from None


def unpack_answer(data: bytes) -> Answer:
    """From a service of the hive, which has made it with our own encoder: only its shape is looked at."""
    if len(data) > BUS_FRAME_BYTES_MAX:
        raise BadFrame(f"an answer has at most {BUS_FRAME_BYTES_MAX} bytes, this one {len(data)}")
    try:
        return _decode_answer(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadFrame(f"not a reply: {error}") from None


def answer_to(answer: Answer, kind: type[Any]) -> Any:
    """What a reply says, as `kind`; raises the Problem that it carries."""
    if answer.problem is not None:
        said = answer.problem
        raise problem_from(
            said.get("code", ""), said.get("message", ""), said.get("hint", ""), said.get("details")
        )
    return msgspec.msgpack.decode(answer.body or _NO_FIELDS, type=kind)


def unpack_news(data: bytes) -> News:
    try:
        return msgspec.convert(unpack(data, BUS_FRAME_BYTES_MAX, values_max=BUS_VALUES_MAX), News)
    except msgspec.ValidationError as error:
        raise BadFrame(f"not an event: {error}") from None


def event_from(news: News, kind: type[Event]) -> Event:
    return msgspec.convert(news.body, kind)


def unpack(data: bytes, bytes_max: int = FRAME_BYTES_MAX, values_max: int = VALUES_MAX) -> dict[str, Any]:
    """One map of plain values: within the caps, string keys and each once, no extension types, numbers finite."""
    if len(data) > bytes_max:
        raise BadFrame(f"a frame has at most {bytes_max} bytes, this one {len(data)}")
    containers = values = 0

    def counted(ended: list[Any]) -> list[Any]:
        """Called for each list and map as it ends, so a frame of nothing but empty ones is stopped before it costs much."""
        nonlocal containers, values
        containers += 1
        values += len(ended)
        if containers > values_max or values > values_max:
            raise BadFrame(f"at most {values_max} values")
        return ended

    def plain_map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        return _plain_map(counted(pairs))

    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            ext_hook=_no_extension,
            object_pairs_hook=plain_map,
            list_hook=counted,
            max_array_len=values_max,
            max_map_len=values_max,
        )
    except Problem:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise BadFrame(f"not msgpack: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise BadFrame("a frame is one map")
    _check(value, values_max)
    return value


_NO_FIELDS = msgspec.msgpack.encode({})
_decode_answer = msgspec.msgpack.Decoder(Answer).decode
_KIND = msgspec.msgpack.encode("kind")
KIND_BYTES_MAX: Final = 128
"""Within so many of a frame's bytes its kind begins, if it is one of our own encoder's."""

_encode = msgspec.msgpack.Encoder().encode


def _pack(frame: dict[str, Any], bytes_max: int) -> bytes:
    data = _encode(frame)
    if len(data) > bytes_max:
        raise BadRequest(
            f"this message has {len(data)} bytes; at most {bytes_max} are carried", "make it shorter"
        )
    return data


def _no_extension(code: int, _: bytes) -> Any:
    raise BadFrame(f"extension type {code} is not allowed")


def _plain_map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs) or not _STRINGS.issuperset(map(type, found)):
        raise BadFrame("keys are strings, and each stands once in its map")
    return found


_STRINGS = frozenset({str})


def _check(root: Any, values_max: int) -> None:
    """Walks without recursion: a frame of 256 KiB can nest deeper than Python's own stack."""
    level, depth, seen = [root], 0, 0
    while level:
        depth += 1
        seen += len(level)
        if depth > DEPTH_MAX or seen > values_max:
            raise BadFrame(f"at most {DEPTH_MAX} levels and {values_max} values")
        below: list[Any] = []
        for value in level:
            if type(value) is dict:
                below.extend(value.values())
            elif type(value) is list:
                below.extend(value)
            elif type(value) is float and not math.isfinite(value):
                raise BadFrame("numbers are finite")
            elif type(value) is msgpack.Timestamp:
                _no_extension(-1, b"")  # the one that msgpack knows, and does not ask us about
        level = below
