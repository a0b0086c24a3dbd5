"""Running a service: start, serve, drain. Every service's `__main__` is `daemon.main(build)`.

Here expected failure and bug part ways: a `Problem` that a handler raises becomes the reply; anything else is logged
with its traceback, answered `internal-error`, and ends the process with status 1, for its supervisor to restart it.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from libhive import logs, systemd, wire
from libhive.backup.custodian import Custodian
from libhive.clock import now_ms
from libhive.doorway import Doorway, Outbox, Serve
from libhive.link import Server
from libhive.messages.base import Event, Ping, Pong, Reply, Request
from libhive.messages.broker import News
from libhive.messages.registry import REQUESTS
from libhive.names import HIVE, OPERATOR, AgentName
from libhive.paths import Paths, is_given, make_private
from libhive.problems import AlreadyExists, BadRequest, InternalError, Problem
from libhive.promise import Promise, Waited
from libhive.release import package_version
from libhive.tasks import Tasks

DRAIN_SECONDS_MAX = 5.0
REFUSALS_LOGGED_EVERY_MS = 1_000


class Call(msgspec.Struct, frozen=True):
    """Who asks, and under which id. A caller is an agent (whose door it came through), `operator` or `hive`."""

    caller: str
    id: str

    @property
    def is_agent(self) -> bool:
        return self.caller not in (OPERATOR, HIVE)


Handler = Callable[[Call, Any], Awaitable[Reply] | Reply]
Handlers = dict[type[Request[Any]], Handler]


Answer = Callable[[bytes], None]


class Asked(msgspec.Struct, frozen=True):
    """A request that is being answered."""

    kind: str
    call: Call
    reply: Answer


class Service(Protocol):
    """What a service gives to be run."""

    @property
    def name(self) -> str: ...
    def bus_handlers(self) -> Handlers: ...
    def door_handlers(self) -> Handlers: ...
    async def start(self, daemon: Daemon) -> None: ...
    async def stop(self) -> None: ...


class Doors:
    """This service's door in each agent's directory."""

    def __init__(self, paths: Paths, service: str, serve: Serve) -> None:
        self._paths, self._service, self._serve = paths, service, serve
        self._doors: dict[AgentName, Doorway] = {}
        self._outbox = Outbox()
        self.on_gone: Callable[[AgentName], None] | None = None
        """Called when an agent's last connection to its door is lost."""

    async def open(self, agent: AgentName, uid: int) -> None:
        """Opens it, or leaves it as it is; another uid makes it anew."""
        if agent in self._doors and self._doors[agent].uid == uid:
            return
        await self.close(agent)
        door = Doorway(agent, uid, self._paths.door(agent, self._service), self._serve, self._outbox)
        door.on_gone = self._gone
        await door.open()
        self._doors[agent] = door

    async def close(self, agent: AgentName) -> None:
        if door := self._doors.pop(agent, None):
            await door.close()

    def flush(self) -> None:
        """Writes what has been answered, now instead of in the next round of the loop."""
        self._outbox.flush()

    def _gone(self, agent: AgentName) -> None:
        if self.on_gone:
            self.on_gone(agent)

    async def close_all(self) -> None:
        for agent in list(self._doors):
            await self.close(agent)


