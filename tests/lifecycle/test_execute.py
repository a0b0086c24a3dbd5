"""The page's socket is the agent's to make: what it may do with it to the host that connects."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from libhive.problems import Conflict, Unavailable
from services.lifecycle.execute import execute


@pytest.fixture
def page() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hive-", dir="/tmp") as directory:
        yield Path(directory) / "page.sock"


async def served(page: Path, answer: bytes, *, hold_seconds: float = 0.0) -> asyncio.Server:
    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        await asyncio.sleep(hold_seconds)
        writer.close()

    return await asyncio.start_unix_server(on_connect, str(page))


def reply(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


async def test_an_answer_is_understood(page: Path) -> None:
    async with await served(page, reply(b'{"exit_code": 2, "output": "hi", "truncated": false, "new": 1}')):
        done = await execute(page, ["true"], 1)
    assert (done.exit_code, done.output, done.truncated) == (2, "hi", False)


NO_ANSWERS = [
    b"",
    b"[]",
    b"{}",
    b'{"exit_code": "x"}',
    b"\xff\xfe",
    b'{"exit_code": 0, "output": "\xff"}',
    b'{"exit_code": 1' + b"0" * 23 + b', "output": ""}',
    b'{"exit_code": 0, "output": "", "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
]


@pytest.mark.parametrize("body", NO_ANSWERS, ids=range(len(NO_ANSWERS)))
async def test_what_is_no_answer_is_refused(page: Path, body: bytes) -> None:
    async with await served(page, reply(body)):
        with pytest.raises(Conflict, match="cannot be understood"):
            await execute(page, ["true"], 1)


async def test_a_refusal_is_passed_on(page: Path) -> None:
    async with await served(page, reply(b"not now", "503 Busy")):
        with pytest.raises(Conflict, match="refused: not now"):
            await execute(page, ["true"], 1)


async def test_an_endless_answer_is_cut_off(page: Path) -> None:
    async with await served(page, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000_000):
        with pytest.raises(Conflict, match="more than it may"):
            await execute(page, ["true"], 1)


async def test_silence_ends_at_the_time_limit(page: Path) -> None:
    async with await served(page, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", hold_seconds=3):
        with pytest.raises(Unavailable):
            await execute(page, ["true"], 1)


async def test_a_link_to_a_socket_of_the_hive_is_not_followed(page: Path) -> None:
    other = page.with_name("broker.sock")
    async with await served(other, reply(b'{"exit_code": 0, "output": ""}')):
        page.symlink_to(other)
        with pytest.raises(Unavailable):
            await execute(page, ["true"], 1)


async def test_what_is_not_a_socket_or_nobody_listens_on_is_unavailable(page: Path) -> None:
    with pytest.raises(Unavailable):
        await execute(page, ["true"], 1)
    page.write_text("")
    with pytest.raises(Unavailable):
        await execute(page, ["true"], 1)
    page.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(page))
    with pytest.raises(Unavailable, match="did not answer"):
        await execute(page, ["true"], 1)
