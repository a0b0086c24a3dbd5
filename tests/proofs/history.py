"""What was called and what was answered, in the one order in which the driver saw it happen."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from libhive.messages.base import Request
from libhive.messages.broker import Ask, Send
from libhive.messages.registry import REQUESTS

_DECODERS = {kind: msgspec.msgpack.Decoder(request.REPLY) for kind, request in REQUESTS.items()}


class Call(msgspec.Struct):
    """`begun` and `ended` are ticks: whatever ended at a lower tick than another call began was over before that."""

    actor: str
    verb: str
    id: str
    request: Any
    begun: int
    begun_ms: int
    ended: int = 0
    """0: never answered; it may have taken effect or not."""
    ended_ms: int = 0
    reply: Any = None
    problem: str = ""
    tries: int = 1

    @property
    def ok(self) -> bool:
        return self.reply is not None

    @property
    def perhaps(self) -> bool:
        """It may have taken effect: what was refused the second time may have been done the first time."""
        return not self.problem or self.tries > 1

    def __str__(self) -> str:
        outcome = self.problem or (f"{self.reply}" if self.ok else "no answer")
        span = f"{self.begun}-{self.ended or '?'}"
        return f"[{span}] {self.actor} {self.id} {self.request!s:.300} x{self.tries} -> {outcome:.600}"


class History:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.deaths: list[int] = []
        """The ticks at which a broker was found dead."""
        self.answered = 0
        self._tick = 0

    def tick(self) -> int:
        self._tick += 1
        return self._tick

    def begin(self, actor: str, id: str, request: Request[Any]) -> Call:
        verb = request.KIND.partition(".")[2]
        call = Call(actor, verb, id, request, self.tick(), _now_ms())
        self.calls.append(call)
        return call

    def forget(self, call: Call) -> None:
        """It was never made. It is among the newest: to compare it with all that were takes a while."""
        at = next(at for at in reversed(range(len(self.calls))) if self.calls[at] is call)
        del self.calls[at]

    def end(self, call: Call, body: msgspec.Raw, problem: dict[str, Any] | None) -> None:
        call.ended, call.ended_ms = self.tick(), _now_ms()
        self.answered += 1
        if problem is not None:
            call.problem = problem["code"]
        else:
            call.reply = _DECODERS[call.request.KIND].decode(body)

    def died(self) -> None:
        self.deaths.append(self.tick())

    def about(self, text: str) -> list[str]:
        """Every call in which it stands, for whoever looks at a finding."""
        return [str(call) for call in self.calls if text in f"{call}"]


def word_of(request: Any) -> str:
    """The one by which a search finds this message and no other; empty when it makes none."""
    body = request.body if isinstance(request, Send) else request.question if isinstance(request, Ask) else ""
    return body.split()[1] if body else ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
