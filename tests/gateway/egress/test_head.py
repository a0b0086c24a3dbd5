from __future__ import annotations

import asyncio
import contextlib
import random

import h11
import pytest

from services.gateway.egress import head
from services.gateway.egress.head import Asked, BadHead


async def read(data: bytes, *, pieces: random.Random | None = None) -> tuple[Asked | None, bytes]:
    reader, near = asyncio.StreamReader(), head.server()
    task = asyncio.get_running_loop().create_task(head.read(reader, near))
    at = 0
    while pieces and at < len(data):
        size = pieces.randrange(1, 40)
        reader.feed_data(data[at : at + size])
        at += size
        await asyncio.sleep(0)
    if not pieces:
        reader.feed_data(data)
    reader.feed_eof()
    found = await task
    return found, near.trailing_data[0]


@pytest.mark.parametrize(
    ("line", "target"),
    [
        (b"CONNECT a.org:443 HTTP/1.1", "a.org:443"),
        (b"CONNECT A.ORG.:443 HTTP/1.0", "a.org:443"),
        (b"CONNECT [::1]:443 HTTP/1.1", "[::1]:443"),
        (b"GET http://a.org HTTP/1.1", "a.org:80"),
        (b"GET HTTP://a.org:8080/x?y=z#w HTTP/1.1", "a.org:8080"),
        (b"GET http://[::1]/ HTTP/1.1", "[::1]:80"),
        (b"GET http://a.org?x HTTP/1.1", "a.org:80"),
    ],
)
async def test_what_is_asked(line: bytes, target: str) -> None:
    found, _ = await read(line + b"\r\nHost: other\r\n\r\n", pieces=random.Random(1))
    assert found is not None
    assert str(found.target) == target


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"CONNECT a.org HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT http://a.org:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT 127.1:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a.org:443 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a.org:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"GET / HTTP/1.1\r\nHost: a.org\r\n\r\n", 400),
        (b"GET https://a.org/ HTTP/1.1\r\nHost: a.org\r\n\r\n", 400),
        (b"GET ftp://a.org/ HTTP/1.1\r\nHost: a.org\r\n\r\n", 400),
        (b"GET http://user:pass@a.org/ HTTP/1.1\r\nHost: a.org\r\n\r\n", 400),
        (b"GET http://a.org\\@b.org/ HTTP/1.1\r\nHost: a.org\r\n\r\n", 400),
        (b"GET http:///x HTTP/1.1\r\nHost: a.org\r\n\r\n", 400),
        (b"GET http://a.org/ HTTP/1.1\r\nHost: a.org\r\nHost: b.org\r\n\r\n", 400),
        (b"GET http://a.org/ HTTP/1.1\r\nHost: a.org\r\nX: a\r\n b\x00\r\n\r\n", 400),
        (b"GET http://a.org/ HTTP/1.1\r\nHost: a.org\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST http://a.org/ HTTP/1.1\r\nHost: a.org\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x05\x01\x00", 400),
        (b"GET http://a.org/ HTTP/2.0\r\n\r\n", 505),
        (b"GET http://a.org/" + b"x" * 40_000 + b" HTTP/1.1\r\n", 431),
        (b"GET http://a.org/ HTTP/1.1\r\n" + b"X: y\r\n" * 6_000, 431),
    ],
)
async def test_what_is_no_request_to_a_proxy_is_said(data: bytes, status: int) -> None:
    with pytest.raises(BadHead) as bad:
        await read(data)
    assert bad.value.status == status
    assert 0 < len(bad.value.message) < 500


async def test_bytes_that_follow_at_once_are_not_lost() -> None:
    found, early = await read(b"CONNECT a.org:443 HTTP/1.1\r\nHost: a\r\n\r\n\x16\x03\x01")
    assert found is not None
    assert found.tunnel
    assert early == b"\x16\x03\x01"


async def test_an_onward_request_names_the_host_that_was_judged() -> None:
    given = (
        b"POST http://a.org:81/x?y HTTP/1.1\r\nHost: evil.org\r\nProxy-Authorization: Basic eA==\r\n"
        b"Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nUpgrade: websocket\r\nAccept: */*\r\n"
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    found, _ = await read(given)
    assert found is not None
    sent = h11.Connection(h11.CLIENT).send(head.onward(found))
    assert sent is not None
    first, *lines = sent.decode().lower().strip().split("\r\n")
    assert first == "post /x?y http/1.1"
    assert lines == ["host: a.org:81", "accept: */*", "transfer-encoding: chunked", "connection: close"]


async def test_nothing_at_all_is_nothing() -> None:
    assert await read(b"") == (None, b"")


async def test_no_head_breaks_the_parser() -> None:
    """Whole requests, broken at random: each is read, or is a BadHead; and a refusal can be said of each."""
    draw, refused = random.Random(11), 0
    whole = b"CONNECT a.org:443 HTTP/1.1\r\nHost: a.org:443\r\nUser-Agent: x\r\nProxy-Connection: keep-alive\r\n\r\n"
    for _ in range(1_500):
        data = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(data))
            data[at : at + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
        with contextlib.suppress(BadHead):
            await read(bytes(data))
            refused -= 1
        refused += 1
    assert refused > 300
