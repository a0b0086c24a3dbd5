"""The bus: ZeroMQ over IPC between trusted peers. The only module that knows zmq.

Plain sockets whose descriptor the loop watches, not `zmq.asyncio`, which is three to four times slower. The
descriptor is edge-triggered: after every send and receive the socket is asked again until it has nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import zmq

from libhive import wire
from libhive.messages.base import Event, Reply, Request, Up
from libhive.messages.registry import EVENTS
from libhive.names import HIVE, new_id
from libhive.paths import Paths, is_given
from libhive.problems import BadFrame, Unavailable
from libhive.promise import Waited

R = TypeVar("R", bound=Reply)

CALL_SECONDS = 2.0
EVENTS_QUEUED_MAX = 10_000
"""Per subscriber: a slow one loses the rest, sees the gap by its sequence numbers, and refetches."""
RECONNECT_MS, RECONNECT_MS_MAX = 50, 100
"""Between tries to reach a service that is not there. It is on this machine and mostly back within a second: longer pauses
would make everybody wait for it that much longer."""
_NOBLOCK = int(zmq.NOBLOCK)
_POLLIN = int(zmq.POLLIN)

Serve = Callable[[bytes, Callable[[bytes], None]], "Waited | None"]
"""Answers one frame by calling back with one frame, at once or later; never raises."""


class _Watched:
    """A socket that calls `on_frames` for each message, from the event loop."""

    def __init__(self, sock: zmq.Socket[bytes], on_frames: Callable[[list[bytes]], None]) -> None:
        self.sock, self._on_frames = sock, on_frames
        self._loop = asyncio.get_running_loop()
        self._fd = int(sock.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self.drain)
        self._loop.call_soon(self.drain)

    def drain(self) -> None:
        while not self.sock.closed and int(self.sock.getsockopt(zmq.EVENTS)) & _POLLIN:
            try:
                frames = self.sock.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return
            self._on_frames(frames)

    def send(self, frames: list[bytes]) -> bool:
        """False when the peer is gone or its queue is full; what it waits for then runs into its deadline."""
        try:
            self.sock.send_multipart(frames, _NOBLOCK)
        except (zmq.Again, zmq.ZMQError):
            return False
        finally:
            self._loop.call_soon(self.drain)
        return True

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        self.sock.close(linger=200)


class Server:
    """A service's end: a ROUTER for requests, an XPUB for events. Hold the service's lock first: a second process that
    binds the same path takes it over in silence."""

    def __init__(self, requests: Path, events: Path, serve: Serve) -> None:
        self._serve = serve
        self._in_flight: set[Waited] = set()
        self._context = zmq.Context()
        self._router = _Watched(_bound(self._context, zmq.ROUTER, requests), self._on_request)
        self._publisher = _Watched(_bound(self._context, zmq.XPUB, events), self._on_subscription)
        self._publisher.sock.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._subscribers = False
        self._epoch, self._seq = new_id(), 0

    def publish(self, event: Event) -> None:
        """Counts it, and tells whoever listens; while nobody does it is not even packed."""
        self._seq += 1
        if self._subscribers:
            self._publisher.send([wire.pack_event(event, self._seq, self._epoch)])

    def heard(self, events: int) -> bool:
        """Whether anybody listens. If not, `events` of them are counted as if they had been published."""
        if not self._subscribers:
            self._seq += events
        return self._subscribers

    def close(self) -> None:
        for future in self._in_flight:
            future.cancel()
        self._router.close()
        self._publisher.close()
        self._context.term()

    def _on_subscription(self, frames: list[bytes]) -> None:
        """XPUB says who subscribes, and when the last one has gone. Whoever comes hears at once which epoch this is: a
        subscriber of an earlier one then knows that it has to ask again, and need not wait for something to happen."""
        self._subscribers = frames[0][:1] == b"\x01"
        if self._subscribers:
            self.publish(Up())

    def _on_request(self, frames: list[bytes]) -> None:
        if len(frames) != 2:
            return
        peer, frame = frames
        if future := self._serve(frame, lambda reply: self._answer(peer, reply)):
            self._in_flight.add(future)
            future.add_done_callback(self._in_flight.discard)

    def _answer(self, peer: bytes, reply: bytes) -> None:
        self._router.send([peer, reply])


@dataclass(frozen=True, slots=True)
class Gap:
    """Events of this service were missed, or it has just been reached: what was known of it must be fetched again."""

    service: str


class Link:
    """A caller's end of the bus: one DEALER per service it calls, one SUB per service it listens to."""

    def __init__(self, paths: Paths, actor: str = HIVE) -> None:
        self._paths, self._actor = paths, actor
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._dealers: dict[str, _Watched] = {}
        self._waiting: dict[str, asyncio.Future[wire.Answer]] = {}

    async def call(
        self,
        service: str,
        request: Request[R],
        *,
        id: str | None = None,
        timeout_seconds: float = CALL_SECONDS,
    ) -> R:
        """Raises the Problem that the service answered, or Unavailable when it did not answer in time."""
        id = id or new_id()
        frame = wire.pack_request(request, id, self._actor)
        future = self._waiting[id] = asyncio.get_running_loop().create_future()
        try:
            self._dealer(service).send([frame])
            async with asyncio.timeout(timeout_seconds):
                answer = await future
        except TimeoutError:
            raise Unavailable(f"{service} did not answer within {timeout_seconds:g} s") from None
        finally:
            self._waiting.pop(id, None)
        reply: R = wire.answer_to(answer, request.REPLY)
        return reply

    async def events(self, service: str) -> AsyncIterator[Event | Gap]:
        """Everything the service publishes from now on. A Gap comes first, and whenever some were missed.

        PUB tells nobody that it restarted, so the sequence number does, with the next event of the new epoch.
        """
        queue: deque[bytes] = deque()
        arrived = asyncio.Event()

        def on_frames(frames: list[bytes]) -> None:
            if len(queue) < EVENTS_QUEUED_MAX:
                queue.append(frames[0])
            arrived.set()

        watched = _Watched(self._connected(zmq.SUB, self._paths.events(service)), on_frames)
        try:
            yield Gap(service)
            epoch, seq = "", 0
            while True:
                await arrived.wait()
                arrived.clear()
                while queue:
                    news = wire.unpack_news(queue.popleft())
                    # The first one too: it may not be the first that was sent.
                    if (news.epoch, news.seq) != (epoch, seq + 1):
                        yield Gap(service)
                    epoch, seq = news.epoch, news.seq
                    if (kind := EVENTS.get(news.kind)) is not None:
                        yield wire.event_from(news, kind)
        finally:
            watched.close()

    async def close(self) -> None:
        for dealer in self._dealers.values():
            dealer.close()
        self._dealers.clear()
        if self._context is not None:
            self._context.destroy(linger=200)
            self._context = None

    def _dealer(self, service: str) -> _Watched:
        if service not in self._dealers:
            self._dealers[service] = _Watched(
                self._connected(zmq.DEALER, self._paths.bus(service)), self._on_reply
            )
        return self._dealers[service]

    def _connected(self, kind: int, path: Path) -> zmq.Socket[bytes]:
        if self._context is None:
            self._context = zmq.Context()
        sock = self._context.socket(kind)
        sock.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
        sock.setsockopt(zmq.MAXMSGSIZE, wire.BUS_FRAME_BYTES_MAX)
        if kind == zmq.SUB:
            sock.setsockopt(zmq.SUBSCRIBE, b"")
        sock.connect(f"ipc://{path}")
        return sock

    def _on_reply(self, frames: list[bytes]) -> None:
        with contextlib.suppress(BadFrame):
            answer = wire.unpack_answer(frames[-1])
            future = self._waiting.get(answer.re)
            if future and not future.done():
                future.set_result(answer)


def _bound(context: zmq.Context[zmq.Socket[bytes]], kind: int, path: Path) -> zmq.Socket[bytes]:
    sock = context.socket(kind)
    if kind == zmq.ROUTER:
        sock.setsockopt(zmq.ROUTER_MANDATORY, 1)
        sock.setsockopt(zmq.MAXMSGSIZE, wire.FRAME_BYTES_MAX)
    sock.bind(f"ipc://{path}")
    path.chmod(0o666 if is_given(path.parent) else 0o660)
    return sock