class Daemon:
    """One running service. `publish` and `spawn` are for the service; the rest is `main`'s."""

    def __init__(self, service: Service, paths: Paths) -> None:
        self.paths, self.service = paths, service
        self.details: dict[str, str] = {}
        """What this service says of itself when it is pinged, e.g. the address of its pages."""
        self.log = logging.getLogger(f"hive.{service.name}")
        self.doors = Doors(paths, service.name, self._serve_door)
        self._tasks = Tasks(self._failed)
        self._ended = asyncio.Event()
        self._status = 0
        self._since_ms = now_ms()
        self._bus = {kind.KIND: handler for kind, handler in service.bus_handlers().items()}
        self._door = {kind.KIND: handler for kind, handler in service.door_handlers().items()}
        self._bus[Ping.KIND] = self._door[Ping.KIND] = self._on_ping
        self._reader = wire.Reader([Ping, *service.door_handlers()])
        self._custodian = Custodian(service.name, paths, self.details)
        self._bus |= {kind.KIND: handler for kind, handler in self._custodian.streams.handlers().items()}
        self._server: Server | None = None
        self._refused: dict[str, tuple[int, int]] = {}

    def publish(self, event: Event) -> None:
        if self._server is not None:
            self._server.publish(event)

    def heard(self, events: int) -> bool:
        """Whether anybody listens to events. If not, `events` of them are counted as sent, and need not be made: who
        subscribes later sees by the numbers that some were missed."""
        return self._server is not None and self._server.heard(events)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A background task that ends with the service; if it raises, so does the service."""
        return self._tasks.spawn(coroutine, name)

    def before_snapshot(self, settle: Callable[[], None]) -> None:
        """What is called before a snapshot of the database is taken; it may raise NoSpace."""
        self._custodian.before_snapshot = settle

    def fail(self, what: str, error: BaseException) -> None:
        """A bug: end the process so that its supervisor starts it afresh."""
        self._failed(what, error)

    async def run(self) -> int:
        """Start, serve, drain; the process's exit status."""
        _make_bus(self.paths.run / "bus")
        name = self.service.name
        lock = _hold_lock(self.paths, name)
        try:
            self._custodian.hold()
            self._server = Server(self.paths.bus(name), self.paths.events(name), self._serve_bus)
            self._stop_on_signals()
            await self.service.start(self)
            self._announce()
            self.spawn(self._custodian.run(self._bus.get(News.KIND)), "custodian")
            await self._ended.wait()
            await self._drain()
        finally:
            if self._server:
                self._server.close()
            self._custodian.let_go()
            lock.close()
        return self._status

    def _announce(self) -> None:
        systemd.notify("READY=1")
        self.log.info("up", extra={"pid": os.getpid()})
        if seconds := systemd.watchdog_seconds():
            self.spawn(self._feed_watchdog(seconds), "watchdog")

    async def _drain(self) -> None:
        systemd.notify("STOPPING=1")
        await self.doors.close_all()
        try:
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                await self.service.stop()
        except TimeoutError:
            self.log.warning("stopping took too long")
        await self._tasks.cancel()
        self.log.info("down")

    async def _feed_watchdog(self, seconds: float) -> None:
        """From the loop that serves: a loop that hangs starves the watchdog, as it should."""
        while True:
            systemd.notify("WATCHDOG=1")
            await asyncio.sleep(seconds)

    def _stop_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)

    def _failed(self, what: str, error: BaseException) -> None:
        self.log.critical("%s failed, ending the process", what, exc_info=error)
        self._custodian.noticed(error)
        self._status = 1
        self._ended.set()

    def _on_ping(self, call: Call, m: Ping) -> Pong:
        return Pong(
            service=self.service.name,
            version=package_version(),
            pid=os.getpid(),
            up_since_ms=self._since_ms,
            details=self.details,
        )

    def _serve_bus(self, frame: bytes, reply: Answer) -> Waited | None:
        return self._serve(frame, self._bus, None, reply)

    def _serve_door(self, agent: AgentName, frame: bytes, reply: Answer) -> Waited | None:
        if plain := self._reader.read(frame):
            id, request = plain
            return self._handle(
                Asked(request.KIND, Call(agent, id), reply), self._door[request.KIND], request
            )
        return self._serve(frame, self._door, agent, reply)

    def _serve(
        self, frame: bytes, table: dict[str, Handler], agent: AgentName | None, reply: Answer
    ) -> Waited | None:
        try:
            envelope = wire.unpack_request(frame)
        except Problem as problem:
            self._note_refused(agent or "bus", problem)
            reply(wire.pack_problem(problem.details.pop("re", ""), problem))
            return None
        asked = Asked(envelope.kind, Call(agent or envelope.actor, envelope.id), reply)
        try:
            handler, request = self._understood(envelope, table, agent)
        except Problem as problem:
            self._done(asked, problem)
            return None
        return self._handle(asked, handler, request)

    def _understood(
        self, envelope: wire.Envelope, table: dict[str, Handler], agent: AgentName | None
    ) -> tuple[Handler, Request[Any]]:
        if envelope.kind not in table:
            raise BadRequest(f"{self.service.name} has no {envelope.kind!r:.80} here")
        if bool(envelope.actor) == (agent is not None):
            raise BadRequest("`actor` belongs to the bus, and only there", "who speaks is known by the door")
        return table[envelope.kind], wire.understand(envelope, REQUESTS[envelope.kind])

    def _handle(self, asked: Asked, handler: Handler, request: Request[Any]) -> Waited | None:
        try:
            outcome = handler(asked.call, request)
        except Exception as error:  # noqa: BLE001 - told apart in `_done`
            self._done(asked, error)
            return None
        if isinstance(outcome, Reply):
            self._done(asked, outcome)
            return None
        if isinstance(outcome, Promise):
            outcome.add_done_callback(partial(self._kept, asked))
            return outcome
        future = asyncio.ensure_future(outcome)
        future.add_done_callback(partial(self._ended_later, asked))
        return future

    def _kept(self, asked: Asked, promise: Promise[Reply]) -> None:
        if (outcome := promise.outcome()) is not None:
            self._done(asked, outcome)

    def _ended_later(self, asked: Asked, future: asyncio.Future[Reply]) -> None:
        if not future.cancelled():
            self._done(asked, future.exception() or future.result())

    def _done(self, asked: Asked, outcome: Reply | BaseException) -> None:
        """The one place where a problem is told from a bug."""
        id = asked.call.id
        if isinstance(outcome, Reply):
            try:
                frame = wire.pack_reply(id, outcome)
            except Problem as problem:  # more than a frame can hold
                frame = wire.pack_problem(id, problem)
        elif isinstance(outcome, Problem):
            frame = wire.pack_problem(id, outcome)
        else:
            self._failed(f"{asked.kind} for {asked.call.caller}", outcome)
            frame = wire.pack_problem(id, InternalError(f"{self.service.name} failed at {asked.kind}"))
        asked.reply(frame)

    def _note_refused(self, peer: str, problem: Problem) -> None:
        """Says which peer, once a second at most: a flood of bad frames must not wash the rest out of the log."""
        refused, since = self._refused.get(peer, (0, 0))
        if now_ms() - since < REFUSALS_LOGGED_EVERY_MS:
            self._refused[peer] = (refused + 1, since)
            return
        self._refused[peer] = (0, now_ms())
        said = {"peer": peer, "code": problem.code, "why": problem.message, "more_before": refused}
        self.log.warning("refused a frame", extra=said)


