"""One connection to an agent's proxy: its head, the decision, and then bytes until both ends are done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11

from libhive.destinations import Address, Destination
from libhive.names import AgentName
from libhive.problems import NoSpace
from libhive.spec import Egress
from services.gateway.egress import head, names, rules
from services.gateway.egress.book import Book, Entry
from services.gateway.egress.head import Asked, BadHead
from services.gateway.egress.pace import CHUNK_COST_MIN, OPENING_COST, Pace
from services.gateway.egress.plain import READ_BYTES, Relay
from services.gateway.egress.policies import Policies
from services.gateway.egress.rules import Ruling
from services.gateway.settings import Settings

ADDRESSES_TRIED_MAX = 4
GOODBYE_SECONDS_MAX = 5.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Source = Callable[[asyncio.StreamReader], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose connection it is, and what all connections of that agent share."""

    agent: AgentName
    settings: Settings
    policies: Policies
    book: Book
    pace: Pace
    slots: asyncio.Semaphore
    """For looking names up."""

    @property
    def egress(self) -> Egress | None:
        return self.policies.of(self.agent)


@dataclass(frozen=True, slots=True)
class Reached:
    streams: Streams
    address: Address
    own: bool


class Visit:
    def __init__(self, owner: Owner, near: Streams) -> None:
        self._owner, self._near = owner, near
        self._far: Streams | None = None
        self._http = head.server()
        self._asked: Asked | None = None
        self._reached: Reached | None = None
        self._entry: Entry | None = None
        self._why = ""
        self._moved_at = 0.0

    @property
    def _tunnels(self) -> bool:
        return self._asked is not None and self._asked.tunnel

    async def run(self) -> None:
        """Until it is over, whatever either end does."""
        try:
            with contextlib.suppress(OSError):
                await self._serve()
        finally:
            if self._entry:
                self._owner.book.end(self._entry, self._why)
            for _, writer in filter(None, (self._near, self._far)):
                writer.transport.abort() if self._why else writer.close()

    def reconsider(self) -> None:
        """The agent's configuration has changed: what would not be let out now ends now."""
        asked, reached, egress = self._asked, self._reached, self._owner.egress
        if asked and reached and not rules.still(egress, asked.target, reached.address, reached.own):
            self.cut("cut: its configuration lets this out no more")

    def cut(self, why: str) -> None:
        self._why = self._why or why
        for _, writer in filter(None, (self._near, self._far)):
            writer.transport.abort()

    # ---- before the first byte

    async def _serve(self) -> None:
        await self._owner.pace.spend(OPENING_COST)  # of one that makes no sense as well
        try:
            async with asyncio.timeout(self._owner.settings.egress_head_seconds_max):
                self._asked = await head.read(self._near[0], self._http, self._owner.pace.spend)
        except BadHead as bad:
            self._owner.book.refuse(self._owner.agent, "", 0, "refused", "bad-request", bad.message)
            await self._say(head.refusal(self._http, bad.status, bad.message))
            return
        except TimeoutError:
            self._owner.book.refuse(
                self._owner.agent, "", 0, "refused", "bad-request", "no head came in time"
            )
            return
        if self._asked is not None:
            await self._decide(self._asked)

    async def _decide(self, asked: Asked) -> None:
        ruling, reached = await self._let_out(asked.target)
        if reached is None:
            book, target = self._owner.book, asked.target
            book.refuse(
                self._owner.agent, target.host, target.port, ruling.verdict, ruling.reason, ruling.detail
            )
            status = 502 if ruling.verdict == "failed" else 403
            await self._say(head.refusal(self._http, status, f"hyperhive: {ruling.detail}"))
            return
        target = asked.target
        self._reached = reached
        self._entry = self._owner.book.open(
            self._owner.agent, target.host, target.port, ruling.reason, str(reached.address)
        )
        await (self._tunnel(reached) if asked.tunnel else self._plain(reached, asked))

    async def _let_out(self, target: Destination) -> tuple[Ruling, Reached | None]:
        """What was decided, and the connection if it was to let it out."""
        first = rules.by_name(self._owner.egress, target)
        if not first.allowed:
            return first, None
        settings = self._owner.settings
        literal = target.address
        found = (
            [literal]
            if literal
            else await names.addresses(target.host, self._owner.slots, settings.egress_lookup_seconds_max)
        )
        own = {address for address in found if names.is_own(address)}
        egress = self._owner.egress or Egress()
        ruling = rules.by_address(egress, target, found, own)
        if not ruling.allowed:
            return ruling, None
        reached = await self._connect(ruling, target, own)
        if reached is None:
            return Ruling("failed", "unreachable", f"{target} does not answer"), None
        self._far = reached.streams
        return await self._note_use(ruling, target, reached)

    async def _connect(self, ruling: Ruling, target: Destination, own: set[Address]) -> Reached | None:
        """To one of the very addresses that were judged."""
        tried = ruling.addresses[:ADDRESSES_TRIED_MAX]
        for address in tried:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._owner.settings.egress_connect_seconds_max / len(tried)):
                    streams = await asyncio.open_connection(str(address), target.port, limit=READ_BYTES)
                return Reached(streams, address, address in own)
        return None

    async def _note_use(
        self, ruling: Ruling, target: Destination, reached: Reached
    ) -> tuple[Ruling, Reached | None]:
        policies, agent = self._owner.policies, self._owner.agent
        egress = self._owner.egress
        if egress and egress.mode == "learn":
            entries = rules.used(target, reached.address, reached.own)
            if not policies.has_room(agent, entries):
                return Ruling("refused", "learn-full", "the list of what was learned is full"), None
            try:
                await policies.learn(agent, entries)
            except NoSpace as problem:
                return Ruling("failed", "no-space", problem.message), None
        if not rules.still(self._owner.egress, target, reached.address, reached.own):
            return rules.by_name(self._owner.egress, target), None  # it has changed meanwhile
        return ruling, reached

    async def _say(self, data: bytes) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS_MAX):
                self._near[1].write(data)
                await self._near[1].drain()

    # ---- bytes

    async def _tunnel(self, reached: Reached) -> None:
        early, _ = self._http.trailing_data
        self._near[1].write(head.established(self._http))
        reached.streams[1].write(early)
        self._count(len(early), up=True)
        await self._join(reached, _raw, _raw)

    async def _plain(self, reached: Reached, asked: Asked) -> None:
        relay = Relay(self._http, asked)
        reached.streams[1].write(relay.first)
        self._count(len(relay.first), up=True)
        try:
            await self._join(reached, relay.up, relay.down)
        except h11.ProtocolError:
            self._why = "broken off: one end did not speak HTTP"
            if self._http.our_state is h11.SEND_RESPONSE:
                sentence = f"hyperhive: {asked.target} did not answer in HTTP"
                await self._say(head.refusal(self._http, 502, sentence))

    async def _join(self, reached: Reached, up: Source, down: Source) -> None:
        """Both directions to their ends. In plain HTTP the end of the answer is the end of all."""
        far, loop = reached.streams, asyncio.get_running_loop()
        answer = loop.create_task(self._pump(down, far[0], self._near[1], up=False))
        request = loop.create_task(self._pump(up, self._near[0], far[1], up=True))
        pumps, idle = {answer, request}, self._owner.settings.egress_idle_seconds_max
        try:
            while pumps and (self._tunnels or not answer.done()):
                left = self._moved_at + idle - loop.time()
                if left <= 0:
                    self.cut(f"cut: idle for {idle:g} s")
                    return
                done, pumps = await asyncio.wait(pumps, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (answer, request):
                task.cancel()
            await asyncio.gather(answer, request, return_exceptions=True)

    async def _pump(
        self, source: Source, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        while data := await source(reader):
            writer.write(data)
            self._count(len(data), up=up)
            await writer.drain()
            await self._owner.pace.spend(max(len(data), CHUNK_COST_MIN))
        if (
            self._tunnels
        ):  # not in plain HTTP: many a server takes the end of what it hears for a broken connection
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()

    def _count(self, size: int, *, up: bool) -> None:
        self._moved_at = asyncio.get_running_loop().time()
        if self._entry:
            self._entry.bytes_up += size if up else 0
            self._entry.bytes_down += 0 if up else size


async def _raw(reader: asyncio.StreamReader) -> bytes:
    return await reader.read(READ_BYTES)
