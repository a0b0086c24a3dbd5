"""A service that a test plays, on the real bus: it answers what it is told to, and notes what it hears."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from libhive import wire
from libhive.clock import now_ms
from libhive.link import Server
from libhive.messages.base import Done, Event, Ping, Pong, Reply, Request
from libhive.messages.registry import REQUESTS
from libhive.paths import Paths, make_private
from libhive.problems import BadRequest, Problem

SILENCE_SECONDS = 60.0

Answer = Reply | Problem | Callable[[Any], Reply]


class Heard(NamedTuple):
    actor: str
    id: str
    request: Request[Any]


class Peer:
    """`answers[Kind]` is a reply, a Problem, or a function from the request to a reply, which may raise one. Without
    an answer it says `Done`. A subclass may decide otherwise in `answer`."""

    def __init__(
        self, paths: Paths, name: str, kinds: Iterable[type[Request[Any]]] = REQUESTS.values()
    ) -> None:
        self.paths, self.name = paths, name
        self.kinds = {kind.KIND: kind for kind in kinds}
        self.answers: dict[type[Request[Any]], Answer] = {}
        self.heard: list[Heard] = []
        """Everything but pings."""
        self.silent = False
        self._since_ms = now_ms()
        self._server: Server | None = None

    def start(self) -> Peer:
        make_private(self.paths.run / "bus", 0o750)
        self._server = Server(self.paths.bus(self.name), self.paths.events(self.name), self._serve)
        return self

    def stop(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
            self.paths.bus(self.name).unlink(missing_ok=True)
            self.paths.events(self.name).unlink(missing_ok=True)

    def publish(self, event: Event) -> None:
        if self._server and not self.silent:
            self._server.publish(event)

    def last(self, kind: type[Request[Any]]) -> Request[Any] | None:
        """The newest of this kind that was heard."""
        return next(
            (heard.request for heard in reversed(self.heard) if isinstance(heard.request, kind)), None
        )

    def answer(self, heard: Heard) -> Reply:
        answer = self.answers.get(type(heard.request), Done())
        if isinstance(answer, Problem):
            raise answer
        return answer if isinstance(answer, Reply) else answer(heard.request)

    def _serve(self, frame: bytes, reply: Callable[[bytes], None]) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_task(self._answered(frame, reply))

    async def _answered(self, frame: bytes, reply: Callable[[bytes], None]) -> None:
        reply(await self._outcome(frame))

    async def _outcome(self, frame: bytes) -> bytes:
        envelope = wire.unpack_request(frame)
        if self.silent:
            await asyncio.sleep(SILENCE_SECONDS)
        try:
            return wire.pack_reply(envelope.id, self._reply(envelope))
        except Problem as problem:
            return wire.pack_problem(envelope.id, problem)

    def _reply(self, envelope: wire.Envelope) -> Reply:
        if envelope.kind == Ping.KIND:
            return Pong(service=self.name, version="0", pid=os.getpid(), up_since_ms=self._since_ms)
        if envelope.kind not in self.kinds:
            raise BadRequest(f"{self.name} has no {envelope.kind}")
        heard = Heard(envelope.actor, envelope.id, wire.understand(envelope, self.kinds[envelope.kind]))
        self.heard.append(heard)
        return self.answer(heard)