def main(
    build: Callable[[Paths], Service], loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> None:
    """The whole of a service's life: settings, lock, serve, drain. Exits 0 when told to stop, 1 on a bug, 2 when it
    could not start for a reason a person can mend. `loop` makes another event loop than Python's own."""
    logs.setup("hive")
    _allow_many_files()
    try:
        paths = Paths.from_environment()
        service = build(paths)
        logs.setup(service.name)
        with asyncio.Runner(loop_factory=loop) as runner:
            status = runner.run(_run(service, paths))
    except Problem as problem:
        logging.getLogger("hive").critical(
            "%s%s", problem.message, f" ({problem.hint})" if problem.hint else ""
        )
        status = 2
    sys.exit(status)


def _allow_many_files() -> None:
    """As many as the kernel lets us have: each agent's doors and connections are files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(service: Service, paths: Paths) -> int:
    return await Daemon(service, paths).run()


def _make_bus(directory: Path) -> None:
    if not is_given(directory):
        make_private(directory, 0o750)


def _hold_lock(paths: Paths, service: str) -> IO[bytes]:
    """Held until the process ends, however it ends. Nobody else may open it: whoever can, can lock it."""
    descriptor = os.open(paths.lock(service), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    lock = os.fdopen(descriptor, "ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise AlreadyExists(
            f"another {service} runs on {paths.run}", "stop it, or choose another HIVE_RUN_DIR"
        ) from None
    return lock
