"""A gateway that really runs: its own process, a broker's end of the real wire, an upstream on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import httpx
import pytest

from libhive.clients.gateway import Gateway
from libhive.link import Gap, Link
from libhive.messages.base import Event
from libhive.messages.broker import Mailbox, MailboxChanged, Mailboxes, MailboxList
from libhive.names import OPERATOR, agent_name
from libhive.paths import Paths
from libhive.testing import nursery
from libhive.testing.peer import Heard, Peer
from services.gateway.rehearsal import api
from services.gateway.rehearsal.player import Step

ROOT = Path(__file__).parents[2]
CANARY = "sk-ant-api03-CANARY-7f3d9a51c0ffee-DO-NOT-LEAK"
START_SECONDS_MAX = 15.0

HIVE_TOOLS = ["send", "recv", "ask", "answer", "remind", "status", "peers", "loose_ends"]
MANAGER_TOOLS = [
    "read_config",
    "propose_config",
    "request_spawn",
    "agents",
    "start",
    "stop",
    "restart",
    "logs",
]


# ---- a conversation as the CLI sends it


class Talk:
    """Builds request bodies of the shape that the pinned CLI sends, and plays them against the rehearsal model."""

    def __init__(self, me: str = "iris") -> None:
        hive = HIVE_TOOLS + (MANAGER_TOOLS if me == "hm1nd" else [])
        self.me = me
        self.tools = [
            "Bash",
            "Read",
            "Edit",
            "Write",
            "Grep",
            "Glob",
            *(f"mcp__hive__{name}" for name in hive),
        ]
        self.messages: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._count = 0

    @property
    def body(self) -> dict[str, Any]:
        tools = [
            {"name": name, "description": name, "input_schema": {"type": "object"}} for name in self.tools
        ]
        return {
            "model": "claude-haiku-5-5",
            "max_tokens": 128_000,
            "stream": True,
            "tools": tools,
            "messages": self.messages,
        }

    def block(
        self, text: str, sender: str = "operator", kind: str = "message", id: str = "", **more: str
    ) -> str:
        self._count += 1
        attributes = {
            "id": id or f"01m{self._count:07d}",
            "from": sender,
            "kind": kind,
            "sent": "2026-11-23T15:00:00Z",
            **more,
        }
        quoted = " ".join(f'{name}="{escape(value)}"' for name, value in attributes.items())
        body = re.sub(r"<(/?message)", r"&lt;\1", text)
        return f"<message {quoted}>\n{body}\n</message>"

    def mail(self, text: str, sender: str = "operator", kind: str = "message", **more: str) -> Talk:
        reminder = {"type": "text", "text": "<system-reminder>\nAttribution ...\n</system-reminder>\n"}
        self.messages.append(
            {
                "role": "user",
                "content": [reminder, {"type": "text", "text": self.block(text, sender, kind, **more)}],
            }
        )
        self.messages.append(
            {
                "role": "system",
                "content": "# Environment\nYou have been invoked in the following environment: ...",
            }
        )
        return self

    def joined(self, text: str, sender: str = "operator", kind: str = "message", **more: str) -> Talk:
        note = "The user sent a new message while you were working:\n" + self.block(
            text, sender, kind, **more
        )
        self.messages.append(
            {"role": "system", "content": note + "\n\nThis is how Claude Code surfaces messages ..."}
        )
        return self

    def step(self) -> Step:
        return api.step_for(self.me, self.body)

    def call(self, step: Step) -> tuple[str, dict[str, Any]]:
        """The model makes this call; its result is still to come."""
        assert step.call, f"no call but the words {step.text!r}"
        block = {"type": "tool_use", "id": step.call_id, "name": step.call.tool, "input": step.call.input}
        self.messages.append({"role": "assistant", "content": [block]})
        made = (step.call.tool.removeprefix("mcp__hive__"), step.call.input)
        self.calls.append(made)
        return made

    def result(self, reply: Any, *, error: bool = False) -> Talk:
        text = reply if isinstance(reply, str) else json.dumps(reply)
        id = self.messages[-1]["content"][0]["id"]
        content: Any = (
            text if self.messages[-1]["content"][0]["name"] == "Bash" else [{"type": "text", "text": text}]
        )
        self.messages.append(
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": id, "content": content, "is_error": error}
                ],
            }
        )
        return self

    def say(self, text: str) -> Talk:
        """The model ends its turn."""
        self.messages.append({"role": "assistant", "content": [{"type": "text", "text": text}]})
        return self

    def play(self, **replies: Any) -> str:
        """To the turn's end; every call gets the reply named for its tool. An Exception is a refusal."""
        while (step := self.step()).call:
            tool, _ = self.call(step)
            reply = replies.get(tool, {"id": "01m9999999"})
            self.result(
                str(reply) if isinstance(reply, Exception) else reply, error=isinstance(reply, Exception)
            )
            assert len(self.calls) < 20
        self.say(step.text)
        return step.text


@pytest.fixture
def talk() -> type[Talk]:
    return Talk


# ---- processes


@pytest.fixture
def paths() -> Iterator[Paths]:
    place = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
    place.chmod(0o755)
    yield Paths(run=place / "run", state=place / "state")
    shutil.rmtree(place)


class FakeBroker(Peer):
    """The broker, as far as the gateway knows it."""

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths, "broker", [Mailboxes])
        self.mailboxes: dict[str, Mailbox] = {}

    def answer(self, heard: Heard) -> MailboxList:
        return MailboxList(mailboxes=list(self.mailboxes.values()))

    def set(self, name: str, uid: int | None = None, *, open: bool = True) -> None:
        mailbox = Mailbox(name=name, uid=os.geteuid() if uid is None else uid, open=open)
        self.mailboxes[name] = mailbox
        self.publish(MailboxChanged(mailbox=mailbox))


