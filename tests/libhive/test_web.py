"""A web server's caps, before any app is asked, on a real unix socket."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from libhive.web import serve
from libhive.web.serve import WebServer, unix_socket

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def path() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="web-", dir="/tmp"))
    yield place / "web.sock"
    shutil.rmtree(place)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The length of what was sent; /events goes on for a while."""
    if scope["path"] == "/events":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(6):
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            await asyncio.sleep(0.1)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = b"%d." % size
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(path: Path, **more: Any) -> AsyncIterator[None]:
    server = WebServer(app, sock=unix_socket(path), **more)
    await server.start()
    try:
        yield
    finally:
        await server.stop()


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Ends]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        async with asyncio.timeout(5):
            yield reader, writer
    finally:
        writer.close()


async def answer(ends: Ends, request: bytes) -> bytes:
    ends[1].write(request)
    head = await ends[0].readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return await ends[0].readuntil(b".")


async def ended(ends: Ends) -> bool:
    """Without a byte of an answer."""
    try:
        return await ends[0].read() == b""
    except ConnectionError:
        return True


async def test_one_connection_too_many_is_closed_and_the_others_go_on(path: Path) -> None:
    async with (
        serving(path, limit_concurrency=2),
        connected(path) as first,
    ):
        async with connected(path) as second:
            assert await answer(first, GET) == await answer(second, GET) == b"0."
            async with connected(path) as third:
                assert await ended(third)
            assert await answer(first, GET) == b"0."
        await asyncio.sleep(0.05)
        async with connected(path) as fourth:
            assert await answer(fourth, GET) == b"0."


async def test_a_head_must_come_in_time_the_first_and_every_later_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "HEADERS_SECONDS_MAX", 0.3)
    async with serving(path), connected(path) as idle, connected(path) as half, connected(path) as later:
        assert await answer(later, GET) == b"0."
        for ends in (half, later):
            ends[1].write(GET[:9])
        assert await ended(idle)
        assert await ended(half)
        assert await ended(later)


async def test_keep_alive_and_streams_outlive_the_deadline(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "HEADERS_SECONDS_MAX", 0.2)
    async with serving(path), connected(path) as kept, connected(path) as stream:
        assert await answer(kept, GET) == b"0."
        stream[1].write(GET.replace(b"/ ", b"/events ", 1))
        told = await stream[0].readuntil(b"0\r\n\r\n")
        assert told.count(b"data: x") == 6
        assert await answer(kept, GET) == b"0."


@pytest.mark.parametrize(
    ("opening", "more"),
    [
        (GET[:-2], b"X-A: " + b"b" * 1000 + b"\r\n"),
        (GET[:-2] + b"X-A: ", b"b" * 1000),
        (b"GET /", b"b" * 1000),
        (b"", b"\r\n" * 500),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: " + b"b" * 1000 + b"\r\n"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: ", b"b" * 1000),
    ],
    ids=["headers", "one header", "url", "newlines", "trailers", "one trailer"],
)
async def test_an_endless_head_is_cut_off(path: Path, opening: bytes, more: bytes) -> None:
    async with serving(path), connected(path) as ends:
        ends[1].write(opening)
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                ends[1].write(more)
                await ends[1].drain()
                await asyncio.sleep(0)
        assert await ended(ends)


async def test_a_large_body_is_no_head(path: Path) -> None:
    size = 3_000_000
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + 300 * (
        b"2710\r\n" + b"y" * 10_000 + b"\r\n"
    )
    async with serving(path), connected(path) as ends:
        for _ in range(2):
            plain = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + b"y" * size
            assert await answer(ends, plain) == b"3000000."
            assert await answer(ends, chunked + b"0\r\n\r\n") == b"3000000."
