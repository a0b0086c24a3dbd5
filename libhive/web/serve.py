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


class WebServer:
    """Serves one ASGI app on one socket. With `peer_uid`, only that user of a unix socket (or root, or ourselves)."""

    def __init__(
        self, app: Any, *, sock: socket.socket, limit_concurrency: int = 512, peer_uid: int | None = None
    ) -> None:
        config = uvicorn.Config(
            app,
            http=_protocol(peer_uid),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=limit_concurrency,
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


def _protocol(uid: int | None) -> type[asyncio.Protocol]:
    return HttpToolsProtocol if uid is None else _checked(uid)


def _checked(uid: int) -> type[asyncio.Protocol]:
    class Checked(HttpToolsProtocol):
        def connection_made(self, transport: Any) -> None:
            if may_enter(peer_uid(transport.get_extra_info("socket")), uid):
                super().connection_made(transport)
            else:
                self.flow = self.transport = transport
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            if self in self.connections:
                super().connection_lost(exc)

    return Checked
