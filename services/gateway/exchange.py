"""One request of a cage and its answer, under the caps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from services.gateway import rules
from services.gateway.metering import Meter
from services.gateway.rules import Header

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CLIENT_GONE = 499


class Refused(Exception):  # noqa: N818 - an expected outcome, not an error of the program
    """This request gets an error in the Messages API's own form."""

    def __init__(self, status: int, message: str, headers: Iterable[Header] = ()) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, list(headers)


class ClientGone(Exception):  # noqa: N818 - an expected outcome, not an error of the program
    """The client went away before its request was whole."""


class Exchange:
    """The request as it came through the door of `agent`, and the way back to it.

    Once the body has been read a watcher waits for the client to go: then the task that answers is cancelled, and with
    it whatever it was asking of the upstream.
    """

    def __init__(self, agent: str, scope: Scope, receive: Receive, send: Send) -> None:
        self.agent = agent
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: list[Header] = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        self.meter = Meter()
        self.status = 0
        self.gone = False
        self._receive, self._send = receive, send
        self._answering = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None

    @property
    def length(self) -> int | None:
        """What the request's `content-length` says, if it has one."""
        return next(
            (int(value) for name, value in self.headers if name == "content-length" and _is_count(value)),
            None,
        )

    async def body(self, *, bytes_max: int, seconds_max: float) -> AsyncIterator[bytes]:
        """The request's body as it comes. Raises Refused when it is too long, too slow, or not of its length."""
        too_long = Refused(413, f"a request has at most {bytes_max} bytes")
        if (self.length or 0) > bytes_max:
            raise too_long
        deadline = asyncio.get_running_loop().time() + seconds_max
        taken, more = 0, True
        while more:
            message = await self._next(deadline)
            data = message.get("body", b"")
            more = message.get("more_body", False)
            taken += len(data)
            if taken > bytes_max:
                raise too_long
            if data:
                yield data
        if self.length not in (None, taken):
            # what was declared has gone upstream as a header: nothing else may follow it
            raise Refused(400, f"the body has {taken} bytes, and its content-length says {self.length}")
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def begin(self, status: int, headers: Iterable[Header]) -> None:
        self.status = status
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self.meter.begin(next((value for name, value in headers if name == "content-type"), ""))
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def write(self, data: bytes) -> None:
        self.meter.feed(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        self._stop_watching()
        self.meter.end()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def answer(self, status: int, body: bytes, headers: Iterable[Header] = ()) -> None:
        """A whole answer in JSON."""
        length = ("content-length", str(len(body)))
        await self.begin(status, [("content-type", "application/json"), length, *headers])
        await self.write(body)
        await self.end()

    async def refuse(self, refused: Refused) -> None:
        if self.status == 0:
            # what is left of the request's body is not read; only a closed connection ends it
            close = [] if self._watcher else [("connection", "close")]
            await self.answer(
                refused.status, rules.error_body(refused.status, refused.message), [*refused.headers, *close]
            )

    def close(self) -> None:
        self._stop_watching()

    async def _next(self, deadline: float) -> MutableMapping[str, Any]:
        try:
            async with asyncio.timeout_at(deadline):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, "the request's body did not come in time") from None
        if message["type"] == "http.disconnect":
            self.gone = True
            raise ClientGone
        return message

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._answering is not None:
            self._answering.cancel()

    def _stop_watching(self) -> None:
        if self._watcher:
            self._watcher.cancel()


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19
