"""The way out as the gateway's process serves it, beside the model's traffic and with lifecycle coming and going."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from libhive.messages.gateway import EgressUsed
from libhive.messages.lifecycle import AgentChanged, AgentList, Agents
from libhive.paths import Paths
from libhive.spec import Egress
from libhive.testing.peer import Peer
from tests.gateway.egress.conftest import agent

HELLO = {"messages": [{"role": "user", "content": "hi"}]}


class FakeLifecycle(Peer):
    def __init__(self, paths: Paths) -> None:
        super().__init__(paths, "lifecycle", [Agents])
        self.ways: dict[str, Egress] = {}
        self.answers[Agents] = lambda m: AgentList(
            agents=[agent(name, way) for name, way in self.ways.items()]
        )

    def set(self, name: str, way: Egress) -> None:
        self.ways[name] = way
        self.publish(AgentChanged(agent=agent(name, way)))


@pytest.fixture
async def lifecycle(paths: Paths) -> AsyncIterator[FakeLifecycle]:
    fake = FakeLifecycle(paths)
    fake.start()
    yield fake
    fake.stop()


async def asked(door: Path, target: str) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(door.with_name("proxy.sock")))
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    return (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0][:12], reader, writer


async def test_what_may_be_reached_comes_from_lifecycle_and_outlives_it(
    hive: Any, lifecycle: FakeLifecycle, until: Any
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    lifecycle.ways["iris"] = Egress(mode="allow", allow=[target])
    await hive.start()

    async def mode(name: str, wanted: str) -> None:
        async def look() -> bool:
            report = await hive.gateway.egress(name)
            return bool(report.known and report.mode == wanted)

        await until(look)

    await until(lambda: hive.door("iris").with_name("proxy.sock").exists())
    await mode("iris", "allow")
    assert (await asked(hive.door("iris"), target))[0] == "HTTP/1.1 200"
    assert (await asked(hive.door("hm1nd"), target))[0] == "HTTP/1.1 403", "it is another agent's list"
    await until(lambda: hive.seen(EgressUsed))

    lifecycle.stop()
    await hive.stop()
    await hive.start()
    await until(lambda: hive.door("iris").with_name("proxy.sock").exists())
    assert (await asked(hive.door("iris"), target))[0] == "HTTP/1.1 200", "what was known last is on disk"
    assert len((await hive.gateway.egress("iris")).decisions) == 2

    lifecycle.ways["iris"] = Egress()
    lifecycle.start()
    await mode("iris", "none")
    assert (await asked(hive.door("iris"), target))[0] == "HTTP/1.1 403"
    lifecycle.set("iris", Egress(mode="allow", allow=[target]))
    await mode("iris", "allow")
    server.close()


async def test_an_agent_that_moves_all_it_can_does_not_stop_the_model_nor_the_others(
    hive: Any, lifecycle: FakeLifecycle, until: Any
) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(bytes(65_536))
                await writer.drain()
        except OSError:
            writer.close()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    way = Egress(mode="allow", allow=[target])
    lifecycle.ways |= {"iris": way, "hm1nd": way}
    await hive.start()
    await until(lambda: hive.door("hm1nd").with_name("proxy.sock").exists())
    opened = [await asked(hive.door("iris"), target) for _ in range(32)]

    async def drink(reader: asyncio.StreamReader) -> None:
        while await reader.read(1 << 20):
            pass

    drinkers = [asyncio.create_task(drink(reader)) for _, reader, _ in opened]
    answers = [await hive.ask(HELLO, "hm1nd") for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    assert (await hive.ask(HELLO, "iris")).status_code == 200, "not even its own turn is stopped"
    head, reader, _ = await asked(hive.door("hm1nd"), target)
    assert head == "HTTP/1.1 200"
    assert len(await reader.readexactly(1 << 20)) == 1 << 20
    for task, (_, _, writer) in zip(drinkers, opened, strict=True):
        task.cancel()
        writer.transport.abort()
    server.close()


async def test_another_user_cannot_enter(hive: Any, lifecycle: FakeLifecycle, until: Any) -> None:
    """The door is another agent's: who connects as somebody else is closed without a word."""
    if os.geteuid() != 0:
        pytest.skip("needs root to be somebody else")
    hive.broker.set("iris", uid=60_001)
    await hive.start()
    door = hive.door("iris").with_name("proxy.sock")
    await until(lambda: door.exists() and door.stat().st_gid == 60_001)
    code = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'x'); print(s.recv(9))"
    for directory in (door.parent, door.parent.parent, hive.paths.run):
        directory.chmod(0o755)
    door.chmod(0o666)
    process = await asyncio.create_subprocess_exec(
        "setpriv", "--reuid", "60002", "--regid", "60002", "--clear-groups", "/usr/bin/python3", "-c", code, str(door),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert out.strip() == b"b''" or b"Reset" in err or b"Broken" in err, (out, err)
