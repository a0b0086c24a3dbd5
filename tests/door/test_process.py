"""A broker's own process, its real doors, and guests who want it dead."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest

from libhive import wire
from libhive.messages import broker as say
from libhive.messages.base import Ping
from libhive.names import AgentName, new_id
from libhive.problems import PROBLEMS, Conflict, NotFound, StaleLease
from libhive.testing.hive import Guest, Hive
from tests.door.arena import AGENTS, Answer, read_answer
from tests.door.flooder import WAYS, flooding, framed
from tests.door.frames import DEEP, DOOR_KINDS, Frame, Frames, pack, seed

FRAMES = int(os.environ.get("HIVE_TEST_SOCKET_FRAMES", "102000"))
BATCH = 500
CONNECTIONS = 4
GROWTH_MB_MAX = 64
"""Of the broker's process: an agent may have 16 MiB of answers that it does not read."""
ANSWER_SECONDS_MAX = 60


class Field:
    """A hive whose agents alice and bob behave, and whose agent mallory does not."""

    def __init__(self, hive: Hive, alice: Guest, bob: Guest) -> None:
        self.hive, self.alice, self.bob = hive, alice, bob
        self.pid = hive.processes["broker"].pid
        self.path = hive.paths.door(AgentName("mallory"), "broker")
        self.before = self.resident_mb()

    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    async def check(self) -> None:
        """The others can write to each other, it is the same process, and no bigger than it may be."""
        body = new_id()
        sent = await self.alice.send("bob", body)
        mail = await self.bob.recv(wait_ms=20_000)
        assert [(one.id, one.body, one.sender) for one in mail] == [(sent.id, body, "alice")]
        await self.bob.ack(sent.id)
        assert self.hive.processes["broker"].poll() is None
        assert self.resident_mb() - self.before < GROWTH_MB_MAX

    async def mallory(self) -> Guest:
        return await self.hive.join("mallory")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path), limit=1 << 24)


@pytest.fixture
async def field() -> AsyncIterator[Field]:
    environ = {"HIVE_BROKER_PAIR_PER_MINUTE_MAX": "0"}
    async with Hive(environ) as hive:
        await hive.start("broker")
        for name in ("alice", "bob", "carol", "mallory"):
            await hive.open_mailbox(name)
        field = Field(hive, await hive.join("alice"), await hive.join("bob"))
        await field.check()
        yield field
        await field.check()


async def read_one(reader: asyncio.StreamReader) -> Answer:
    (size,) = struct.unpack(">I", await reader.readexactly(4))
    return read_answer(await reader.readexactly(size))


# ---- the frames of test_fuzz.py


async def test_frames_through_real_doors() -> None:
    number = seed()
    print(f"replay with HIVE_TEST_SEED={number}")
    async with Hive() as hive:
        await hive.start("broker")
        for name in AGENTS:
            await hive.open_mailbox(name)
        pid = await hive.pid_of("broker")
        for name in AGENTS:
            await storm(hive, name, Frames(random.Random(f"{number} {name}"), DOOR_KINDS, AGENTS))
        assert await hive.pid_of("broker") == pid
        for receipt in await hive.operator.history(limit=500):
            assert receipt.sender in (*AGENTS, "hive")
        assert len(await hive.operator.peers()) == len(AGENTS)
        await hive.operator.inbox(all=True, limit=500)
        await hive.operator.questions(open_only=False, limit=500)
        await hive.operator.reminders()


