"""The cage's side of a door, beside a service that does whatever it likes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from libhive import wire
from libhive.door_client import RECONNECT_SECONDS, DoorClient
from libhive.messages.base import Ping, Pong
from libhive.messages.broker import Send
from libhive.names import new_id
from libhive.problems import NotAllowed, Problem, StaleLease, Unavailable

Say = Callable[[bytes], None]


def pong(pid: int = 1) -> Pong:
    return Pong(service="door", version="1", pid=pid, up_since_ms=1)


def framed(frame: bytes) -> bytes:
    return struct.pack(">I", len(frame)) + frame


def prompt(id: str, say: Say) -> None:
    say(wire.pack_reply(id, pong()))


def silent(id: str, say: Say) -> None: ...


def refuse(problem: Problem, id: str, say: Say) -> None:
    say(wire.pack_problem(id, problem))


class Service:
    """Hears frames at a door; `answer` says what becomes of each, `writers` are the connections."""

    def __init__(self, path: Path) -> None:
        self.path, self.connections = path, 0
        self.asked = list[str]()
        self.writers = list[asyncio.StreamWriter]()
        self.answer: Callable[[str, Say], None] = prompt
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def close(self) -> None:
        if self._server:
            self._server.close()
        self.hang_up()
        self.path.unlink(missing_ok=True)
        await asyncio.sleep(0)

    def hang_up(self) -> None:
        for writer in self.writers:
            writer.close()
        self.writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                (size,) = struct.unpack(">I", await reader.readexactly(4))
                id = wire.unpack_request(await reader.readexactly(size)).id
                self.asked.append(id)
                self.answer(id, lambda frame: writer.write(framed(frame)))
        except (asyncio.IncompleteReadError, OSError):
            writer.close()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(tmp_path / "x.sock")
    await service.open()
    yield service
    await service.close()


@pytest.fixture
async def client(service: Service) -> AsyncIterator[DoorClient]:
    client = DoorClient(service.path)
    yield client
    await client.close()


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.005)


async def test_many_calls_share_a_connection_and_each_gets_its_own_answer(
    service: Service, client: DoorClient
) -> None:
    held = list[tuple[str, Say]]()
    service.answer = lambda word, say: held.append((word, say))
    ids = [new_id() for _ in range(50)]
    calls = [asyncio.create_task(client.call(Ping(), id=id)) for id in ids]
    await until(lambda: len(held) == 50)
    for id, say in reversed(held):
        say(wire.pack_reply(id, pong(ids.index(id))))
    assert [answer.pid for answer in await asyncio.gather(*calls)] == list(range(50))
    assert service.connections == 1


async def test_answers_come_in_any_pieces(service: Service, client: DoorClient) -> None:
    for size in (1, 3, 7, 1_000):
        calls = [asyncio.create_task(client.call(Ping())) for _ in range(3)]
        service.answer = silent
        before = len(service.asked)
        await until(lambda before=before: len(service.asked) == before + 3)  # type: ignore[misc]
        data = b"".join(framed(wire.pack_reply(id, pong())) for id in service.asked[-3:])
        for at in range(0, len(data), size):
            service.writers[-1].write(data[at : at + size])
            await asyncio.sleep(0)
        assert await asyncio.gather(*calls) == [pong()] * 3


async def test_a_call_in_flight_is_asked_again_under_its_id(service: Service, client: DoorClient) -> None:
    service.answer = lambda word, say: service.hang_up() if len(service.asked) < 3 else prompt(word, say)
    assert await client.call(Ping(), id="the-same-id") == pong()
    assert service.asked == ["the-same-id"] * 3


async def test_a_problem_is_raised_and_the_connection_stays(service: Service, client: DoorClient) -> None:
    service.answer = partial(refuse, NotAllowed("no"))
    for _ in range(2):
        with pytest.raises(NotAllowed, match="no"):
            await client.call(Ping())
    assert service.connections == 1


async def test_nobody_waits_longer_than_he_wants(service: Service, client: DoorClient) -> None:
    service.answer = silent
    with pytest.raises(Unavailable, match=r"ping did not answer within 0\.05 s"):
        await client.call(Ping(), timeout_seconds=0.05)
    await service.close()
    with pytest.raises(Unavailable):
        await client.call(Ping(), timeout_seconds=0.05)


async def test_who_no_longer_waits_is_not_asked_for_again(service: Service, client: DoorClient) -> None:
    service.answer = silent
    gone = asyncio.create_task(client.call(Ping(), id="gone-away"))
    await until(lambda: service.asked == ["gone-away"])
    gone.cancel()
    await asyncio.wait({gone})
    service.hang_up()
    service.answer = prompt
    await client.call(Ping(), id="still-here")
    assert service.asked == ["gone-away", "still-here"]


async def test_a_door_that_hangs_up_at_once_is_not_knocked_at_without_end(
    service: Service, client: DoorClient
) -> None:
    service.answer = lambda word, say: service.hang_up()
    with pytest.raises(Unavailable):
        await client.call(Ping(), timeout_seconds=5 * RECONNECT_SECONDS)
    assert 2 <= service.connections <= 6


@pytest.mark.parametrize("garbage", [struct.pack(">I", 1 << 31), framed(b"\xc1"), framed(b"\x90" * 100_000)])
async def test_what_is_no_answer_ends_the_connection_alone(
    service: Service, client: DoorClient, garbage: bytes
) -> None:
    def answer(id: str, say: Say) -> None:
        if len(service.asked) == 1:
            service.writers[-1].write(garbage)
        else:
            say(wire.pack_reply(id, pong()))

    service.answer = answer
    assert await client.call(Ping()) == pong()
    assert service.connections == 2


async def test_one_id_that_is_called_twice_is_answered_twice(service: Service, client: DoorClient) -> None:
    held = list[tuple[str, Say]]()
    service.answer = lambda word, say: held.append((word, say))
    calls = [asyncio.create_task(client.call(Ping(), id="the-same-id")) for _ in range(2)]
    await until(lambda: len(held) == 2)
    prompt(*held[0])
    assert await asyncio.gather(*calls) == [pong()] * 2
    prompt(*held[1])  # nobody waits for that any more
    service.answer = prompt
    assert await client.call(Ping()) == pong()


# ---- the greeting


def greeting(client: DoorClient, ids: list[str]) -> Callable[[], Awaitable[None]]:
    async def greet() -> None:
        ids.append(f"greeting-{len(ids)}")
        await client.call(Ping(), id=ids[-1])

    return greet


async def test_each_connection_is_greeted_before_any_other_call(service: Service, client: DoorClient) -> None:
    client.on_connect(greeting(client, []))
    calls = [asyncio.create_task(client.call(Ping(), id=f"a-call-{number}")) for number in range(3)]
    await asyncio.gather(*calls)
    service.hang_up()
    await until(lambda: not client._ready)
    await client.call(Ping(), id="a-call-3")
    assert service.asked == [
        *("greeting-0", "a-call-0", "a-call-1", "a-call-2"),
        *("greeting-1", "a-call-3"),
    ]


async def test_a_greeting_that_breaks_off_is_made_anew(service: Service, client: DoorClient) -> None:
    """With another id: what it asks for may have changed."""
    client.on_connect(greeting(client, []))
    service.answer = lambda word, say: service.hang_up() if len(service.asked) == 1 else prompt(word, say)
    await client.call(Ping(), id="the-call")
    assert service.asked == ["greeting-0", "greeting-1", "the-call"]


async def test_a_greeting_that_is_refused_is_told_to_all_and_tried_by_the_next(
    service: Service, client: DoorClient
) -> None:
    client.on_connect(greeting(client, []))
    service.answer = partial(refuse, StaleLease("somebody else has it"))
    calls = [asyncio.create_task(client.call(Ping())) for _ in range(3)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(problem) for problem in found] == [StaleLease] * 3
    service.answer = prompt
    assert await client.call(Ping()) == pong()


# ---- its end


async def test_who_waits_when_it_is_closed_is_told(service: Service, client: DoorClient) -> None:
    service.answer = silent
    calls = [asyncio.create_task(client.call(Ping())) for _ in range(3)]
    await until(lambda: len(service.asked) == 3)
    await client.close()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(problem) for problem in found] == [Unavailable] * 3
    await asyncio.sleep(2 * RECONNECT_SECONDS)
    assert service.connections == 1
    service.answer = prompt
    assert await client.call(Ping()) == pong()


async def test_it_connects_anew_though_it_was_closed_before_it_had_begun(
    service: Service, client: DoorClient
) -> None:
    call = asyncio.create_task(client.call(Ping()))
    await asyncio.sleep(0)  # it has made the task that connects, which has not run
    await client.close()
    with pytest.raises(Unavailable):
        await call
    assert await client.call(Ping()) == pong()


async def test_it_lets_go_of_a_service_that_does_not_read(tmp_path: Path) -> None:
    never, reads = asyncio.Event(), 0

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal reads
        reads += 1
        await never.wait()
        writer.close()

    server = await asyncio.start_unix_server(deaf, str(tmp_path / "x.sock"), limit=1)
    client = DoorClient(tmp_path / "x.sock")
    calls = [asyncio.create_task(client.call(Send(to=["bob"], body="x" * 60_000))) for _ in range(20)]
    await until(lambda: client._ready)
    line = client._line
    await client.close()
    await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)
    assert line
    assert line._transport
    assert line._transport.get_write_buffer_size() == 0
    never.set()
    server.close()


async def test_it_is_closed_while_it_cannot_connect(tmp_path: Path) -> None:
    client = DoorClient(tmp_path / "nowhere.sock")
    call = asyncio.create_task(client.call(Ping()))
    await asyncio.sleep(0.01)
    await client.close()
    with pytest.raises(Unavailable):
        await call


async def test_it_asks_anew_when_it_has_hung_up_itself(service: Service, client: DoorClient) -> None:
    service.answer = silent
    call = asyncio.create_task(client.call(Ping(), id="patient-call"))
    await until(lambda: len(service.asked) == 1)
    service.answer = prompt
    client.hang_up()
    assert await call == pong()
    assert service.asked == ["patient-call"] * 2
    assert service.connections == 2


async def test_it_goes_on_after_the_door_was_away(service: Service, client: DoorClient) -> None:
    ids = list[str]()
    client.on_connect(greeting(client, ids))
    await client.call(Ping())
    await service.close()
    with pytest.raises(Unavailable):
        await client.call(Ping(), timeout_seconds=0.2)
    waiting = asyncio.create_task(client.call(Ping()))
    await service.open()
    assert await waiting == pong()
    assert len(ids) == 2
