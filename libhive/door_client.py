"""The cage's side of a door.

One connection for all calls, made when the first of them comes and anew whenever it breaks. A call whose answer has not
come by then is sent again under its id, which is safe because every command is repeatable.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar, cast

from libhive import wire
from libhive.messages.base import Reply, Request
from libhive.names import new_id
from libhive.problems import BadFrame, Unavailable

R = TypeVar("R", bound=Reply)

RECONNECT_SECONDS = 0.1

_LENGTH = struct.Struct(">I")


class DoorClient:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._calls: dict[str, list[_Call]] = {}
        """By their ids; the same one may be called twice."""
        self._line: _Line | None = None
        self._ready = False
        """The line has been greeted."""
        self._greeting: Callable[[], Awaitable[None]] | None = None
        self._connecting: asyncio.Task[None] | None = None

    def on_connect(self, greeting: Callable[[], Awaitable[None]]) -> None:
        """Awaited after each connection before any other call goes through; it may use `call`. What it raises is raised by
        all who wait."""
        self._greeting = greeting

    async def call(self, request: Request[R], *, id: str | None = None, timeout_seconds: float = 5.0) -> R:
        """Raises the Problem that was answered, or Unavailable when nothing was within the time limit."""
        id, loop = id or new_id(), asyncio.get_running_loop()
        frame = wire.pack_request(request, id)
        call = _Call(_LENGTH.pack(len(frame)) + frame, loop.create_future())
        timer = loop.call_later(timeout_seconds, call.expire, request.KIND, timeout_seconds)
        self._calls.setdefault(id, []).append(call)
        try:
            call.greets = not self._ready and asyncio.current_task() is self._connecting
            if self._ready or call.greets:
                self._say(call)
            else:
                self._connect_in(0)
            answer = await call.answer
        finally:
            timer.cancel()
            self._forget(id, call)
        reply: R = wire.answer_to(answer, request.REPLY)
        return reply

    def hang_up(self) -> None:
        """The service forgets what it was asked; a call that still waits asks again on the next connection."""
        if line := self._line:
            self._lost(line)
            line.abort()

    async def close(self) -> None:
        """Who still waits is told that nobody answers. The next call connects anew."""
        self._fail(Unavailable("the door was closed by its own side"))
        if connecting := self._connecting:
            connecting.cancel()
            await asyncio.wait({connecting})
            self._connecting = None  # it may never have begun
        self.hang_up()

    # ---- the line

    def _say(self, call: _Call) -> None:
        if self._line is None:
            raise _gone()
        self._line.write(call.frame)

    def _connect_in(self, seconds: float) -> None:
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(seconds))

    async def _connect(self, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
            while self._calls and not self._ready:
                try:
                    await self._dial()
                except OSError:
                    self.hang_up()
                    await asyncio.sleep(RECONNECT_SECONDS)
        except Exception as error:  # noqa: BLE001 - the greeting's, for those who wait
            self._fail(error)
        finally:
            self._connecting = None
            if not self._ready:
                self.hang_up()

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_unix_connection(self._new_line, str(self.path))
        if self._greeting and self._line is line:
            await self._greeting()
        if self._line is not line:
            raise _gone()
        self._ready = True
        for call in self._open():
            line.write(call.frame)

    def _new_line(self) -> _Line:
        """It is ours before it can be lost."""
        self._line = line = _Line(self._answered, self._lost)
        return line

    def _answered(self, frame: bytes) -> None:
        answer = wire.unpack_answer(frame)
        for call in self._calls.get(answer.re, ()):
            if not call.answer.done():
                call.answer.set_result(answer)

    def _lost(self, line: _Line) -> None:
        if line is not self._line:
            return
        self._line, self._ready = None, False
        for call in self._open():
            if call.greets:
                call.answer.set_exception(_gone())
        if self._open():
            self._connect_in(RECONNECT_SECONDS)

    def _open(self) -> list[_Call]:
        """The calls that have no answer."""
        return [call for calls in self._calls.values() for call in calls if not call.answer.done()]

    def _fail(self, error: Exception) -> None:
        for call in self._open():
            call.answer.set_exception(error)

    def _forget(self, id: str, call: _Call) -> None:
        calls = self._calls[id]
        calls.remove(call)
        if not calls:
            del self._calls[id]


def _gone() -> ConnectionResetError:
    return ConnectionResetError("the door's service went away")


class _Call:
    """A request until it is answered."""

    __slots__ = ("answer", "frame", "greets")

    def __init__(self, frame: bytes, answer: asyncio.Future[wire.Answer]) -> None:
        self.frame, self.answer = frame, answer
        self.greets = False
        """It belongs to the greeting of one connection, and ends with that."""

    def expire(self, kind: str, seconds: float) -> None:
        if not self.answer.done():
            service = kind.partition(".")[0]
            self.answer.set_exception(Unavailable(f"{service} did not answer within {seconds:g} s"))


class _Line(asyncio.Protocol):
    """One connection: frames in both directions."""

    def __init__(self, heard: Callable[[bytes], None], lost: Callable[[_Line], None]) -> None:
        self._heard, self._lost = heard, lost
        self._buffer = b""
        self._frames: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)

    def write(self, frame: bytes) -> None:
        """What is said in one round of the loop goes out by one write."""
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(frame)

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if self._transport and not self._transport.is_closing():
            self._transport.write(b"".join(frames))

    def abort(self) -> None:
        """At once: whatever has no answer is asked again."""
        if self._transport:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        data, at = self._buffer + data if self._buffer else data, 0
        try:
            while len(data) - at >= _LENGTH.size:
                begin = at + _LENGTH.size
                end = begin + int(_LENGTH.unpack_from(data, at)[0])
                if end - begin > wire.BUS_FRAME_BYTES_MAX:
                    raise BadFrame(f"an answer has at most {wire.BUS_FRAME_BYTES_MAX} bytes")
                if end > len(data):
                    break
                self._heard(data[begin:end])
                at = end
        except BadFrame:
            self._lost(self)
            self.abort()
        self._buffer = data[at:]
