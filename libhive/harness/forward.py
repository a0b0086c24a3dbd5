"""Ports on the cage's loopback whose bytes go to a door and back, unread: the CLI's way to the model (gateway.sock), and
its tools' way out (proxy.sock).

A stream that is silent for too long is cut. The CLI's own watchdog does not notice a model that hangs; a cut stream it
retries.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

CONNECT_SECONDS_MAX = 5.0
"""A gateway that is just restarting is waited for."""
CONNECT_RETRY_SECONDS = 0.1
_CHUNK = 1 << 16

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Forwarder:
    def __init__(self, door: Path, silence_seconds_max: float) -> None:
        self._door, self._silence_seconds_max = door, silence_seconds_max
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                await self._join((reader, writer))
        finally:
            self._open.discard(task)
            writer.close()

    async def _join(self, near: Streams) -> None:
        far = await self._connect()
        heard = _Heard()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pipe(near[0], far[1], heard))
                group.create_task(_pipe(far[0], near[1], heard))
                group.create_task(self._watch(heard))
        except* (OSError, TimeoutError, _BothEnded):
            pass
        finally:
            far[1].close()

    async def _watch(self, heard: _Heard) -> None:
        """Ends both directions when both have ended, or neither says anything."""
        loop = asyncio.get_running_loop()
        while heard.ends < 2:
            heard.something.clear()
            async with asyncio.timeout_at(loop.time() + self._silence_seconds_max):
                await heard.something.wait()
        raise _BothEnded

    async def _connect(self) -> Streams:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            while True:
                try:
                    return await asyncio.open_unix_connection(str(self._door))
                except OSError:
                    await asyncio.sleep(CONNECT_RETRY_SECONDS)


class _BothEnded(Exception):  # noqa: N818 - no error: how the group is left
    pass


class _Heard:
    def __init__(self) -> None:
        self.something, self.ends = asyncio.Event(), 0


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: _Heard) -> None:
    while data := await reader.read(_CHUNK):
        heard.something.set()
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()
    heard.ends += 1
    heard.something.set()
