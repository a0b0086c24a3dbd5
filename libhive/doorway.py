"""Agents' doors: unix stream sockets, a 4-byte big-endian length before each msgpack frame.

Who connects is not trusted. Every limit is here: a connection cap, two seconds to a whole frame, a frame cap, turns (an
agent that sends without end has a little of it answered, over all its connections, then everybody else has their turn),
and back-pressure in both directions, so that what a door costs in memory and time is bounded whatever its agent does.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

from libhive import wire
from libhive.names import AgentName
from libhive.paths import is_given
from libhive.problems import BadFrame, Problem
from libhive.promise import Waited

CONNECTIONS_MAX = 16
FIRST_FRAME_SECONDS_MAX = 2.0
IN_FLIGHT_MAX = 128
"""Requests of one connection that are being answered; beyond that its socket is not read."""
TURN_FRAMES_MAX = 64
TURN_BYTES_MAX = 128 * 1024
TURN_SECONDS_MAX = 0.005
"""What one agent gets answered, by one frame more at the most, before the loop looks at the others again."""
WRITE_BUFFER_BYTES_MAX = 1 << 20
"""Answers that one connection has not read; beyond that it gets no new ones."""
UNREAD_BYTES_MAX = 16 << 20
"""Answers that an agent has not read, over all its connections; beyond that it loses the worst of them."""

NOTHING = (0, 0, 0.0)
"""What a turn has cost before its first frame, in frames, bytes and seconds."""

_LENGTH = struct.Struct(">I")
_PEER = struct.Struct("3i")

Serve = Callable[[AgentName, bytes, Callable[[bytes], None]], "Waited | None"]
"""Answers one frame of an agent by calling back with one frame, at once or later; never raises. What it returns is
cancelled when the connection is lost before that."""


def listen(path: Path, *, mode: int = 0o660, uid: int | None = None, backlog: int = 128) -> socket.socket:
    """A listening socket at `path` in place of a stale one, for `uid`'s group when we may say so. In an installation it is
    for whoever reaches it, which is its cage and the hive: who connects is asked for his uid in any case."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    sock.bind(str(temporary))
    temporary.chmod(0o666 if is_given(path.parent.parent) else mode)
    if uid is not None and os.geteuid() == 0:
        os.chown(temporary, 0, uid)
    sock.listen(backlog)
    temporary.rename(path)  # whoever looks sees either the old socket or one that already listens
    return sock


def make_doors(directory: Path, uid: int) -> None:
    """The agent's directory of doors, which its cage may enter and not write. It is never made anew while a cage has
    it bound: a bound directory that is recreated goes stale for ever."""
    if is_given(directory.parent):
        _share(directory)
        return
    directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.mkdir(mode=0o750, exist_ok=True)
    if os.geteuid() == 0 and directory.stat().st_gid != uid:
        os.chown(directory, 0, uid)
        directory.chmod(0o750)


def _share(directory: Path) -> None:
    """Whichever service comes first makes it, for all of them; none can replace the socket of another."""
    mask = os.umask(0)
    try:
        directory.mkdir(mode=0o1775, exist_ok=True)
    finally:
        os.umask(mask)


def peer_uid(sock: socket.socket) -> int:
    """The host's uid of who connected, as the kernel noted it at connect(2)."""
    return int(_PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1])


def may_enter(peer: int, uid: int) -> bool:
    """The cage's own user; root and ourselves could do so anyway."""
    return peer in (uid, 0, os.geteuid())


class Outbox:
    """The connections that have answers to write. What is answered in one go, by one commit say, goes out by one write to
    each."""

    def __init__(self) -> None:
        self._guests: list[_Guest] = []

    def add(self, guest: _Guest) -> None:
        if not self._guests:
            guest.door.loop.call_soon(self.flush)
        self._guests.append(guest)

    def flush(self) -> None:
        """The last first: that is whoever got mail, before those who are told that it is stored."""
        guests, self._guests = self._guests, []
        for guest in reversed(guests):
            guest.flush()


class Doorway:
    """One agent's door to one service. Identity is the door: nothing in a frame can change whose it is."""

    def __init__(
        self, agent: AgentName, uid: int, path: Path, serve: Serve, outbox: Outbox | None = None
    ) -> None:
        self.agent, self.uid, self.path, self.serve = agent, uid, path, serve
        self.outbox = outbox or Outbox()
        self.on_gone: Callable[[AgentName], None] | None = None
        """Called when the last connection is lost: nobody in that cage is listening."""
        self.connections: set[_Guest] = set()
        self._server: asyncio.Server | None = None
        self._waiting: deque[_Guest] = deque()
        """Guests with whole frames, whose turn has not come."""
        self._next_turn: asyncio.Handle | None = None
        self._frames, self._bytes, self._seconds = NOTHING
        """What the turn has cost so far."""

    async def open(self) -> None:
        make_doors(self.path.parent, self.uid)
        loop = self.loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Guest(self), sock=listen(self.path, uid=self.uid)
        )

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for guest in list(self.connections):
            guest.drop()
        self.path.unlink(missing_ok=True)

    # ---- turns

    def has_turn(self) -> bool:
        return (
            self._frames < TURN_FRAMES_MAX
            and self._bytes < TURN_BYTES_MAX
            and self._seconds < TURN_SECONDS_MAX
        )

    def spend(self, frames: int, size: int, seconds: float) -> None:
        """The next turn begins when the loop has served whatever else is ready, and after one that took long not before as
        much time has passed again: what the others want takes several rounds of the loop."""
        self._frames += frames
        self._bytes += size
        self._seconds += seconds
        if self._next_turn is None:
            self._next_turn = self.loop.call_soon(self._end_turn)

    def wait_for_turn(self, guest: _Guest) -> None:
        if guest not in self._waiting:
            self._waiting.append(guest)
        self.spend(*NOTHING)

    def _end_turn(self) -> None:
        seconds = self._seconds
        if seconds < TURN_SECONDS_MAX:
            self._begin_turn()
        else:
            self._next_turn = self.loop.call_later(seconds, self._begin_turn)

    def _begin_turn(self) -> None:
        """Whoever has waited longest comes first, and those who have more to say wait again."""
        self._next_turn = None
        self._frames, self._bytes, self._seconds = NOTHING
        for _ in range(len(self._waiting)):
            if not self.has_turn():
                break
            self._waiting.popleft().work()
        if self._waiting:
            self.spend(*NOTHING)

    def bound_unread(self) -> None:
        if sum(guest.unread() for guest in self.connections) > UNREAD_BYTES_MAX:
            max(self.connections, key=_Guest.unread).drop()