async def storm(hive: Hive, name: AgentName, frames: Frames) -> None:
    """One agent on several connections. After each batch of frames another harness takes the mailbox over, so that none
    of them goes on waiting for mail."""
    path = str(hive.paths.door(name, "broker"))
    streams = [await asyncio.open_unix_connection(path, limit=1 << 24) for _ in range(CONNECTIONS)]
    control = hive.guest(name)
    await control.hello()
    done = 0
    for _ in range(FRAMES // len(AGENTS) // BATCH):
        frames.lease = control.lease
        batches = [[frames.next() for _ in range(BATCH // CONNECTIONS)] for _ in streams]
        answering = [
            asyncio.ensure_future(exchange(*stream, batch))
            for stream, batch in zip(streams, batches, strict=True)
        ]
        while (await asyncio.wait(answering, timeout=0.02))[1]:
            await control.hello()
        answers = [answer for each in answering for answer in each.result()]
        done += judge([frame for batch in batches for frame in batch], answers, frames)
    assert done > FRAMES // 500
    for _, writer in streams:
        writer.close()


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, batch: Sequence[Frame]
) -> list[Answer]:
    writer.write(b"".join(framed(frame.data) for frame in batch))
    async with asyncio.timeout(ANSWER_SECONDS_MAX):
        return [await read_one(reader) for _ in batch]


def judge(asked: Sequence[Frame], answers: Sequence[Answer], frames: Frames) -> int:
    """How many were carried out. Answers come in any order; those with an id have to find it."""
    came = [answer.re for answer in answers]
    for frame in asked:
        if frame.re is not None:
            assert frame.re in came, f"no answer to {frame.data!r:.2000}"
    done = 0
    for answer in answers:
        if answer.problem is None:
            done += 1
            frames.ids.append(answer.re)
        else:
            assert answer.problem.code in PROBLEMS, answer
            assert answer.problem.code != "internal-error", answer.problem.message
    return done


# ---- bombs made by hand, each on a connection of its own; None: it hangs up


def request(kind: str, body: Any, **more: Any) -> bytes:
    return framed(pack([("v", 1), ("id", new_id()), ("kind", kind), ("body", body), *more.items()]))


def around(value: bytes) -> bytes:
    return framed(b"\x84\xa1v\x01\xa2id\xa8aaaaaaaa\xa4kind\xa4ping\xa4body\x81\xa1x" + value)


def send(to: Any, body: Any = "x") -> bytes:
    return request("broker.send", [("to", to), ("body", body)])


LIMIT = wire.FRAME_BYTES_MAX
BOMBS: dict[str, tuple[bytes, str | None]] = {
    "2 GiB announced": (struct.pack(">I", 2**31), "bad-frame"),
    "all that can be announced": (struct.pack(">I", 2**32 - 1) + b"x" * 1000, "bad-frame"),
    "one byte over the cap": (struct.pack(">I", LIMIT + 1), "bad-frame"),
    "at the cap": (framed(b"\xc1" * LIMIT), "bad-frame"),
    "nothing": (framed(b""), "bad-frame"),
    "announced, never coming": (struct.pack(">I", 100), None),
    "half a length": (b"\0\0", None),
    "half a frame": (framed(b"x" * 100)[:50], None),
    "no word": (b"", None),
    "http": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "bad-frame"),
    "1023 arrays": (around(DEEP[1]), "bad-frame"),
    "17 arrays": (around(DEEP[0]), "bad-frame"),
    "500 maps": (around(DEEP[2]), "bad-frame"),
    "250 times 1000 arrays": (around(b"\xdc\0\xfa" + (b"\x91" * 1000 + b"\xc0") * 250), "bad-frame"),
    "empty maps": (around(b"\xdd\0\3\xf0\0" + b"\x80" * 258_048), "bad-frame"),
    "empty maps in small lists": (
        around(b"\xdc\0\x0d" + (b"\xdc\x4a\x38" + b"\x80" * 19_000) * 13),
        "bad-frame",
    ),
    "empty lists in small lists": (
        around(b"\xdc\0\x0d" + (b"\xdc\x4a\x38" + b"\x90" * 19_000) * 13),
        "bad-frame",
    ),
    "array of 4 billion": (around(b"\xdd\xff\xff\xff\xff"), "bad-frame"),
    "map of 4 billion": (around(b"\xdf\xff\xff\xff\xff"), "bad-frame"),
    "4 GiB string": (around(b"\xdb\xff\xff\xff\xff"), "bad-frame"),
    "4 GiB bytes": (around(b"\xc6\xff\xff\xff\xff"), "bad-frame"),
    "4 GiB extension": (around(b"\xc9\xff\xff\xff\xff\x05"), "bad-frame"),
    "extension": (around(b"\xd4\x05x"), "bad-frame"),
    "timestamp": (around(b"\xd6\xff\0\0\0\0"), "bad-frame"),
    "the same key twice": (around(b"\x82\xa1a\1\xa1a\1"), "bad-frame"),
    "number as key": (around(b"\x81\1\1"), "bad-frame"),
    "bytes as key": (around(b"\x81\xc4\1a\1"), "bad-frame"),
    "list as key": (around(b"\x81\x90\1"), "bad-frame"),
    "nan": (around(pack(math.nan)), "bad-frame"),
    "infinity": (around(pack(-math.inf)), "bad-frame"),
    "bad utf-8": (around(b"\xa2\xff\xfe"), "bad-frame"),
    "a lone surrogate": (around(b"\xa3\xed\xa0\x80"), "bad-frame"),
    "trailing bytes": (
        framed(msgpack.packb({"v": 1, "id": "a" * 8, "kind": "ping", "body": {}}) + b"\0"),
        "bad-frame",
    ),
    "unknown field": (request("broker.status", [("text", "x"), ("more", 1)]), "bad-request"),
    "from": (request("broker.send", [("to", ["bob"]), ("body", "x"), ("from", "operator")]), "bad-request"),
    "from beside the body": (request("broker.status", [("text", "x")], **{"from": "operator"}), "bad-frame"),
    "actor": (request("broker.status", [("text", "x")], actor="operator"), "bad-request"),
    "a kind of the bus": (request("broker.history", [("agent", "alice")]), "bad-request"),
    "another's kind": (request("lifecycle.stop", [("name", "alice")]), "bad-request"),
    "as operator": (request("broker.hello", [("agent", "operator")]), "bad-request"),
    "recv for another": (request("broker.recv", [("lease", "a" * 8), ("agent", "alice")]), "bad-request"),
    "a made-up lease": (request("broker.recv", [("lease", "a" * 8)]), "stale-lease"),
    "version 2": (
        framed(pack([("v", 2), ("id", "a" * 8), ("kind", "ping"), ("body", {})])),
        "unsupported-version",
    ),
    "version 2**64 - 1": (framed(pack([("v", 2**64 - 1), ("id", "a" * 8)])), "unsupported-version"),
    "version true": (
        framed(pack([("v", True), ("id", "a" * 8), ("kind", "ping"), ("body", {})])),
        "bad-frame",
    ),
    "a number of 2**64 - 1": (
        request("broker.recv", [("lease", "a" * 8), ("wait_ms", 2**64 - 1)]),
        "bad-request",
    ),
    "a negative number": (request("broker.remind", [("text", "x"), ("after_seconds", -1)]), "bad-request"),
    "a float for a number": (
        request("broker.remind", [("text", "x"), ("after_seconds", 1.5)]),
        "bad-request",
    ),
    "true for a number": (request("broker.remind", [("text", "x"), ("after_seconds", True)]), "bad-request"),
    "to itself": (send(["mallory"]), "bad-request"),
    "65 recipients": (send(["bob"] * 65), "bad-request"),
    "too long": (send(["bob"], "x" * 60_001), "bad-request"),
    **{
        f"to {name!a:.24}": (send([name]), "bad-request")
        for name in ("..", "-rf", "a/b", "a\0b", "bob\n", "BOB", "b\u043eb", "b" * 64)
    },
}


async def test_bombs_made_by_hand(field: Field) -> None:
    hanging = [drop_bomb(field, data) for data, code in BOMBS.values() if code is None]
    assert set(await asyncio.gather(*hanging)) == {None}
    await field.check()
    for name, (data, code) in BOMBS.items():
        if code:
            answer = await drop_bomb(field, data)
            assert answer, name
            assert answer.problem, name
            assert answer.problem.code == code, f"{name}: {answer}"
            await field.check()


async def drop_bomb(field: Field, data: bytes) -> Answer | None:
    """Half of what is no whole frame is left hanging for the door to end it; the rest we end ourselves."""
    reader, writer = await field.connect()
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            writer.write(data)
            return await read_one(reader)
    except asyncio.IncompleteReadError:
        return None
    finally:
        writer.close()


# ---- what is somebody else's


async def test_what_is_others_is_not_there(field: Field) -> None:
    mallory = await field.mallory()
    sent = await field.alice.send("bob", "between us")
    asked = await field.alice.door.call(say.Ask(to="bob", question="really?"))
    reminded = await field.alice.door.call(say.Remind(text="later", after_seconds=3_600))
    stolen = [
        say.MessageStatus(id=sent.id),
        say.Answer(question=asked.id, text="no"),
        say.Send(to=["bob"], body="and I say", in_reply_to=sent.id),
        say.CancelReminder(id=reminded.id),
    ]
    for request in stolen:
        with pytest.raises(NotFound):
            await mallory.door.call(request)
    for request in (say.Recv(lease=field.bob.lease), say.Ack(lease=field.bob.lease, ids=[sent.id])):
        with pytest.raises(StaleLease):
            await mallory.door.call(request)
    await mallory.ack(sent.id, asked.id)  # of its own mailbox: nothing
    with pytest.raises(Conflict):
        await mallory.door.call(say.Send(to=["bob"], body="in her name"), id=sent.id)
    mail = await field.bob.recv(wait_ms=20_000)
    assert [(one.sender, one.body) for one in mail] == [("alice", "between us"), ("alice", "really?")]
    await field.bob.ack(*(one.id for one in mail))


# ---- while it floods


@pytest.mark.parametrize("way", WAYS)
async def test_the_others_go_on_while_one_floods(way: str, field: Field) -> None:
    mallory = await field.mallory()
    if way == "unread":
        for _ in range(30):
            await mallory.door.call(say.Remind(text="x" * 60_000, after_seconds=3_600))
    await mallory.close()
    with flooding(way, field.path, mallory.lease, ANSWER_SECONDS_MAX) as flood:
        for _ in range(40):
            await field.check()
            await asyncio.sleep(0.02)
        assert flood.poll() is None, "the flood was over before its time"


async def test_guests_without_end(field: Field) -> None:
    """Thousands of connections, of which some speak; and then the agent's own harness comes in again."""
    guests: list[socket.socket] = []
    for number in range(2_000):
        guests.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        with contextlib.suppress(OSError):
            guests[-1].connect(str(field.path))
            guests[-1].send(framed(wire.pack_request(Ping(), new_id()))[: number % 64])
        if number % 200 == 0:
            await field.check()
    for guest in guests:
        guest.close()
    await field.mallory()
