"""A door against guests that misbehave, each by name."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from libhive import doorway, wire
from libhive.doorway import DoorClient, Doorway
from libhive.messages.base import Ping, Pong
from libhive.names import AgentName, new_id
from libhive.problems import Unavailable

PONG = Pong(service="door", version="1", pid=1, up_since_ms=1)


def answer(agent: AgentName, frame: bytes, reply: Callable[[bytes], None]) -> None:
    reply(wire.pack_reply(wire.unpack_request(frame).id, PONG))


@pytest.fixture
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Doorway]:
    directory = Path(tmp_path_factory.mktemp("d"))
    door = Doorway(AgentName("iris"), 0, directory / "doors" / "x.sock", answer)
    await door.open()
    yield door
    await door.close()


async def still_serves(door: Doorway) -> None:
    client = DoorClient(door.path)
    assert await client.call(Ping()) == PONG
    await client.close()


async def raw(door: Doorway, data: bytes) -> bytes:
    """What comes back until the door hangs up."""
    reader, writer = await asyncio.open_unix_connection(str(door.path))
    writer.write(data)
    got = await reader.read()
    writer.close()
    return got


async def half_frame(door: Doorway) -> None:
    assert await raw(door, struct.pack(">I", 100) + b"half") == b""


async def says_nothing(door: Doorway) -> None:
    assert await raw(door, b"") == b""


async def two_gib_announced(door: Doorway) -> None:
    assert b"bad-frame" in await raw(door, struct.pack(">I", 2**31))


async def endless_stream(door: Doorway) -> None:
    _, writer = await asyncio.open_unix_connection(str(door.path))
    with pytest.raises(OSError):  # reset or broken pipe, as the kernel likes
        for _ in range(4096):
            writer.write(b"\xff" * 65536)
            await writer.drain()
    assert max((len(guest.buffer) for guest in door.connections), default=0) <= wire.FRAME_BYTES_MAX


async def many_connections(door: Doorway) -> None:
    guests = [await asyncio.open_unix_connection(str(door.path)) for _ in range(doorway.CONNECTIONS_MAX * 2)]
    await asyncio.sleep(0.1)
    assert len(door.connections) == doorway.CONNECTIONS_MAX
    for _, writer in guests:
        writer.close()
    while door.connections:
        await asyncio.sleep(0.01)


async def never_reads(door: Doorway) -> None:
    _, writer = await asyncio.open_unix_connection(str(door.path))
    frame = wire.pack_request(Ping(), new_id())
    for _ in range(20_000):
        writer.write(struct.pack(">I", len(frame)) + frame)
    for _ in range(50):
        await asyncio.sleep(0.01)
    (guest,) = door.connections
    assert guest.transport is not None
    assert guest.transport.get_write_buffer_size() < 2 * doorway.WRITE_BUFFER_BYTES_MAX
    writer.transport.abort()


GUESTS: list[Callable[[Doorway], Awaitable[None]]] = [
    endless_stream,
    half_frame,
    many_connections,
    never_reads,
    says_nothing,
    two_gib_announced,
]


@pytest.mark.parametrize("guest", GUESTS)
async def test_a_guest_that_misbehaves_hurts_only_itself(
    door: Doorway, guest: Callable[[Doorway], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorway, "FIRST_FRAME_SECONDS_MAX", 0.3)
    await guest(door)
    await still_serves(door)


async def test_a_door_is_only_for_its_agent(door: Doorway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorway, "peer_uid", lambda sock: 4242)
    assert await raw(door, b"") == b""
    monkeypatch.undo()
    await still_serves(door)


async def test_the_peer_is_who_the_kernel_says() -> None:
    import os

    left, right = socket.socketpair(socket.AF_UNIX)
    assert doorway.peer_uid(left) == os.getuid()
    left.close()
    right.close()


async def test_a_client_goes_on_after_the_door_was_away(door: Doorway) -> None:
    client = DoorClient(door.path)
    greetings: list[int] = []

    async def greet() -> None:
        greetings.append(1)
        await client.call(Ping())

    client.on_connect(greet)
    await client.call(Ping())
    await door.close()
    with pytest.raises(Unavailable):
        await client.call(Ping(), timeout_seconds=0.2)
    waiting = asyncio.create_task(client.call(Ping()))
    await door.open()
    assert await waiting == PONG
    assert len(greetings) == 2
    await client.close()
