"""An agent's door, spoken as leanly as Python can: docs/protocol.md, all fields of a message in its own order."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from libhive.messages import broker as say
from libhive.messages.base import Ping, Request
from libhive.names import new_id
from tests.bench.stream import Delivered, Progress, Stream, age

_LENGTH = struct.Struct(">I")


WAIT_MS = 15_000
"""How long a harness waits in one recv."""


class Frame(msgspec.Struct):
    v: int
    id: str
    kind: str
    body: Request[Any]


class Item(msgspec.Struct):
    """Of a mail, what a receiver must look at; msgspec skips the rest."""

    id: str
    body: str


class Body(msgspec.Struct):
    mail: list[Item] | None = None
    lease: str = ""


class Answer(msgspec.Struct):
    re: str
    body: Body | None = None
    problem: dict[str, Any] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Answer).decode


def frame(request: Request[Any], id: str) -> bytes:
    data = _encode(Frame(1, id, request.KIND, request))
    return _LENGTH.pack(len(data)) + data


class Door(Stream):
    lease = ""

    def message(self, to: str, body: str) -> bytes:
        return frame(say.Send(to=[to], body=body), new_id())

    def confirmed(self) -> int:
        return len(self.answers())

    def greet(self) -> None:
        self.pending: dict[str, int] = {}
        self.write(say.Hello(generation=1, incarnation="bench", version="bench"))

    def greeted(self) -> None:
        body = self.answer().body
        assert body is not None
        self.lease = body.lease

    def ask(self, wait_ms: int = 0) -> None:
        self.write(say.Recv(lease=self.lease, wait_ms=wait_ms or WAIT_MS, limit=64))

    def take(self) -> Progress:
        acked, delivered = 0, []
        for answer in self.answers():
            body = answer.body
            if body is None or body.mail is None:
                acked += self.pending.pop(answer.re)
                continue
            delivered += [Delivered(item.id, age(item.body)) for item in body.mail]
            self._go_on([item.id for item in body.mail])
        return Progress(acked, delivered)

    def _go_on(self, ids: list[str]) -> None:
        asking = frame(say.Recv(lease=self.lease, wait_ms=WAIT_MS, limit=64), new_id())
        if ids:
            ack = new_id()
            self.pending[ack] = len(ids)
            asking = frame(say.Ack(lease=self.lease, ids=ids), ack) + asking
        self.socket.sendall(asking)

    # ---- one call at a time

    def ping(self) -> None:
        self.call(Ping())

    def call(self, request: Request[Any]) -> Answer:
        self.write(request)
        return self.answer()

    def write(self, request: Request[Any]) -> None:
        self.socket.sendall(frame(request, new_id()))

    def answer(self) -> Answer:
        while not (found := self.answers()):
            continue
        return found[0]

    def answers(self) -> list[Answer]:
        """What one read has brought. Raises RuntimeError for a problem: in a measurement there is none."""
        data = self.read()
        at, end, found = 0, len(data), []
        while end - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(data, at)
            if end - at < _LENGTH.size + size:
                break
            answer = _decode(data[at + _LENGTH.size : at + _LENGTH.size + size])
            at += _LENGTH.size + size
            if answer.problem is not None:
                raise RuntimeError(f"the broker refused: {answer.problem}")
            found.append(answer)
        self.rest = data[at:]
        return found
