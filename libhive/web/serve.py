"""uvicorn inside our own loop: no signal handlers of its own, and peers of a unix socket checked at the door."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from libhive.doorway import listen, may_enter, peer_uid
from libhive.problems import AlreadyExists

DRAIN_SECONDS = 1
KEEP_ALIVE_SECONDS = 75
HEADERS_SECONDS_MAX = 10.0
"""From a connection, or the first bytes of a later request, to the end of the request's head."""
HEAD_BYTES_MAX = 64 * 1024


class WebServer:
    """Serves one ASGI app on one socket. With `peer_uid`, only that user of a unix socket (or root, or ourselves).

    Of `limit_concurrency` connections each may be idle, as between two requests; one more is closed at once.
    """

    def __init__(
        self, app: Any, *, sock: socket.socket, limit_concurrency: int = 512, peer_uid: int | None = None
    ) -> None:
        config = uvicorn.Config(
            app,
            http=_protocol(peer_uid, limit_concurrency),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=limit_concurrency + 1,  # answers 503, but closes nothing: _protocol does
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        self._server, self._sock = _Quiet(config), sock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._sock]))
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 - it has only this flag
            await asyncio.sleep(0.001)
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        self._server.should_exit = True
        self._server.told_to_stop.set()
        if self._task:
            await self._task
        self._sock.close()


def unix_socket(path: Path, *, mode: int = 0o660, uid: int | None = None) -> socket.socket:
    """A listening socket at `path` in place of a stale one; `uid`'s group may use it."""
    return listen(path, mode=mode, uid=uid)


def tcp_socket(host: str, port: int) -> socket.socket:
    """A listening socket; raises AlreadyExists when somebody else has the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off only for a socket that names its protocol: without it each answer waits 40 ms
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(256)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AlreadyExists(f"port {port} is taken", "choose another with HIVE_DASHBOARD_PORT") from error
        raise
    sock.setblocking(False)
    return sock


class _Quiet(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.told_to_stop = asyncio.Event()

    async def main_loop(self) -> None:
        """Sleeps until told to stop. uvicorn's own loop wakes ten times a second, which thirty doors would all do."""
        await self.on_tick(0)
        await self.told_to_stop.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the daemon's."""
        yield


def _protocol(uid: int | None, connections_max: int) -> type[asyncio.Protocol]:
    class Guarded(_Capped):
        def may_come_in(self, transport: Any) -> bool:
            if len(self.connections) >= connections_max:
                return False
            return uid is None or may_enter(peer_uid(transport.get_extra_info("socket")), uid)

    return Guarded


class _Capped(HttpToolsProtocol):
    """uvicorn's, with a deadline and a cap for what comes before an app is asked: it has neither itself."""

    _in_head = True
    _bare_bytes = 0  # since the last whole head or piece of a body: of a head, a chunk's extensions, trailers
    _deadline: asyncio.TimerHandle | None = None

    def may_come_in(self, transport: Any) -> bool:
        raise NotImplementedError

    def connection_made(self, transport: Any) -> None:
        if self.may_come_in(transport):
            super().connection_made(transport)
            self._expect_head()
        else:
            self.flow = self.transport = transport
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        if self in self.connections:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        was_in_head = self._in_head
        while data and not self.transport.is_closing():
            room = HEAD_BYTES_MAX - self._bare_bytes
            part, data = data[:room], data[room:]
            self._bare_bytes += len(part)
            super().data_received(part)
            if self._bare_bytes >= HEAD_BYTES_MAX:
                self.transport.abort()
        answering = self.cycle and not self.cycle.response_complete
        if was_in_head and self._in_head and not answering:
            self._expect_head()  # uvicorn's own timer ended with the first of these bytes

    def on_headers_complete(self) -> None:
        self._in_head, self._bare_bytes = False, 0
        self._head_came()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bare_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def _expect_head(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(HEADERS_SECONDS_MAX, self.transport.abort)

    def _head_came(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