class _Guest(asyncio.Protocol):
    """One connection from a cage."""

    def __init__(self, door: Doorway) -> None:
        self.door = door
        self.buffer = bytearray()
        self.replies: list[bytes] = []
        self.in_flight: dict[Waited, None] = {}
        self.transport: asyncio.Transport | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self.open, self.greeted, self.reading, self.writable = False, False, True, True
        self.stalled = False
        """It has a whole frame for which there is no turn, or no room, yet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if len(self.door.connections) >= CONNECTIONS_MAX or not may_enter(peer_uid(sock), self.door.uid):
            transport.abort()
            return
        self.open = True
        self.door.connections.add(self)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        self._steer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self in self.door.connections:
            self.door.connections.discard(self)
            if not self.door.connections and self.door.on_gone:
                self.door.on_gone(self.door.agent)
        self._end_deadline()
        for future in list(self.in_flight):
            future.cancel()

    def data_received(self, data: bytes) -> None:
        if not self.open:
            return
        self.buffer += data
        if not self.stalled:
            self.work()

    def pause_writing(self) -> None:
        self.writable = False
        self._steer()

    def resume_writing(self) -> None:
        self.writable = True
        self._steer()

    def drop(self) -> None:
        self.open = False
        if self.transport:
            self.transport.abort()

    def unread(self) -> int:
        return self.transport.get_write_buffer_size() if self.transport else 0

    # ---- in

    def work(self) -> None:
        """Answers the frames that are whole, until the agent's turn is over or there is no room for another answer."""
        self.stalled, at, door = False, 0, self.door
        began = time.monotonic()
        with memoryview(self.buffer) as view:
            while self.open and at < len(view) and (end := self._whole_at(at)):
                self.stalled = not (self._able() and door.has_turn())
                if self.stalled:
                    break
                future = door.serve(door.agent, bytes(view[at + _LENGTH.size : end]), self._reply)
                if future and not future.done():
                    self.in_flight[future] = None
                    future.add_done_callback(self._answered)
                ended = time.monotonic()
                door.spend(1, end - at, ended - began)
                at, began = end, ended
        if at:
            del self.buffer[:at]
            self.greeted = True
            self._end_deadline()
        self._steer()

    def _whole_at(self, at: int) -> int:
        """Where the frame that begins there ends; 0 while it is not whole."""
        here = len(self.buffer) - at
        if here < _LENGTH.size:
            return 0
        size = _LENGTH.size + int(_LENGTH.unpack_from(self.buffer, at)[0])
        if size > _LENGTH.size + wire.FRAME_BYTES_MAX:
            self._refuse(BadFrame(f"a frame has at most {wire.FRAME_BYTES_MAX} bytes"))
            return 0
        return at + size if here >= size else 0

    def _able(self) -> bool:
        """Whether there is room for what one more request may cost."""
        return self.open and self.writable and len(self.in_flight) < IN_FLIGHT_MAX

    def _answered(self, future: Waited) -> None:
        self.in_flight.pop(future, None)
        if not self.reading:
            self._steer()

    def _steer(self) -> None:
        """Waits for a turn, reads on, or does neither, by what there is room for."""
        if not self.open or self.transport is None:
            return
        able = self._able()
        if able and self.stalled:
            self.door.wait_for_turn(self)
        reading = able and not self.stalled
        if reading != self.reading:
            self.reading = reading
            (self.transport.resume_reading if reading else self.transport.pause_reading)()
        self._watch()

    def _watch(self) -> None:
        """The first frame, and whichever was begun, has to come whole within the time limit, unless it is us who do not
        read."""
        if not self.reading:
            self._end_deadline()
        elif self.deadline is None and (self.buffer or not self.greeted):
            self.deadline = self.door.loop.call_later(FIRST_FRAME_SECONDS_MAX, self.drop)

    def _end_deadline(self) -> None:
        if self.deadline:
            self.deadline.cancel()
            self.deadline = None

    # ---- out

    def _reply(self, frame: bytes) -> None:
        if not self.open:
            return
        if not self.replies:
            self.door.outbox.add(self)
        self.replies += (_LENGTH.pack(len(frame)), frame)

    def flush(self) -> None:
        replies, self.replies = self.replies, []
        if replies and self.transport and not self.transport.is_closing():
            self.transport.write(b"".join(replies))
            if not self.writable:
                self.door.bound_unread()

    def _refuse(self, problem: Problem) -> None:
        self._reply(wire.pack_problem("", problem))
        self.flush()
        self.open = False
        if self.transport:
            self.transport.close()
