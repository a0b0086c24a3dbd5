"""Clients as one has them, on asyncio with uvloop: ours is the harness's own, Redis' is redis-py with hiredis.

They do what the lean ones of client.py do, in the same roles, with what each library has for it: calls at the same time on
one connection here, a pipeline there, without which redis-py has one command on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import redis.asyncio
import uvloop

from libhive.door_client import DoorClient
from libhive.messages import broker as say
from tests.bench.door import WAIT_MS
from tests.bench.resp import GROUP, READ_COUNT
from tests.bench.stream import Delivered, age, body, tally

CALL_SECONDS_MAX = 60.0
ACKING_CONNECTIONS = 32
"""Of all receivers of a process; more of them bring no more, fewer hold Redis back."""


def main(
    role: str,
    system: str,
    paths: Sequence[str],
    targets: Sequence[Sequence[str]],
    ready: Callable[[], None],
    tell: Callable[[dict[str, Any]], None],
    **given: Any,
) -> None:
    """`ready` is called when all are connected, and returns when they are to begin; `tell` with what they saw, and returns
    when they may hang up."""

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            kind = PEERS[system]
            await kind.prepare(stack, paths[0])
            peers = [kind(path, names) for path, names in zip(paths, targets, strict=True)]
            for peer in peers:
                await peer.connect()
                stack.push_async_callback(peer.close)
                if role == "receive":
                    await peer.greet()
            ready()
            before = time.process_time()
            seen = await ROLES[role](peers, **given)
            tell({**seen, "cpu_seconds": time.process_time() - before})

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


class Inbox:
    """What the receivers of a process got, until they have acknowledged `count`."""

    def __init__(self, count: int) -> None:
        self.count, self.acked = count, 0
        self.delivered: dict[Peer, list[Delivered]] = {}
        self.full = asyncio.Event()
        self._acking = set[asyncio.Task[None]]()

    def got(self, peer: Peer, delivered: list[Delivered], ack: Coroutine[Any, Any, None]) -> None:
        """Acknowledges them beside whatever the peer does next."""
        self.delivered.setdefault(peer, []).extend(delivered)
        task = asyncio.create_task(ack)
        self._acking.add(task)
        task.add_done_callback(self._acking.discard)

    def ack(self, number: int) -> None:
        self.acked += number
        if self.acked >= self.count:
            self.full.set()


class Peer(ABC):
    """One connection. A receiver's first target is its own name."""

    def __init__(self, path: str, targets: Sequence[str]) -> None:
        self.path, self.name, self.targets = path, targets[0], cycle(targets)

    @classmethod
    @abstractmethod
    async def prepare(cls, stack: contextlib.AsyncExitStack, path: str) -> None:
        """What all of a process share."""

    @abstractmethod
    async def connect(self) -> None: ...

    @abstractmethod
    async def greet(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def send(self, number: int) -> None:
        """One message, until it is confirmed."""

    @abstractmethod
    async def stream(self, numbers: Iterator[int], depth: int) -> None:
        """One after the other, with `depth` in flight."""

    @abstractmethod
    async def receive(self, inbox: Inbox) -> None:
        """Until it is cancelled."""


class Door(Peer):
    lease = ""

    @classmethod
    async def prepare(cls, stack: contextlib.AsyncExitStack, path: str) -> None: ...

    async def connect(self) -> None:
        self.client = DoorClient(Path(self.path))

    async def greet(self) -> None:
        hello = say.Hello(generation=1, incarnation="bench", version="bench")
        self.lease = (await self.client.call(hello)).lease

    async def close(self) -> None:
        await self.client.close()

    async def send(self, number: int) -> None:
        request = say.Send(to=[next(self.targets)], body=body(number))
        await self.client.call(request, timeout_seconds=CALL_SECONDS_MAX)

    async def stream(self, numbers: Iterator[int], depth: int) -> None:
        await asyncio.gather(*(self._lane(numbers) for _ in range(depth)))

    async def receive(self, inbox: Inbox) -> None:
        request = say.Recv(lease=self.lease, wait_ms=WAIT_MS, limit=READ_COUNT)
        while True:
            mail = (await self.client.call(request, timeout_seconds=CALL_SECONDS_MAX)).mail
            if mail:
                delivered = [Delivered(item.id, age(item.body)) for item in mail]
                inbox.got(self, delivered, self._ack([item.id for item in mail], inbox))

    async def _lane(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            await self.send(number)

    async def _ack(self, ids: list[str], inbox: Inbox) -> None:
        request = say.Ack(lease=self.lease, ids=ids)
        await self.client.call(request, timeout_seconds=CALL_SECONDS_MAX)
        inbox.ack(len(ids))


class Redis(Peer):
    _acks: redis.asyncio.Redis

    @classmethod
    async def prepare(cls, stack: contextlib.AsyncExitStack, path: str) -> None:
        pool = redis.asyncio.BlockingConnectionPool(
            max_connections=ACKING_CONNECTIONS,
            timeout=CALL_SECONDS_MAX,
            connection_class=redis.asyncio.UnixDomainSocketConnection,
            path=path,
        )
        cls._acks = await stack.enter_async_context(redis.asyncio.Redis(connection_pool=pool))

    async def connect(self) -> None:
        self.client = redis.asyncio.Redis(
            unix_socket_path=self.path, single_connection_client=True, socket_timeout=None
        )
        await self.client.initialize()

    async def greet(self) -> None:
        try:
            await self.client.xgroup_create(self.name, GROUP, "0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def close(self) -> None:
        await self.client.aclose()

    async def send(self, number: int) -> None:
        await self.client.xadd(next(self.targets), {"b": body(number)})

    async def stream(self, numbers: Iterator[int], depth: int) -> None:
        if depth == 1:
            for number in numbers:
                await self.send(number)
        while window := list(islice(numbers, depth)):
            pipeline = self.client.pipeline(transaction=False)
            for number in window:
                pipeline.xadd(next(self.targets), {"b": body(number)})
            await pipeline.execute()

    async def receive(self, inbox: Inbox) -> None:
        while True:
            found = await self.client.xreadgroup(GROUP, "one", {self.name: ">"}, count=READ_COUNT, block=0)
            ((_, entries),) = found.items() if isinstance(found, dict) else found
            delivered = [Delivered(id.decode(), age(fields[b"b"])) for id, fields in entries]
            inbox.got(self, delivered, self._ack([id for id, _ in entries], inbox))

    async def _ack(self, ids: list[bytes], inbox: Inbox) -> None:
        """On another connection: the next read has taken this one."""
        inbox.ack(int(await self._acks.xack(self.name, GROUP, *ids)))


async def send(peers: Sequence[Peer], count: int, depth: int) -> dict[str, Any]:
    began, numbers = time.monotonic_ns(), iter(range(count))
    await asyncio.gather(*(peer.stream(numbers, depth) for peer in peers))
    return {"began_ns": began}


async def pace(peers: Sequence[Peer], count: int, per_second: int) -> dict[str, Any]:
    """At its instant each, whether or not the last one was confirmed: who is slow is not spared."""
    (peer,) = peers
    began, sending = time.monotonic(), list[asyncio.Task[None]]()
    for number in range(count):
        await asyncio.sleep(began + number / per_second - time.monotonic())
        sending.append(asyncio.create_task(peer.send(number)))
    await asyncio.gather(*sending)
    return {"began_ns": int(began * 1e9)}


async def receive(peers: Sequence[Peer], count: int) -> dict[str, Any]:
    inbox = Inbox(count)
    tasks = [asyncio.create_task(peer.receive(inbox)) for peer in peers]
    full = asyncio.create_task(inbox.full.wait())
    await asyncio.wait([full, *tasks], return_when=asyncio.FIRST_COMPLETED)
    ended = time.monotonic_ns()
    for task in tasks:
        if task.done():
            task.result()  # it never ends but by a failure
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"ended_ns": ended, "microseconds": tally(count, inbox.acked, inbox.delivered.values())}


PEERS: dict[str, type[Peer]] = {"door": Door, "redis": Redis}
ROLES: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "send": send,
    "pace": pace,
    "receive": receive,
}