@pytest.fixture
async def broker(paths: Paths) -> AsyncIterator[FakeBroker]:
    fake = FakeBroker(paths)
    fake.set("iris")
    fake.set("hm1nd")
    fake.start()
    yield fake
    fake.stop()


class Hive:
    """One gateway process and what a test wants of it."""

    def __init__(self, paths: Paths, broker: FakeBroker) -> None:
        self.paths, self.broker = paths, broker
        self.link = Link(paths, OPERATOR)
        self.gateway = Gateway(self.link)
        self.events: list[Event] = []
        self.gaps = 0
        """The first is ours, each other one the gateway's word that it knows of us: from then on no event is missed."""
        self.process: nursery.Process | subprocess.Popen[bytes] | None = None
        self.forked = True
        """Started by exec otherwise, which takes longer: for a test of what /proc shows of the process."""
        self.log_path = paths.run.parent / "gateway.log"
        self._listening: asyncio.Task[None] | None = None
        self._clients: list[httpx.AsyncClient] = []

    async def start(self, **env: str) -> Hive:
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONSAFEPATH": "1",
            "HIVE_RUN_DIR": str(self.paths.run),
            "HIVE_STATE_DIR": str(self.paths.state),
            **env,
        }
        with self.log_path.open("ab") as log:
            if self.forked:
                self.process = nursery.start("services.gateway", environ=environ, output=log)
            else:
                command = [sys.executable, "-m", "services.gateway"]
                self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        self._listening = self._listening or asyncio.get_running_loop().create_task(self._listen())
        gaps = max(1, self.gaps)
        await until(self._answers, START_SECONDS_MAX)
        await until(lambda: self.gaps > gaps, START_SECONDS_MAX)
        return self

    async def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait)

    async def kill(self) -> None:
        assert self.process
        self.process.kill()
        await asyncio.to_thread(self.process.wait)

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
        if self._listening:
            self._listening.cancel()
        if self.process:
            await self.stop()
        await self.link.close()

    def door(self, agent: str = "iris") -> Path:
        return self.paths.door(agent_name(agent), "gateway")

    async def client(self, agent: str = "iris") -> httpx.AsyncClient:
        await until(lambda: self.door(agent).exists())
        transport = httpx.AsyncHTTPTransport(uds=str(self.door(agent)))
        client = httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=20)
        self._clients.append(client)
        return client

    async def ask(self, body: dict[str, Any], agent: str = "iris", **headers: str) -> httpx.Response:
        client = await self.client(agent)
        return await client.post("/v1/messages?beta=true", json=body, headers=headers)

    def log(self) -> str:
        return self.log_path.read_text()

    def seen(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(Exception):
            await self.gateway.ping()
            return True
        return False

    async def _listen(self) -> None:
        async for event in self.link.events("gateway"):
            if isinstance(event, Gap):
                self.gaps += 1
            else:
                self.events.append(event)


@pytest.fixture
async def hive(paths: Paths, broker: FakeBroker) -> AsyncIterator[Hive]:
    """Not started: a test starts it with the environment it needs."""
    one = Hive(paths, broker)
    yield one
    await one.close()


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Waits for what another process does; fails with the condition's name."""
    async with asyncio.timeout(seconds):
        while True:
            outcome = condition()
            if await outcome if isinstance(outcome, Awaitable) else outcome:
                return
            await asyncio.sleep(0.02)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    return until


@pytest.fixture
def canary() -> str:
    return CANARY


# ---- an upstream


class Upstream:
    """Speaks just enough HTTP/1.1 that a test can say each byte, and when. `script` is called for every request."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, list[tuple[str, str]], bytes]] = []
        self.script: Callable[[Reply], Awaitable[None]] = plain
        self.open_connections = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        for task in self._tasks:
            task.cancel()

    def headers(self, number: int = -1) -> dict[str, str]:
        return dict(self.requests[number][1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.open_connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await self._serve(reader, writer)
        finally:
            self.open_connections -= 1
            writer.close()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        headers = [(line.partition(":")[0].lower(), line.partition(":")[2].strip()) for line in lines]
        found = dict(headers)
        if "content-length" in found:
            body = await reader.readexactly(int(found["content-length"]))
        else:
            body = await _chunked(reader)
        self.requests.append((first, headers, body))
        await self.script(Reply(reader, writer))


class Reply:
    """What a test's script answers with."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def start(self, status: int = 200, **headers: str) -> None:
        lines = [
            f"HTTP/1.1 {status} X",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        await self._put(("\r\n".join([*lines, "transfer-encoding: chunked"]) + "\r\n\r\n").encode("latin-1"))

    async def chunk(self, data: bytes) -> None:
        await self._put(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, name: str, **data: Any) -> None:
        await self.chunk(f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode())

    async def end(self) -> None:
        await self._put(b"0\r\n\r\n")

    async def whole(self, status: int, body: dict[str, Any], **headers: str) -> None:
        await self.start(status, content_type="application/json", **headers)
        await self.chunk(json.dumps(body).encode())
        await self.end()

    async def gone(self) -> None:
        """Until the other side has hung up."""
        while await self.reader.read(1024):
            pass

    def drop(self) -> None:
        self.writer.transport.abort()

    async def _put(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


async def plain(reply: Reply) -> None:
    usage = {
        "input_tokens": 11,
        "output_tokens": 7,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 3,
    }
    content = [{"type": "text", "text": "hello"}]
    await reply.whole(
        200, {"type": "message", "model": "claude-haiku-5-5", "content": content, "usage": usage}
    )


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    one = Upstream()
    await one.start()
    yield one
    await one.stop()
