"""What all messages have in common.

Messages are frozen `msgspec.Struct`s rather than dataclasses: they are the same to a reader, and msgspec can refuse
an unknown field only on a Struct. Requests refuse unknown fields; replies and events tolerate them, so that a newer
service can talk to an older client. Instants are milliseconds since the epoch, UTC (`*_ms`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number from outside: SQLite ends at 2**63, and JavaScript counts exactly to 2**53."""

R = TypeVar("R", bound="Reply", covariant=True)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is answered with."""


class Request(msgspec.Struct, Generic[R], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something asked of one service; `KIND` is `<service>.<verb>` and `REPLY` the type of its answer."""

    KIND: ClassVar[str]
    REPLY: ClassVar[type[Any]]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """News that a service publishes to whoever listens; `KIND` is `<service>.<what-happened>`."""

    KIND: ClassVar[str]


class Up(Event, frozen=True, kw_only=True):
    """Said whenever somebody subscribes: the epoch is news to whoever knew the service before it was started."""

    KIND = "up"


class Done(Reply, frozen=True, kw_only=True):
    """It is done and durable; there is nothing more to say."""


class Pong(Reply, frozen=True, kw_only=True):
    service: str
    version: str
    pid: int
    up_since_ms: int
    details: dict[str, str] = {}


class Ping(Request[Pong], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Is anybody there? Every service answers it, whatever else it is doing."""

    KIND = "ping"
    REPLY = Pong
