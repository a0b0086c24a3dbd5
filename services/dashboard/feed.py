"""The stream to the browsers: one ring of ready-made chunks; each browser is a position in it, and no queue
of its own.

A browser that falls out of the ring's end is told `reset` and fetches /api/state again. Whatever has gathered
since its last chunk goes out as one, so that a burst costs a write per browser and not a write per event.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from libhive.problems import TooMany
from services.dashboard.settings import Settings

KEEPALIVE = b": \n\n"


@dataclass(frozen=True, slots=True)
class Entry:
    seq: int
    chunk: bytes
    about: frozenset[str]
    """Names of the agents it is about; empty: about the hive, and for everybody."""


@dataclass(eq=False, slots=True)
class Watcher:
    """One browser's stream."""

    session: str
    about: str
    at: int
    """The last sequence number it has been sent."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Feed:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._boot = secrets.token_hex(4)
        self._ring: list[Entry] = []
        self._ring_bytes = 0
        self._seq = 0
        self._watchers: set[Watcher] = set()

    @property
    def at(self) -> str:
        """The id of the newest event."""
        return self._id(self._seq)

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    def publish(self, kind: str, data: bytes, about: frozenset[str] = frozenset()) -> None:
        self._seq += 1
        chunk = b"id: %s\nevent: %s\ndata: %s\n\n" % (self._id(self._seq).encode(), kind.encode(), data)
        self._ring.append(Entry(self._seq, chunk, about))
        self._ring_bytes += len(chunk)
        self._trim()
        for watcher in self._watchers:
            watcher.woken.set()

    def watch(self, session: str, last_id: str, about: str = "") -> Watcher:
        """Raises TooMany when this session, or all together, have as many streams as there may be."""
        mine = sum(watcher.session == session for watcher in self._watchers)
        if (
            mine >= self._settings.streams_per_session_max
            or len(self._watchers) >= self._settings.streams_max
        ):
            raise TooMany("too many pages of this dashboard are open", "close some of its tabs")
        watcher = Watcher(session, about, self._position(last_id))
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def end(self, ends: Callable[[str], bool]) -> None:
        """Ends the streams of every session for which `ends` is true."""
        for watcher in self._watchers:
            if ends(watcher.session):
                watcher.over.set()

    def take(self, watcher: Watcher) -> bytes:
        """What has happened since the watcher's position, as one bounded chunk; moves the position."""
        first = self._ring[0].seq if self._ring else self._seq + 1
        if watcher.at + 1 < first:
            watcher.at = self._seq
            return b"id: %s\nevent: reset\ndata: {}\n\n" % self.at.encode()
        chunks, size = [], 0
        for entry in self._ring[watcher.at + 1 - first :]:
            if size > self._settings.stream_chunk_bytes_max:
                break
            watcher.at = entry.seq
            if not watcher.about or not entry.about or watcher.about in entry.about:
                chunks.append(entry.chunk)
                size += len(entry.chunk)
        return b"".join(chunks)

    def behind(self, watcher: Watcher) -> bool:
        return watcher.at < self._seq

    def _position(self, last_id: str) -> int:
        """-1, before everything, for an id that is not one of this process's: `take` answers that with a
        reset."""
        boot, _, seq = last_id.partition("-")
        known = boot == self._boot and seq.isdecimal() and len(seq) <= 15 and int(seq) <= self._seq
        return int(seq) if known else -1

    def _id(self, seq: int) -> str:
        return f"{self._boot}-{seq}"

    def _trim(self) -> None:
        """In steps of an eighth, because cutting a list at its front costs its length."""
        settings = self._settings
        if len(self._ring) <= settings.ring_events_max and self._ring_bytes <= settings.ring_bytes_max:
            return
        drop, freed = 0, 0
        while drop < len(self._ring) and (
            drop < settings.ring_events_max // 8 or self._ring_bytes - freed > settings.ring_bytes_max
        ):
            freed += len(self._ring[drop].chunk)
            drop += 1
        del self._ring[:drop]
        self._ring_bytes -= freed


async def chunks(feed: Feed, watcher: Watcher, keepalive_seconds: float) -> AsyncGenerator[bytes]:
    """What to send to this watcher, and when."""
    yield b"retry: 1000\n\n"
    while True:
        watcher.woken.clear()
        if chunk := feed.take(watcher):
            yield chunk
            continue
        if feed.behind(watcher):
            continue
        try:
            async with asyncio.timeout(keepalive_seconds):
                await watcher.woken.wait()
        except TimeoutError:
            yield KEEPALIVE


class EventStream(Response):
    """An endless text/event-stream, until the browser goes, its session ends, or it is too slow to take what
    is sent."""

    def __init__(
        self, feed: Feed, watcher: Watcher, source: AsyncGenerator[bytes], send_seconds_max: float
    ) -> None:
        super().__init__(
            media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
        )
        del self.headers["content-length"]
        self._feed, self._watcher = feed, watcher
        self._source, self._send_seconds_max = source, send_seconds_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send_all(send))
        others = {asyncio.create_task(_until_gone(receive)), asyncio.create_task(self._watcher.over.wait())}
        try:
            await asyncio.wait({sending, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._feed.leave(self._watcher)
            for task in (sending, *others):
                task.cancel()
            outcome, *_ = await asyncio.gather(sending, *others, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(1):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with contextlib.suppress(TimeoutError, OSError):
            async with contextlib.aclosing(self._source):
                async for chunk in self._source:
                    async with asyncio.timeout(self._send_seconds_max):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
